"""Our solvers against QuantEcon's ``DiscreteDP``, which others wrote for any decision process."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix, vstack

from followme.placement.mdp_hexagons import hexagons
from followme.placement.mdp_problem import Problem, line
from followme.placement.mdp_solve import Method, solve

quantecon = pytest.importorskip("quantecon", reason="QuantEcon is not installed (pip install quantecon)")

METHODS: tuple[Method, ...] = ("structure", "value", "policy", "modified")


def peer_of(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The value and where to migrate as QuantEcon finds them by policy iteration, from the definition alone:
    the rewards of each transition, Q(s') f - fee and Q(0) - cost, are put together here, not by our code."""
    n, quality = problem.states, problem.quality
    stays = np.flatnonzero(~np.asarray(problem.forced))
    goes = np.arange(1, n)
    chain = problem.stay.toarray()[stays]
    factor = 1.0 if problem.alpha is None else (problem.alpha + chain) / (problem.alpha + 1.0)
    rewards = np.concatenate(
        [(chain * factor) @ quality - np.asarray(problem.fee)[stays], quality[0] - problem.cost[goes]]
    )
    home = csr_array((np.ones(n - 1), (np.arange(n - 1), np.zeros(n - 1, dtype=int))), shape=(n - 1, n))
    moves = csr_matrix(vstack([csr_array(chain), home]))
    actions = np.concatenate([np.zeros(len(stays), dtype=int), np.ones(n - 1, dtype=int)])
    process = quantecon.markov.DiscreteDP(rewards, moves, problem.gamma, np.concatenate([stays, goes]), actions)
    result = process.solve(method="policy_iteration", max_iter=1000)
    return np.asarray(result.v), np.asarray(result.sigma) == 1


def agree(problem: Problem) -> None:
    value, migrate = peer_of(problem)
    for method in METHODS:
        ours = solve(problem, method)
        assert np.max(np.abs(ours.value - value)) <= ours.error_bound + 1e-8
        clear = ~(np.abs(ours.gain) <= 1e-7)
        clear[0] = True
        assert np.array_equal(ours.migrate[clear], migrate[clear])


@pytest.mark.parametrize("seed", range(40))
def test_random_problems(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    stay = rng.random((n, n)) * (rng.random((n, n)) < rng.uniform(0.05, 1.0)) + 1e-3 * np.eye(n)
    stay /= stay.sum(axis=1, keepdims=True)
    forced = rng.random(n) < 0.1
    forced[0] = False
    alpha = None if seed % 2 else float(rng.uniform(0, 20))
    agree(Problem(stay, rng.normal(size=n) * 10, rng.uniform(0, 15, n), float(rng.uniform(0, 0.99)),
                  rng.integers(0, 30, n), forced, alpha, rng.uniform(0, 2, n)))  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_random_lines(seed: int) -> None:
    rng = np.random.default_rng(seed)
    thr = int(rng.integers(1, 200))
    quality = -np.cumsum(rng.exponential(1.0, thr + 2))
    cost = float(rng.uniform(0, 2 * thr))
    agree(line(thr, rng.random(thr), cost, float(rng.uniform(0.5, 0.99)), quality, home_fee=float(seed % 3)))


@pytest.mark.parametrize("cost", [2.0, 30.0, 400.0])
@pytest.mark.parametrize("out", [None, 0.4])
def test_grids(cost: float, out: float | None) -> None:
    agree(hexagons(12, cost, 0.95, lambda d: -(d**1.5), out=out))
