"""The MDP of section 5 on a line: every solver against every policy there is, and the policy of the controller."""

from __future__ import annotations

from dataclasses import fields
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from followme.placement import mdp_structure
from followme.placement.mdp import MdpPolicy, policy_table
from followme.placement.mdp_hexagons import hexagons
from followme.placement.mdp_problem import Problem, line, linear_quality
from followme.placement.mdp_solve import Method, solve
from followme.placement.situation import Situation

METHODS: tuple[Method, ...] = ("structure", "value", "policy", "modified")


def policy_value(
    p: float, cost: float, gamma: float, quality: tuple[float, ...], migrates: tuple[bool, ...]
) -> NDArray[np.float64]:
    """The exact value of one policy, from its linear equations; ``migrates`` is for the states 1..thr."""
    last = len(quality) - 1
    chain = np.zeros((last + 1, last + 1))
    paid = np.zeros(last + 1)
    for state, go in enumerate((False, *migrates, True)):
        if state == 0:
            chain[0, 1] = 1.0
        elif go:
            chain[state, 0] = 1.0
            paid[state] = cost
        else:
            chain[state, state + 1] += p
            chain[state, state - 1] += 1.0 - p
    reward = chain @ np.array(quality) - paid
    solved: NDArray[np.float64] = np.linalg.solve(np.eye(last + 1) - gamma * chain, reward)
    return solved


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("cost", [0.0, 1.0, 5.0, 30.0])
@pytest.mark.parametrize("gamma", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("quality", [linear_quality(4, 10, 1), (9.0, 3.0, 8.0, 1.0, 0.0, 7.0)])
def test_no_deterministic_policy_is_better(
    method: Method, p: float, cost: float, gamma: float, quality: tuple[float, ...]
) -> None:
    solution = solve(line(4, p, cost, gamma, quality), method)
    every = {
        choice: policy_value(p, cost, gamma, quality, choice) for choice in product((False, True), repeat=4)
    }
    assert len(every) == 16
    best = np.max(list(every.values()), axis=0)
    assert solution.error_bound <= 1e-9
    assert np.max(np.abs(solution.value - best)) <= solution.error_bound + 1e-12
    chosen = every[tuple(bool(go) for go in solution.migrate[1:-1])]
    assert np.allclose(chosen, best, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", ["value", "modified", "policy", "structure"])
def test_the_error_bound_holds_when_it_stops_early(method: Method) -> None:
    problem = line(10, 0.5, 20.0, 0.95, linear_quality(10, 10, 1))
    exact = solve(problem, "policy", 1e-11).value
    errors = []
    for iterations in (1, 2, 3):
        early = solve(problem, method, 1e-11, iterations)
        assert early.iterations <= iterations
        error = float(np.max(np.abs(early.value - exact)))
        assert error <= early.error_bound
        errors.append(error)
    assert errors[0] > 1e-3
    assert errors[-1] < errors[0]


def test_tolerance_beyond_the_arithmetic_ends_with_an_honest_bound() -> None:
    problem = line(10, 0.5, 5.0, 0.99, linear_quality(10, 1e6, 1))
    for method in METHODS:
        solution = solve(problem, method, 1e-15)
        assert 1e-15 < solution.error_bound < 1e-2
        assert solution.iterations < 10_000


@pytest.mark.parametrize("far", [1e-4, 1e-6, 1e-8, 1e-9])
def test_a_discount_near_1_does_not_hide_what_actions_differ_by(far: float) -> None:
    """Values grow with 1 / (1 - gamma), what migrating gains does not: +0.0138 at 3 in the limit."""
    problem = line(10, 0.3, 5.0, 1.0 - far, linear_quality(10, 10, 1))
    methods: tuple[Method, ...] = ("structure", "policy")
    for method in methods:
        solution = solve(problem, method)
        assert solution.threshold == 3
        assert solution.gain[3] == pytest.approx(0.0137615, abs=1e-3 if far > 1e-5 else 1e-5)
    with pytest.raises(ValueError, match=r"fee -5.0 must be finite and not negative"):
        line(10, 0.3, 5.0, 0.9, linear_quality(10, 10, 1), home_fee=-5.0)
    with pytest.raises(ValueError, match="below 1, by 1e-9"):
        line(10, 0.3, 5.0, 1.0 - 1e-10, linear_quality(10, 10, 1))


@pytest.mark.parametrize("far", [1e-3, 1e-7])
def test_large_grids_keep_their_digits_too(far: float, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = hexagons(12, 12.0, 1.0 - far, lambda d: -d)
    given = {one.name: getattr(problem, one.name) for one in fields(problem) if one.init} | {"classes": None}
    exact = solve(problem)
    monkeypatch.setattr(mdp_structure, "DIRECT", 10)  # so that BiCGSTAB is asked
    found = solve(Problem(**given))
    assert np.array_equal(found.migrate, exact.migrate)
    clear = ~np.isnan(exact.gain)
    assert found.gain[clear] == pytest.approx(exact.gain[clear], abs=1e-9)


def test_a_deep_threshold_is_found_beyond_the_first_cut() -> None:
    """The structure solver looks at 16 areas first; these thresholds lie beyond, the last beyond all."""
    for cost, least in ((100.0, 1), (1e4, 50), (1e6, 301)):
        problem = line(300, 0.5, cost, 0.99, lambda s: -s)
        ours, peer = solve(problem), solve(problem, "policy")
        assert ours.threshold == peer.threshold >= least
        assert np.array_equal(ours.migrate, peer.migrate)
        assert np.max(np.abs(ours.value - peer.value)) <= ours.error_bound + peer.error_bound


def test_costs_that_differ_beyond_the_cut_count() -> None:
    """Free migrations far away, dear ones near: the cut must carry each state's own cost."""
    cost = np.where(np.arange(102) <= 40, 1e4, 0.0)
    problem = line(100, 0.6, cost, 0.9, lambda s: -s)
    ours, peer = solve(problem), solve(problem, "value")
    assert np.array_equal(ours.migrate, peer.migrate)
    assert ours.threshold == 41
    assert np.allclose(ours.value, peer.value, rtol=0, atol=1e-7)


def test_a_quality_that_rises_again_far_away_is_seen() -> None:
    """No threshold policy: at 60 the quality is back (another site's), so one stays there."""
    quality = np.where(np.arange(102) == 60, 50.0, -np.arange(102.0))
    problem = line(100, 0.5, 30.0, 0.8, quality)
    ours, peer = solve(problem), solve(problem, "policy")
    assert np.array_equal(ours.migrate, peer.migrate)
    assert not ours.migrate[59]
    assert not ours.migrate[61]
    assert (ours.threshold, ours.always_from) == (peer.threshold, 62)


def test_a_tie_is_a_stay() -> None:
    """With one quality everywhere and no cost both actions are worth the same."""
    for method in METHODS:
        solution = solve(line(4, 0.5, 0.0, 0.9, linear_quality(4, 10, 0)), method)
        assert solution.migrate.tolist() == [False] * 5 + [True]
        assert np.allclose(solution.gain[1:-1], 0.0, atol=1e-9)


def test_the_gain_is_that_of_migrating_over_staying() -> None:
    quality = np.array(linear_quality(4, 10, 1))
    solution = solve(line(4, 0.25, 5.0, 0.9, quality))
    arrival = quality + 0.9 * solution.value
    for state in range(1, 5):
        stay = 0.25 * arrival[state + 1] + 0.75 * arrival[state - 1]
        assert solution.gain[state] == pytest.approx(arrival[0] - 5.0 - stay)
    assert np.isnan(solution.gain[[0, 5]]).all()


def test_the_reward_transformation_is_the_papers() -> None:
    """r' = r (alpha + beta) / (alpha + c) with beta the transition's rate, in units of c; one p per state."""
    p, quality = np.array([0.2, 0.6, 1.0]), np.array([9.0, 8.0, 6.0, 3.0, 1.0])
    problem = line(3, p, 2.0, 0.9, quality, alpha=0.5, home_fee=4.0)
    expected = [8.0 - 4.0]
    for state in (1, 2, 3):
        on = p[state - 1]
        further, nearer = quality[state + 1] * (0.5 + on) / 1.5, quality[state - 1] * (1.5 - on) / 1.5
        expected.append(on * further + (1 - on) * nearer)
    assert problem.stay_reward[:4] == pytest.approx(expected)
    assert problem.go_reward[:4] == pytest.approx([7.0] * 4)
    vast = line(3, p, 2.0, 0.9, quality, alpha=1e12, home_fee=4.0)
    plain = line(3, p, 2.0, 0.9, quality, home_fee=4.0)
    assert vast.stay_reward == pytest.approx(plain.stay_reward)


def test_the_threshold_need_not_fall_as_p_grows() -> None:
    """Figure 14's threshold falls along its rows; that is no law. With dear migrations and patience it rises
    again for users who mostly move on: they are soon far away again, so that a migration buys them little."""
    thresholds = [solve(line(200, p, 150.0, 0.98, lambda s: -s)).threshold for p in (0.0, 0.5, 1.0)]
    assert thresholds[0] > thresholds[2] > thresholds[1]


def test_linear_quality_is_clipped_at_0() -> None:
    assert linear_quality(3, 5.0, 2.0) == (5.0, 3.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"p": 1.1}, "p 1.1"),
        ({"p": float("nan")}, "p nan"),
        ({"p": [0.5, 0.5, 0.5]}, r"p has the shape \(3,\)"),
        ({"gamma": 1.0}, "gamma 1.0"),
        ({"gamma": -0.1}, "gamma -0.1"),
        ({"gamma": float("nan")}, "gamma nan"),
        ({"cost": -1.0}, "cost -1.0"),
        ({"cost": float("inf")}, "cost inf of state 0 must be finite"),
        ({"thr": 0}, "thr 0"),
        ({"alpha": -1.0}, "alpha -1.0"),
        ({"quality": (1.0, 0.0)}, r"quality has the shape \(2,\)"),
        ({"quality": lambda s: np.where(s == 2, np.nan, s)}, "quality nan of state 2"),
    ],
)
def test_bad_lines_are_refused(change: dict[str, object], complaint: str) -> None:
    good: dict[str, object] = {"thr": 2, "p": 0.5, "cost": 1.0, "gamma": 0.9, "quality": (2.0, 1.0, 0.0, 0.0)}
    with pytest.raises(ValueError, match=complaint):
        line(**{**good, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("stay", "change", "complaint"),
    [
        ([[0.5, 0.4], [0.0, 1.0]], {}, "state 0 sum to 0.9, not to 1"),
        ([[1.5, -0.5], [0.0, 1.0]], {}, "no probabilities"),
        ([[0.0, 1.0], [np.nan, 1.0]], {}, "no probabilities"),
        (np.zeros((0, 0)), {}, "no states"),
        ([[1.0, 0.0]], {}, "square"),
        ([[0.0, 1.0], [1.0, 0.0]], {"forced": [True, False]}, "home"),
        ([[0.0, 1.0], [1.0, 0.0]], {"distance": [0]}, "distance has the shape"),
    ],
)
def test_bad_chains_are_refused(stay: object, change: dict[str, object], complaint: str) -> None:
    n = len(np.asarray(stay))
    good: dict[str, object] = {"quality": np.zeros(n), "cost": 1.0, "gamma": 0.9, "distance": np.arange(n)}
    with pytest.raises(ValueError, match=complaint):
        Problem(np.asarray(stay), **{**good, **change})  # type: ignore[arg-type]


def test_bad_calls_of_the_solver_are_refused() -> None:
    problem = line(1, 0.5, 1.0, 0.9, (2.0, 1.0, 0.0))
    with pytest.raises(ValueError, match="tolerance"):
        solve(problem, tolerance=0.0)
    with pytest.raises(ValueError, match="max_iterations"):
        solve(problem, max_iterations=0)
    with pytest.raises(ValueError, match="'magic' is unknown; known are structure, value"):
        solve(problem, "magic")  # type: ignore[arg-type]


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


def test_it_never_goes_to_a_place_that_is_no_nearer() -> None:
    policy = MdpPolicy(tau=0.0)
    assert policy.decide(at(9)).migrate
    for other in (9, 12):
        decision = policy.decide(at(9, distance_best=other))
        assert not decision.migrate
        assert f"dc2, at distance {other}, is no nearer than dc1 at 9" in decision.why
    assert not policy.decide(at(9, delay_current_s=0.01, delay_best_s=0.02)).migrate
    assert not policy.decide(at(9, distance_best=9, delay_current_s=0.02, delay_best_s=0.01)).migrate
    assert not policy.decide(at(11, distance_best=11)).migrate, "beyond thr too"


def test_to_a_place_that_is_not_the_nearest_there_is_less_to_gain() -> None:
    policy = MdpPolicy(p=0.9, tau=0.3)
    gains = []
    for other in range(9):
        decision = policy.decide(at(9, distance_best=other))
        gains.append(float(decision.why.split(" is worth ")[1].split()[0]))
        assert decision.migrate == (gains[-1] > 0.0)
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0.0 > gains[-1]


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


def test_the_printed_table_says_what_the_solutions_say() -> None:
    table = policy_table(4, (0.2, 1.0), q0=10.0, k=1.0, tau=0.1, gamma=0.9)
    own = [solve(line(4, p, 1.0, 0.9, linear_quality(4, 10, 1))) for p in (0.2, 1.0)]
    rows = table.text().splitlines()[1:]
    for row, solution, entry in zip(rows, own, table.as_json()["rows"], strict=True):
        letters = ["M" if go else "C" for go in solution.migrate[1:5]]
        assert row.split() == [f"{entry['p']:g}", *letters, str(solution.threshold)]
        assert entry["migrate"] == solution.migrate[1:5].tolist()
        assert entry["gain"] == pytest.approx(solution.gain[1:5].tolist())
    assert policy_table(4, (0.5,), tau=100.0).text().endswith("C C C C  none")
    with pytest.raises(ValueError, match="no p"):
        policy_table(4, ())
    with pytest.raises(ValueError, match="tau nan"):
        policy_table(4, tau=float("nan"))


def test_where_the_best_is_not_beside_the_user_it_is_worth_less() -> None:
    """Against staying, written out: the quality and the value at where the migration leads to."""
    decisive = 0
    for k, tau, distance, nearest in product((0.5, 1.0), (0.1, 0.3, 0.5), range(2, 10), range(1, 9)):
        if nearest >= distance:
            continue
        policy = MdpPolicy(thr=10, p=0.4, q0=12.0, k=k, tau=tau, gamma=0.9)
        quality, value = linear_quality(10, 12.0, k), policy.solution.value
        stays = sum(
            chance * (quality[to] + 0.9 * value[to]) for to, chance in ((distance + 1, 0.4), (distance - 1, 0.6))
        )
        gain = quality[nearest] - tau * 12.0 + 0.9 * value[nearest] - stays
        assert abs(gain) > 1e-9
        assert policy.decide(at(distance, distance_best=nearest)).migrate == (gain > 0.0)
        decisive += gain < 0.0 < gain + 0.9 * (value[0] - value[nearest])
    assert decisive > 20, "what the value there is less decides often"
