"""The simulator on a way that can be reckoned by hand, with the controller's policies."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from followme.analysis.cells import make_areas
from followme.analysis.outcome import Costs, Outcome, margin
from followme.analysis.simulator import places, simulate
from followme.analysis.visits import Visits
from followme.domain import Decision
from followme.placement import Always, MdpPolicy, Never, Policy, Situation, Threshold
from followme.placement.policy import Myopic, policy_named

AREAS = make_areas("abcdef", np.zeros(6), np.arange(6) / 100.0)
# Two requests a second, 0.1 s a hop; a migration takes 8 s of the link and pauses for 1 s.
COSTS = Costs(2.0, 1e6, 1e6, 1.0, 1.0, lambda hops: 0.1 * hops)


def visits_of(*sessions: tuple[int, str], stay_s: float = 100.0) -> Visits:
    """Each session is a user and the areas one after the other."""
    user = np.array([who for who, way in sessions for _ in way])
    area = np.array(["abcdef".index(name) for _, way in sessions for name in way])
    first = np.array([index == 0 for _, way in sessions for index in range(len(way))])
    start = np.arange(len(user), dtype=np.float64) * stay_s
    names = tuple(f"u{index}" for index in range(int(user.max()) + 1))
    return Visits(names, user, area, start, np.full(len(user), stay_s), first)


VISITS = visits_of((0, "abcb"), (0, "dc"), (1, "ace"))


@dataclass
class Recorder:
    """Remembers what it was asked, and answers as another policy does."""

    policy: Policy
    asked: list[Situation] = field(default_factory=list)
    name: str = "recorder"

    def decide(self, situation: Situation) -> Decision:
        self.asked.append(situation)
        return self.policy.decide(situation)


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        (Never(), "aaaaddaaa"),
        (Always(), "abcbdcace"),
        (Threshold(2), "aaccddace"),
        (Threshold(3), "aaaaddaae"),
        (Threshold(9), "aaaaddaaa"),
        (Myopic(residence_s=100.0, requests_per_s=2.0), "abcbdcace"),
        (Myopic(residence_s=30.0, requests_per_s=2.0), "aaccddace"),
        (Myopic(residence_s=1.0, requests_per_s=2.0), "aaaaddaaa"),
        (MdpPolicy(thr=2, p=1.0, q0=10.0, k=3.0, tau=0.0), "abcbdcace"),
    ],
)
def test_who_is_served_from_where(policy: Policy, served: str) -> None:
    assert "".join(AREAS.names[area] for area in places(policy, VISITS, AREAS, COSTS)) == served


def test_costs_by_hand() -> None:
    one = simulate(Threshold(2), VISITS, AREAS, COSTS, "two")
    # Hops by visit: 0 1 0 1, 0 1, 0 0 0; migrations a->c, a->c, c->e, each over two hops.
    assert (one.policy, one.how, one.handoffs, one.migrations) == ("threshold", "two", 6, 3)
    assert one.watched_s == 900.0
    assert one.mean_distance_hops == pytest.approx(3 / 9)
    assert one.mean_latency_s == pytest.approx(0.1 * 3 / 9)
    assert one.moved_bytes == 3e6
    assert one.waiting_s == pytest.approx(2.0 * 0.1 * 300.0)
    assert one.migrating_s == pytest.approx(3 * (8.0 + 1.0 + 0.1))
    assert one.share_at_hops.tolist() == pytest.approx([6 / 9, 3 / 9])
    assert one.by_user.tolist() == pytest.approx([60.0 + 9.1, 18.2])
    assert one.cost_s == pytest.approx(one.by_user.sum())
    assert one.to_json()["cost_s"] == one.cost_s


def test_costs_by_the_hour() -> None:
    one = simulate(Never(), visits_of((0, "abc"), stay_s=3000.0), AREAS, COSTS)
    assert one.by_hour.tolist() == pytest.approx([600.0, 1200.0])


def test_a_policy_is_told_what_the_controller_tells_it() -> None:
    recorder = Recorder(Never())
    simulate(recorder, visits_of((0, "ad")), AREAS, COSTS)
    assert recorder.asked == [Situation("u0", "a", "d", 3, 0.1 * 3 / 2, 0.0, 1_000_000, 1e6, user="u0")]


def test_a_policy_is_not_asked_what_it_has_said() -> None:
    recorder = Recorder(Never())
    simulate(recorder, visits_of((0, "ababab"), (1, "ab")), AREAS, COSTS)
    assert [(one.service, one.current, one.best) for one in recorder.asked] == [("u0", "a", "b"), ("u1", "a", "b")]


def test_a_policy_goes_where_it_was_offered_to_go() -> None:
    @dataclass
    class Lost:
        name: str = "lost"

        def decide(self, situation: Situation) -> Decision:
            return Decision(situation.service, True, situation.current, "nowhere", "lost", "")

    with pytest.raises(RuntimeError, match="lost goes to nowhere, the best was b"):
        simulate(Lost(), VISITS, AREAS, COSTS)


def test_no_visits() -> None:
    none, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
    with pytest.raises(ValueError, match="no visit"):
        simulate(Never(), Visits((), none, none, nothing, nothing, none > 0), AREAS, COSTS)


@pytest.mark.parametrize(
    ("name", "value"), [("pause_s", -1.0), ("service_bytes", float("nan")), ("bandwidth_bit_s", 0.0)]
)
def test_prices_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Costs(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="latency"):
        Costs(latency=lambda hops: -1.0).latencies(np.array([1]))


def outcome(policy: str, by_user: list[float]) -> Outcome:
    users = np.array(by_user)
    return Outcome(policy, "", 1, 1.0, 0.0, 0.0, 0, 0.0, float(users.sum()), 0.0, users, users, users)


def test_the_margin_is_paired_by_user() -> None:
    theirs = outcome("always", [1.0, 10.0, 100.0, 1000.0])
    same = margin(outcome("mdp", [0.9, 9.0, 90.0, 900.0]), theirs)
    # Each user is 10 % cheaper, so every draw of users is, however different they are.
    assert (same.share, same.low, same.high) == pytest.approx((-0.1, -0.1, -0.1))
    mixed = margin(outcome("mdp", [2.0, 5.0, 100.0, 1000.0]), theirs)
    assert mixed.low < mixed.share < mixed.high
    assert mixed.low >= -0.5
    assert mixed.high <= 1.0
    assert margin(theirs, outcome("always", [0.0] * 4)).share == float("inf")


class TestMyopic:
    def test_it_weighs_one_stay(self) -> None:
        situation = Situation("video", "dc1", "dc2", 3, 0.05, 0.01, 125_000_000, 100e6)
        # Saves 2 * 0.04 s a request; costs 10 s of transfer, 1 s of pause, 0.05 s of path.
        assert not Myopic(residence_s=138.0).decide(situation).migrate
        decision = Myopic(residence_s=139.0).decide(situation)
        assert (decision.migrate, decision.target, decision.policy) == (True, "dc2", "myopic")
        assert decision.why.startswith("migrating saves 11.1 s of waiting until the next handoff and costs 11.1 s")

    def test_without_measurements_it_goes_by_its_own_figures(self) -> None:
        policy = Myopic(residence_s=100.0, transfer_s=5.0, pause_s=0.9, hop_delay_s=0.01)
        far = [policy.decide(Situation("video", "dc1", "dc2", hops)).migrate for hops in range(1, 5)]
        assert far == [False, False, True, True]

    def test_it_stays_at_the_best(self) -> None:
        assert not Myopic(transfer_s=0.0, pause_s=0.0).decide(Situation("video", "dc1", "dc1", 5)).migrate

    def test_the_config_knows_it(self) -> None:
        assert policy_named("myopic", {"residence_s": 90}) == Myopic(residence_s=90.0)

    @pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
    def test_its_figures_are_checked(self, value: float) -> None:
        with pytest.raises(ValueError, match="pause_s"):
            Myopic(pause_s=value)
