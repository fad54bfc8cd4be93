"""ARP for IPv4 over Ethernet (RFC 826), and RARP (RFC 903), which has the same format.

Addresses are raw bytes: the controller keys its tables by them, and building ``IPv4Address`` objects takes
longer than the parse. ``sender`` and ``target`` give the objects where they are wanted.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from struct import Struct
from typing import Final, NamedTuple

from .errors import PacketError
from .ethernet import BROADCAST, ETHERTYPE_ARP, pack_ethernet

ARP_REQUEST: Final = 1
ARP_REPLY: Final = 2
RARP_REQUEST: Final = 3
RARP_REPLY: Final = 4

_ARP = Struct("!HHBBH6s4s6s4s")
_unpack_arp = _ARP.unpack_from
_UNKNOWN_MAC = bytes(6)


class Arp(NamedTuple):
    """One (R)ARP packet. Field names are those of RFC 826's ar$sha, ar$spa, ar$tha, ar$tpa."""

    op: int
    sha: bytes
    spa: bytes
    tha: bytes
    tpa: bytes

    @property
    def sender(self) -> IPv4Address:
        return IPv4Address(self.spa)

    @property
    def target(self) -> IPv4Address:
        return IPv4Address(self.tpa)

    @property
    def is_gratuitous(self) -> bool:
        """The sender asks for, or announces, its own address (RFC 5227 section 3)."""
        return self.spa == self.tpa

    @property
    def is_probe(self) -> bool:
        """The sender asks whether an address is free before it takes it (RFC 5227 section 1.1)."""
        return self.op == ARP_REQUEST and self.spa == b"\0\0\0\0"


def parse_arp(data: bytes, offset: int = 0) -> Arp:
    """The ARP or RARP packet at ``offset``; ``PacketError`` if short or not of IPv4 over Ethernet."""
    if offset < 0 or len(data) - offset < 28:
        raise PacketError(f"ARP packet of {max(0, len(data) - offset)} bytes: it takes 28")
    hardware, protocol, hlen, plen, op, sha, spa, tha, tpa = _unpack_arp(data, offset)
    if hardware != 1 or protocol != 0x0800 or hlen != 6 or plen != 4:
        raise PacketError(
            f"ARP for hardware {hardware}/{hlen} bytes and protocol {protocol:#06x}/{plen} bytes: "
            "only Ethernet/6 and IPv4/4 are understood"
        )
    return Arp(op, sha, spa, tha, tpa)


def pack_arp(arp: Arp) -> bytes:
    """28 bytes; ``PacketError`` if an address has the wrong length or ``op`` is not 16 bits."""
    op, sha, spa, tha, tpa = arp
    if len(sha) != 6 or len(tha) != 6 or len(spa) != 4 or len(tpa) != 4:
        raise PacketError("ARP takes hardware addresses of 6 bytes and protocol addresses of 4")
    if not 0 <= op <= 0xFFFF:
        raise PacketError(f"ARP operation {op} does not fit in 16 bits")
    return _ARP.pack(1, 0x0800, 6, 4, op, sha, spa, tha, tpa)


def arp_request_frame(sha: bytes, spa: IPv4Address, tpa: IPv4Address) -> bytes:
    """The broadcast frame in which ``sha`` asks who has ``tpa``; gratuitous if ``tpa`` is ``spa``."""
    arp = Arp(ARP_REQUEST, sha, spa.packed, _UNKNOWN_MAC, tpa.packed)
    return pack_ethernet(BROADCAST, sha, ETHERTYPE_ARP, pack_arp(arp))


def arp_reply_frame(request: Arp, mac: bytes) -> bytes:
    """The unicast frame that answers ``request``: its target address is at ``mac`` (RFC 826, reception)."""
    reply = Arp(ARP_REPLY, mac, request.tpa, request.sha, request.spa)
    return pack_ethernet(request.sha, mac, ETHERTYPE_ARP, pack_arp(reply))
