"""What the decision process is told of users: how they move and how long they stay, by user and place.

Everything is counted on visits, at the handoffs within sessions. Where a user goes next depends on where the
user came from: whoever has crossed a border goes on rather than back. A policy is not told the way, but it is
told where the service is, and the service is where its user has been. So moves and stays are learned by the
area of the user and that of the service, at each handoff for every area of the last ten handoffs.

Counts are few, so each level is shrunk towards the one above it, as if some further handoffs had been seen
there that are like those above (Dirichlet priors, of which the posterior means are used):

    neighbours in general -> area -> area and service's area -> the same for one user
                         PRIOR   PLACE_WEIGHT              own_weight
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
from scipy.sparse import csr_array, diags_array

from .cells import Areas
from .trace import Floats, Ints
from .visits import Visits

PRIOR = 2.0
"""Handoffs that an area's neighbours in general are worth against those seen there."""

PRIOR_STAYS = 5.0
"""Stays that the mean of all areas is worth against those seen in one."""

PLACE_WEIGHT = 10.0
"""Handoffs that an area in general is worth against those seen there with the service at another area."""

_STILL = "too few training hours, or users who stand still"

REMEMBERED = 10
"""The handoffs back that a service is looked for."""

Sparse = Any
"""A ``scipy.sparse.csr_array``; SciPy has no types."""


class NothingToLearn(ValueError):
    """The training hours say nothing of how users move."""


@dataclass(frozen=True, slots=True, eq=False)
class Habits:
    """How someone moves, in the states (r,) for which it is known.

    A state is user's area * n + service's area, the two being different. ``ahead`` (r, n * n) weighs values D of
    states: ``ahead @ D`` is the mean of D(b, m) - D(b, a) over the next area b of a user at a with the service at
    m. ``stay_s`` (r,) is the mean stay in seconds, ``goes_on`` the probability that a visit ends with a handoff
    and not with the session.
    """

    states: Ints
    ahead: Sparse
    stay_s: Floats
    goes_on: float


@dataclass(frozen=True, slots=True, eq=False)
class Handoffs:
    """(h,) each: handoffs of ``user`` from area ``here`` to ``there`` after ``stay_s`` seconds, one for each area
    ``service`` where the user was before; sorted by user."""

    user: Ints
    here: Ints
    service: Ints
    there: Ints
    stay_s: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The population's habits, and what each user's come from.

    ``moves`` (n, n) is the probability of the next area by the present one alone, ``stay_s`` (n,) the mean stay.
    """

    areas: Areas
    users: tuple[str, ...]
    handoffs: Handoffs
    moves: Floats
    stay_s: Floats
    population: Habits
    _row: Ints = field(repr=False)

    def of_user(self, user: int, own_weight: float) -> Habits:
        """A user's own habits, in the states in which the user was seen; ``user`` is an index into ``users``.

        ``own_weight`` as above; ``inf`` makes all alike. ``ValueError`` if it is not positive.
        """
        if not own_weight > 0.0:
            raise ValueError(f"own_weight {own_weight} must be positive")
        start, end = np.searchsorted(self.handoffs.user, (user, user + 1))
        if own_weight == inf or start == end:
            return self.population
        states, seen, count, total = _counted(self.handoffs, slice(int(start), int(end)), len(self.areas))
        rows = self._row[states]
        ahead = diags_array(1.0 / (count + own_weight)) @ (seen + own_weight * self.population.ahead[rows])
        stay_s = (total + own_weight * self.population.stay_s[rows]) / (count + own_weight)
        return Habits(states, csr_array(ahead), stay_s, self.population.goes_on)


def learn(visits: Visits, areas: Areas) -> Learned:
    """Habits from visits. ``NothingToLearn`` if no handoff is among them."""
    if not visits.handoffs:
        raise NothingToLearn(f"there is no handoff to learn from: {_STILL}")
    n = len(areas)
    before, after = visits.moves()
    crossed = np.zeros((n, n))
    np.add.at(crossed, (visits.area[before], visits.area[after]), 1.0)
    borders = (areas.hops == 1).astype(np.float64)
    believed = borders / borders.sum(axis=1, keepdims=True)
    moves = (crossed + PRIOR * believed) / (crossed.sum(axis=1, keepdims=True) + PRIOR)
    stays = np.bincount(visits.area, minlength=n)
    stayed = np.bincount(visits.area, visits.stay_s, minlength=n)
    stay_s = (stayed + PRIOR_STAYS * visits.stay_s.mean()) / (stays + PRIOR_STAYS)
    # Below 1, since each session has an end: it is what makes the sums of costs finite.
    goes_on = visits.handoffs / (visits.handoffs + visits.sessions)

    handoffs = find_handoffs(visits)
    states = np.flatnonzero(~np.eye(n, dtype=np.bool_).ravel())
    row = np.full(n * n, -1, dtype=np.int64)
    row[states] = np.arange(len(states))
    known, seen, count, total = _counted(handoffs, slice(None), n)
    # To all states, by a matrix of ones that puts each known state's row in its place.
    put = csr_array((np.ones(len(known)), (row[known], np.arange(len(known)))), shape=(len(states), len(known)))
    counts, totals = put @ count, put @ total
    ahead = diags_array(1.0 / (counts + PLACE_WEIGHT)) @ (put @ seen + PLACE_WEIGHT * by_area(moves, states))
    by_place = (totals + PLACE_WEIGHT * stay_s[states // n]) / (counts + PLACE_WEIGHT)
    population = Habits(states, csr_array(ahead), by_place, goes_on)
    return Learned(areas, visits.users, handoffs, moves, stay_s, population, row)


def find_handoffs(visits: Visits) -> Handoffs:
    """Each handoff once for every other area of the ten handoffs before it, in its session."""
    session = np.cumsum(visits.first)
    parts = []
    for back in range(1, REMEMBERED + 1):
        at = np.arange(back, max(back, len(visits) - 1))
        at = at[session[at - back] == session[at + 1]]
        service = visits.area[at - back]
        fresh = service != visits.area[at]
        for later in range(1, back):
            fresh &= service != visits.area[at - later]
        parts.append(np.stack([at[fresh], service[fresh]]))
    at, service = np.concatenate(parts, axis=1)
    order = np.argsort(at, kind="stable")
    at, service = at[order], service[order]
    return Handoffs(visits.user[at], visits.area[at], service, visits.area[at + 1], visits.stay_s[at])


def _counted(handoffs: Handoffs, part: slice, n: int) -> tuple[Ints, Sparse, Floats, Floats]:
    """States (r,) that were seen; sums over handoffs there of e(b, m) - e(b, a) (r, n * n), of ones, of stays."""
    here, service, there = handoffs.here[part], handoffs.service[part], handoffs.there[part]
    states, place = np.unique(here * n + service, return_inverse=True)
    size = len(states)
    ones = np.ones(len(here))
    columns = np.concatenate([there * n + service, there * n + here])
    seen = csr_array(
        (np.concatenate([ones, -ones]), (np.concatenate([place, place]), columns)), shape=(size, n * n)
    )
    count = np.bincount(place, minlength=size).astype(np.float64)
    stays = np.bincount(place, handoffs.stay_s[part], minlength=size).astype(np.float64)
    return states, seen, count, stays


def by_area(moves: Floats, states: Ints) -> Sparse:
    """(r, n * n): ``ahead`` of moves that depend on the user's area alone."""
    n = len(moves)
    user, service = np.divmod(states, n)
    sparse = csr_array(moves)
    length = np.diff(sparse.indptr)[user]
    rows = np.repeat(np.arange(len(states)), length)
    first = np.repeat(sparse.indptr[user] - np.concatenate([[0], np.cumsum(length)[:-1]]), length)
    at = first + np.arange(len(rows))
    there, share = sparse.indices[at].astype(np.int64), sparse.data[at]
    columns = np.concatenate([there * n + service[rows], there * n + user[rows]])
    return csr_array(
        (np.concatenate([share, -share]), (np.concatenate([rows, rows]), columns)), shape=(len(states), n * n)
    )


