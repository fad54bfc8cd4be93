"""Mappings whose packets are watched for on the LAN: its filter has room for a few, so the others have turns."""

from __future__ import annotations

from itertools import islice

from followme.lisp import EidPrefix

from .lanfilter import WATCHED

TURN_S = 1.0
"""One that is used in so short a time is seen; 30 s (``mapcache.WATCH_S``) have room for 1920 IPv4 ones."""

_FEW = min(WATCHED.values())


class Watched(dict[EidPrefix, None]):
    """In the order of their turns."""

    def __init__(self) -> None:
        super().__init__()
        self._turn_ends = float("-inf")

    def shown(self) -> frozenset[EidPrefix]:
        """Whose turn it is: no more of each family than the filter has room for."""
        if len(self) <= _FEW:
            return frozenset(self)
        return frozenset(
            eid for octets, room in WATCHED.items()
            for eid in islice((one for one in self if len(one.address) == octets), room)
        )  # fmt: skip

    def timer(self, now: float) -> None:
        """The next ones' turn, if it is time (``now``: monotonic, seconds)."""
        if len(self) > _FEW and now >= self._turn_ends:
            self._turn_ends = now + TURN_S
            for eid in self.shown():
                self[eid] = self.pop(eid)

    def next_timer(self) -> float | None:
        return self._turn_ends if len(self) > _FEW else None
