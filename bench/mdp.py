"""The migration decision against QuantEcon's modified policy iteration, on the same problems.

Ours and theirs take turns in the same run, so that a slow phase of the machine hits both; medians are compared.
Both get their problem built (theirs as state-action pairs with a sparse matrix) and return value and policy. The
policies are compared state by state: a figure is missed where they differ by more than ties. QuantEcon's compiled
code is warmed up first. "Symmetry unused" solves the same grid without being told that its sides look alike.

    python -m bench mdp
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from scipy.sparse import csr_array, csr_matrix, vstack

from bench.figures import Figure, Say, Skipped
from followme.placement.mdp_hexagons import hexagons
from followme.placement.mdp_problem import Problem, line
from followme.placement.mdp_solve import Solution, solve

METHOD = "modified_policy_iteration"
EPSILON = 1e-3
"""QuantEcon's own default: its value is off by half of it at most. Ours is exact up to rounding."""
TIE = 1e-6
"""Where migrating and staying differ by less, either is right (quality differs by 1 from ring to ring)."""


def figures(quick: bool, say: Say) -> list[Figure]:
    rounds = 3 if quick else 7
    found = []
    for cost, gamma in ((50.0, 0.95), (5000.0, 0.95)):
        problem = line(10_000, 0.5, cost, gamma, lambda s: -s)
        found.append(_against(f"1D, thr 10 000, cost {cost:g}", problem, 5.0, 5 * rounds, say))
    thr = 100 if quick else 576
    # The target is for a million cells; on the small grid of --quick the ratio is only shown.
    target = None if quick else 1.0
    for cost in (50.0, 1000.0, 5000.0):
        problem = hexagons(thr, cost, 0.95, lambda d: -d)
        name = f"2D, {problem.states} cells, cost {cost:g}"
        found.append(_against(name, problem, target, min(rounds, 5), say))
        given = {one.name: getattr(problem, one.name) for one in fields(problem) if one.init}
        plain = Problem(**(given | {"classes": None}))
        found.append(_against(f"{name}, symmetry unused", plain, target, min(rounds, 5), say))
    return found


def _against(what: str, problem: Problem, target: float | None, rounds: int, say: Say) -> Figure:
    process = _theirs(problem)
    process.solve(METHOD, max_iter=1)
    ours: list[float] = []
    theirs: list[float] = []
    solution, result = None, None
    for _ in range(rounds):
        solution = _timed(ours, lambda: solve(problem))
        result = _timed(theirs, lambda: process.solve(METHOD, epsilon=EPSILON, max_iter=10_000))
    assert solution is not None
    assert result is not None
    differing = _differing(solution, np.asarray(result.sigma))
    say(f"{what}: threshold {solution.threshold}, {differing} of {problem.states} states decided differently; "
        f"our error bound {solution.error_bound:.1e}, theirs {EPSILON / 2:.0e}")  # fmt: skip
    mine, peer = 1e3 * median(ours), 1e3 * median(theirs)
    if target is None:
        return Figure(what, "ms", mine, peer, "QuantEcon", peer / mine)
    wanted = f"{target:g} times faster, same policy" if target > 1.0 else "faster, same policy"
    met = peer / mine >= target and differing == 0
    return Figure(what, "ms", mine, peer, "QuantEcon", peer / mine, wanted, met)


def _timed(times: list[float], run: Callable[[], Any]) -> Any:
    begin = perf_counter()
    result = run()
    times.append(perf_counter() - begin)
    return result


def _differing(solution: Solution, theirs: Any) -> int:
    clear = ~(np.abs(solution.gain) <= TIE)
    return int(np.sum((solution.migrate != (theirs == 1)) & clear))


def _theirs(problem: Problem) -> Any:
    try:
        from quantecon.markov import DiscreteDP
    except ImportError:
        raise Skipped("QuantEcon is not installed (pip install quantecon)") from None
    n = problem.states
    stays, goes = np.flatnonzero(problem.may_stay), np.arange(1, n)
    home = csr_array((np.ones(n - 1), np.zeros(n - 1, dtype=np.int32), np.arange(n)), shape=(n - 1, n))
    moves = csr_matrix(vstack([problem.stay[stays], home], format="csr"))
    states = np.concatenate([stays, goes])
    actions = np.concatenate([np.zeros(len(stays), dtype=np.int64), np.ones(n - 1, dtype=np.int64)])
    rewards = np.concatenate([problem.stay_reward[stays], problem.go_reward[goes]])
    # It wants the pairs in order of the states; sorting here keeps that out of its time.
    order = np.lexsort((actions, states))
    return DiscreteDP(rewards[order], moves[order], problem.gamma, states[order], actions[order])


if __name__ == "__main__":
    for figure in figures(False, print):
        print(figure)
