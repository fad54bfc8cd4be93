"""IPv4 headers (RFC 791, checked as RFC 1122 section 3.2.1 asks)."""

from __future__ import annotations

from ipaddress import IPv4Address
from struct import Struct
from typing import Final, NamedTuple

from .checksum import internet_checksum
from .errors import PacketError

PROTO_ICMP: Final = 1
PROTO_TCP: Final = 6
PROTO_UDP: Final = 17

_HEADER = Struct("!BBHHHBBH4s4s")
_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS = 0x2000


class Ipv4(NamedTuple):
    """One packet; ``header_len``, ``total_len`` and ``fragment_offset`` are bytes, ``payload`` unpadded."""

    src: IPv4Address
    dst: IPv4Address
    proto: int
    ttl: int
    header_len: int
    total_len: int
    identification: int
    dont_fragment: bool
    more_fragments: bool
    fragment_offset: int
    payload: bytes

    @property
    def is_fragment(self) -> bool:
        return self.more_fragments or self.fragment_offset > 0


def parse_ipv4(data: bytes, offset: int = 0, *, verify: bool = True) -> Ipv4:
    """The packet at ``offset``; bytes behind its total length (Ethernet padding) are dropped.

    ``PacketError`` for another version, lengths that contradict each other or the data, and, unless
    ``verify`` is false, for a wrong header checksum. Options are stepped over, not read.
    """
    size = len(data) - offset
    if offset < 0 or size < 20:
        raise PacketError(f"IPv4 packet of {max(0, size)} bytes: the header alone takes 20")
    version_ihl, _, total, identification, fragment, ttl, proto, _, src, dst = _HEADER.unpack_from(
        data, offset
    )
    if version_ihl >> 4 != 4:
        raise PacketError(f"IP version {version_ihl >> 4} where IPv4 was announced")
    header = (version_ihl & 0x0F) * 4
    if not 20 <= header <= total <= size:
        raise PacketError(f"IPv4 header of {header} bytes, total length {total}, {size} bytes of data")
    if verify and internet_checksum(data[offset : offset + header]) != 0:
        raise PacketError("IPv4 header checksum is wrong")
    return Ipv4(
        src=IPv4Address(src),
        dst=IPv4Address(dst),
        proto=proto,
        ttl=ttl,
        header_len=header,
        total_len=total,
        identification=identification,
        dont_fragment=bool(fragment & _DONT_FRAGMENT),
        more_fragments=bool(fragment & _MORE_FRAGMENTS),
        fragment_offset=(fragment & 0x1FFF) * 8,
        payload=data[offset + header : offset + total],
    )


def pack_ipv4(
    src: IPv4Address,
    dst: IPv4Address,
    proto: int,
    payload: bytes,
    *,
    ttl: int = 64,
    tos: int = 0,
    identification: int = 0,
    dont_fragment: bool = True,
) -> bytes:
    """An unfragmented packet without options; ``PacketError`` if a field does not fit.

    An identification of 0 with "don't fragment" set is an atomic datagram (RFC 6864 section 4.1).
    """
    total = 20 + len(payload)
    if total > 0xFFFF:
        raise PacketError(f"IPv4 payload of {len(payload)} bytes: at most {0xFFFF - 20} fit")
    if not (0 <= proto <= 0xFF and 0 <= ttl <= 0xFF and 0 <= tos <= 0xFF and 0 <= identification <= 0xFFFF):
        raise PacketError(
            f"IPv4 field out of range: proto {proto}, ttl {ttl}, tos {tos}, id {identification}"
        )
    flags = _DONT_FRAGMENT if dont_fragment else 0
    header = _HEADER.pack(0x45, tos, total, identification, flags, ttl, proto, 0, src.packed, dst.packed)
    checksum = internet_checksum(header)
    return header[:10] + checksum.to_bytes(2, "big") + header[12:] + payload
