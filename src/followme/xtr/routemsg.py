"""A map-cache entry as a route of Linux (rtnetlink): light-weight-tunnel routes to bytes, and back.

Pure: no socket. pyroute2 0.9 does not know this encapsulation, and is too slow for a full map-cache; the few
attributes needed are therefore written here (``uapi/linux/rtnetlink.h``, ``lwtunnel.h``).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from followme.xtr.errors import DataPlaneError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PROTOCOL = 108
"""Marks our routes (``rtm_protocol``): those of other programs are never touched."""
ENTRY_METRIC = 100
PUNT_METRIC = 4000
MAIN_TABLE = 254
MAX_INSTANCE_ID = (1 << 24) - 1
MAX_LOCATORS = 32
_MAX_WEIGHT = 255

NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, MULTI, ACK, DUMP, REPLACE, CREATE = 0x1, 0x2, 0x4, 0x300, 0x100, 0x400
HEADER = struct.Struct("=IHHII")
_RTMSG = struct.Struct("=8BI")
_NEXTHOP = struct.Struct("=HBBi")
_DST, _OIF, _PRIORITY, _MULTIPATH, _TABLE, _ENCAP_TYPE, _ENCAP = 1, 4, 6, 9, 15, 21, 22
_ENCAP_IP, _ENCAP_IP6 = 2, 4
_TUNNEL_ID, _TUNNEL_DST = 1, 2
_TYPE_MASK = 0x3FFF


class RouteType(IntEnum):
    """``rtm_type``: what happens to a packet for the EID-prefix."""

    UNICAST = 1
    BLACKHOLE = 6
    UNREACHABLE = 7
    THROW = 9


@dataclass(frozen=True, slots=True)
class Locator:
    """One RLOC of a mapping; traffic is shared in proportion to ``weight`` (1 to 255; RFC 9301, 5.4)."""

    rloc: Address
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Encap:
    """A positive map-cache entry. ``locators`` are those of the best priority, at least one.

    Linux has no device-only multipath for IPv6, so an IPv6 EID-prefix uses the heaviest locator alone.
    """

    eid: Network
    instance_id: int
    locators: tuple[Locator, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.instance_id <= MAX_INSTANCE_ID:
            raise DataPlaneError(f"{self.eid}: instance id {self.instance_id} is not within 0 to {MAX_INSTANCE_ID}")
        if not 1 <= len(self.locators) <= MAX_LOCATORS:
            raise DataPlaneError(f"{self.eid}: {len(self.locators)} locators; there must be 1 to {MAX_LOCATORS}")
        for one in self.locators:
            if not 1 <= one.weight <= _MAX_WEIGHT:
                raise DataPlaneError(f"{self.eid}: weight {one.weight} of {one.rloc} is not 1 to {_MAX_WEIGHT}")


@dataclass(frozen=True, slots=True)
class Negative:
    """A negative entry (RFC 9301, 5.4): ``BLACKHOLE`` drops, ``UNREACHABLE`` answers by ICMP, and ``THROW``
    forwards natively, by the tables whose rules come after that of our table."""

    eid: Network
    type: RouteType = RouteType.BLACKHOLE


@dataclass(frozen=True, slots=True)
class Punt:
    """EID space whose misses go to a device (a tun) where a Map-Request is made of them."""

    eid: Network
    interface: int


Entry = Encap | Negative | Punt


def encode_add(entry: Entry, device: int, table: int, sequence: int, flags: int = 0) -> bytes:
    """RTM_NEWROUTE that adds ``entry`` or replaces what stands for its EID-prefix, in one step."""
    return _message(NEWROUTE, REQUEST | CREATE | REPLACE | flags, entry, device, table, sequence)


def encode_delete(entry: Entry, device: int, table: int, sequence: int, flags: int = 0) -> bytes:
    """RTM_DELROUTE of the entry's EID-prefix, metric and our protocol, whatever its locators are."""
    return _message(DELROUTE, REQUEST | flags, entry, device, table, sequence, key_only=True)


def encode_dump(family: int, sequence: int) -> bytes:
    """Asks for all routes of an address family."""
    return HEADER.pack(HEADER.size + _RTMSG.size, GETROUTE, REQUEST | DUMP, sequence, 0) + _RTMSG.pack(
        family, *([0] * 7), 0
    )


