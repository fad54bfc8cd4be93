"""What is held of nodes of other domains, whatever the role: records, tombstones, the own pools.

A record goes when nothing of ours is in it. A tombstone then keeps late copies of old orders from making it
again: ``floor`` is the lowest version that may.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from ipaddress import IPv4Address
from typing import Final

from . import records
from .desk import Desk
from .nouns import Mapping
from .pools import Pools
from .records import HeldRecord
from .registry import pool_bounds
from .table import Load, Table

TOMBSTONE_S: Final = 3600.0
MAX_TOMBSTONES: Final = 1 << 16
MAX_HELD: Final = 4_000_000
MAX_TOLD: Final = 1024
"""Networks that one node's mapping is told to."""
MAX_GIVEN: Final = 4
"""Locators of one network that one node has: where it is, and where it was while somebody has not heard of it."""


class Holdings:
    """``records`` by identifier (as a number)."""

    def __init__(self, desk: Desk, load: Load | None) -> None:
        self.records: Table[HeldRecord] = Table("h", HeldRecord.encode, records.held_record, load)
        self.pools = Pools(desk.registry.own_networks)
        self._desk = desk
        self._registry = registry = desk.registry
        # Where several operators come to, none has all: half of each pool, and of the records, is left to others.
        self._shared = len(registry.domains) > 2
        self._sizes = {one.name: end - first for one in registry.own_networks for first, end in [pool_bounds(one)]}
        self._had: Counter[tuple[str, str | None]] = Counter()
        self._count: Counter[str | None] = Counter()
        self._tombs: OrderedDict[int, tuple[int, bool, float]] = OrderedDict()

    def full(self, identifier: int) -> bool:
        """Of records: of all, or of those of one home domain."""
        mine = self._count[self._home(identifier)] if self._shared else 0
        return identifier not in self.records and (len(self.records) >= MAX_HELD or mine >= MAX_HELD // 2)

    def share_used(self, identifier: int, network: str) -> bool:
        """Whether the node's home domain has as many locators of an own network as one may; we may have all."""
        home, size = self._home(identifier), self._sizes[network]
        if not self._shared or size < MAX_GIVEN or home == self._desk.me:
            return False
        return self._had[network, home] >= size // 2

    def give(self, identifier: int, record: HeldRecord, network: str, version: int) -> int | None:
        """A locator for the record; ``None`` if all are given. The caller keeps the record."""
        locator = self.pools.give(network)
        if locator is not None:
            record.given[locator] = network, version
            self._had[network, self._home(identifier)] += 1
        return locator

    def _home(self, identifier: int) -> str | None:
        return self._registry.home_of(IPv4Address(identifier))

    def tomb(self, identifier: int) -> tuple[int, bool]:
        """The version with which the record went, and whether the node was at home for good then."""
        version, at_home, _ = self._tombs.get(identifier, (0, False, 0.0))
        return version, at_home

    def keep(self, identifier: int, record: HeldRecord, mapping: Mapping | None) -> None:
        """Write the record, or delete it if nothing of ours is in it. ``mapping`` is the newest known."""
        if record.given or record.networks or record.unsure:
            self._untomb(identifier)
            if identifier not in self.records:
                self._count[self._home(identifier)] += 1
            self.records.put(identifier, record)
            return
        if identifier in self.records:
            self._count[self._home(identifier)] -= 1
        self.records.delete(identifier)
        if mapping is not None:
            self._bury(identifier, mapping.version, mapping.settled_home)

    def drop(self, identifier: int, record: HeldRecord, mapping: Mapping) -> None:
        """Take back what was given before ``mapping`` and is not listed: nobody holds it any more."""
        listed = {int(place.locator) for place in mapping.places}
        for locator, (network, since) in list(record.given.items()):
            if since <= mapping.version and locator not in listed:
                del record.given[locator]
                self.pools.back(network, locator)
                self._had[network, self._home(identifier)] -= 1

    def restore(self, identifier: int, fact: bytes) -> bool:
        """All of them, and then ``restored``; whether home has yet to hear of this one."""
        self.records.restore(identifier, fact)
        home = self._home(identifier)
        self._count[home] += 1
        given, unsure = records.held_head(fact)
        for locator, (network, _) in given.items():
            if self._desk.registry.mine(network):
                self.pools.restore(network, locator)
                self._had[network, home] += 1
        return bool(unsure)

    def give_again(self, fact: bytes) -> None:
        """The locators that this record has are given, though nothing else of it is used."""
        for locator, (network, _) in records.held_head(fact)[0].items():
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

