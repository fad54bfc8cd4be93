"""The MDP of section 5: value iteration against every policy there is, and the shape of figure 14."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from followme.placement.mdp import MdpPolicy, Problem, linear_quality, solve
from followme.placement.situation import Situation


def policy_value(problem: Problem, migrates: tuple[bool, ...]) -> NDArray[np.float64]:
    """The exact value of one policy, from its linear equations; ``migrates`` is for the states 1..thr."""
    last = problem.thr + 1
    chain = np.zeros((last + 1, last + 1))
    cost = np.zeros(last + 1)
    for state, go in enumerate((False, *migrates, True)):
        if state == 0:
            chain[0, 1] = 1.0
        elif go:
            chain[state, 0] = 1.0
            cost[state] = problem.cost
        else:
            chain[state, state + 1] += problem.p
            chain[state, state - 1] += 1.0 - problem.p
    reward = chain @ np.array(problem.quality) - cost
    solved: NDArray[np.float64] = np.linalg.solve(np.eye(last + 1) - problem.gamma * chain, reward)
    return solved


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("cost", [0.0, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("gamma", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("quality", [linear_quality(4, 10, 1), (9.0, 3.0, 8.0, 1.0, 0.0, 7.0)])
def test_no_deterministic_policy_is_better(
    p: float, cost: float, gamma: float, quality: tuple[float, ...]
) -> None:
    problem = Problem(p, cost, gamma, quality)
    solution = solve(problem)
    every = {choice: policy_value(problem, choice) for choice in product((False, True), repeat=4)}
    assert len(every) == 16
    best = np.max(list(every.values()), axis=0)
    assert solution.error_bound <= 1e-9
    assert np.max(np.abs(solution.value - best)) <= solution.error_bound + 1e-12
    chosen = every[tuple(bool(go) for go in solution.migrate[1:-1])]
    assert np.allclose(chosen, best, rtol=0, atol=1e-7)


def test_the_error_bound_holds_when_it_stops_early() -> None:
    problem = Problem(0.5, 5.0, 0.95, linear_quality(10, 10, 1))
    exact = solve(problem, 1e-11).value
    errors = []
    for iterations in (1, 5, 20, 80):
        early = solve(problem, 1e-11, max_iterations=iterations)
        assert early.iterations == iterations
        error = float(np.max(np.abs(early.value - exact)))
        assert 0 < error <= early.error_bound
        errors.append(error)
    assert errors == sorted(errors, reverse=True)


def test_tolerance_beyond_the_arithmetic_ends_with_an_honest_bound() -> None:
    solution = solve(Problem(0.5, 5.0, 0.99, linear_quality(10, 1e6, 1)), 1e-15)
    assert 1e-15 < solution.error_bound < 1e-2
    assert solution.iterations < 10_000


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
@pytest.mark.parametrize("tau", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("q0", [10.0, 50.0])
def test_the_policy_is_a_threshold_and_farther_is_worse(
    p: float, tau: float, gamma: float, q0: float
) -> None:
    solution = solve(Problem(p, tau * q0, gamma, linear_quality(10, q0, 1)))
    beyond = solution.migrate[solution.threshold :]
    assert beyond.all()
    assert not solution.migrate[: solution.threshold].any()
    slack = 2 * solution.error_bound
    assert np.all(np.diff(solution.value[1:]) <= slack)
    # What it is worth to arrive: from 0 on, too.
    arrival = np.array(linear_quality(10, q0, 1)) + gamma * solution.value
    assert np.all(np.diff(arrival) <= slack)


@pytest.mark.parametrize("tau", [0.1, 0.5])
def test_the_threshold_falls_as_p_grows(tau: float) -> None:
    """Figure 14: its rows, p = 0.1 to 1."""
    thresholds = [
        solve(Problem(p / 10, tau * 10, 0.9, linear_quality(10, 10, 1))).threshold for p in range(1, 11)
    ]
    assert thresholds == sorted(thresholds, reverse=True)
    assert thresholds[0] > thresholds[-1]


def test_the_threshold_rises_with_the_cost() -> None:
    """Figure 14: its two tables, tau 0.1 and 0.5; at no cost every step away is one too many."""
    costs = [0.0, 1.0, 5.0, 20.0, 200.0]
    thresholds = [solve(Problem(0.5, cost, 0.9, linear_quality(10, 10, 1))).threshold for cost in costs]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] == 1
    assert thresholds[-1] == 11


def test_a_tie_is_a_stay() -> None:
    """With one quality everywhere and no cost both actions are worth the same."""
    solution = solve(Problem(0.5, 0.0, 0.9, linear_quality(4, 10, 0)))
    assert solution.migrate.tolist() == [False] * 5 + [True]
    assert np.allclose(solution.gain[1:-1], 0.0, atol=1e-9)


def test_the_gain_is_that_of_migrating_over_staying() -> None:
    problem = Problem(0.25, 5.0, 0.9, linear_quality(4, 10, 1))
    solution = solve(problem)
    arrival = np.array(problem.quality) + problem.gamma * solution.value
    for state in range(1, 5):
        stay = 0.25 * arrival[state + 1] + 0.75 * arrival[state - 1]
        assert solution.gain[state] == pytest.approx(arrival[0] - 5.0 - stay)
    assert np.isnan(solution.gain[[0, 5]]).all()


def test_linear_quality_is_clipped_at_0() -> None:
    assert linear_quality(3, 5.0, 2.0) == (5.0, 3.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"p": 1.1}, "p 1.1"),
        ({"p": float("nan")}, "p nan"),
        ({"gamma": 1.0}, "gamma 1.0"),
        ({"cost": -1.0}, "cost -1.0"),
        ({"cost": float("inf")}, "cost inf"),
        ({"quality": (1.0, 0.0)}, "thr 0"),
        ({"quality": (1.0, 0.0, float("nan"))}, "finite"),
    ],
)
def test_bad_problems_are_refused(change: dict[str, float | tuple[float, ...]], complaint: str) -> None:
    good: dict[str, object] = {"p": 0.5, "cost": 1.0, "gamma": 0.9, "quality": (2.0, 1.0, 0.0)}
    with pytest.raises(ValueError, match=complaint):
        Problem(**{**good, **change})  # type: ignore[arg-type]


def test_a_tolerance_must_be_positive() -> None:
    with pytest.raises(ValueError, match="tolerance"):
        solve(Problem(0.5, 1.0, 0.9, (2.0, 1.0, 0.0)), 0.0)


# --- as a policy -----------------------------------------------------------------------------------------


def at(distance: int, **more: float) -> Situation:
    return Situation("video", "dc1", "dc2", distance, **more)  # type: ignore[arg-type]


def test_it_decides_by_its_table() -> None:
    policy = MdpPolicy(p=0.5, tau=0.5)
    table = policy.solution.migrate
    decisions = [policy.decide(at(distance)) for distance in range(11)]
    assert [decision.migrate for decision in decisions] == table[:11].tolist()
    assert {decision.migrate for decision in decisions} == {True, False}
    assert all(decision.target == ("dc2" if decision.migrate else "dc1") for decision in decisions)
    first = decisions[policy.solution.threshold]
    assert f"threshold {policy.solution.threshold} at p 0.5, cost 5 of quality 10" in first.why
    assert f"worth {policy.solution.gain[policy.solution.threshold]:+.3g}" in first.why


def test_it_stays_at_the_best_and_leaves_what_is_beyond() -> None:
    dear = MdpPolicy(tau=1000.0)
    assert not dear.decide(at(10)).migrate
    assert dear.decide(at(11)).migrate
    assert "beyond thr 10" in dear.decide(at(11)).why
    cheap = MdpPolicy(tau=0.0)
    assert not cheap.decide(at(0)).migrate
    assert not cheap.decide(Situation("video", "dc1", "dc1", 50)).migrate


def test_a_measured_cost_takes_the_place_of_tau() -> None:
    policy = MdpPolicy(tau=0.1, cost_per_s=2.0)
    distance = policy.solution.threshold
    assert policy.decide(at(distance)).migrate
    slow = at(distance, migration_bytes=500_000_000, bandwidth_bit_s=1e8)
    decision = policy.decide(slow)
    assert slow.transfer_s == 40.0
    assert not decision.migrate
    assert "cost 80 of quality 10" in decision.why
    fast = at(distance, migration_bytes=500_000_000, bandwidth_bit_s=1e12)
    assert policy.decide(fast).migrate
    assert policy.decide(at(distance, migration_bytes=500_000_000, bandwidth_bit_s=0.0)).migrate


@pytest.mark.parametrize("key", ["q0", "k", "tau", "cost_per_s"])
def test_bad_parameters_are_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} -1.0"):
        MdpPolicy(**{key: -1.0})  # type: ignore[arg-type]
