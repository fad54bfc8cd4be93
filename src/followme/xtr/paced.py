"""EIDs that the map system is asked about without haste: many at once would keep it, and us, from all else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Protocol

from followme.lisp import EidPrefix

PER_S = 50
"""As many in each turn, with a turn a second."""
MAX_STALE = 4096


class Wanted(Protocol):
    """The map-cache, as far as it counts here."""

    def __contains__(self, eid: EidPrefix, /) -> bool: ...

    def __len__(self) -> int: ...


class Paced:
    """First come, first asked, the patient ones last. Each EID waits once, and those that are not wanted any more
    take nobody's turn, nor much room: they go as soon as there are ``MAX_STALE``."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[EidPrefix, None] = OrderedDict()
        self._patient: OrderedDict[EidPrefix, None] = OrderedDict()
        self._turn = 0.0

    def put(self, eids: Iterable[EidPrefix], *, patient: bool = False) -> None:
        """They wait from now on, behind those that do already."""
        queue = self._patient if patient else self._waiting
        queue.update((eid, None) for eid in eids)

    def due(self, now: float, wanted: Wanted) -> list[EidPrefix]:
        """Whose turn it is at ``now`` (monotonic, seconds), of those that are still in ``wanted``."""
        if now < self._turn or self.next_timer() is None:
            return []
        self._turn = now + 1.0
        turn: list[EidPrefix] = []
        for queue in (self._waiting, self._patient):
            while queue and len(turn) < PER_S:
                eid, _ = queue.popitem(last=False)
                if eid in wanted:
                    turn.append(eid)
            if len(queue) > len(wanted) + MAX_STALE:
                for eid in [one for one in queue if one not in wanted]:
                    del queue[eid]
        return turn

    def next_timer(self) -> float | None:
        return self._turn if self._waiting or self._patient else None
