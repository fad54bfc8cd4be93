"""What the control plane wants done: datagrams to send, routes to set, packets to send on, news to tell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from followme.lisp import EidPrefix, MappingRecord

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Encap:
    """Encapsulate to these RLOCs: ``(address, weight)``, weights above 0."""

    paths: tuple[tuple[IPAddress, int], ...]


@dataclass(frozen=True, slots=True)
class ToLan:
    """The EID is on our LAN."""


@dataclass(frozen=True, slots=True)
class Native:
    """Not a LISP destination: forward as any router does (ACT natively-forward)."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Discard without a word (ACT drop and its kin)."""


Way = Encap | ToLan | Native | Drop


@dataclass(frozen=True, slots=True)
class Datagram:
    """A UDP payload for the control socket."""

    data: bytes
    address: IPAddress
    port: int


@dataclass(frozen=True, slots=True)
class SetRoute:
    """Put the route of ``eid``, in the place of the one that is there, in one step."""

    eid: EidPrefix
    way: Way


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    eid: EidPrefix


@dataclass(frozen=True, slots=True)
class Release:
    """IP packets that waited for a mapping of ``eid``: their route is there now."""

    eid: EidPrefix
    packets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CheckNode:
    """Ask on the LAN whether a dynamic EID is still there."""

    eid: EidPrefix


@dataclass(frozen=True, slots=True)
class Appeared:
    """A dynamic EID is here now and is being registered."""

    eid: EidPrefix
    mac: bytes

    def __str__(self) -> str:
        return f"{self.eid} is here, at {self.mac.hex(':')}"


@dataclass(frozen=True, slots=True)
class Departed:
    """The map server says that an EID of ours is elsewhere; it is routed there already."""

    eid: EidPrefix
    rlocs: tuple[IPAddress, ...]

    def __str__(self) -> str:
        return f"{self.eid} has left for {_listed(self.rlocs)}"


@dataclass(frozen=True, slots=True)
class Redirected:
    """A remote EID's mapping has changed and its route with it."""

    eid: EidPrefix
    rlocs: tuple[IPAddress, ...]

    def __str__(self) -> str:
        return f"{self.eid} is behind {_listed(self.rlocs)}"


@dataclass(frozen=True, slots=True)
class Registered:
    """A map server confirmed the registration of ``eids``."""

    eids: tuple[EidPrefix, ...]
    server: IPAddress

    def __str__(self) -> str:
        return f"{self.server} has registered {_listed(self.eids)}"


@dataclass(frozen=True, slots=True)
class Answered:
    """The map system answered for ``eid``; ``record`` is ``None`` if it did not in time."""

    eid: EidPrefix
    record: MappingRecord | None

    def __str__(self) -> str:
        if self.record is None:
            return f"nobody says where {self.eid} is"
        where = _listed(locator.address for locator in self.record.locators)
        return f"{self.eid}: the map system says that {self.record.eid} is behind {where}"


@dataclass(frozen=True, slots=True)
class LocatorState:
    """An RLOC answers probes (again), or no longer."""

    rloc: IPAddress
    up: bool

    def __str__(self) -> str:
        return f"{self.rloc} answers probes{'' if self.up else ' no longer'}"


def _listed(things: Iterable[object]) -> str:
    return ", ".join(map(str, things)) or "nobody"


Event = Appeared | Departed | Redirected | Registered | Answered | LocatorState
Output = Datagram | SetRoute | RemoveRoute | Release | CheckNode | Event