@dataclass(frozen=True, slots=True, eq=False)
class Away:
    """How the distance to a service changes at a handoff, for the 1D model.

    ``steps`` (3, d) are the probabilities of a hop back, of none and of a hop away, from each distance 0..d-1.
    The paper's p is what leads away of all that changes the distance: ``overall``, ``place`` (n,), and ``own``
    (u, n) by user and place.
    """

    steps: Floats
    overall: float
    place: Floats
    own: Floats


def learn_away(visits: Visits, areas: Areas, weight: float = 20.0) -> Away:
    """Handoffs against every area where the user has been in the last ten handoffs of the session.

    There the service could be, if it did not move. Each level is shrunk to the one above as by ``weight``
    handoffs: place and user to overall, and user at a place to the sum of the two in log-odds.
    ``NothingToLearn`` if no handoff changed a distance.
    """
    users, count, most = len(visits.users), len(areas), int(areas.hops.max()) + 1
    seen = find_handoffs(visits)
    here, there = areas.hops[seen.here, seen.service], areas.hops[seen.there, seen.service]
    up, down = np.zeros((users, count)), np.zeros((users, count))
    for table, chosen in ((up, there > here), (down, there < here)):
        np.add.at(table, (seen.user[chosen], seen.here[chosen]), 1.0)
    # An even chance of each of the three, as by one handoff, where nothing was seen.
    steps = np.full((3, most), 1.0 / 3.0)
    np.add.at(steps, (np.sign(there - here) + 1, here), 1.0)
    changed = float(up.sum() + down.sum())
    if not changed:
        raise NothingToLearn(f"no handoff leads further from a service or back to it, so there is no p: {_STILL}")
    overall = (float(up.sum()) + 1.0) / (changed + 2.0)
    place = _shrunk(up.sum(axis=0), down.sum(axis=0), overall, weight)
    user_alone = _shrunk(up.sum(axis=1), down.sum(axis=1), overall, weight)
    both = log_odds(place)[None, :] + log_odds(user_alone)[:, None] - log_odds(np.array(overall))
    own = _shrunk(up, down, 1.0 / (1.0 + np.exp(-both)), weight)
    return Away(steps / steps.sum(axis=0), overall, place, own)


def log_odds(p: Floats) -> Floats:
    """Of probabilities strictly between 0 and 1."""
    odds: Floats = np.log(p / (1.0 - p))
    return odds


def _shrunk(up: Floats, down: Floats, towards: Floats | float, weight: float) -> Floats:
    shrunk: Floats = (up + weight * towards) / (up + down + weight)
    return shrunk
