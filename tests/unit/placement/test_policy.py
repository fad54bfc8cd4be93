"""The simple policies, and how they are named in a config."""

from __future__ import annotations

import pytest

from followme.domain import Decision
from followme.placement import Always, MdpPolicy, Never, Policy, Situation, Threshold, policy_named
from followme.placement.policy import Myopic


def situation(distance: int = 3, best: str = "dc2") -> Situation:
    return Situation("video", "dc1", best, distance, delay_current_s=0.0305, delay_best_s=0.002)


def test_always_follows() -> None:
    assert Always().decide(situation()) == Decision(
        service="video",
        migrate=True,
        source="dc1",
        target="dc2",
        policy="always",
        why="dc2 is better than dc1; one-way delay 30.5 ms from dc1, 2.0 ms from dc2",
    )


def test_never_stays() -> None:
    decision = Never().decide(situation(99))
    assert (decision.migrate, decision.target, decision.policy) == (False, "dc1", "never")
    assert "distance 99" in decision.why


def test_the_threshold_is_reached_not_passed() -> None:
    policy = Threshold(3)
    decisions = [policy.decide(situation(distance)) for distance in range(5)]
    assert [decision.migrate for decision in decisions] == [False, False, False, True, True]
    assert decisions[2].why.startswith("distance 2 is below the threshold 3")
    assert decisions[3].why.startswith("distance 3 has reached the threshold 3")


@pytest.mark.parametrize("policy", [Always(), Never(), Threshold(1), MdpPolicy(tau=0.0)])
def test_nobody_migrates_to_where_the_service_is(policy: Policy) -> None:
    decision = policy.decide(situation(50, best="dc1"))
    assert (decision.migrate, decision.source, decision.target) == (False, "dc1", "dc1")


@pytest.mark.parametrize("policy", [Threshold(1), Myopic(residence_s=1e9), MdpPolicy(tau=0.0)])
def test_no_model_of_distance_goes_to_a_place_that_is_farther(policy: Policy) -> None:
    """The nearest is excluded by a limit, say: the best of the rest is farther than where the service is."""
    assert policy.decide(Situation("video", "dc1", "dc2", 3, distance_best=1)).migrate
    assert not policy.decide(Situation("video", "dc1", "dc2", 3, distance_best=3)).migrate
    assert not policy.decide(Situation("video", "dc1", "dc2", 3, distance_best=5)).migrate
    assert not policy.decide(Situation("video", "dc1", "dc2", 3, 0.002, 0.03, distance_best=0)).migrate
    assert not policy.decide(Situation("video", "dc1", "dc2", 3, 0.002, 0.002, distance_best=0)).migrate


def test_unmeasured_delays_are_not_mentioned() -> None:
    assert (
        Always().decide(Situation("video", "dc1", "dc2", 1, delay_best_s=0.1)).why == "dc2 is better than dc1"
    )


def test_policies_by_name() -> None:
    assert policy_named("always") == Always()
    assert policy_named("never", {}) == Never()
    assert policy_named("threshold", {"distance": 4.0}) == Threshold(4)
    assert policy_named("mdp", {"thr": 5, "p": 0.25}) == MdpPolicy(thr=5, p=0.25)
    for name in ("always", "never", "threshold", "mdp"):
        assert policy_named(name).name == name


@pytest.mark.parametrize(
    ("name", "parameters", "complaint"),
    [
        ("sometimes", {}, "'sometimes' is unknown; known are always, learned, mdp, myopic"),
        ("always", {"p": 1.0}, "policy 'always' has no parameter 'p'; known: none"),
        ("threshold", {"distanc": 1.0}, "no parameter 'distanc'; known: distance"),
        ("mdp", {"solution": 1.0}, "no parameter 'solution'; known: cost_per_s, gamma, k, p, q0, tau, thr"),
        ("mdp", {"name": 1.0}, "no parameter 'name'"),
        ("threshold", {"distance": 1.5}, "distance 1.5 is not a whole number"),
        ("threshold", {"distance": float("inf")}, "distance inf is not a whole number"),
        ("threshold", {"distance": float("nan")}, "distance nan is not a whole number"),
        ("threshold", {"distance": 0}, "policy 'threshold': distance 0 must be at least 1"),
        ("threshold", {"distance": "far"}, "distance 'far' is not a number"),
        ("mdp", {"p": 2.0}, "policy 'mdp': p 2.0 must be between 0 and 1"),
        ("mdp", {"p": None}, "p None is not a number"),
        ("mdp", {"gamma": 1.0}, "policy 'mdp': gamma 1.0"),
        ("mdp", {"thr": 0.0}, "policy 'mdp': thr 0 must be at least 1"),
        ("mdp", {"q0": float("nan")}, "policy 'mdp': q0 nan"),
    ],
)
def test_wrong_names_keys_and_values_are_named(
    name: str, parameters: dict[str, float], complaint: str
) -> None:
    with pytest.raises(ValueError, match="policy") as caught:
        policy_named(name, parameters)
    assert complaint in str(caught.value)
