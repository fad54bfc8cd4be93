"""Who holds a node's mapping, and what each of them does not know yet: home's list of domains and networks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from followme.system.seldom import Seldom

from .desk import Desk
from .held import MAX_TOLD
from .messages import Update
from .nouns import MAX_OLD, Place
from .records import HomeRecord

log = logging.getLogger(__name__)

SILENT_S: Final = 180.0
"""A domain that has not confirmed anything of a node for so long is not waited for when the node moves. It still
hears of it, and no locator that it may know is free before it has confirmed that."""
ROOM: Final = 4
"""Of the old places that a mapping may list, so many are for moves while such a domain is away."""


class Holders:
    """Works on the records that it is given; who changes one puts it."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._registry, self._me = desk, desk.registry, desk.me
        self._unheard: dict[tuple[int, str], float] = {}
        self._said = Seldom(log)

    def unheard(self, key: int, domain: str) -> None:
        """It has not confirmed what it was told."""
        self._unheard.setdefault((key, domain), self._desk.now)

    def answers(self, key: int, domain: str) -> None:
        """It has confirmed something, or need not any more."""
        self._unheard.pop((key, domain), None)

    def silent(self, key: int, domain: str) -> bool:
        """Whether it has confirmed nothing of the node for long. We are never silent to ourselves."""
        since = self._unheard.get((key, domain), self._desk.now)
        return domain != self._me and self._desk.now - since >= SILENT_S

    def heard(self, key: int, record: HomeRecord) -> int:
        """The version that all have confirmed who are not silent, or have the node."""
        mapping, least = record.mapping, record.mapping.version
        here = {self._registry.owner_of_network(place.network)
                for place in (mapping.here, mapping.arriving, mapping.leaving) if place is not None}  # fmt: skip
        for domain, version in record.holders.items():
            if domain in here or not self.silent(key, domain):
                least = min(least, version)
            elif self._said.due(domain, self._desk.now):
                log.warning("%s has confirmed nothing of %s for %g s: it is not waited for", domain,
                            mapping.identifier, SILENT_S)  # fmt: skip
        return least

    def crowded(self, record: HomeRecord) -> bool:
        """Whether it has so many old places that the next moves have no room."""
        return len(record.mapping.old) > MAX_OLD - ROOM

    def in_the_way(self, key: int, record: HomeRecord, gone: Sequence[Place]) -> list[Place]:
        """The oldest places beside ``gone``, if there are too many, that go though a silent domain may not know
        them as old. Their locators stay given until it has confirmed that: what it sends there reaches nobody."""
        old = [place for place in record.mapping.old if place not in gone]
        over = len(old) - (MAX_OLD - ROOM)
        if over <= 0:
            return []
        heard, owner = self.heard(key, record), self._registry.owner_of_network
        some = [place for place in old if record.aged[int(place.locator)] <= heard
                and (int(place.locator) in record.quiet or self.silent(key, owner(place.network) or ""))]
        return some[:over]

    def hold(self, record: HomeRecord, network: str, version: int = 0) -> None:
        """The network's domain is a holder, with ``version`` confirmed if it was none."""
        owner = self._registry.owner_of_network(network)
        if owner is not None and record.holders.get(owner, 0) == 0:
            record.holders[owner] = version

    def confirmed(self, record: HomeRecord, network: str) -> bool:
        """Whether nodes in ``network`` can be spoken to from where the node is."""
        if network not in record.told and network != record.mapping.card.home:
            return False
        since = record.listed.get(int(record.mapping.here.locator), 0)
        return record.holders.get(self._registry.owner_of_network(network) or "", 0) >= max(since, 1)

    def may_tell(self, record: HomeRecord, domain: str) -> bool:
        """Whether the domain has, or until now had, a place of the node: others have nobody to tell."""
        owns = self._registry.owns
        return domain in record.owed or any(owns(domain, place.network) for place in record.mapping.places)

    def merge(self, record: HomeRecord, told: Mapping[str, int]) -> bool:
        """A foreign domain has told these; whether that is news."""
        news = False
        for network, version in told.items():
            owner = self._registry.owner_of_network(network)
            if owner is None or network == record.mapping.card.home or len(record.told) >= MAX_TOLD:
                continue
            if version <= record.began:
                version = 0  # an answer that is late: it was said when the node was away before
            if owner not in record.holders:
                record.holders[owner] = min(version, record.mapping.version)
            elif network not in record.told and version == 0:
                record.holders[owner] = 0
            elif network in record.told:
                continue
            record.told.add(network)
            news = True
        return news

    def settled(self, record: HomeRecord) -> tuple[int, int]:
        """The version that all have confirmed, and the one that all have but those that come last."""
        versions = record.holders
        least = min(versions.values(), default=0)
        if not record.last:
            return least, least
        late = {domain for domain in record.last if self._comes_last(record, domain)}
        return least, min([version for domain, version in versions.items() if domain not in late], default=0)

    def done(self, record: HomeRecord, settled: int) -> list[str]:
        """Holders that need not hold it any more, and know that; correspondents only when it is at home again."""
        mapping = record.mapping
        if mapping.settled_home and settled >= mapping.version and record.move is None:
            record.told.clear()
        ready = [domain for domain, version in record.holders.items()
                 if version >= mapping.version and domain != self._me and domain not in record.owed]  # fmt: skip
        if not ready:
            return ready
        needed = {self._registry.owner_of_network(place.network) for place in mapping.places}
        needed.update(map(self._registry.owner_of_network, record.told))
        return [domain for domain in ready if domain not in needed]

    def push(self, key: int, record: HomeRecord, domain: str, settled: int) -> None:
        """Send the domain what it does not know yet, unless that is under way."""
        mapping = record.mapping
        owed = record.owed.get(domain)
        if owed is None and record.holders[domain] >= mapping.version:
            self._desk.cancel(("u", domain, key))
            return
        free = owed is not None and settled >= owed
        if owed == mapping.version and not free and self._comes_last(record, domain):
            others = [version for each, version in record.holders.items()
                      if each != domain and not self._comes_last(record, each)]  # fmt: skip
            if min(others, default=owed) < owed:
                return
            free = all(version >= owed for each, version in record.holders.items() if each != domain)
        repeat_key = ("u", domain, key)
        if record.holders[domain] >= mapping.version and not free:
            self._desk.cancel(repeat_key)
            return
        networks = self.networks_of(record, domain)
        tag = (mapping.version, networks, free)
        if self._desk.waits(repeat_key) != tag:
            order = Update(mapping, networks, free, self._told_for(record, domain))
            self._desk.send(repeat_key, domain, order, tag)

    def _comes_last(self, record: HomeRecord, domain: str) -> bool:
        """The newest version says only that the domain's old places went: one order will tell it so, and that
        their locators are free."""
        owner, mapping = self._registry.owner_of_network, record.mapping
        return (domain in record.last and domain != self._me
                and all(owner(place.network) != domain for place in mapping.places)
                and not self.networks_of(record, domain))  # fmt: skip

    def networks_of(self, record: HomeRecord, domain: str) -> tuple[str, ...]:
        owner = self._registry.owner_of_network
        return tuple(sorted([network for network in record.told if owner(network) == domain]))

    def _told_for(self, record: HomeRecord, domain: str) -> tuple[str, ...]:
        """The networks to which the node may speak at once from its places in ``domain``."""
        mapping, owns = record.mapping, self._registry.owns
        mine = [place for place in (mapping.here, mapping.arriving) if place and owns(domain, place.network)]
        if not mine or domain == self._me:
            return ()
        since = max(record.listed[int(place.locator)] for place in mine)
        owner, holders = self._registry.owner_of_network, record.holders
        networks: Iterable[str] = (*sorted(record.told), mapping.card.home)
        return tuple([one for one in networks if holders.get(owner(one) or "", 0) >= since])
