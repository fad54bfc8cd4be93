"""The decision process on the graph of service areas, solved with the habits that were learned.

A state is (the user's area a, the service's area m), and an epoch is a handoff. In a the service
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

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from .cells import Areas
from .learning import Habits, Learned
from .outcome import Costs
from .trace import Floats, Ints

TOLERANCE = 1e-6
"""A sweep that changes no difference by more than this share of the dearest migration is the last."""

_MOST_SWEEPS = 5000


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


def advantage(solved: Relocation) -> Floats:
    """(n, n): by how much migrating beats staying, in seconds; ``-inf`` where the service is with its user."""
    gain = solved.stay - solved.go
    np.fill_diagonal(gain, -inf)
    return gain


def own_gains(
    learned: Learned, costs: Costs, population: Relocation, weights: Sequence[float]
) -> tuple[Ints, Floats]:
    """``own_state`` and ``own_gain`` of ``LearnedTables``: the process solved with each user's own habits.

    ``weights`` (u,) is how many handoffs of the population's a user's own stand against, ``inf`` for a user who
    is to have no own values.
    """
    n = len(learned.areas)
    states, gains = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for user, weight in enumerate(weights):
        habits = learned.of_user(user, weight)
        if habits is not learned.population:
            solved = relocate(habits, learned.areas, costs, population)
            at = np.divmod(habits.states, n)
            states.append(user * n * n + habits.states)
            gains.append(solved.stay[at] - solved.go[at])
    return np.concatenate(states), np.concatenate(gains)
