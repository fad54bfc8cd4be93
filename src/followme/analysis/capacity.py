"""Micro data centres that cannot take all: the population moves in time order, places are given out in windows.

In each window of time those whose session begins get a place first, then the handoffs of the window are decided in
one go (a user's second one in a round of its own). A service that wants to go where there is room for all that want
to goes there; the others are assigned jointly (``placement.assignment``): to another centre that is better than the
present one (displaced), or they stay (refused) until their users' next handoff. Places that are left get free at
the end of the window, so no centre holds more than its capacity at any time, whatever the order within a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from followme.placement.assignment import STAYS, assign

from .cells import Areas
from .outcome import Costs, Crowding
from .trace import Bools, Floats, Ints
from .visits import Visits
from .wishes import Wishes

WINDOW_S = 60.0
MOST_CAPACITY = 1_000_000_000
"""More services than any trace has: none is ever refused for it."""
_PAYS = 2.0
"""A policy that wants to migrate although one stay does not pay for it looks further: the stay is then taken for
as many times the one that would pay, so that its wish is not denied where there is room for some."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many services each centre can hold, and the seconds of a window. ``ValueError`` if out of range."""

    capacity: int
    window_s: float = WINDOW_S

    def __post_init__(self) -> None:
        if not 1 <= self.capacity <= MOST_CAPACITY:
            raise ValueError(f"capacity {self.capacity} must be at least 1 and at most {MOST_CAPACITY}")
        if not (isfinite(self.window_s) and 1.0 <= self.window_s <= 86_400.0):
            raise ValueError(f"window {self.window_s} must be 1 to 86400 seconds")


def places_within(
    wishes: Wishes, visits: Visits, areas: Areas, costs: Costs, stay_s: Floats, limits: Limits
) -> tuple[Ints, Crowding]:
    """(n,) the area that serves during each visit, and what the limits did.

    ``stay_s`` (areas,) is how long a user is expected to stay in an area. Where nothing is ever full the places
    are those of ``simulator.places``. ``ValueError`` if there are more services at a time than places.
    """
    run = _Run(wishes, visits, areas, costs, stay_s, limits)
    rank = _rounds(visits, run.window)
    order = np.lexsort((visits.start_s, rank, run.window))
    ends = np.argsort(run.end_window, kind="stable")
    cut = np.flatnonzero(np.diff(run.window[order])) + 1
    begun = 0
    for group in np.split(order, cut):
        now = int(run.window[group[0]])
        # Windows in which nothing begins or moves are skipped; what ended in them is free by now.
        over = int(np.searchsorted(run.end_window[ends], now, side="left"))
        run.leave(ends[begun:over])
        begun = over
        run.start(group[rank[group] < 0])
        for turn in range(int(rank[group].max(initial=-1)) + 1):
            run.move(group[rank[group] == turn])
        run.settle()
    most, above = _fullest(run.serving, visits, len(areas), limits.capacity)
    return run.serving, Crowding(
        limits.capacity, limits.window_s, run.refused, run.displaced, run.elsewhere, run.gap_s, most, above
    )


