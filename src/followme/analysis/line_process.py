"""The paper's 1D decision process with what was learned: the distance is the state.

From each distance the chances of a hop back, none and one away are the population's, shifted in log-odds by what p
of this user at this place differs. Staying costs what waiting at that distance does until the next handoff (the
solver's ``fee``), migrating what it costs over that distance; the discount is the probability that the session
goes on, so that the cost is again that which is evaluated. The shift is rounded to a quarter and the stay to a
quarter of a doubling, so that the problems to solve are few.
"""

from __future__ import annotations

from math import inf

import numpy as np
from scipy.sparse import csr_array

from followme.placement.learned_line import LearnedLine
from followme.placement.mdp_problem import Problem
from followme.placement.mdp_solve import Solution, solve

from .learning import Away, Learned, log_odds
from .outcome import Costs
from .trace import Floats

_MOST_PRICES = 200
_PRICE_TOLERANCE = 1e-4


def learned_line(learned: Learned, away: Away, costs: Costs, own: bool = True) -> LearnedLine:
    """A line for each user in each area, and for users nobody has seen; not ``own``: for these only."""
    p = np.concatenate([away.own, away.place[None, :]]) if own else away.place[None, :]
    shift = np.rint(4.0 * (log_odds(p) - log_odds(np.array(away.overall)))).astype(np.int64)
    stay = np.rint(4.0 * np.log2(learned.stay_s)).astype(np.int64)
    keys, line_of = np.unique(
        np.stack([shift.ravel(), np.broadcast_to(stay, shift.shape).ravel()]), axis=1, return_inverse=True
    )
    goes_on = learned.population.goes_on
    gains = []
    for step, size in keys.T.tolist():
        solution = _solved(away, step / 4.0, 2.0 ** (size / 4.0), goes_on, costs)
        # A tie is a stay, whatever the rounding says; the farthest distance has no choice, nor has 0.
        gain = np.where(solution.migrate, solution.gain, np.minimum(solution.gain, 0.0))
        gain[0], gain[-1] = -inf, inf
        gains.append(gain)
    users = learned.users if own else ()
    return LearnedLine(
        learned.areas.names, users, np.array(gains), line_of.reshape(shift.shape).astype(np.int64)
    )


def _solved(away: Away, shift: float, stay_s: float, goes_on: float, costs: Costs) -> Solution:
    """In the paper a migration takes the step of a handoff: its next state is 0, not 1. Here it takes no time.

    It leads to v(0) then, not to gamma v(0). The difference, (1 - gamma) v(0), is the mean cost of a handoff
    and no trifle, so it is added to the price of a migration until price and v(0) agree. The error shrinks
    each time by the share of handoffs that migrate.
    """
    back, same, on = away.steps
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
    waiting = (costs.waiting(hops) - costs.waiting(hops[:1])) * stay_s
    price = costs.migration(hops)
    none, step = np.zeros(states + 1), 0.0
    for _ in range(_MOST_PRICES):
        solution = solve(Problem(moves, none, price + step, goes_on, hops, hops == states, fee=waiting))
        before, step = step, -(1.0 - goes_on) * float(solution.value[0])
        if abs(step - before) <= _PRICE_TOLERANCE * float(price.max()):
            break
    return solution


def by_place(line: LearnedLine, learned: Learned) -> Floats:
    """(n, n): the lines of users nobody has seen, as a table by the user's area and the service's."""
    hops = learned.areas.hops
    rows = line.gain[line.line_of[-1]]
    gain: Floats = np.take_along_axis(rows, np.minimum(hops, line.gain.shape[1] - 1), axis=1)
    return gain
