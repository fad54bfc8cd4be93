"""Hints that a mapping has changed (SMRs, Map-Notifies of no subscription): they are believed only so far as to ask
the map system, and each EID is asked about only so often."""

from __future__ import annotations

from collections import OrderedDict

from followme.lisp import EidPrefix

from .outputs import IPAddress

EVERY_S = 1.0
FORMER_S = 10.0
"""How long a locator that a mapping has no more is remembered: what it sends about that is nothing new."""
MAX_REMEMBERED = 1024


class Hints:
    """When each EID was asked about for a hint, and which locators it had a moment ago."""

    def __init__(self) -> None:
        self._asked: OrderedDict[EidPrefix, float] = OrderedDict()
        self._later: OrderedDict[EidPrefix, float] = OrderedDict()
        self._former: OrderedDict[EidPrefix, tuple[frozenset[IPAddress], float]] = OrderedDict()

    def take(self, eid: EidPrefix, now: float) -> bool:
        """Whether to ask for ``eid`` now. If it is too soon after the last time, ``due`` will name it: the answer
        to that one may be older than the hint."""
        if now - self._asked.get(eid, float("-inf")) < EVERY_S or not self._room(eid, now):
            if len(self._later) < MAX_REMEMBERED:
                self._later.setdefault(eid, now + EVERY_S)
            return False
        self._later.pop(eid, None)
        self._asked[eid] = now
        self._asked.move_to_end(eid)
        return True

    def _room(self, eid: EidPrefix, now: float) -> bool:
        """Whether the EID can be remembered: if not, it would be asked about more than once in ``EVERY_S``."""
        if eid not in self._asked and len(self._asked) >= MAX_REMEMBERED:
            if now - next(iter(self._asked.values())) < EVERY_S:
                return False
            self._asked.popitem(last=False)
        return True

    def due(self, now: float) -> list[EidPrefix]:
        """EIDs that were hinted at too soon, and are to be asked for now."""
        eids = []
        while self._later and next(iter(self._later.values())) <= now:
            eids.append(next(iter(self._later)))
            self.take(eids[-1], now)
            self._later.pop(eids[-1], None)
        return eids

    def next_timer(self) -> float | None:
        return next(iter(self._later.values()), None)

    def left(self, eid: EidPrefix, rlocs: frozenset[IPAddress], now: float) -> None:
        """The mapping of ``eid`` has these locators no more."""
        if rlocs:
            before, at = self._former.get(eid, (frozenset(), now))
            self._former[eid] = (rlocs | before if now - at < FORMER_S else rlocs), now
            self._former.move_to_end(eid)
            while len(self._former) > MAX_REMEMBERED:
                self._former.popitem(last=False)

    def was_there(self, eid: EidPrefix, rloc: IPAddress, now: float) -> bool:
        """Whether the mapping had this locator a moment ago."""
        rlocs, at = self._former.get(eid, (frozenset(), 0.0))
        return rloc in rlocs and now - at < FORMER_S
