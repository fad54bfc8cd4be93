"""Visits: how long a user stayed in which service area, handoff by handoff, as sessions without holes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cells import Areas
from .trace import Floats, Ints, Trace

MAX_GAP_S = 600.0
"""A user who is not seen for longer has ended the session: ten times the usual gap between two positions."""


@dataclass(frozen=True, slots=True, eq=False)
class Visits:
    """Stays, sorted by user, then by time; all arrays are (n,).

    ``user`` is an index into ``users``, ``area`` into the areas; ``start_s`` and ``stay_s`` in seconds, each stay
    above 0. ``first`` is true where a session begins: the service starts anew there. Every other visit begins
    with a handoff from the one before it.
    """

    users: tuple[str, ...]
    user: Ints
    area: Ints
    start_s: Floats
    stay_s: Floats
    first: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.user)

    @property
    def handoffs(self) -> int:
        return len(self) - self.sessions

    @property
    def sessions(self) -> int:
        return int(self.first.sum())

    def moves(self) -> tuple[Ints, Ints]:
        """(handoffs,) each: the indices of the visits before and after each handoff."""
        after = np.flatnonzero(~self.first)
        return after - 1, after


@dataclass(frozen=True, slots=True)
class Mapped:
    """What became of the positions of a trace: ``outside`` were out of every cell's range, ``alone`` stood in
    sessions of a single position, which say nothing of a stay; both are left out."""

    positions: int
    outside: int
    alone: int


def find_visits(trace: Trace, areas: Areas, max_gap_s: float = MAX_GAP_S) -> tuple[Visits, Mapped]:
    """A position holds until the next one of its session; the last of a session only ends it.

    Positions out of range are skipped, as if they had not been sent. ``ValueError`` if the gap is not positive.
    """
    if not max_gap_s > 0.0:
        raise ValueError(f"max_gap_s {max_gap_s} must be positive")
    where = areas.locate(trace)
    known = where >= 0
    user, area, t_s = trace.user[known], where[known], trace.t_s[known]
    gap = np.diff(t_s)
    goes_on = np.zeros(len(user), dtype=np.bool_)
    goes_on[:-1] = (np.diff(user) == 0) & (gap <= max_gap_s)
    begins = np.ones(len(user), dtype=np.bool_)
    begins[1:] = ~goes_on[:-1]
    session: Ints = np.cumsum(begins, dtype=np.int64)[goes_on]
    stay_s = np.append(gap, 0.0)[goes_on]
    alone = int((begins & ~goes_on).sum())
    visits = _merged(trace.users, user[goes_on], area[goes_on], t_s[goes_on], stay_s, session)
    return visits, Mapped(len(known), int((~known).sum()), alone)


def split(visits: Visits, at_s: float) -> tuple[Visits, Visits]:
    """Those before a time and those after it, in seconds; a visit across it is cut in two.

    The service of a user who is under way then starts anew in the area where the user is.
    """
    until = visits.start_s + visits.stay_s
    session: Ints = np.cumsum(visits.first, dtype=np.int64)
    parts = []
    for kept, start, end in (
        (visits.start_s < at_s, visits.start_s, np.minimum(until, at_s)),
        (until > at_s, np.maximum(visits.start_s, at_s), until),
    ):
        stay = (end - start)[kept]
        parts.append(
            _merged(visits.users, visits.user[kept], visits.area[kept], start[kept], stay, session[kept])
        )
    return parts[0], parts[1]


def _merged(
    users: tuple[str, ...], user: Ints, area: Ints, start_s: Floats, stay_s: Floats, session: Ints
) -> Visits:
    """Stays in a row in one area of one session are one visit."""
    first = np.ones(len(user), dtype=np.bool_)
    first[1:] = np.diff(session) != 0
    fresh = first.copy()
    fresh[1:] |= np.diff(area) != 0
    at = np.flatnonzero(fresh)
    total = np.add.reduceat(stay_s, at) if len(at) else np.zeros(0)
    return Visits(users, user[at], area[at], start_s[at], total.astype(np.float64), first[at])
