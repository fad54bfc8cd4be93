"""Flow matches (7.2.3)."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from struct import Struct
from typing import Any, Final

from .constants import OFPMT_OXM
from .errors import OpenFlowError
from .oxm import BY_NAME, BY_NUMBER, HAS_MASK, is_prefix, pack_ipv4, parse_masked, parse_value, split
from .record import record

_HEAD: Final = Struct("!HH")
_TLV8: Final = Struct("!IB")
_TLV16: Final = Struct("!IH")
_TLV32: Final = Struct("!II")
_TLV48: Final = Struct("!I6s")
_TLV64: Final = Struct("!IQ")
PADDING: Final = tuple(bytes(-length % 8) for length in range(8))
"""The zeros behind ``length`` bytes, up to a multiple of 8: index by ``length & 7``."""

_H: Final = {name: field.header for name, field in BY_NAME.items()}
_IN_PORT, _METADATA, _ETH_DST, _ETH_SRC = _H["in_port"], _H["metadata"], _H["eth_dst"], _H["eth_src"]
_ETH_TYPE, _VLAN_VID, _IP_PROTO, _IPV4_SRC = _H["eth_type"], _H["vlan_vid"], _H["ip_proto"], _H["ipv4_src"]
_IPV4_DST, _TCP_SRC, _TCP_DST, _UDP_SRC = _H["ipv4_dst"], _H["tcp_src"], _H["tcp_dst"], _H["udp_src"]
_UDP_DST, _ICMPV4_TYPE, _ARP_OP = _H["udp_dst"], _H["icmpv4_type"], _H["arp_op"]
_ARP_SPA, _ARP_TPA = _H["arp_spa"], _H["arp_tpa"]

_ETH_IPV4: Final = 0x0800
_ETH_ARP: Final = 0x0806
_ETH_IP: Final = frozenset({_ETH_IPV4, 0x86DD})
_PROTO_ICMP: Final = 1
_PROTO_TCP: Final = 6
_PROTO_UDP: Final = 17


@record
class Match:
    """A flow match; a field that is ``None`` matches every packet.

    IPv4 fields take an ``IPv4Address`` (exact) or an ``IPv4Network`` (prefix). A prefix of 32 bits packs as
    the address, one of 0 bits as nothing, and both are received in that form (7.2.3.5). ``vlan_vid`` is as
    on the wire, with OFPVID_PRESENT. ``raw`` holds whole TLVs for which there is no field here (other
    fields, classes or masks), in the order received; they are packed behind the named ones.
    """

    in_port: int | None = None
    eth_type: int | None = None
    eth_dst: bytes | None = None
    eth_src: bytes | None = None
    vlan_vid: int | None = None
    ip_proto: int | None = None
    ipv4_src: IPv4Address | IPv4Network | None = None
    ipv4_dst: IPv4Address | IPv4Network | None = None
    tcp_src: int | None = None
    tcp_dst: int | None = None
    udp_src: int | None = None
    udp_dst: int | None = None
    icmpv4_type: int | None = None
    arp_op: int | None = None
    arp_spa: IPv4Address | IPv4Network | None = None
    arp_tpa: IPv4Address | IPv4Network | None = None
    metadata: int | None = None
    raw: bytes = b""

    def pack(self) -> bytes:
        """The ``ofp_match`` with its padding; ``OpenFlowError`` if a prerequisite is missing (7.2.3.6)."""
        # One branch a field instead of a loop over FIELDS with getattr: this runs for each FLOW_MOD.
        body = b""
        if self.in_port is not None:
            body = _TLV32.pack(_IN_PORT, self.in_port)
        if self.metadata is not None:
            body += _TLV64.pack(_METADATA, self.metadata)
        if self.eth_dst is not None:
            body += _TLV48.pack(_ETH_DST, _mac(self.eth_dst))
        if self.eth_src is not None:
            body += _TLV48.pack(_ETH_SRC, _mac(self.eth_src))
        eth_type = self.eth_type
        if eth_type is not None:
            body += _TLV16.pack(_ETH_TYPE, eth_type)
        if self.vlan_vid is not None:
            body += _TLV16.pack(_VLAN_VID, self.vlan_vid)
        proto = self.ip_proto
        if proto is not None:
            _require(eth_type in _ETH_IP, "ip_proto needs eth_type 0x0800 or 0x86dd")
            body += _TLV8.pack(_IP_PROTO, proto)
        if self.ipv4_src is not None:
            _require(eth_type == _ETH_IPV4, "ipv4_src needs eth_type 0x0800")
            body += pack_ipv4(_IPV4_SRC, self.ipv4_src)
        if self.ipv4_dst is not None:
            _require(eth_type == _ETH_IPV4, "ipv4_dst needs eth_type 0x0800")
            body += pack_ipv4(_IPV4_DST, self.ipv4_dst)
        if self.tcp_src is not None:
            _require(proto == _PROTO_TCP, "tcp_src needs ip_proto 6")
            body += _TLV16.pack(_TCP_SRC, self.tcp_src)
        if self.tcp_dst is not None:
            _require(proto == _PROTO_TCP, "tcp_dst needs ip_proto 6")
            body += _TLV16.pack(_TCP_DST, self.tcp_dst)
        if self.udp_src is not None:
            _require(proto == _PROTO_UDP, "udp_src needs ip_proto 17")
            body += _TLV16.pack(_UDP_SRC, self.udp_src)
        if self.udp_dst is not None:
            _require(proto == _PROTO_UDP, "udp_dst needs ip_proto 17")
            body += _TLV16.pack(_UDP_DST, self.udp_dst)
        if self.icmpv4_type is not None:
            _require(eth_type == _ETH_IPV4 and proto == _PROTO_ICMP, "icmpv4_type needs IPv4 and ip_proto 1")
            body += _TLV8.pack(_ICMPV4_TYPE, self.icmpv4_type)
        if self.arp_op is not None:
            _require(eth_type == _ETH_ARP, "arp_op needs eth_type 0x0806")
            body += _TLV16.pack(_ARP_OP, self.arp_op)
        if self.arp_spa is not None:
            _require(eth_type == _ETH_ARP, "arp_spa needs eth_type 0x0806")
            body += pack_ipv4(_ARP_SPA, self.arp_spa)
        if self.arp_tpa is not None:
            _require(eth_type == _ETH_ARP, "arp_tpa needs eth_type 0x0806")
            body += pack_ipv4(_ARP_TPA, self.arp_tpa)
        body += self.raw
        length = 4 + len(body)
        return _HEAD.pack(OFPMT_OXM, length) + body + PADDING[length & 7]


def _require(met: bool, prerequisite: str) -> None:
    if not met:
        raise OpenFlowError(f"{prerequisite} (7.2.3.6)")


def _mac(value: bytes) -> bytes:
    # struct's "6s" would cut or fill without a word
    if len(value) != 6:
        raise OpenFlowError(f"a MAC address has 6 bytes, not {len(value)}")
    return value


def parse_match(data: bytes, offset: int, end: int) -> tuple[Match, int]:
    """The ``ofp_match`` at ``offset`` in ``data[:end]``, and the offset behind its padding."""
    if end - offset < 8:
        raise OpenFlowError("match is cut off", offset=offset)
    kind, length = _HEAD.unpack_from(data, offset)
    if kind != OFPMT_OXM:
        raise OpenFlowError(f"match type {kind} is not OXM", offset=offset)
    after = offset + length + (-length & 7)
    if length < 4 or after > end:
        raise OpenFlowError(f"match length {length} is less than 4 or reaches past the end", offset=offset)
    body = data[offset + 4 : offset + length]
    try:
        return (_cached_fields if length <= _CACHED_LENGTH else _fields)(body), after
    except OpenFlowError as problem:
        problem.offset = (problem.offset or 0) + offset + 4
        raise


_CACHED_LENGTH: Final = 64
"""Longer matches are not kept, so that a hostile peer fills the cache with 64 KiB at most."""


def _fields(body: bytes) -> Match:
    values: dict[str, Any] = {}
    seen: set[int] = set()
    raw = b""
    for header, offset, payload in split(body, 0, len(body)):
        number = header >> 9  # class and field, without the mask bit and the length
        if number in seen:
            raise OpenFlowError(f"OXM 0x{header:08x} is there twice", offset=offset)
        seen.add(number)
        field = BY_NUMBER.get(number)
        if field is not None:
            masked = header & HAS_MASK
            if len(payload) != (2 * field.size if masked else field.size):
                raise OpenFlowError(f"{field.name} cannot have {len(payload)} bytes", offset=offset)
            if not masked:
                values[field.name] = parse_value(field, payload)
                continue
            if field.kind is IPv4Address and is_prefix(payload):
                values[field.name] = parse_masked(field, payload, offset)
                continue
        raw += body[offset : offset + 4 + len(payload)]
    return Match(**values, raw=raw)


# Table misses differ in in_port only, so nearly every PACKET_IN finds its match here; matches do not change.
_cached_fields: Final = lru_cache(maxsize=1024)(_fields)
