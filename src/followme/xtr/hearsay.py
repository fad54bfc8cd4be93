"""What others say of a mapping without proof that it is news of the map system for us: SMRs, and Map-Notifies that
bear no nonce of ours. It is believed only so far as to ask the map system, and that not often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from followme.lisp import EidPrefix, MapNotify, MappingRecord, MapRequest
from followme.system.seldom import Refusals

from .buckets import Bucket, Gate
from .hints import Hints
from .mapcache import MapCache, addresses, agrees
from .outputs import IPAddress
from .site import Site

SMRS_PER_S, SMRS_BURST = 10.0, 20.0
"""EIDs that are asked about as RLOCs solicit us that the mapping does not have, of all of these together."""
KNOWN_SMRS_PER_S, KNOWN_SMRS_BURST = 200.0, 400.0
"""The same for those from its locators, as anybody may write such an address; each of these has half of it."""


class Ask(Protocol):
    """Ask the map system for an EID-prefix, and subscribe to it."""

    def __call__(self, eid: EidPrefix, now: float, *, subscribe: bool = True, smr: bool = False) -> None: ...


class Hearsay:
    """``hints`` says how often each EID is asked about, and which locators it had. ``router_has`` says of what
    nobody else can tell us anything; ``later`` has an entry asked about without haste."""

    def __init__(
        self, site: Site, cache: MapCache, refusals: Refusals, ask: Ask, router_has: Callable[[EidPrefix], bool],
        later: Callable[[EidPrefix], None],
    ) -> None:  # fmt: skip
        self._site, self._cache, self._refusals, self._ask = site, cache, refusals, ask
        self._router_has, self._later = router_has, later
        self.hints = Hints()
        self._strange_smrs = Bucket(SMRS_PER_S, SMRS_BURST)
        self._known_smrs = Gate(KNOWN_SMRS_PER_S, KNOWN_SMRS_BURST, KNOWN_SMRS_PER_S / 2, KNOWN_SMRS_BURST / 2)

    def solicited(self, message: MapRequest, source: IPAddress, now: float) -> None:
        """An SMR (RFC 9301, 6.1): the map system is asked. What we have subscribed to has told us already what a
        locator sends that the mapping had a moment ago. One that it never had may be the new one of a router whose
        RLOC has changed: of these a few are followed, whoever sends them."""
        eids = [record.eid for record in message.records[:16]]
        if message.source_eid is not None:
            eids.append(message.source_eid)
        known = False
        for eid in dict.fromkeys(eids):
            if not isinstance(eid, EidPrefix) or eid.iid != self._site.iid:
                continue
            found = self._cache.find(eid)
            if found is None:
                continue
            asked = eid if eid.host else found[0]
            former = source not in addresses(found[1])
            if former and not self.hints.was_there(eid, source, now):
                if self._strange_smrs.take(now) and self.hints.take(asked, now):
                    self._refusals.counts["SMR from a new locator"] += 1
                    self._ask(asked, now, subscribe=False, smr=True)
                    known = True
                continue
            known = True
            if former and any(entry.nonce is not None for _, entry in self._cache.table.covering(eid)):
                self._refusals.counts["SMR about what is known"] += 1
                continue
            if not self._known_smrs.take(source, now):
                self._refusals.refuse("rate of SMRs", source, now)
                self._later(found[0])
                continue
            if not self.hints.take(asked, now):
                self._refusals.counts["SMR too soon"] += 1
                continue
            self._ask(asked, now, subscribe=False, smr=True)
        if not known:
            self._refusals.refuse("SMR from a stranger", source, now)

    def doubts(self, message: MapNotify, now: float) -> bool:
        """Whether an authenticated Map-Notify that belongs to no subscription contradicts an entry of ours.

        It may be a publication for who was here before a restart; or an old one, sent again by a stranger. So the
        map system is asked.
        """
        doubtful = False
        ours = set(self._site.rlocs)
        for record in message.records:
            eid = record.eid
            if not isinstance(eid, EidPrefix) or eid in self._site.prefixes or not self._site.in_space(eid):
                continue
            if self._router_has(eid):
                continue
            found = self._cache.find(eid)
            if found is None or (not record.locators and found[0] != eid) or agrees(found[1], record):
                continue
            if any(loc.address in ours for loc in record.locators):
                continue
            doubtful = True
            if self.hints.take(eid, now):
                self._ask(eid, now, subscribe=False)
        return doubtful

    def knows(self, record: MappingRecord) -> bool:
        """Whether our own entry for the record's EID says the same."""
        entry = self._cache.table.get(record.eid) if isinstance(record.eid, EidPrefix) else None
        return entry is not None and agrees(entry, record)

    def over(self, message: MapNotify) -> bool:
        """Whether it tells the end of what we have no entry of: who ends a subscription to that takes nothing."""
        ended = [record.eid for record in message.records if record.ttl == 0]
        return bool(ended) and all(isinstance(eid, EidPrefix) and eid not in self._cache.table for eid in ended)

    def ask_about(self, message: MapNotify, now: float) -> None:
        """Ask, and subscribe, anew for what a Map-Notify tells of: somebody may have meddled with our subscription,
        or we have forgotten it."""
        for record in message.records:
            found = self._cache.find(record.eid) if isinstance(record.eid, EidPrefix) else None
            if found is not None and self.hints.take(found[0], now):
                self._ask(found[0], now)
