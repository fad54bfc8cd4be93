"""Stay-or-go as a policy: the sum over what a situation knows, and what it does not."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest

from followme.analysis.cells import make_areas
from followme.analysis.outcome import Costs
from followme.analysis.simulator import places
from followme.analysis.visits import Visits
from followme.placement import Policy, Situation, StayOrGo, policy_named
from followme.placement.stay import Gain

POLICY = StayOrGo(stay_s=100.0, stalled_s=0.5)


def situation(**more: object) -> Situation:
    """40 ms nearer, 10 MB over 80 Mbit/s: 0.08 a second for 99 s of 100, less half a second stalled."""
    known: dict[str, object] = {
        "delay_current_s": 0.05, "delay_best_s": 0.01, "migration_bytes": 10_000_000, "bandwidth_bit_s": 80e6,
    }  # fmt: skip
    return Situation("s", "dc1", "dc2", 3, **{**known, **more})  # type: ignore[arg-type]


def test_without_worths_the_delay_counts_in_seconds_of_waiting() -> None:
    decision = POLICY.decide(situation())
    assert (decision.migrate, decision.target, decision.policy) == (True, "dc2", "stay-or-go")
    assert POLICY.verdict(situation()).net == pytest.approx(0.08 * 99 - 0.5)
    assert not POLICY.decide(situation(delay_best_s=0.0499)).migrate
    assert not POLICY.decide(situation(delay_best_s=0.06)).migrate


def test_worths_count_where_they_are_given_and_what_is_unknown_is_said() -> None:
    cheaper = Gain(1.0, {"server_price": 1.0}, ("loss",))
    decision = POLICY.decide(situation(delay_best_s=0.9, gain=cheaper))
    assert decision.migrate, "far, but worth it"
    assert "not known, so not counted: loss" in decision.why
    dearer = Gain(-1.0, {"server_price": -1.0}, ())
    assert not POLICY.decide(situation(gain=dearer)).migrate, "near, but not worth it"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"bandwidth_bit_s": None}, "the free bandwidth to the target is not known"),
        ({"delay_best_s": None}, "no delay is known"),
        ({"gain": Gain(0.0, {}, ("latency",))}, "no delay is known"),
    ],
)
def test_what_is_not_known_is_no_reason_to_go(more: dict[str, object], why: str) -> None:
    decision = POLICY.decide(situation(**more))
    assert not decision.migrate
    assert why in decision.why


def test_the_expected_stay_is_the_users_own_and_some_prior_ones() -> None:
    assert POLICY.expected_stay_s(situation()) == 100.0
    assert POLICY.expected_stay_s(situation(stay_s=20.0, stays=1)) == pytest.approx((3 * 100 + 20) / 4)
    assert POLICY.expected_stay_s(situation(stay_s=20.0, stays=50)) == pytest.approx((3 * 100 + 50 * 20) / 53)
    busy = situation(stay_s=1.0, stays=50, delay_best_s=0.045)
    assert not POLICY.decide(busy).migrate, "who is gone again in a second is not worth carrying for"
    assert POLICY.decide(situation(delay_best_s=0.045)).migrate
    assert "50 stays of this user seen" in POLICY.decide(busy).why


def test_content_that_ends_before_the_user_leaves_ends_the_gain() -> None:
    assert not POLICY.decide(situation(remaining_s=5.0)).migrate
    assert POLICY.decide(situation(remaining_s=60.0)).migrate


def test_the_carry_is_priced_and_the_last_stall_is_the_next_one() -> None:
    assert not POLICY.decide(situation(stalled_s=30.0)).migrate
    assert POLICY.decide(situation(stalled_s=0.01)).migrate
    assert not StayOrGo(stay_s=100.0, price=100.0).decide(situation()).migrate
    assert not StayOrGo(stay_s=100.0, byte_price=1e-6).decide(situation()).migrate


def test_nobody_migrates_to_where_the_service_is() -> None:
    assert not POLICY.decide(Situation("s", "dc1", "dc1", 9)).migrate


def test_by_name() -> None:
    policy: Policy = policy_named("stay-or-go", {"stay_s": 60})
    assert policy == StayOrGo(stay_s=60.0)


@pytest.mark.parametrize("value", [-1.0, inf, nan])
def test_no_nonsense(value: float) -> None:
    with pytest.raises(ValueError, match="stay_s"):
        StayOrGo(stay_s=value)


def test_the_simulator_runs_it_as_it_is() -> None:
    """Three areas in a row; a carry takes 8 s: over 9 s of stay that is worth it from two areas off only."""
    areas = make_areas(list("abc"), np.array([0.0, 0.0, 0.0]), np.array([0.0, 0.01, 0.02]), 1)
    visits = Visits(("u",), np.zeros(3, int), np.arange(3), np.array([0.0, 100.0, 200.0]), np.full(3, 100.0),
                    np.array([True, False, False]))  # fmt: skip
    costs = Costs(service_bytes=1e6, bandwidth_bit_s=1e6, latency=lambda hops: 0.1 * hops)
    assert places(StayOrGo(stay_s=100.0), visits, areas, costs).tolist() == [0, 1, 2]
    assert places(StayOrGo(stay_s=9.0), visits, areas, costs).tolist() == [0, 0, 2]
    assert places(StayOrGo(stay_s=8.0), visits, areas, costs).tolist() == [0, 0, 0]
