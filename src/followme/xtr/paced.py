"""EIDs that the map system is asked about without haste: many at once would keep it, and us, from all else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from followme.lisp import EidPrefix

PER_S = 50
"""As many in each turn, with a turn a second."""


class Paced:
    """First come, first asked, the patient ones last. Each EID waits once, so there are no more than the map-cache
    has entries."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[EidPrefix, None] = OrderedDict()
        self._patient: OrderedDict[EidPrefix, None] = OrderedDict()
        self._turn = 0.0

    def put(self, eids: Iterable[EidPrefix], *, patient: bool = False) -> None:
        """They wait from now on, behind those that do already."""
        queue = self._patient if patient else self._waiting
        queue.update((eid, None) for eid in eids)

    def due(self, now: float) -> list[EidPrefix]:
        """Whose turn it is at ``now`` (monotonic, seconds)."""
        if now < self._turn or self.next_timer() is None:
            return []
        self._turn = now + 1.0
        turn: list[EidPrefix] = []
        for queue in (self._waiting, self._patient):
            while queue and len(turn) < PER_S:
                turn.append(queue.popitem(last=False)[0])
        return turn

    def next_timer(self) -> float | None:
        return self._turn if self._waiting or self._patient else None