class _Run:
    """``held`` (areas,) counts the places taken, those that are left in this window included."""

    def __init__(
        self, wishes: Wishes, visits: Visits, areas: Areas, costs: Costs, stay_s: Floats, limits: Limits
    ) -> None:
        self.wishes, self.visits, self.limits, self.stay_s = wishes, visits, limits, stay_s
        self.waiting, self.going = costs.waiting(areas.hops), costs.migration(areas.hops)
        self.held = np.zeros(len(areas), dtype=np.int64)
        self.left = np.zeros(len(areas), dtype=np.int64)
        self.serving = visits.area.copy()
        self.refused = self.displaced = self.elsewhere = 0
        self.gap_s = 0.0
        origin = float(visits.start_s.min(initial=0.0))
        self.window = ((visits.start_s - origin) // limits.window_s).astype(np.int64)
        # The last visit of each session, at whose end the place is free.
        self.last = np.append(np.flatnonzero(visits.first)[1:], len(visits)) - 1
        until = (visits.start_s + visits.stay_s)[self.last]
        self.end_window = ((until - origin) // limits.window_s).astype(np.int64)
        self._check(len(areas))

    def _check(self, centres: int) -> None:
        first = self.window[np.flatnonzero(self.visits.first)]
        change = np.bincount(first, minlength=int(self.end_window.max(initial=0)) + 2)
        change = change - np.bincount(self.end_window + 1, minlength=len(change))[: len(change)]
        most, room = int(np.cumsum(change).max(initial=0)), centres * self.limits.capacity
        if most > room:
            raise ValueError(
                f"capacity {self.limits.capacity} is too small: {centres} micro data centres hold {room} services, "
                f"and {most} are there within {self.limits.window_s:g} s"
            )

    def leave(self, sessions: Ints) -> None:
        """These sessions have ended."""
        np.subtract.at(self.held, self.serving[self.last[sessions]], 1)

    def settle(self) -> None:
        """The window is over: the places that services have left are free."""
        self.held -= self.left
        self.left[:] = 0

    def start(self, at: Ints) -> None:
        """A place for each service that begins: its user's area, or the best that has room."""
        best = self.visits.area[at]
        room = np.bincount(best, minlength=len(self.held)) <= self.limits.capacity - self.held
        np.add.at(self.held, best[room[best]], 1)
        crowd, best = at[~room[best]], best[~room[best]]
        if len(crowd):
            costs = self.waiting[best] * self.stay_s[best][:, None]
            # Dearer than any place, as there is a place for all.
            found = self._assign(costs, np.full(len(crowd), 2.0 * float(costs.max()) + 1.0))
            if bool((found == STAYS).any()):
                raise RuntimeError("a service found no place although there was one for all")
            self._take(crowd, found)
            self.elsewhere += int(np.count_nonzero(found != best))

    def move(self, at: Ints) -> None:
        """One handoff for each of some users."""
        current, best = self.serving[at - 1], self.visits.area[at]
        self.serving[at] = current
        wants = self.wishes(self.visits.user[at], best, current)
        at, current, best = at[wants], current[wants], best[wants]
        room = (np.bincount(best, minlength=len(self.held)) <= self.limits.capacity - self.held)[best]
        self._take(at[room], best[room])
        np.add.at(self.left, current[room], 1)
        at, current, best = at[~room], current[~room], best[~room]
        if not len(at):
            return
        found = self._assign(*self._worth(best, current))
        goes = found != STAYS
        self._take(at[goes], found[goes])
        np.add.at(self.left, current[goes], 1)
        self.refused += int(np.count_nonzero(~goes))
        self.displaced += int(np.count_nonzero(goes & (found != best)))

    def _worth(self, best: Ints, current: Ints) -> tuple[Floats, Floats]:
        """(users, centres) and (users,): the waiting expected over the stay, and the migration."""
        users = np.arange(len(best))
        saved = self.waiting[best, current] - self.waiting[best, best]
        with np.errstate(divide="ignore"):
            pays = np.where(saved > 0.0, _PAYS * self.going[best, current] / saved, 0.0)
        stay_s = np.maximum(self.stay_s[best], pays)
        costs = self.waiting[best] * stay_s[:, None] + self.going[current]
        costs[users, current] = np.inf
        return costs, self.waiting[best, current] * stay_s

    def _assign(self, costs: Floats, stay: Floats) -> Ints:
        """(users,) the centre that each goes to, or ``STAYS``."""
        room = self.limits.capacity - self.held
        # Centres that are full, or better for nobody, are left out: they are most of them.
        open_ = np.flatnonzero((room > 0) & (costs < stay[:, None]).any(axis=0))
        if not len(open_):
            return np.full(len(stay), STAYS, dtype=np.int64)
        found = assign(costs[:, open_], room[open_], stay, method="exact")
        self.gap_s += found.gap
        place: Ints = np.where(found.place == STAYS, STAYS, open_[found.place])
        return place

    def _take(self, at: Ints, places: Any) -> None:
        self.serving[at] = places
        np.add.at(self.held, places, 1)


def _rounds(visits: Visits, window: Ints) -> Ints:
    """(n,): the number of a handoff among those of its session in its window; -1 where the session begins."""
    fresh = visits.first.copy()
    fresh[1:] |= np.diff(window) != 0
    begin = np.flatnonzero(fresh)
    rank: Ints = np.arange(len(window)) - np.repeat(begin, np.diff(np.append(begin, len(window))))
    return rank - np.repeat(visits.first[begin].astype(np.int64), np.diff(np.append(begin, len(window))))


def _fullest(serving: Ints, visits: Visits, centres: int, capacity: int) -> tuple[int, int]:
    """The most services that a centre held at any instant, and how often one had more than its capacity."""
    time = np.concatenate([visits.start_s, visits.start_s + visits.stay_s])
    change = np.repeat([1, -1], len(serving))
    place = np.concatenate([serving, serving])
    # Who leaves at an instant is gone before who comes at it.
    order = np.lexsort((change, time, place))
    held = np.cumsum(change[order])
    above: Bools = held > capacity
    # Each centre's changes sum to 0, so the running sum starts anew with each.
    return int(held.max(initial=0)), int(np.count_nonzero(above & (change[order] > 0)))
