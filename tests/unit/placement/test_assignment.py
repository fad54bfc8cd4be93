"""Who goes where when places are short: known optima, reasons, a solver that fails, bad input."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from followme.placement import assignment
from followme.placement.assignment import STAYS, Method, assign

INF, NAN = np.inf, np.nan
METHODS: tuple[Method, ...] = ("auto", "exact", "greedy")


@pytest.mark.parametrize("method", METHODS)
def test_all_get_their_best_where_there_is_room(method: Method) -> None:
    result = assign([[1, 5], [6, 2], [3, 4]], [2, 1], 10.0, method=method)
    assert result.place.tolist() == [0, 1, 0]
    assert (result.cost, result.load.tolist(), result.stays.tolist()) == (6.0, [2.0, 1.0], [])
    assert result.optimal
    assert result.why(0) == "goes to 0 at cost 1, staying costs 10"


@pytest.mark.parametrize("method", METHODS)
def test_who_loses_least_gives_way(method: Method) -> None:
    # Both want 0; user 0 has nearly as good a second choice, though it saves more at 0.
    result = assign([[0, 1], [2, 9]], [1, 1], 10.0, method=method)
    assert result.place.tolist() == [1, 0]
    assert result.cost == 3.0
    assert result.why(0) == "goes to 1 at cost 1, staying costs 10; 0 would cost 0 but has no room left for it"


def test_exact_finds_what_greed_does_not() -> None:
    # One big service fills the place; three small ones save more together, but less each for its demand.
    result = assign([[4.0], [6.1], [6.1], [6.1]], [9], 10.0, [5.0, 3.0, 3.0, 3.0], "exact")
    assert result.place.tolist() == [STAYS, 0, 0, 0]
    assert result.cost == pytest.approx(10 + 3 * 6.1)
    assert result.gap == pytest.approx(0.0, abs=1e-6)
    assert result.optimal


def test_the_gap_is_said() -> None:
    # The linear program would put one and a half users in; no whole solution saves more than one.
    result = assign([[0], [0]], [3], 1.0, [2.0, 2.0], "greedy")
    assert result.cost == 1.0
    assert result.method == "greedy"
    other = assign([[0], [0]], [3], 1.0, [2.0, 1.5], "greedy")
    assert other.cost == 1.0
    # 1.5 in full and 1.5 of 2: 1.75 saved at most.
    assert other.lower_bound == pytest.approx(0.25, abs=0.02)
    assert other.gap == pytest.approx(0.75, abs=0.02)
    assert other.relative_gap == pytest.approx(0.75 / 1.75, abs=0.01)
    assert not other.optimal
    assert assign([[0], [0]], [3], 1.0, [2.0, 1.5], "exact").optimal


@pytest.mark.parametrize("method", METHODS)
def test_who_stays_and_why(method: Method) -> None:
    cost = np.array([[1, 9], [2, 9], [9, 9], [INF, NAN], [5, 5]])
    result = assign(cost, [2, 2], [8, 8, 9, 8, 9], [2, 2, 1, 1, 3], method=method)
    assert result.place.tolist() == [0, STAYS, STAYS, STAYS, STAYS]  # user 0 saves more than user 1 would
    assert result.cost == 1 + 8 + 9 + 8 + 9
    assert result.why(1) == "stays: better for it would be 0, where those who go there leave no room for 2"
    assert result.why(2) == "stays: no data centre is better, the best costs 9, staying 9"
    assert result.why(3) == "stays: no data centre is allowed for it"
    assert result.why(4) == "stays: it needs 3, which is more than the whole capacity of all that are better"
    assert result.unknown == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cost", [[], np.empty((0, 2))])
def test_an_empty_population(method: Method, cost: object) -> None:
    result = assign(cost, [1, 0], 1.0, method=method)  # type: ignore[arg-type]
    assert (result.place.shape, result.cost, result.gap, result.load.tolist()) == ((0,), 0.0, 0.0, [0.0, 0.0])
    assert result.optimal


@pytest.mark.parametrize("method", METHODS)
def test_full_places_take_nobody_and_infinite_ones_all(method: Method) -> None:
    cost = np.ones((20, 1))
    assert assign(cost, [0], 2.0, method=method).stays.tolist() == list(range(20))
    for demand in (1.0, 0.1, np.linspace(0.1, 0.9, 20)):
        assert assign(cost, [INF], 2.0, demand, method).stays.tolist() == []


@pytest.mark.parametrize("method", METHODS)
def test_capacity_is_exact(method: Method) -> None:
    """Ten times 0.1 is a little more than 1, in the numbers that a machine holds: nine go."""
    assert len(assign(np.ones((10, 1)), [1.0], 2.0, 0.1, method).stays) == 1
    assert len(assign(np.ones((10, 1)), [1000], 2.0, 100, method).stays) == 0


@pytest.mark.parametrize("method", METHODS)
def test_the_last_unit_of_capacity_is_used(method: Method) -> None:
    # User 2 comes to 0 in a second round only, when 1 is full: what is left there is just enough.
    cost, stay = [[0, 20], [20, 0], [5, 4]], [20, 20, 20]
    assert assign(cost, [7, 3], stay, [4, 3, 3], method).place.tolist() == [0, 1, 0]
    assert assign(cost, [2e17, 3], stay, [1, 3, 2e17], method).place.tolist() == [0, 1, STAYS]
    assert assign(cost, [2, 1], stay, 1.0, method).place.tolist() == [0, 1, 0]


class TestSolver:
    """Whatever the solver says, the result is sound."""

    COST = np.array([[1.0, 4.0], [2.0, 3.0], [2.5, 6.0], [3.0, 9.0]])
    DEMAND = np.array([2.0, 3.0, 2.0, 1.0])

    def assigned(self, monkeypatch: pytest.MonkeyPatch, **answer: object) -> assignment.Assignment:
        monkeypatch.setattr(assignment, "milp", lambda *_, **__: SimpleNamespace(**answer))
        return assign(self.COST, [4, 3], 10.0, self.DEMAND, "exact")

    def check(self, result: assignment.Assignment) -> None:
        best = assign(self.COST, [4, 3], 10.0, self.DEMAND, "greedy")
        assert (result.load <= [4, 3]).all()
        assert result.cost <= best.cost
        assert result.lower_bound <= result.cost

    def test_it_overfills(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.check(self.assigned(monkeypatch, x=np.array([1, 0] * 4, dtype=float), mip_dual_bound=-3.0))

    def test_it_leaves_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        result = self.assigned(monkeypatch, x=np.zeros(8), mip_dual_bound=-3.5)
        self.check(result)
        assert len(result.stays) < 4

    def test_it_finds_nothing_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        result = self.assigned(monkeypatch, x=None, mip_dual_bound=None)
        self.check(result)
        assert result.gap < 10.0  # the prices' bound stands in

    def test_its_bound_is_taken_in_units_of_cost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Costs are scaled by the largest saving, 9: it says that no more than 2.62 x 9 of 40 can be saved.
        result = self.assigned(monkeypatch, x=None, mip_dual_bound=-2.62)
        assert result.cost == 40 - 23  # greedy's; the best is 23.5 (users 0 and 2 to 0, 1 to 1)
        assert result.lower_bound == pytest.approx(40 - 2.62 * 9, abs=1e-6)
        assert result.gap == pytest.approx(2.62 * 9 - 23, abs=1e-6)

    def test_it_claims_too_much(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.assigned(monkeypatch, x=None, mip_dual_bound=-0.1).gap == 0.0


def test_a_solver_that_is_stopped_early() -> None:
    draw = np.random.default_rng(3)
    cost, demand = draw.uniform(1, 10, (150, 6)), draw.integers(1, 30, 150)
    capacity = np.full(6, float(demand.sum() // 9))
    early = assign(cost, capacity, 9.0, demand, "exact", time_limit_s=0.05)
    greedy = assign(cost, capacity, 9.0, demand, "greedy")
    assert early.cost <= greedy.cost
    assert (early.load <= capacity).all()
    assert 0.0 <= early.gap <= greedy.gap
    for result in (early, greedy):
        loads = [sum(int(demand[user]) for user in np.flatnonzero(result.place == one)) for one in range(6)]
        assert result.load.tolist() == loads


def test_auto_is_greedy_for_many(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = [[1, 2], [2, 1], [1, 1]]
    assert assign(cost, [1, 1], 3.0).method == "exact"
    monkeypatch.setattr(assignment, "EXACT_PAIRS", 5)
    assert assign(cost, [1, 1], 3.0).method == "greedy"
    assert assign(cost, [1, 1], [3, 3, 1]).method == "exact"  # four pairs are worth a place


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"capacity": [1, -1]}, "capacity of 1 is negative"),
        ({"capacity": [NAN, 1]}, "capacity of 0 is negative or not known"),
        ({"capacity": []}, "at least one"),
        ({"capacity": [1]}, "for 1 data centres"),
        ({"cost": [1, 2]}, "cost is"),
        ({"cost": [[1, -INF], [1, 1]]}, "no cost can be -inf"),
        ({"demand": 0.0}, "demand must be finite and positive"),
        ({"demand": [1, -1]}, "demand must be finite and positive"),
        ({"demand": NAN}, "demand must be"),
        ({"demand": [1, 1, 1]}, "demand is one number or one a user"),
        ({"stay_cost": [1, INF]}, "stay_cost must be finite"),
        ({"stay_cost": [[1, 1]]}, "stay_cost is one number"),
        ({"method": "best"}, "known are auto, exact, greedy"),
        ({"time_limit_s": 0.0}, "time_limit_s"),
    ],
)
def test_no_assignment(changes: dict[str, object], what: str) -> None:
    sound: dict[str, object] = {"cost": [[1, 2], [2, 1]], "capacity": [1, 1], "stay_cost": 3.0}
    with pytest.raises(ValueError, match=what):
        assign(**{**sound, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (([[1e308, -1e308]], [1, 1], 1e308), "costs must be at most 1e\\+100"),
        (([[1.0, -1e101]], [1, 1], 0.0), "costs must be at most"),
        (([[1.0, 2.0]], [1, 1], -1e101), "stay_cost must be at most 1e\\+100, either way"),
        (([[1.0], [2.0]], [1], 3.0, 1e308), "demand must be at most 1e\\+100 and at least 1e-100"),
        (([[1.0], [2.0]], [1], 3.0, 1e-300), "demand must be at most"),
    ],
)
def test_numbers_that_no_sum_of_squares_can_hold_are_refused(arguments: tuple[Any, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        assign(*arguments)


@pytest.mark.filterwarnings("error")
def test_the_largest_numbers_are_reckoned_with() -> None:
    found = assign([[1e100, -1e100], [1e100, 0.0]], [1, 1], 1e100, [1e-100, 1.0])
    assert found.place.tolist() == [1, 1] or found.place.tolist() == [1, -1]
    assert found.cost <= 0.0
