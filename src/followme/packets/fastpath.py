"""What the controller must know of every PACKET_IN, in one unpack."""

from __future__ import annotations

from struct import Struct, error

from .errors import PacketError
from .ethernet import ETHERTYPE_IPV4, ETHERTYPE_VLAN

Peek = tuple[bytes, bytes, int, bytes, bytes, int]
"""(eth_dst, eth_src, ethertype, ip_src, ip_dst, ip_proto).

Of a frame that is not IPv4, the two IP addresses are ``b""`` and the protocol is 0.
"""

# Ethernet head, then of the IPv4 header: version and header length, protocol, source, destination.
_unpack_plain = Struct("!6s6sHB8xB2x4s4s").unpack_from
_unpack_tagged = Struct("!6s6s4xHB8xB2x4s4s").unpack_from
_unpack_head = Struct("!6s6sH").unpack_from
_unpack_tagged_head = Struct("!6s6s4xH").unpack_from


def peek(frame: bytes) -> Peek:
    """Addresses, types and protocol of ``frame``, without objects; one 802.1Q tag is looked through.

    The frame may be cut off behind its IPv4 addresses (OpenFlow's miss_send_len), so lengths and checksum
    are not checked: ``parse_ipv4`` does that. ``PacketError`` if the frame is shorter than the headers that
    it announces, or its IPv4 header is not one.
    """
    try:
        dst, src, ethertype, version_ihl, proto, ip_src, ip_dst = _unpack_plain(frame)
    except error:
        return _peek_short(frame)
    if ethertype == ETHERTYPE_IPV4:
        if 0x45 <= version_ihl <= 0x4F:
            return dst, src, ethertype, ip_src, ip_dst, proto
        raise PacketError(f"IPv4 header starts with {version_ihl:#04x}")
    if ethertype == ETHERTYPE_VLAN:
        return _peek_tagged(frame)
    return dst, src, ethertype, b"", b"", 0


def _peek_short(frame: bytes) -> Peek:
    """A frame of less than 34 bytes: it cannot hold an IPv4 header."""
    try:
        dst, src, ethertype = _unpack_head(frame)
        if ethertype == ETHERTYPE_VLAN:
            dst, src, ethertype = _unpack_tagged_head(frame)
    except error:
        raise PacketError(f"Ethernet frame of {len(frame)} bytes is shorter than its head") from None
    if ethertype == ETHERTYPE_IPV4:
        raise PacketError(f"frame of {len(frame)} bytes is too short for IPv4")
    return dst, src, ethertype, b"", b"", 0


def _peek_tagged(frame: bytes) -> Peek:
    dst, src, ethertype = _unpack_tagged_head(frame)
    if ethertype != ETHERTYPE_IPV4:
        return dst, src, ethertype, b"", b"", 0
    try:
        dst, src, ethertype, version_ihl, proto, ip_src, ip_dst = _unpack_tagged(frame)
    except error:
        raise PacketError(f"tagged frame of {len(frame)} bytes is too short for IPv4") from None
    if not 0x45 <= version_ihl <= 0x4F:
        raise PacketError(f"IPv4 header starts with {version_ihl:#04x}")
    return dst, src, ethertype, ip_src, ip_dst, proto
