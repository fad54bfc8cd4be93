"""What the decision process is told of users: how they move and how long they stay, by user and place.

Everything is counted on visits, at the handoffs within sessions. A user's own counts are few, so they are
shrunk: a user counts as if ``own_weight`` further handoffs (and stays) had been seen in each area, as the
population's are there; and the population as if ``PRIOR`` further ones had, evenly to the areas across
its borders. These are Dirichlet priors, their posterior means are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from .cells import Areas
from .trace import Floats, Ints
from .visits import Visits

PRIOR = 2.0
"""Handoffs that an area's neighbours in general are worth against those seen there."""

PRIOR_STAYS = 5.0
"""Stays that the mean of all areas is worth against those seen in one."""

_REMEMBERED = 10
"""A service is where its user has been: the handoffs back to look for it, for the 1D model."""


@dataclass(frozen=True, slots=True, eq=False)
class Habits:
    """How someone moves: ``moves`` (n, n) the probability of the next area by the present one, rows sum to 1;
    ``stay_s`` (n,) the mean stay in seconds; ``goes_on`` the probability that a visit ends with a handoff and
    not with the session."""

    moves: Floats
    stay_s: Floats
    goes_on: float


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """The population's habits and what each user's come from; ``own_weight`` as above, ``inf`` makes all alike."""

    areas: Areas
    visits: Visits
    population: Habits
    own_weight: float

    def seen_by(self, user: int) -> Ints:
        """(k,): the areas where a user was seen."""
        start, end = np.searchsorted(self.visits.user, (user, user + 1))
        return np.unique(self.visits.area[start:end])

    def of_user(self, user: int) -> Habits:
        """A user's own habits, shrunk towards the population's; ``user`` is an index into ``visits.users``."""
        start, end = np.searchsorted(self.visits.user, (user, user + 1))
        if self.own_weight == inf or start == end:
            return self.population
        count = len(self.areas)
        area = self.visits.area[start:end]
        after = np.flatnonzero(~self.visits.first[start:end])
        moves = self.population.moves.copy()
        leaving = np.bincount(area[after - 1], minlength=count)
        moves *= self.own_weight
        np.add.at(moves, (area[after - 1], area[after]), 1.0)
        moves /= (leaving + self.own_weight)[:, None]
        stays = np.bincount(area, minlength=count) + self.own_weight
        total = np.bincount(area, self.visits.stay_s[start:end], minlength=count)
        stay_s = (total + self.own_weight * self.population.stay_s) / stays
        return Habits(moves, stay_s, self.population.goes_on)


def learn(visits: Visits, areas: Areas, own_weight: float = inf) -> Learned:
    """Habits from visits. ``ValueError`` if no handoff is among them or the weight is not positive."""
    if not own_weight > 0.0:
        raise ValueError(f"own_weight {own_weight} must be positive")
    if not visits.handoffs:
        raise ValueError("there is no handoff to learn from: too few training hours, or users who stand still")
    count = len(areas)
    before, after = visits.moves()
    seen = np.zeros((count, count))
    np.add.at(seen, (visits.area[before], visits.area[after]), 1.0)
    borders = (areas.hops == 1).astype(np.float64)
    believed = borders / borders.sum(axis=1, keepdims=True)
    moves = (seen + PRIOR * believed) / (seen.sum(axis=1, keepdims=True) + PRIOR)
    stays = np.bincount(visits.area, minlength=count)
    total = np.bincount(visits.area, visits.stay_s, minlength=count)
    stay_s = (total + PRIOR_STAYS * visits.stay_s.mean()) / (stays + PRIOR_STAYS)
    # Below 1, since each session has an end: it is what makes the sums of costs finite.
    goes_on = visits.handoffs / (visits.handoffs + visits.sessions)
    return Learned(areas, visits, Habits(moves, stay_s, goes_on), own_weight)


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
    ``ValueError`` if no handoff changed a distance.
    """
    users, count, most = len(visits.users), len(areas), int(areas.hops.max()) + 1
    session = np.cumsum(visits.first)
    up, down = np.zeros((users, count)), np.zeros((users, count))
    # An even chance of each of the three, as by one handoff, where nothing was seen.
    steps = np.full((3, most), 1.0 / 3.0)
    for back in range(1, _REMEMBERED + 1):
        at = np.arange(back, max(back, len(visits) - 1))
        at = at[session[at - back] == session[at + 1]]
        service, user, area = visits.area[at - back], visits.user[at], visits.area[at]
        here, there = areas.hops[area, service], areas.hops[visits.area[at + 1], service]
        np.add.at(steps, (np.sign(there - here) + 1, here), 1.0)
        # From distance 0 every handoff leads away, which the model knows.
        for table, chosen in ((up, (here > 0) & (there > here)), (down, there < here)):
            np.add.at(table, (user[chosen], area[chosen]), 1.0)
    changed = float(up.sum() + down.sum())
    if not changed:
        raise ValueError("no handoff leads further from a service or back to it: there is no p to learn")
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
