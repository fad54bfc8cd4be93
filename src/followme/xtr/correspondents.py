"""Who talks to our EIDs: the RLOCs that asked for each, so that they can be solicited when it moves."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from followme.lisp import EidPrefix

from .outputs import IPAddress

MAX_EIDS = 4096
MAX_RLOCS = 64
AGE_S = 86_400.0
"""As long as a mapping of ours is believed by who asked for it (TTL 1440 minutes)."""


class Correspondents:
    """For each EID-prefix the RLOCs heard about it, the latest last; bounded, ageing. One of the map-cache, as
    ``uses`` says, does not go for one that is not: anybody can forge a Map-Request."""

    def __init__(self, uses: Callable[[IPAddress], bool]) -> None:
        self._uses = uses
        self._heard: OrderedDict[EidPrefix, OrderedDict[IPAddress, float]] = OrderedDict()
        self._times: Counter[IPAddress] = Counter()

    def heard(self, eid: EidPrefix, rloc: IPAddress, now: float) -> None:
        """``rloc`` sends to ``eid`` (it asked for it), or ``eid`` sends there."""
        rlocs = self._heard.setdefault(eid, OrderedDict())
        self._heard.move_to_end(eid)
        self._times[rloc] += rloc not in rlocs
        rlocs[rloc] = now
        rlocs.move_to_end(rloc)
        while len(rlocs) > MAX_RLOCS:
            victim = next((one for one in rlocs if not self._uses(one)), next(iter(rlocs)))
            del rlocs[victim]
            self._forget([victim])
        while len(self._heard) > MAX_EIDS:
            self._forget(self._heard.popitem(last=False)[1])

    def knows(self, rloc: IPAddress) -> bool:
        """Whether it is a correspondent of any EID."""
        return rloc in self._times

    def _forget(self, rlocs: Iterable[IPAddress]) -> None:
        for rloc in rlocs:
            self._times[rloc] -= 1
            if not self._times[rloc]:
                del self._times[rloc]

    def of(self, eid: EidPrefix, now: float) -> tuple[IPAddress, ...]:
        """The correspondents of ``eid``: who asked for it or for a prefix that covers it, the latest first."""
        found: dict[IPAddress, float] = {}
        for key, rlocs in self._heard.items():
            if key.covers(eid) or eid.covers(key):
                for rloc, at in rlocs.items():
                    if now - at < AGE_S:
                        found[rloc] = max(at, found.get(rloc, at))
        return tuple(sorted(found, key=lambda rloc: -found[rloc])[:MAX_RLOCS])
