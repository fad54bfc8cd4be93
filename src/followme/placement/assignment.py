"""Many users, few places: who goes to which micro data centre when it cannot take all that want to come.

The generalised assignment problem with a way out (Martello and Toth, Knapsack Problems, 1990, chapter 7): each
user goes to one data centre or stays where it is, the demands of those who go to a data centre fit in its
capacity, and the sum of costs is least. Only what is cheaper than staying is worth a place, so what is
maximised are savings = cost of staying - cost there.

- ``exact``: HiGHS by SciPy's ``milp``. With equal demands it is a transportation problem, whose matrix is
  totally unimodular: the linear program's vertices are whole, and HiGHS is done at the root. With others it is
  NP-hard: at the time limit the best solution so far is taken, and the gap says how far it may be off.
- ``greedy``: in rounds, those who would lose most by not getting their first choice are served first (regret);
  once by savings, once by savings less the bound's prices for capacity. The better of the two is taken.

Either way the lower bound is a proven one: HiGHS's, or the Lagrangian dual's, which at its best is that of the
linear program (Geoffrion 1974) and at any prices a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor, fsum
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from .limits import MOST

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Method = Literal["auto", "exact", "greedy"]

STAYS = -1
EXACT_PAIRS = 20_000
"""Pairs (user, better place) up to which ``auto`` asks HiGHS: about a second for equal demands."""
_ROUNDS = 300


@dataclass(frozen=True, slots=True, eq=False)
class Assignment:
    """``place[user]`` is a data centre's column, or ``STAYS``; ``load`` (data centres,) never exceeds capacity.

    ``cost`` is the sum over all users, those who stay included; no assignment costs less than ``lower_bound``.
    ``unknown`` counts the pairs whose cost was NaN and that were ruled out for it. ``method`` is what gave
    the result, ``optimal`` whether it is proven to be (relative gap of 1e-6 at most, which is HiGHS's).
    """

    place: Integers
    cost: float
    lower_bound: float
    load: Floats
    unknown: int
    method: str
    _costs: Floats
    _stay: Floats
    _demand: Floats
    _capacity: Floats

    @property
    def gap(self) -> float:
        """How much dearer this may be than the optimum, in units of cost; never negative."""
        return max(0.0, self.cost - self.lower_bound)

    @property
    def relative_gap(self) -> float:
        """``gap`` as a share of the savings that the bound allows; 0 where there is nothing to save."""
        most = fsum(self._stay) - self.lower_bound
        return self.gap / most if most > 0.0 else 0.0

    @property
    def optimal(self) -> bool:
        return self.relative_gap <= 1e-6

    @property
    def stays(self) -> Integers:
        """The users who stay."""
        return np.flatnonzero(self.place == STAYS)

    def why(self, user: int) -> str:
        """Why this user goes or stays, in words and numbers."""
        costs, stay, need = self._costs[user], self._stay[user], self._demand[user]
        place = int(self.place[user])
        allowed = np.isfinite(costs)
        better = costs < stay
        if place != STAYS:
            text = f"goes to {place} at cost {costs[place]:.4g}, staying costs {stay:.4g}"
            first = int(np.argmin(np.where(allowed, costs, np.inf)))
            if costs[first] < costs[place]:
                text += f"; {first} would cost {costs[first]:.4g} but has no room left for it"
            return text
        if not allowed.any():
            return "stays: no data centre is allowed for it"
        if not better.any():
            return f"stays: no data centre is better, the best costs {costs[allowed].min():.4g}, staying {stay:.4g}"
        if not (better & (self._capacity >= need)).any():
            return f"stays: it needs {need:.4g}, which is more than the whole capacity of all that are better"
        full = ", ".join(str(one) for one in np.flatnonzero(better))
        return f"stays: better for it would be {full}, where those who go there leave no room for {need:.4g}"


def assign(
    cost: ArrayLike,
    capacity: ArrayLike,
    stay_cost: ArrayLike,
    demand: ArrayLike = 1.0,
    method: Method = "auto",
    time_limit_s: float = 10.0,
) -> Assignment:
    """Where each user's service goes, at the least total cost that is found.

    ``cost`` is (users, data centres), in any unit; ``inf`` where a limit forbids it, NaN where it is not known
    (ruled out, and counted). ``capacity`` (data centres,) is what is free now; who stays takes none of it.
    ``stay_cost`` and ``demand`` are (users,) or one for all. ``exact`` and ``auto`` are never worse than
    ``greedy``. Sums of demands are checked without rounding: give whole numbers (milli-cores, bytes), for ten
    times 0.1 is a little more than 1. ``ValueError`` names what has the wrong shape, is negative (capacity),
    not positive (demand, time limit) or not finite (all but ``cost`` and ``capacity``; no cost is ``-inf``), and
    costs beyond ``MOST``, either way, or demands beyond it or below its inverse.
    """
    if method not in get_args(Method):
        raise ValueError(f"method {method!r} is unknown; known are {', '.join(get_args(Method))}")
    if not time_limit_s > 0.0:
        raise ValueError(f"time_limit_s {time_limit_s} must be positive")
    costs, room, stay, need = _checked(cost, capacity, stay_cost, demand)
    unknown = int(np.count_nonzero(np.isnan(costs)))
    known = np.where(np.isnan(costs), np.inf, costs)
    savings = np.maximum(stay[:, None] - known, 0.0)  # 0: not worth a place
    savings[need[:, None] > room] = 0.0
    slots, units = _whole(need, room)
    place = np.full(len(need), STAYS, dtype=np.intp)
    _greedy(place, savings, units, slots)
    _improve(place, savings, units, slots)
    most, price = _dual_bound(savings, units, slots)
    priced = np.full(len(need), STAYS, dtype=np.intp)
    _greedy(priced, np.maximum(savings - units[:, None] * price, 0.0), units, slots)
    _improve(priced, savings, units, slots)  # those whom the prices put off, where there is room yet
    place = max(place, priced, key=lambda one: _saved(one, savings))
    saved = _saved(place, savings)
    used = "greedy"
    if method == "exact" or (method == "auto" and np.count_nonzero(savings) <= EXACT_PAIRS):
        used = "exact"
        found, proven = _solve(savings, units, slots, time_limit_s)
        most = min(most, proven)
        _repair(found, savings, units, slots)
        if _saved(found, savings) > saved:
            place, saved = found, _saved(found, savings)
    goes = place != STAYS
    total = fsum(np.where(goes, known[np.arange(len(place)), place], stay).tolist()) if len(place) else 0.0
    # Rounding in the solver must not claim that what was found cannot exist.
    bound = min(total, float(fsum(stay.tolist()) - most))
    load = np.array([fsum(need[place == one].tolist()) for one in range(len(room))])
    return Assignment(place, total, bound, load, unknown, used, known, stay, need, room)


def _checked(
    cost: ArrayLike, capacity: ArrayLike, stay_cost: ArrayLike, demand: ArrayLike
) -> tuple[Floats, Floats, Floats, Floats]:
    costs, room = np.asarray(cost, dtype=np.float64), np.asarray(capacity, dtype=np.float64)
    if room.ndim != 1 or not room.size:
        raise ValueError(f"capacity is (data centres,) of at least one, not of shape {room.shape}")
    if costs.size == 0 and costs.ndim < 2:
        costs = costs.reshape(0, room.size)  # an empty population, however it is written
    if costs.ndim != 2 or costs.shape[1] != room.size:
        raise ValueError(f"cost is (users, data centres), not {costs.shape} for {room.size} data centres")
    if not (room >= 0.0).all():
        raise ValueError(f"capacity of {int(np.argmin(room >= 0.0))} is negative or not known: {room.tolist()}")
    if np.isneginf(costs).any():
        raise ValueError("no cost can be -inf")
    if (np.isfinite(costs) & (np.abs(costs) > MOST)).any():
        raise ValueError(f"costs must be at most {MOST:g}, either way, or inf")
    spread = []
    for name, given in (("stay_cost", stay_cost), ("demand", demand)):
        one = np.asarray(given, dtype=np.float64)
        if one.shape not in ((), (len(costs),)):
            raise ValueError(f"{name} is one number or one a user ({len(costs)}), not of shape {one.shape}")
        if not np.isfinite(one).all() or (name == "demand" and (one <= 0.0).any()):
            raise ValueError(f"{name} must be finite{' and positive' if name == 'demand' else ''}")
        if (np.abs(one) > MOST).any() or (name == "demand" and (one < 1.0 / MOST).any()):
            lower = f" and at least {1.0 / MOST:g}" if name == "demand" else ", either way"
            raise ValueError(f"{name} must be at most {MOST:g}{lower}")
        spread.append(np.broadcast_to(one, (len(costs),)))
    return costs, room, spread[0], spread[1]


def _whole(need: Floats, room: Floats) -> tuple[Floats, Floats]:
    """(capacity, demand) to solve with: counts of users where all need the same, else as they are.

    Counts are exact: no solver's tolerance can squeeze one more in.
    """
    # No one fills more, and none is infinite then; rounded up, so that all of ten times 0.1 fit.
    room = np.minimum(room, np.nextafter(fsum(need.tolist()), np.inf))
    if not len(need) or (need != need[0]).any():
        return room, need
    each = Fraction(float(need[0]))
    return np.array([float(floor(Fraction(float(one)) / each)) for one in room]), np.ones_like(need)


def _fits(demands: Floats, room: float) -> bool:
    """Whether their exact sum is within ``room``: ``fsum`` rounds once, so the sign of the rest is right."""
    return fsum([*demands.tolist(), -room]) <= 0.0


def _saved(place: Integers, savings: Floats) -> float:
    goes = np.flatnonzero(place != STAYS)
    return fsum(savings[goes, place[goes]].tolist())


def _greedy(place: Integers, savings: Floats, need: Floats, room: Floats) -> None:
    """Places all users who stay and for whom there is room, by regret; changes ``place``.

    Each round, everyone left bids for the best place that has room for it, and is served in the order of
    what it would lose to its second choice (staying at the latest) for a unit of demand, until the place is
    full. Someone is served wherever someone bids, so it ends; who is left has no room anywhere.
    """
    left = np.array([_rest(need[place == one], float(room[one])) for one in range(len(room))])
    waiting = np.flatnonzero(place == STAYS)
    while True:
        offers = np.where(need[waiting, None] <= left, savings[waiting], 0.0)
        wants = (offers > 0.0).any(axis=1)
        waiting, offers = waiting[wants], offers[wants]
        if not len(waiting):
            return
        choice = offers.argmax(axis=1)
        rows = np.arange(len(waiting))
        best = offers[rows, choice]
        offers[rows, choice] = 0.0
        regret = (best - offers.max(axis=1)) / need[waiting]
        order = np.lexsort((-best, -regret, choice))
        served = np.zeros(len(waiting), dtype=np.bool_)
        for one in np.unique(choice).tolist():
            queue = order[choice[order] == one]
            count, left[one] = _admit(place, waiting[queue], one, need, float(room[one]))
            served[queue[:count]] = True
        waiting = waiting[~served]


def _improve(place: Integers, savings: Floats, need: Floats, room: Floats) -> None:
    """Moves those who gain most until nobody would save more where there is room for it; changes ``place``."""
    everyone = np.arange(len(need))
    moved = True
    while moved:
        moved = False
        for one in range(len(room)):
            left = _rest(need[place == one], float(room[one]))
            now = np.where(place == STAYS, 0.0, savings[everyone, place])
            more = np.where((place != one) & (need <= left), savings[:, one] - now, 0.0)
            gaining = np.flatnonzero(more > 0.0)
            if len(gaining):
                _admit(place, gaining[np.argsort(-more[gaining] / need[gaining])], one, need, float(room[one]))
                moved = True


def _admit(place: Integers, queue: Integers, one: int, need: Floats, room: float) -> tuple[int, float]:
    """Lets the first of ``queue`` in at ``one`` while they fit, and at least one, who must fit.

    How many came in, and what is left.
    """
    mine = need[place == one]
    # The running sum rounds; the last ones are checked without.
    count = int(np.searchsorted(np.cumsum(need[queue]), _rest(mine, room), side="right"))
    while count > 1 and not _fits(np.concatenate((mine, need[queue[:count]])), room):
        count -= 1
    count = max(count, 1)
    place[queue[:count]] = one
    return count, _rest(need[place == one], room)


def _rest(demands: Floats, room: float) -> float:
    """What is left: the largest number that is not above it, so whoever needs no more than this does fit."""
    terms = [room, *(-demands).tolist()]
    rest = fsum(terms)
    return rest if fsum([*terms, -rest]) >= 0.0 else float(np.nextafter(rest, -np.inf))


def _repair(place: Integers, savings: Floats, need: Floats, room: Floats) -> None:
    """Makes any ``place`` one that no data centre exceeds, and fills what is free; changes it.

    Who saves least for its demand goes first. HiGHS keeps constraints to a tolerance of 1e-6 only.
    """
    for one in range(len(room)):
        inside = np.flatnonzero(place == one)
        leaving = inside[np.argsort(savings[inside, one] / need[inside], kind="stable")]
        while not _fits(need[leaving], float(room[one])):
            place[leaving[0]] = STAYS
            leaving = leaving[1:]
    _improve(place, savings, need, room)


def _solve(savings: Floats, need: Floats, room: Floats, time_limit_s: float) -> tuple[Integers, float]:
    """What HiGHS assigns, and the most that it proves can be saved (``inf`` if it proves nothing)."""
    place = np.full(len(need), STAYS, dtype=np.intp)
    users, places = np.nonzero(savings)
    if not len(users):
        return place, 0.0
    gains = savings[users, places]
    scale = gains.max()
    pairs = np.arange(len(users))
    once = coo_array((np.ones(len(users)), (users, pairs)), shape=(len(need), len(users)))
    largest = need.max()  # HiGHS's tolerances are absolute: numbers near 1 make them relative
    fill = coo_array((need[users] / largest, (places, pairs)), shape=(len(room), len(users)))
    result = milp(
        -gains / scale, integrality=np.ones(len(users)), bounds=Bounds(0.0, 1.0),
        constraints=[LinearConstraint(once.tocsr(), ub=1.0), LinearConstraint(fill.tocsr(), ub=room / largest)],
        options={"time_limit": time_limit_s, "mip_rel_gap": 0.0},
    )  # fmt: skip
    if result.x is not None:
        taken = result.x > 0.5
        place[users[taken]] = places[taken]
    dual = result.mip_dual_bound
    if dual is None or not np.isfinite(dual):
        return place, np.inf
    # HiGHS computes in floating point: what it calls a bound is widened by a little for each user.
    return place, (-float(dual) + 1e-9 * len(need)) * scale


def _dual_bound(savings: Floats, need: Floats, room: Floats) -> tuple[float, Floats]:
    """The most that can be saved, and the prices for capacity that prove it: any prices >= 0 give a bound.

        L(price) = price . room + sum over users of max(0, max over places of saving - price * need)

    Subgradient steps (Polyak's, toward the best bound so far less a share that halves when nothing improves).
    """
    price = proof = np.zeros(len(room))
    best = np.inf
    share = 0.5
    since = 0
    for _ in range(_ROUNDS if savings.any() else 1):
        left = savings - need[:, None] * price
        choice = left.argmax(axis=1)
        value = np.maximum(left[np.arange(len(need)), choice], 0.0)
        bound = float(price @ room + value.sum())
        if bound < best:
            best, proof, since = bound, price, 0
        else:
            since += 1
            if since >= 5:
                share, since = share / 2.0, 0
        goes = value > 0.0
        slope = room - np.bincount(choice[goes], weights=need[goes], minlength=len(room))
        slope[(price == 0.0) & (slope > 0.0)] = 0.0
        norm = float(slope @ slope)
        if norm == 0.0:
            break  # no price wants to change: this is the minimum
        price = np.maximum(price - share * 0.1 * bound / norm * slope, 0.0)
    # The sum itself rounds, by at most a few digits of the last place for each user.
    return best * (1.0 + 1e-12), proof
