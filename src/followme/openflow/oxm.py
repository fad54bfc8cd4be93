"""OXM, the extensible match TLVs of flow matches and of set-field actions (7.2.3.2 to 7.2.3.8).

A TLV is a 32-bit header (class, field number, has-mask bit, length of the payload) and the payload: the
value, then the mask if there is one. The table ``FIELDS`` is all that ``Match`` and ``SetField`` know.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from struct import Struct
from typing import Final, NamedTuple

from .constants import (
    OFPXMC_OPENFLOW_BASIC,
    OFPXMT_OFB_ARP_OP,
    OFPXMT_OFB_ARP_SPA,
    OFPXMT_OFB_ARP_TPA,
    OFPXMT_OFB_ETH_DST,
    OFPXMT_OFB_ETH_SRC,
    OFPXMT_OFB_ETH_TYPE,
    OFPXMT_OFB_ICMPV4_TYPE,
    OFPXMT_OFB_IN_PORT,
    OFPXMT_OFB_IP_PROTO,
    OFPXMT_OFB_IPV4_DST,
    OFPXMT_OFB_IPV4_SRC,
    OFPXMT_OFB_METADATA,
    OFPXMT_OFB_TCP_DST,
    OFPXMT_OFB_TCP_SRC,
    OFPXMT_OFB_UDP_DST,
    OFPXMT_OFB_UDP_SRC,
    OFPXMT_OFB_VLAN_VID,
)
from .errors import OpenFlowError

Value = int | bytes | IPv4Address


class Field(NamedTuple):
    """One match field: its name, the 32-bit TLV header without mask, and how the payload reads."""

    name: str
    header: int
    size: int
    kind: type[int] | type[bytes] | type[IPv4Address]


def _field(name: str, number: int, size: int, kind: type[int] | type[bytes] | type[IPv4Address]) -> Field:
    return Field(name, OFPXMC_OPENFLOW_BASIC << 16 | number << 9 | size, size, kind)


# Sorted by number: a prerequisite's number is always smaller, so packing in this order is legal (7.2.3.6).
FIELDS: Final = (
    _field("in_port", OFPXMT_OFB_IN_PORT, 4, int),
    _field("metadata", OFPXMT_OFB_METADATA, 8, int),
    _field("eth_dst", OFPXMT_OFB_ETH_DST, 6, bytes),
    _field("eth_src", OFPXMT_OFB_ETH_SRC, 6, bytes),
    _field("eth_type", OFPXMT_OFB_ETH_TYPE, 2, int),
    _field("vlan_vid", OFPXMT_OFB_VLAN_VID, 2, int),
    _field("ip_proto", OFPXMT_OFB_IP_PROTO, 1, int),
    _field("ipv4_src", OFPXMT_OFB_IPV4_SRC, 4, IPv4Address),
    _field("ipv4_dst", OFPXMT_OFB_IPV4_DST, 4, IPv4Address),
    _field("tcp_src", OFPXMT_OFB_TCP_SRC, 2, int),
    _field("tcp_dst", OFPXMT_OFB_TCP_DST, 2, int),
    _field("udp_src", OFPXMT_OFB_UDP_SRC, 2, int),
    _field("udp_dst", OFPXMT_OFB_UDP_DST, 2, int),
    _field("icmpv4_type", OFPXMT_OFB_ICMPV4_TYPE, 1, int),
    _field("arp_op", OFPXMT_OFB_ARP_OP, 2, int),
    _field("arp_spa", OFPXMT_OFB_ARP_SPA, 4, IPv4Address),
    _field("arp_tpa", OFPXMT_OFB_ARP_TPA, 4, IPv4Address),
)
BY_NAME: Final = {field.name: field for field in FIELDS}
BY_HEADER: Final = {field.header: field for field in FIELDS}
BY_NUMBER: Final = {field.header >> 9: field for field in FIELDS}
"""By class and field number: the header without its mask bit and its length."""

HEADER: Final = Struct("!I")
HAS_MASK: Final = 0x100
_FULL_MASK: Final = 0xFFFFFFFF
_U8: Final = Struct("!IB")
_U16: Final = Struct("!IH")
_U32: Final = Struct("!II")
_U64: Final = Struct("!IQ")
_U32_MASKED: Final = Struct("!III")
_INTS: Final = {1: _U8, 2: _U16, 4: _U32, 8: _U64}


def pack_value(field: Field, value: Value) -> bytes:
    """One TLV without mask. ``struct.error`` for an integer out of range: the message's ``pack`` turns it."""
    if field.kind is bytes:
        if not isinstance(value, bytes) or len(value) != field.size:
            raise OpenFlowError(f"{field.name} needs {field.size} bytes, not {value!r}")
        return HEADER.pack(field.header) + value
    if isinstance(value, bytes):
        raise OpenFlowError(f"{field.name} needs a number or an address, not {value!r}")
    return _INTS[field.size].pack(field.header, int(value))


def pack_ipv4(header: int, value: IPv4Address | IPv4Network) -> bytes:
    """One IPv4 TLV, masked when ``value`` is a network.

    A mask of all ones is left out, and so is a field with a mask of all zeros: 7.2.3.5 calls both
    equivalent, and a switch reports the shorter form back.
    """
    if isinstance(value, IPv4Address):
        return _U32.pack(header, int(value))
    mask = int(value.netmask)
    if mask == _FULL_MASK:
        return _U32.pack(header, int(value.network_address))
    if mask == 0:
        return b""
    # has-mask bit and twice the payload length: 4 becomes 0x108
    return _U32_MASKED.pack(header + HAS_MASK + 4, int(value.network_address), mask)


def parse_value(field: Field, payload: bytes) -> Value:
    """The value of a TLV's payload without mask, which must have the field's size."""
    if field.kind is bytes:
        return payload
    number = int.from_bytes(payload, "big")
    return IPv4Address(number) if field.kind is IPv4Address else number


def is_prefix(payload: bytes) -> bool:
    """Whether the mask of an IPv4 TLV's payload is ones, then zeros; ``IPv4Network`` holds no other."""
    host_bits = ~int.from_bytes(payload[4:], "big") & _FULL_MASK
    return host_bits & (host_bits + 1) == 0


def parse_masked(field: Field, payload: bytes, offset: int) -> IPv4Address | IPv4Network | None:
    """An IPv4 value whose mask is a prefix; ``None`` if the mask lets everything match."""
    value, mask = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:], "big")
    if value & ~mask:
        raise OpenFlowError(f"{field.name} has value bits outside its mask (7.2.3.5)", offset=offset)
    if mask == 0:
        return None
    if mask == _FULL_MASK:
        return IPv4Address(value)
    return IPv4Network((value, mask.bit_count()))


def split(data: bytes, offset: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """The TLVs of ``data[offset:end]`` as (header, offset, payload)."""
    while offset < end:
        if end - offset < 4:
            raise OpenFlowError("OXM header is cut off", offset=offset)
        (header,) = HEADER.unpack_from(data, offset)
        after = offset + 4 + (header & 0xFF)
        if after > end:
            raise OpenFlowError(f"OXM 0x{header:08x} reaches past the end of the match", offset=offset)
        yield header, offset, data[offset + 4 : after]
        offset = after
