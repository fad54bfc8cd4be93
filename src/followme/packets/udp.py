"""UDP datagrams over IPv4 (RFC 768)."""

from __future__ import annotations

from ipaddress import IPv4Address
from struct import Struct
from typing import NamedTuple

from .checksum import internet_checksum
from .errors import PacketError
from .ethernet import ETHERTYPE_IPV4, pack_ethernet
from .ipv4 import PROTO_UDP, pack_ipv4

_HEADER = Struct("!HHHH")
_PSEUDO = Struct("!4s4sBBH")


class Udp(NamedTuple):
    """One datagram."""

    src_port: int
    dst_port: int
    payload: bytes


def parse_udp(
    data: bytes, offset: int = 0, *, addresses: tuple[IPv4Address, IPv4Address] | None = None
) -> Udp:
    """The datagram at ``offset``; bytes behind its length are dropped.

    With ``addresses`` (source and destination of its IPv4 header) the checksum is verified, unless the
    sender left it out (a checksum field of 0). ``PacketError`` for a wrong length or checksum.
    """
    size = len(data) - offset
    if offset < 0 or size < 8:
        raise PacketError(f"UDP datagram of {max(0, size)} bytes: the header alone takes 8")
    src_port, dst_port, length, checksum = _HEADER.unpack_from(data, offset)
    if not 8 <= length <= size:
        raise PacketError(f"UDP length {length} with {size} bytes of data")
    if addresses is not None and checksum:
        pseudo = _pseudo_header(*addresses, length)
        if internet_checksum(pseudo + data[offset : offset + length]) != 0:
            raise PacketError("UDP checksum is wrong")
    return Udp(src_port, dst_port, data[offset + 8 : offset + length])


def pack_udp(src: IPv4Address, dst: IPv4Address, src_port: int, dst_port: int, payload: bytes) -> bytes:
    """A datagram with its checksum; ``PacketError`` if a port or the payload does not fit."""
    length = 8 + len(payload)
    if length > 0xFFFF - 20:
        raise PacketError(f"UDP payload of {len(payload)} bytes: at most {0xFFFF - 28} fit")
    if not (0 <= src_port <= 0xFFFF and 0 <= dst_port <= 0xFFFF):
        raise PacketError(f"UDP ports {src_port} and {dst_port} do not both fit in 16 bits")
    unsummed = _HEADER.pack(src_port, dst_port, length, 0) + payload
    # A computed 0 goes out as all ones, because 0 says "no checksum" (RFC 768).
    checksum = internet_checksum(_pseudo_header(src, dst, length) + unsummed) or 0xFFFF
    return _HEADER.pack(src_port, dst_port, length, checksum) + payload


def udp_frame(
    eth_dst: bytes,
    eth_src: bytes,
    src: IPv4Address,
    dst: IPv4Address,
    src_port: int,
    dst_port: int,
    payload: bytes,
    *,
    ttl: int = 64,
) -> bytes:
    """The whole Ethernet frame of one datagram, for a PACKET_OUT; ``PacketError`` if a field does not fit."""
    datagram = pack_udp(src, dst, src_port, dst_port, payload)
    return pack_ethernet(eth_dst, eth_src, ETHERTYPE_IPV4, pack_ipv4(src, dst, PROTO_UDP, datagram, ttl=ttl))


def _pseudo_header(src: IPv4Address, dst: IPv4Address, length: int) -> bytes:
    return _PSEUDO.pack(src.packed, dst.packed, 0, PROTO_UDP, length)
