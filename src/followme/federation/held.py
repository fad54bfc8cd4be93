"""What is held of nodes of other domains, whatever the role: records, tombstones, the own pools.

A record goes when nothing of ours is in it. A tombstone then keeps late copies of old orders from making it
again: ``floor`` is the lowest version that may.
"""

from __future__ import annotations

import re
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
FULL: Final = "the records of the node's home have no room left here"
RECORD_OCTETS: Final = 120
"""What a bucket takes for a record beside its octets."""
MAX_GIVEN: Final = 4
"""Pools of fewer locators are not shared out; and so many of a node are believed that we do not know of."""

_NUMBER: Final = re.compile(rb"(?<!\d)\d{1,10}(?!\d)")


class Holdings:
    """``records`` by identifier (as a number). ``room``: octets of the bucket, if that is bounded. Half of it is
    ours; a quarter is divided evenly between the other domains, and a quarter is for who of them comes first."""

    def __init__(self, desk: Desk, load: Load | None, room: int | None = None) -> None:
        self.records: Table[HeldRecord] = Table("h", HeldRecord.encode, records.held_record, load, self._weigh)
        self.pools = Pools(desk.registry.own_networks)
        self._desk = desk
        self._registry = registry = desk.registry
        # Where several operators come to, none has all: half of each pool, and of the records, is left to others.
        self._shared = len(registry.domains) > 2
        self._sizes = {one.name: end - first for one in registry.own_networks for first, end in [pool_bounds(one)]}
        self._had: Counter[tuple[str, str | None]] = Counter()
        self._count: Counter[str | None] = Counter()
        self._octets: Counter[str | None] = Counter()
        others = max(1, len(registry.domains) - 1)
        self._spare = None if room is None else room // 4
        self._even = (room or 0) // (4 * others)
        self._tombs: OrderedDict[int, tuple[int, bool, float]] = OrderedDict()

    def full(self, identifier: int) -> bool:
        """Of records: of all, or of those of one home domain."""
        home = self._home(identifier)
        mine = self._count[home] if self._shared else 0
        return identifier not in self.records and (
            len(self.records) >= MAX_HELD or mine >= MAX_HELD // 2 or self._crowds(home, 1)
        )

    def swollen(self, identifier: int) -> bool:
        """Whether a record that is held must not become longer: its home has so much by that alone."""
        return self._crowds(self._home(identifier), 2)

    def _crowds(self, home: str | None, times: int) -> bool:
        """Whether it has its even share of the octets, and what is for who comes first is used (so many times)."""
        if self._spare is None or home == self._desk.me or self._over(home) < 0:
            return False
        used = sum([max(0, self._over(one)) for one in self._count if one != self._desk.me])
        return used >= times * self._spare

    def _over(self, home: str | None) -> int:
        return self._octets[home] + RECORD_OCTETS * self._count[home] - self._even

    def _weigh(self, identifier: int, octets: int) -> None:
        self._octets[self._home(identifier)] += octets

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

    def take(self, identifier: int, record: HeldRecord, mapping: Mapping) -> bool:
        """What home lists of own networks and we do not know as given, for our records were lost: it is given now,
        unless another has it, or the node or its home too much. The caller keeps the record."""
        taken: list[tuple[str, int]] = []
        for place in mapping.places:
            network, locator = place.network, int(place.locator)
            if not self._desk.registry.mine(network) or locator in record.given:
                continue
            if len(taken) >= MAX_GIVEN or self.share_used(identifier, network) \
                    or not self.pools.take(network, locator):
                for network, locator in taken:
                    self._give_back(identifier, record, network, locator)
                return False
            taken.append((network, locator))
            record.given[locator] = network, mapping.version - 1
            self._had[network, self._home(identifier)] += 1
        return True

    def _give_back(self, identifier: int, record: HeldRecord, network: str, locator: int) -> None:
        del record.given[locator]
        self.pools.back(network, locator)
        self._had[network, self._home(identifier)] -= 1

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
                self._give_back(identifier, record, network, locator)

    def restore(self, identifier: int, fact: bytes) -> bool:
        """All of them, and then ``restored``; whether home has yet to hear of this one."""
        self.records.restore(identifier, fact)
        home = self._home(identifier)
        self._count[home] += 1
        networks, unsure = self.give_again(fact)
        for network in networks:
            self._had[network, home] += 1
        return unsure

    def give_again(self, fact: bytes) -> tuple[list[str], bool]:
        """The locators that this record has are given, whether or not anything else of it is used: our network of
        each, and whether home has yet to hear of it."""
        try:
            given, unsure = records.held_head(fact)
        except Exception:
            self._give_what_looks_given(fact)
            raise
        ours = {locator: network for locator, (network, _) in given.items() if self._desk.registry.mine(network)}
        for locator, network in ours.items():
            self.pools.restore(network, locator)
        return list(ours.values()), bool(unsure)

    def _give_what_looks_given(self, fact: bytes) -> None:
        """It cannot be read, but each number in it that is one of our locators may be given: nobody gets it."""
        for number in map(int, _NUMBER.findall(fact)):
            for one in self._registry.own_networks:
                if not number >> 32 and self._registry.in_pool(one.name, IPv4Address(number)):
                    self.pools.restore(one.name, number)

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

