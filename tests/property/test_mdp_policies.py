"""What figure 14 shows, for any parameters: thresholds, and how they move."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from followme.placement.mdp_hexagons import hexagons
from followme.placement.mdp_problem import Problem, line
from followme.placement.mdp_solve import Method, Solution, solve

METHODS: tuple[Method, ...] = ("structure", "value", "policy", "modified")
SLACK = 1e-6
"""Far above the solvers' bounds, far below what moves a threshold."""

probabilities = st.floats(0.0, 1.0)
costs = st.floats(0.0, 200.0)
discounts = st.floats(0.0, 0.98)
lengths = st.integers(1, 60)
losses = st.lists(st.floats(0.0, 5.0), min_size=62, max_size=62)


def falling(losses: list[float], states: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Any quality that never rises with the distance."""
    return -np.cumsum(np.array([0.0, *losses[: states - 1]]))


def gains_rise(solution: Solution) -> bool:
    """Threshold form, told from the gains so that ties within rounding do not matter."""
    gain = solution.gain[1:-1]
    return not any(near > SLACK and np.any(gain[at:] < -SLACK) for at, near in enumerate(gain))


@given(lengths, probabilities, costs, discounts, losses)
def test_on_a_line_the_policy_is_a_threshold_and_farther_is_worse(
    thr: int, p: float, cost: float, gamma: float, losses: list[float]
) -> None:
    quality = falling(losses, thr + 2)
    solution = solve(line(thr, p, cost, gamma, quality))
    assert gains_rise(solution)
    arrival = quality + gamma * solution.value
    assert np.all(np.diff(arrival) <= SLACK)
    assert np.all(np.diff(solution.value[1:]) <= SLACK)


@given(lengths, probabilities, probabilities, costs, discounts, losses)
def test_moving_on_more_makes_no_state_better(
    thr: int, p: float, other: float, cost: float, gamma: float, losses: list[float]
) -> None:
    less, more = sorted((p, other))
    quality = falling(losses, thr + 2)
    few, many = (solve(line(thr, one, cost, gamma, quality)) for one in (less, more))
    assert np.all(many.value <= few.value + SLACK)


def falls(thr: int, ps: list[float], cost: float, gamma: float) -> bool:
    """Whether the threshold falls as p grows, with linear quality: where the smaller p migrates by a margin the
    larger one may not stay by a margin."""
    solutions = [solve(line(thr, p, cost, gamma, lambda s: -s)) for p in sorted(ps)]
    return not any(
        np.any((low.gain[1:-1] > SLACK) & (high.gain[1:-1] < -SLACK)) for low, high in pairwise(solutions)
    )


@given(lengths, st.lists(st.floats(0.0, 0.5), min_size=2, max_size=4), costs, discounts)
def test_the_threshold_falls_as_p_grows_to_one_half(thr: int, ps: list[float], cost: float, gamma: float) -> None:
    assert falls(thr, ps, cost, gamma)


@given(st.lists(probabilities, min_size=2, max_size=4), st.floats(0.0, 15.0), st.floats(0.0, 0.7))
def test_the_threshold_falls_as_p_grows_to_one(ps: list[float], cost: float, gamma: float) -> None:
    """As in figure 14's rows. Not for dear migrations and patience, see ``test_the_threshold_need_not_fall``."""
    assert falls(60, ps, cost, gamma)


@given(lengths, probabilities, costs, costs, discounts, losses)
def test_the_threshold_rises_with_the_cost_and_the_value_falls(
    thr: int, p: float, cost: float, other: float, gamma: float, losses: list[float]
) -> None:
    quality = falling(losses, thr + 2)
    cheap, dear = (solve(line(thr, p, one, gamma, quality)) for one in sorted((cost, other)))
    assert not np.any((dear.gain[1:-1] > SLACK) & (cheap.gain[1:-1] < -SLACK))
    assert np.all(dear.value <= cheap.value + SLACK)


@given(st.integers(1, 12), probabilities, costs, discounts, losses)
def test_a_grid_whose_moves_know_only_rings_is_the_line(
    thr: int, p: float, cost: float, gamma: float, losses: list[float]
) -> None:
    quality = falling(losses, thr + 2)
    flat = solve(line(thr, p, cost, gamma, quality))
    full = solve(hexagons(thr, cost, gamma, lambda d: quality[d.astype(int)], out=p))
    assert np.allclose(full.value, flat.value[full.distance], rtol=0, atol=SLACK)
    clear = np.abs(flat.gain) > SLACK
    assert np.array_equal(full.migrate[clear[full.distance]], flat.migrate[full.distance][clear[full.distance]])


@given(st.integers(1, 10), costs, discounts)
def test_on_the_random_walk_farther_rings_are_no_better(thr: int, cost: float, gamma: float) -> None:
    solution = solve(hexagons(thr, cost, gamma, lambda d: -d))
    rings = [solution.value[solution.distance == ring] for ring in range(thr + 2)]
    for near, far in pairwise(rings[1:]):
        assert np.min(near) >= np.max(far) - SLACK
    assert solution.always_from <= solution.threshold + 1


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Any chain at all, sparse or not, with any qualities, costs and distances."""
    n = draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    stay = rng.random((n, n)) * (rng.random((n, n)) < draw(st.floats(0.1, 1.0)))
    stay[:, 0] += 0.01
    stay /= stay.sum(axis=1, keepdims=True)
    forced = rng.random(n) < draw(st.sampled_from([0.0, 0.3]))
    forced[0] = False
    alpha = draw(st.none() | st.floats(0.0, 50.0))
    return Problem(stay, rng.normal(size=n) * 10, rng.random(n) * draw(st.floats(0.0, 20.0)),
                   draw(st.floats(0.0, 0.98)), rng.integers(0, 40, n), forced, alpha)  # fmt: skip


@settings(max_examples=200)
@given(problems())
def test_all_methods_agree_within_their_bounds(problem: Problem) -> None:
    solutions = [solve(problem, method) for method in METHODS]
    first = solutions[0]
    clear = np.abs(first.gain) > SLACK
    for other in solutions:
        assert other.error_bound <= 1e-8
        assert np.max(np.abs(other.value - first.value)) <= other.error_bound + first.error_bound + 1e-12
        assert np.array_equal(other.migrate[clear], first.migrate[clear])
