"""What a tunnel router is told about itself and its map system, as the control plane reads it."""

from __future__ import annotations

from dataclasses import dataclass, field

from followme.lisp import HMAC_SHA_256_128, EidPrefix, Locator, MappingRecord

from .outputs import IPAddress


@dataclass(frozen=True, slots=True)
class MapServer:
    """A map server that registrations go to, with the key of our site (never shown) and its number there."""

    address: IPAddress
    port: int
    key: bytes = field(repr=False)
    key_id: int = 0
    algorithm_id: int = HMAC_SHA_256_128


@dataclass(frozen=True, slots=True)
class Site:
    """A LISP site. ``prefixes`` are registered always; ``space`` are the prefixes in which a packet without a
    route is a miss. ``ttl`` in minutes, intervals in seconds."""

    prefixes: tuple[EidPrefix, ...]
    space: tuple[EidPrefix, ...]
    locators: tuple[Locator, ...]
    resolvers: tuple[tuple[IPAddress, int], ...]
    servers: tuple[MapServer, ...]
    xtr_id: bytes
    iid: int = 0
    site_id: int = 0
    proxy_reply: bool = True
    ttl: int = 1440
    register_interval_s: float = 60.0
    probe_interval_s: float = 10.0
    max_entries: int = 100_000

    @property
    def rlocs(self) -> tuple[IPAddress, ...]:
        """Our own RLOCs; the first of a family is what we give as ITR-RLOC."""
        return tuple(loc.address for loc in self.locators if isinstance(loc.address, IPAddress))

    def record(self, eid: EidPrefix, ttl: int | None = None) -> MappingRecord:
        """Our own mapping for ``eid``."""
        return MappingRecord(eid, self.locators, self.ttl if ttl is None else ttl, authoritative=True)

    def own(self, eid: EidPrefix) -> bool:
        """Whether ``eid`` lies in (or is) one of our prefixes."""
        return any(prefix.covers(eid) for prefix in self.prefixes)

    def in_space(self, eid: EidPrefix) -> bool:
        return any(prefix.covers(eid) for prefix in self.space)


def host(iid: int, address: bytes) -> EidPrefix:
    """The EID ``address`` (packed) as a prefix of full length."""
    return EidPrefix(iid, address, len(address) * 8)


def ends_of(packet: bytes) -> tuple[bytes, bytes] | None:
    """Source and destination address of an IP packet, packed."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return packet[12:16], packet[16:20]
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return packet[8:24], packet[24:40]
    return None