def _message(
    kind: int, flags: int, entry: Entry, device: int, table: int, sequence: int, key_only: bool = False
) -> bytes:
    eid = entry.eid
    family = socket.AF_INET if eid.version == 4 else socket.AF_INET6
    route_type = 0 if key_only else entry.type if isinstance(entry, Negative) else RouteType.UNICAST
    scope = 0 if eid.version == 6 or isinstance(entry, Negative) or key_only else 253  # link: no gateway
    if key_only:
        scope = 255 if eid.version == 4 else 0  # RT_SCOPE_NOWHERE: any
    metric = PUNT_METRIC if isinstance(entry, Punt) else ENTRY_METRIC
    body = _RTMSG.pack(family, eid.prefixlen, 0, 0, min(table, 252), PROTOCOL, scope, route_type, 0)
    if eid.prefixlen:
        body += _attribute(_DST, eid.network_address.packed)
    body += _attribute(_PRIORITY, struct.pack("=I", metric)) + _attribute(_TABLE, struct.pack("=I", table))
    if not key_only:
        body += _way(entry, device)
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def _way(entry: Entry, device: int) -> bytes:
    if isinstance(entry, Negative):
        return b""
    if isinstance(entry, Punt):
        return _attribute(_OIF, struct.pack("=i", entry.interface))
    locators: Sequence[Locator] = entry.locators
    if entry.eid.version == 6:
        locators = [max(locators, key=lambda one: one.weight)]
    if len(locators) == 1:
        return _attribute(_OIF, struct.pack("=i", device)) + _encapsulation(locators[0].rloc, entry.instance_id)
    hops = b""
    for one in locators:
        inner = _encapsulation(one.rloc, entry.instance_id)
        hops += _NEXTHOP.pack(_NEXTHOP.size + len(inner), 0, one.weight - 1, device) + inner
    return _attribute(_MULTIPATH, hops)


def _encapsulation(rloc: Address, instance_id: int) -> bytes:
    kind = _ENCAP_IP if rloc.version == 4 else _ENCAP_IP6
    tunnel = _attribute(_TUNNEL_ID, struct.pack("!Q", instance_id)) + _attribute(_TUNNEL_DST, rloc.packed)
    return _attribute(_ENCAP, tunnel, nested=True) + _attribute(_ENCAP_TYPE, struct.pack("=H", kind))


def _attribute(kind: int, value: bytes, nested: bool = False) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind | (0x8000 if nested else 0)) + value + b"\0" * (-length % 4)


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """The netlink messages of a datagram as (type, sequence, body); what is cut short ends the iteration."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size or at + length > len(data):
            return
        yield kind, sequence, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def decode(body: bytes, device: int, table: int) -> Entry | None:
    """The entry in the body of an RTM_NEWROUTE; None if it is not ours (protocol, table, device) or damaged."""
    if len(body) < _RTMSG.size:
        return None
    family, prefixlen, _, _, _, protocol, _, route_type, _ = _RTMSG.unpack_from(body)
    if protocol != PROTOCOL or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        found = attributes(body[_RTMSG.size :])
        if struct.unpack("=I", found.get(_TABLE, b""))[0] != table:
            return None
        size = 4 if family == socket.AF_INET else 16
        raw = (found.get(_DST, bytes(size)), prefixlen)
        eid: Network = ipaddress.IPv4Network(raw) if size == 4 else ipaddress.IPv6Network(raw)
        if route_type in (RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.THROW):
            return Negative(eid, RouteType(route_type))
        if route_type != RouteType.UNICAST:
            return None
        if _MULTIPATH in found:
            return _from_hops(eid, found[_MULTIPATH], device)
        interface = int(struct.unpack("=i", found.get(_OIF, b""))[0])
        if _ENCAP not in found:
            return Punt(eid, interface)
        if interface != device:
            return None
        rloc, instance_id = _read_encapsulation(found)
        return Encap(eid, instance_id, (Locator(rloc),))
    except (struct.error, ValueError, DataPlaneError):
        return None


def _from_hops(eid: Network, data: bytes, device: int) -> Encap | None:
    locators, instance_id, at = [], 0, 0
    while at + _NEXTHOP.size <= len(data):
        length, _, hops, interface = _NEXTHOP.unpack_from(data, at)
        if length < _NEXTHOP.size or at + length > len(data) or interface != device:
            return None
        rloc, instance_id = _read_encapsulation(attributes(data[at + _NEXTHOP.size : at + length]))
        locators.append(Locator(rloc, hops + 1))
        at += (length + 3) & ~3
    return Encap(eid, instance_id, tuple(locators))


def _read_encapsulation(found: dict[int, bytes]) -> tuple[Address, int]:
    tunnel = attributes(found.get(_ENCAP, b""))
    remote = tunnel.get(_TUNNEL_DST, b"")
    instance_id = int(struct.unpack("!Q", tunnel.get(_TUNNEL_ID, b""))[0])
    if len(remote) not in (4, 16):
        raise ValueError("no tunnel destination")
    return ipaddress.ip_address(remote), instance_id


def table_of(body: bytes) -> int | None:
    """The table that a route's or a rule's message is about."""
    value = attributes(body[_RTMSG.size :]).get(_TABLE, b"")
    return int(struct.unpack("=I", value)[0]) if len(value) == 4 else None


def protocol_of(body: bytes) -> int:
    """Whose a route is (``rtm_protocol``), as its message says."""
    return body[5] if len(body) >= _RTMSG.size else 0


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes of a message by their kind; what is cut short ends them."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4 or at + length > len(data):
            break
        found[kind & _TYPE_MASK] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found
