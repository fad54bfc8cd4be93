"""Ethernet II frames (IEEE 802.3 clause 3, RFC 894), with at most one 802.1Q tag."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from .errors import PacketError

ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
ETHERTYPE_RARP: Final = 0x8035
ETHERTYPE_VLAN: Final = 0x8100
ETHERTYPE_IPV6: Final = 0x86DD
ETHERTYPE_LLDP: Final = 0x88CC

BROADCAST: Final = b"\xff" * 6

_HEADER = Struct("!6s6sH")
_INNER_TYPE = Struct("!16xH")
_unpack_header = _HEADER.unpack_from
_unpack_inner_type = _INNER_TYPE.unpack_from


class Ethernet(NamedTuple):
    """The head of a frame; the payload is ``frame[payload_offset:]``, padding included.

    ``ethertype`` is the one behind a 802.1Q tag, if there is one. Values below 0x0600 are an IEEE 802.3
    length and no type: they are handed on as they are, and equal no ``ETHERTYPE_*``.
    """

    dst: bytes
    src: bytes
    ethertype: int
    payload_offset: int


def parse_ethernet(frame: bytes) -> Ethernet:
    """The head of ``frame``; ``PacketError`` if it is shorter than a head. A second tag stays unread."""
    size = len(frame)
    if size < 14:
        raise PacketError(f"Ethernet frame of {size} bytes: the head alone takes 14")
    dst, src, ethertype = _unpack_header(frame)
    if ethertype != ETHERTYPE_VLAN:
        return Ethernet(dst, src, ethertype, 14)
    if size < 18:
        raise PacketError(f"tagged Ethernet frame of {size} bytes: the head alone takes 18")
    return Ethernet(dst, src, _unpack_inner_type(frame)[0], 18)


def pack_ethernet(dst: bytes, src: bytes, ethertype: int, payload: bytes) -> bytes:
    """An untagged frame without FCS; not padded to 60 bytes, which the sending port does if its medium asks.

    ``PacketError`` if an address is not six bytes or the type not 16 bits.
    """
    if len(dst) != 6 or len(src) != 6:
        raise PacketError(f"MAC addresses of {len(dst)} and {len(src)} bytes: both take 6")
    if not 0 <= ethertype <= 0xFFFF:
        raise PacketError(f"ethertype {ethertype} does not fit in 16 bits")
    return _HEADER.pack(dst, src, ethertype) + payload
