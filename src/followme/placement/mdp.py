"""The migration decision as a Markov decision process on a line of service areas.

Section 5 of "When Cloud Services Follow Mobile Users" (the 1D model, figs 4 and 14), uniformised with
c = mu, so that one step is one handoff. The state is the distance s between the user and the data centre
that serves. In state s >= 1 the controller either stays (a1: with probability p the user goes on to s + 1,
else back to s - 1) or migrates (a2: to 0). From 0 every handoff leads to 1. The reward of a step is the
quality of the state that it leads to, less the cost of a migration:

    v(s) = max( p w(s+1) + (1-p) w(s-1),  w(0) - cost ),     w(s) = Q(s) + gamma v(s)

The paper leaves open what happens at the far end: its equation sends thr on to 0 at no cost, its text
migrates beyond thr, its figure has a choice at thr. Here the figure and the text hold: 1..thr have the
choice, thr + 1 stands for all that is beyond and has none but the migration, at its cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from followme.domain import Decision

from .situation import Situation


def linear_quality(thr: int, q0: float, k: float) -> tuple[float, ...]:
    """Q(s) = q0 - k s, not below 0, for s in 0..thr+1; any unit, but the cost's too."""
    return tuple(max(0.0, q0 - k * s) for s in range(thr + 2))


@dataclass(frozen=True, slots=True)
class Problem:
    """One instance. ``quality`` has thr + 2 values, for the distances 0..thr and "beyond".

    ``ValueError`` if ``thr`` is below 1, ``p`` no probability, ``gamma`` not in [0, 1), a quality not finite
    or the cost negative.
    """

    p: float
    cost: float
    gamma: float
    quality: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.quality) < 3:
            raise ValueError(f"thr {self.thr} must be at least 1")
        if not 0.0 <= self.p <= 1.0:
            raise ValueError(f"p {self.p} must be between 0 and 1")
        if not 0.0 <= self.gamma < 1.0:
            raise ValueError(f"gamma {self.gamma} must be at least 0 and below 1")
        if not all(isfinite(value) for value in self.quality):
            raise ValueError(f"quality {self.quality} must be finite")
        if not (isfinite(self.cost) and self.cost >= 0.0):
            raise ValueError(f"cost {self.cost} must be finite and not negative")

    @property
    def thr(self) -> int:
        return len(self.quality) - 2


@dataclass(frozen=True, slots=True)
class Solution:
    """What value iteration found, over the states 0..thr+1.

    ``value`` differs nowhere from the optimum by more than ``error_bound``. ``migrate`` is true where
    migrating is better than staying by more than the bound can explain. ``gain`` is by how much, in units
    of quality: value of migrating less value of staying; nan where there is no choice (0 and thr + 1).
    """

    value: NDArray[np.float64]
    migrate: NDArray[np.bool_]
    gain: NDArray[np.float64]
    iterations: int
    error_bound: float

    @property
    def threshold(self) -> int:
        """The smallest distance at which to migrate."""
        return int(np.argmax(self.migrate))


def solve(problem: Problem, tolerance: float = 1e-9, max_iterations: int = 1_000_000) -> Solution:
    """Value iteration from 0 until the error bound is ``tolerance`` or less, in units of quality.

    The bound is the contraction's: gamma / (1 - gamma) times the last change (Puterman, Markov Decision
    Processes, theorem 6.3.1). It stops earlier at ``max_iterations`` or when the arithmetic has no further
    digits; the bound returned says how close it is. ``ValueError`` if the tolerance is not positive.
    """
    if not tolerance > 0.0:
        raise ValueError(f"tolerance {tolerance} must be positive")
    quality = np.asarray(problem.quality, dtype=np.float64)
    factor = problem.gamma / (1.0 - problem.gamma)
    largest = max(float(np.max(np.abs(quality))) + problem.cost, 1e-300) / (1.0 - problem.gamma)
    rounding = 4.0 * float(np.finfo(np.float64).eps) * largest
    value = np.zeros_like(quality)
    iterations = 0
    while True:
        stay, go = _action_values(problem, quality, value)
        improved = np.maximum(stay, go)
        change = float(np.max(np.abs(improved - value)))
        value = improved
        iterations += 1
        bound = factor * change + rounding / (1.0 - problem.gamma)
        if bound <= tolerance or change <= rounding or iterations >= max_iterations:
            break
    stay, go = _action_values(problem, quality, value)
    with np.errstate(invalid="ignore"):
        gain = go - stay
    gain[[0, -1]] = np.nan
    # Each side is off by gamma times the bound at most; a tie is a stay, which costs nothing now.
    migrate = gain > 2.0 * problem.gamma * bound
    migrate[-1] = True
    return Solution(value, migrate, gain, iterations, bound)


