"""What is held of nodes of other domains, whatever the role: records, names, tombstones, the own pools.

A record goes when nothing of ours is in it. A tombstone then keeps late copies of old orders from making it
again: ``floor`` is the lowest version that may.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from . import records
from .desk import Desk
from .nouns import Mapping
from .pools import Pools
from .records import HeldRecord
from .table import Load, Table

TOMBSTONE_S: Final = 3600.0
MAX_TOMBSTONES: Final = 1 << 16
MAX_HELD: Final = 4_000_000
MAX_TOLD: Final = 1024
"""Networks that one node's mapping is told to."""


class Holdings:
    """``records`` by identifier (as a number). ``names`` is shared with the home role."""

    def __init__(self, desk: Desk, names: dict[str, int], load: Load | None) -> None:
        self.records: Table[HeldRecord] = Table("h", HeldRecord.encode, records.held_record, load)
        self.names = names
        self.pools = Pools(desk.registry.own_networks)
        self._desk = desk
        self._tombs: OrderedDict[int, tuple[int, bool, float]] = OrderedDict()

    def full(self, identifier: int) -> bool:
        return identifier not in self.records and len(self.records) >= MAX_HELD

    def name_taken(self, name: str, identifier: int) -> bool:
        """Whether another node has this name."""
        return self.names.get(name, identifier) != identifier

    def tomb(self, identifier: int) -> tuple[int, bool]:
        """The version with which the record went, and whether the node was at home for good then."""
        version, at_home, _ = self._tombs.get(identifier, (0, False, 0.0))
        return version, at_home

    def keep(self, identifier: int, record: HeldRecord, mapping: Mapping | None) -> None:
        """Write the record, or delete it if nothing of ours is in it. ``mapping`` is the newest known."""
        if record.given or record.networks:
            if record.mapping is not None:
                self.names[record.mapping.card.name] = identifier
            self._untomb(identifier)
            self.records.put(identifier, record)
            return
        self.records.delete(identifier)
        if mapping is not None:
            if self.names.get(mapping.card.name) == identifier:
                del self.names[mapping.card.name]
            self._bury(identifier, mapping.version, mapping.settled_home)

    def drop(self, record: HeldRecord, mapping: Mapping) -> None:
        """Take back what was given before ``mapping`` and is not listed: nobody holds it any more."""
        listed = {int(place.locator) for place in mapping.places}
        for locator, (network, since) in list(record.given.items()):
            if since <= mapping.version and locator not in listed:
                del record.given[locator]
                self.pools.back(network, locator)

    def restore(self, identifier: int, fact: bytes) -> None:
        """All of them, and then ``restored``."""
        self.records.restore(identifier, fact)
        name, given = records.held_head(fact)
        if name:
            self.names[name] = identifier
        for locator, (network, _) in given.items():
            if self._desk.registry.mine(network):
                self.pools.restore(network, locator)

    def restore_tomb(self, identifier: int, fact: bytes) -> None:
        version, at_home = fact.decode().split()
        self._tombs[identifier] = int(version), at_home == "home", self._desk.now + TOMBSTONE_S

    def restored(self) -> None:
        """All facts have been read: the pools know what is given, and tombstones get their time."""
        self.pools.restored()
        if self._tombs:
            self._desk.alarm_in(TOMBSTONE_S, self._expire)

    def _bury(self, identifier: int, version: int, at_home: bool) -> None:
        before = self._tombs.pop(identifier, None)
        if before is not None and (before[0], before[1]) >= (version, at_home):
            version, at_home = before[0], before[1]
        if not self._tombs:
            self._desk.alarm_in(TOMBSTONE_S, self._expire)
        self._tombs[identifier] = version, at_home, self._desk.now + TOMBSTONE_S
        self._desk.out.writes[f"t/{identifier}"] = f"{version} {'home' if at_home else 'gone'}".encode()
        while len(self._tombs) > MAX_TOMBSTONES:
            self._untomb(next(iter(self._tombs)))

    def _untomb(self, identifier: int) -> None:
        if self._tombs.pop(identifier, None) is not None:
            self._desk.out.writes[f"t/{identifier}"] = None

    def _expire(self) -> None:
        while self._tombs:
            identifier, (_, _, until) = next(iter(self._tombs.items()))
            if until > self._desk.now:
                self._desk.alarm(until, self._expire)
                return
            self._untomb(identifier)

