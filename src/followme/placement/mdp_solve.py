"""Solvers of the migration decision, behind one signature and one result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .mdp_problem import Bools, Floats, Integers, Problem
from .mdp_structure import chain_of, policy_iteration, structured

Method = Literal["structure", "value", "policy", "modified"]
SWEEPS = 20
"""Sweeps with a fixed policy between two improvements of modified policy iteration."""


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What a solver found, over the states of the problem.

    ``value`` (n,) differs nowhere from the optimum by more than ``error_bound``, in units of quality. ``migrate``
    (n,) is true where migrating is better than staying by more than the bound can explain: a tie is a
    stay, which costs nothing now. ``gain`` (n,) is by how much, value of migrating less value of staying; nan
    where there is no choice. ``iterations``: improvements of the policy, or sweeps of value iteration.
    """

    value: Floats
    migrate: Bools
    gain: Floats
    distance: Integers
    iterations: int
    error_bound: float
    method: str

    @property
    def threshold(self) -> int:
        """The smallest distance at which some state migrates; one beyond the last if none does."""
        far = int(np.max(self.distance)) + 1
        return int(np.min(self.distance[self.migrate], initial=far))

    @property
    def always_from(self) -> int:
        """The smallest distance from which on every state migrates; on a line of threshold form, ``threshold``."""
        return int(np.max(self.distance[~self.migrate], initial=-1)) + 1


def solve(
    problem: Problem,
    method: Method = "structure",
    tolerance: float = 1e-9,
    max_iterations: int = 1_000_000,
) -> Solution:
    """The optimal policy, its value known to ``tolerance`` (in units of quality) or better.

    - ``value``: value iteration from 0, stopped by the bounds of MacQueen and Porteus (Puterman, Markov Decision
      Processes, theorem 6.6.6): after a sweep that changed v by d, the optimum lies between
      v + min(d) gamma / (1 - gamma) and v + max(d) gamma / (1 - gamma); the middle is returned.
    - ``modified``: the same with ``SWEEPS`` sweeps of the greedy policy between improvements (section 6.5).
    - ``policy``: policy iteration with direct solves from the policy of all stays (section 6.4).
    - ``structure``: see ``mdp_structure``; exact like ``policy``, on the part of the states that matters.

    It stops earlier at ``max_iterations`` or when the arithmetic has no further digits: ``error_bound`` says how
    close it is, for every method from a last sweep over the whole chain. ``ValueError``.
    """
    if not tolerance > 0.0:
        raise ValueError(f"tolerance {tolerance} must be positive")
    if max_iterations < 1:
        raise ValueError(f"max_iterations {max_iterations} must be at least 1")
    solvers: dict[str, Callable[[], tuple[Floats, int]]] = {
        "structure": lambda: structured(problem, max_iterations),
        "value": lambda: _sweeping(problem, tolerance, max_iterations, sweeps=0),
        "policy": lambda: policy_iteration(chain_of(problem), ~problem.may_stay, max_iterations)[::2],
        "modified": lambda: _sweeping(problem, tolerance, max_iterations, sweeps=SWEEPS),
    }
    if method not in solvers:
        raise ValueError(f"method {method!r} is unknown; known are {', '.join(solvers)}")
    value, iterations = solvers[method]()
    solution = _finish(problem, value, iterations, method)
    exact = max(tolerance, 1e3 * rounding(problem, value) / (1.0 - problem.gamma))
    if method == "structure" and problem.classes is not None and solution.error_bound > exact:
        # The classes are no symmetry of this chain, by more than rounding explains.
        value, more = structured(problem, max_iterations, symmetric=False)
        other = _finish(problem, value, iterations + more, method)
        solution = min(solution, other, key=lambda one: one.error_bound)
    return solution


def action_values(problem: Problem, value: Floats) -> tuple[Floats, Floats]:
    """What staying and what migrating is worth in each state, were ``value`` right and both allowed. A constant
    more in ``value`` is gamma times that more in both."""
    stay = problem.stay_reward + problem.gamma * (problem.stay @ value)
    return stay, problem.go_reward + problem.gamma * value[0]


def _improved(problem: Problem, stay: Floats, go: Floats) -> Floats:
    best = np.maximum(stay, go)
    best[0] = stay[0]
    return np.where(problem.may_stay, best, go)


def rounding(problem: Problem, value: Floats) -> float:
    """What one sweep from ``value`` may be off by, as its numbers are."""
    sizes = (float(np.max(np.abs(one))) for one in (problem.stay_reward, problem.go_reward, value))
    return 4.0 * float(np.finfo(np.float64).eps) * max(sum(sizes), 1e-300)


def _middle(problem: Problem, value: Floats, improved: Floats) -> tuple[Floats, float, float]:
    """The improved value, moved to the middle of its bounds; how far off it may be; and how far off differences of
    ``value`` between states may be. A constant that is missing in ``value`` is made good by the move."""
    change = improved - value
    least, most = float(np.min(change)), float(np.max(change))
    differing = (most - least + 2.0 * rounding(problem, value)) / (1.0 - problem.gamma)
    middle = improved + 0.5 * (least + most) * problem.gamma / (1.0 - problem.gamma)
    return middle, 0.5 * differing + rounding(problem, middle), differing


def _finish(problem: Problem, value: Floats, iterations: int, method: str) -> Solution:
    stay, go = action_values(problem, value)
    # The sweep that bounds the error gives the gain too. What all values lack alike cancels in it.
    middle, bound, differing = _middle(problem, value, _improved(problem, stay, go))
    gain = go - stay
    migrate = gain > problem.gamma * differing
    migrate[~problem.may_stay] = True
    migrate[0] = False
    gain[~problem.may_stay] = np.nan
    gain[0] = np.nan
    return Solution(middle, migrate, gain, problem.distance, iterations, bound, method)


def _sweeping(problem: Problem, tolerance: float, most: int, *, sweeps: int) -> tuple[Floats, int]:
    value = np.zeros(problem.states)
    for iteration in range(1, most + 1):
        stay, go = action_values(problem, value)
        improved = _improved(problem, stay, go)
        _, bound, _ = _middle(problem, value, improved)
        # What sweeps round adds up as rewards do.
        settled = float(np.ptp(improved - value)) <= rounding(problem, value) / (1.0 - problem.gamma)
        if bound <= tolerance or settled or iteration == most:
            return value, iteration
        value = improved
        goes = problem.may_go & ((go > stay) | ~problem.may_stay)
        for _ in range(sweeps):
            stay, go = action_values(problem, value)
            value = np.where(goes, go, stay)
        # Relative to home's: the common part would cost digits, and the bounds hold without it.
        value -= value[0]
    raise AssertionError("unreachable: the last iteration returns")