def _action_values(
    problem: Problem, quality: NDArray[np.float64], value: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The value of staying and of migrating in each state; -inf where the state lacks the action."""
    arrival = quality + problem.gamma * value
    stay = np.full_like(arrival, -np.inf)
    stay[0] = arrival[1]
    stay[1:-1] = problem.p * arrival[2:] + (1.0 - problem.p) * arrival[:-2]
    go = np.full_like(arrival, arrival[0] - problem.cost)
    go[0] = -np.inf
    return stay, go


_solved = lru_cache(maxsize=256)(solve)


@dataclass(frozen=True, slots=True)
class MdpPolicy:
    """The optimal policy of the model, as a table that is solved once.

    ``thr`` in service areas, ``p`` the probability to go on, ``q0`` and ``k`` the quality at distance 0 and
    its loss per area, ``tau`` the cost of a migration as a share of ``q0``, ``gamma`` the discount of a step.
    With ``cost_per_s`` (quality per second of transfer) above 0 the cost is the situation's own transfer time
    where its bandwidth is known, ``tau`` elsewhere; each cost's table is kept. ``ValueError`` names what is
    out of range.
    """

    thr: int = 10
    p: float = 0.5
    q0: float = 10.0
    k: float = 1.0
    tau: float = 0.5
    gamma: float = 0.9
    cost_per_s: float = 0.0
    solution: Solution = field(init=False, compare=False, repr=False)
    name: ClassVar[str] = "mdp"

    def __post_init__(self) -> None:
        for key in ("q0", "k", "tau", "cost_per_s"):
            value = getattr(self, key)
            if not (isfinite(value) and value >= 0.0):
                raise ValueError(f"{key} {value} must be finite and not negative")
        object.__setattr__(self, "solution", _solved(self._problem(self.tau * self.q0)))

    def decide(self, situation: Situation) -> Decision:
        if situation.best == situation.current:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        distance = situation.distance
        if distance <= 0:
            return situation.decide(self.name, False, "the user is at distance 0")
        if distance > self.thr:
            return situation.decide(self.name, True, f"distance {distance} is beyond thr {self.thr}")
        cost, solution = self._table(situation)
        migrate = bool(solution.migrate[distance])
        gain = float(solution.gain[distance])
        why = (
            f"migrating at distance {distance} is worth {gain:+.3g} in quality against staying "
            f"(threshold {solution.threshold} at p {self.p:g}, cost {cost:.3g} of quality {self.q0:g})"
        )
        return situation.decide(self.name, migrate, why)

    def _table(self, situation: Situation) -> tuple[float, Solution]:
        transfer = situation.transfer_s
        if self.cost_per_s == 0.0 or transfer is None:
            return self.tau * self.q0, self.solution
        # Two digits of a measured cost are all that mean something, and they keep the tables few.
        cost = float(f"{self.cost_per_s * transfer:.2g}")
        return cost, _solved(self._problem(cost))

    def _problem(self, cost: float) -> Problem:
        return Problem(self.p, cost, self.gamma, linear_quality(self.thr, self.q0, self.k))
