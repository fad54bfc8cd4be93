"""Policies made of what was learned: on the graph of service areas, and on the paper's line.

On the graph a state is (the user's area a, the service's area m), and an epoch is a handoff. In a the service
stays, or goes to a, at a cost M(a, m). Until the next handoff the user waits L(a, m) t(a, m), then goes to b
with probability P(b | a, m), whatever the service does; the session ends with probability 1 - c. That is
the cost that is evaluated: nothing is discounted, and the sums are finite because sessions end. Let D(a, m) be
the least cost until its end, less that with the service at a. Staying costs E(a, m) more than being there:

    E(a, m) = (L(a, m) - L(a, a)) t(a, m) + c sum_b P(b | a, m) (D(b, m) - D(b, a)),   D = min(E, M)

The differences alone are iterated: there is no large common part that digits are lost in, and they settle as
soon as the user's way is forgotten. P depends on m since the service is where the user has been: at a the
user who came from m goes on rather than back to m (``learning``).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import log
from typing import ClassVar

import numpy as np
from scipy.sparse import csr_array

from followme.domain import Decision
from followme.placement import Situation
from followme.placement.mdp_problem import Problem
from followme.placement.mdp_solve import Solution, solve

from .cells import Areas
from .learning import Away, Habits, Learned, log_odds
from .outcome import Costs
from .trace import Floats

TOLERANCE = 1e-6
"""A sweep that changes no difference by more than this share of the dearest migration is the last."""

_MOST_SWEEPS = 5000
_MOST_PRICES = 200
_PRICE_TOLERANCE = 1e-4
_KEPT_USERS = 64
"""Tables of that many users are kept at a time: 90 MB if there are 400 areas."""


@dataclass(frozen=True, slots=True, eq=False)
class Relocation:
    """The solved problem. Rows are the user's areas, columns the service's, values in seconds of waiting.

    ``stay`` (n, n): what it costs more to leave the service where it is than to have it at the user's area,
    from now to the end of the session; ``go`` (n, n): what migrating costs. ``sweeps`` and the last ``change``
    say how the iteration ended.
    """

    stay: Floats
    go: Floats
    sweeps: int
    change: float


def relocate(habits: Habits, areas: Areas, costs: Costs, known: Relocation | None = None) -> Relocation:
    """Value iteration on the differences, in the states of the habits; in all others what is ``known`` holds."""
    n = len(areas)
    user, service = np.divmod(habits.states, n)
    hops = areas.hops[user, service]
    own = (costs.waiting(hops) - costs.waiting(areas.hops[user, user])) * habits.stay_s
    if known is None:
        go = costs.migration(areas.hops)
        np.fill_diagonal(go, 0.0)
        known = Relocation(np.zeros((n, n)), go, 0, np.inf)
    stay, go_here = known.stay.copy(), known.go[user, service]
    least = TOLERANCE * float(known.go.max())
    difference = np.minimum(known.stay, known.go).ravel()
    sweeps, change = 0, np.inf
    while change > least and sweeps < _MOST_SWEEPS:
        staying = own + habits.goes_on * (habits.ahead @ difference)
        improved = np.minimum(staying, go_here)
        change = float(np.abs(improved - difference[habits.states]).max())
        difference[habits.states] = improved
        sweeps += 1
    stay[user, service] = staying
    return Relocation(stay, known.go, sweeps, change)


@dataclass(frozen=True, slots=True, eq=False)
class AreaMdp:
    """Migrates where ``relocate`` says so, with each user's own habits.

    ``service`` of a situation is the name of its user, ``best`` and ``current`` are names of areas. A user who
    was not learned of has the population's habits. ``KeyError`` if an area is unknown.
    """

    learned: Learned
    costs: Costs
    population: Relocation = field(init=False, repr=False)
    _users: dict[str, int] = field(init=False, repr=False)
    _areas: dict[str, int] = field(init=False, repr=False)
    _solved: OrderedDict[int, Relocation] = field(init=False, repr=False)
    name: ClassVar[str] = "mdp"

    def __post_init__(self) -> None:
        population = relocate(self.learned.population, self.learned.areas, self.costs)
        object.__setattr__(self, "population", population)
        object.__setattr__(self, "_users", {name: i for i, name in enumerate(self.learned.users)})
        object.__setattr__(self, "_areas", {name: i for i, name in enumerate(self.learned.areas.names)})
        object.__setattr__(self, "_solved", OrderedDict())

    def decide(self, situation: Situation) -> Decision:
        if situation.best == situation.current:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        table = self._table(situation.service)
        at = self._areas[situation.best], self._areas[situation.current]
        stay, go = float(table.stay[at]), float(table.go[at])
        why = f"staying costs {stay:.3g} s of waiting to the session's end, migrating {go:.3g} s"
        return situation.decide(self.name, stay > go, why)

    def _table(self, service: str) -> Relocation:
        user = self._users.get(service)
        if user is None:
            return self.population
        table = self._solved.get(user)
        if table is None:
            habits = self.learned.of_user(user)
            table = self.population
            if habits is not self.learned.population:
                table = relocate(habits, self.learned.areas, self.costs, table)
            self._solved[user] = table
            if len(self._solved) > _KEPT_USERS:
                self._solved.popitem(last=False)
        return table


@dataclass(frozen=True, slots=True, eq=False)
class LineMdp:
    """The paper's 1D decision process with the distance as its state, solved by ``followme.placement``.

    From each distance the chances of a hop back, none and one away are the population's, shifted in log-odds
    by what p of this user at this place differs. Staying costs what waiting at that distance does until the
    next handoff (the solver's ``fee``), migrating what it costs over that distance; the discount is the
    probability that the session goes on, so that the cost is again that which is evaluated. The shift is
    rounded to a quarter and the stay to a quarter of a doubling, so that the problems to solve are few.
    """

    learned: Learned
    away: Away
    costs: Costs
    _users: dict[str, int] = field(init=False, repr=False)
    _areas: dict[str, int] = field(init=False, repr=False)
    _solved: dict[tuple[int, int], Solution] = field(init=False, repr=False)
    name: ClassVar[str] = "mdp-line"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_users", {name: i for i, name in enumerate(self.learned.users)})
        object.__setattr__(self, "_areas", {name: i for i, name in enumerate(self.learned.areas.names)})
        object.__setattr__(self, "_solved", {})

    def decide(self, situation: Situation) -> Decision:
        distance = situation.distance
        if situation.best == situation.current or distance <= 0:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        area = self._areas[situation.best]
        user = self._users.get(situation.service)
        p = self.away.place[area] if user is None else self.away.own[user, area]
        shift = float(log_odds(np.array(p)) - log_odds(np.array(self.away.overall)))
        stay_s = float(self.learned.stay_s[area])
        key = round(4.0 * shift), round(4.0 * log(stay_s, 2.0))
        solution = self._solved.get(key)
        if solution is None:
            solution = self._solved[key] = self._solve(key[0] / 4.0, 2.0 ** (key[1] / 4.0))
        gain = float(solution.gain[distance])
        why = (
            f"migrating at distance {distance} saves {gain:+.3g} s of waiting against staying "
            f"(threshold {solution.threshold} at p {p:.2g}, {stay_s:.0f} s a stay)"
        )
        return situation.decide(self.name, bool(solution.migrate[distance]), why)

    def _solve(self, shift: float, stay_s: float) -> Solution:
        """In the paper a migration takes the step of a handoff: its next state is 0, not 1. Here it takes no time.

        It leads to v(0) then, not to gamma v(0). The difference, (1 - gamma) v(0), is the mean cost of a handoff
        and no trifle, so it is added to the price of a migration until price and v(0) agree. The error shrinks
        each time by the share of handoffs that migrate.
        """
        back, same, on = self.away.steps
        on = on * np.exp(shift)
        total = back + same + on
        states = len(total)
        inner = np.arange(1, states)
        # Nobody is further away than the last distance; one more is there for the chance to get further yet.
        rows = np.concatenate([[0, states], inner, inner, inner])
        columns = np.concatenate([[1, states - 1], inner - 1, inner, inner + 1])
        shares = np.concatenate([[1.0, 1.0], *((one / total)[1:] for one in (back, same, on))])
        moves = csr_array((shares, (rows, columns)), shape=(states + 1, states + 1))
        hops = np.arange(states + 1)
        waiting = (self.costs.waiting(hops) - self.costs.waiting(hops[:1])) * stay_s
        price, goes_on = self.costs.migration(hops), self.learned.population.goes_on
        none, step = np.zeros(states + 1), 0.0
        for _ in range(_MOST_PRICES):
            solution = solve(Problem(moves, none, price + step, goes_on, hops, hops == states, fee=waiting))
            before, step = step, -(1.0 - goes_on) * float(solution.value[0])
            if abs(step - before) <= _PRICE_TOLERANCE * float(price.max()):
                break
        return solution
