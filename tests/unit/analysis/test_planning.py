"""The capacity planner: what it asks for, what decides it, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from followme.analysis.planning import Demand, Limits, plan, sweep
from followme.analysis.planning_plot import plot
from followme.analysis.table_load import Population, _abroad_sums


def test_a_hundred_million_users() -> None:
    found = plan(Demand(100_000_000), Limits(100_000))
    figures = found.as_json()
    # 3 entries for each node at home, some 9 for each that is away: all must fit, with little to spare.
    least = 2 * 100_000_000 * 3 / 100_000
    assert least < found.switches < 3 * least
    entries = figures["entries_per_switch"]
    assert 0.9 * 100_000 < entries["mean"] < entries["p99"] <= entries["p99_9"] <= entries["most"]
    assert entries["overfull_switches"] <= 2
    assert entries["drawn_exactly"]
    assert found.controllers == found.controllers_for[found.decided_by] == max(found.controllers_for.values())
    assert found.instances == 2 * found.controllers
    assert found.moves_s == pytest.approx(2 * 100_000_000 * 2 / 3600)


@pytest.mark.parametrize(
    ("limits", "decided_by"),
    [
        (Limits(moves_s=10.0), "moves"),
        (Limits(entries_s=100.0), "entries"),
        (Limits(mappings=20_000), "mappings"),
        (Limits(switches=1), "switches"),
    ],
)
def test_the_tightest_limit_decides(limits: Limits, decided_by: str) -> None:
    demand = Demand(1_000_000, moves_per_hour=0.1)
    found = plan(demand, limits)
    assert found.decided_by == decided_by
    assert found.controllers > plan(demand, Limits()).controllers


def test_what_is_enough_for_few_controllers_is_looked_at_again_for_more() -> None:
    """With two controllers each takes part in 97 moves a second, with three, which the mappings ask for, in 102."""
    found = plan(Demand(100_000, peers=10.0), Limits(moves_s=100.0, mappings=100_000))
    assert (found.controllers, found.decided_by) == (4, "moves")
    assert found.controllers_for["mappings"] == 3


def test_networks_are_cut_smaller_where_there_are_more_controllers() -> None:
    found = plan(Demand(1_000_000), Limits(table=10_000_000, moves_s=50.0))
    assert found.decided_by == "moves"
    assert found.switches == found.controllers > plan(Demand(1_000_000), Limits(table=10_000_000)).switches


def test_one_controller_has_nobody_to_write_to() -> None:
    assert plan(Demand(1000), Limits()).messages_s == 0.0
    two = plan(Demand(100_000), Limits(mappings=150_000))
    assert two.controllers == 2
    # With two domains nobody is a correspondent: the orders of the moves themselves, and their answers.
    moves = 100_000 * 2 / 3600
    assert two.messages_s == pytest.approx(2 * moves * (9 + 16))


def test_nobody_away_and_nobody_moving() -> None:
    found = plan(Demand(10_000, moves_per_hour=0.0, away=0.0), Limits(5_000))
    assert found.moves_s == found.messages_s == 0.0
    assert found.entries.sum() == 12 * found.switches + 3 * 20_000


def test_uneven_networks_need_more_switches() -> None:
    even, uneven = (plan(Demand(1_000_000, uneven=one), Limits()) for one in (0.0, 0.5))
    assert uneven.switches > even.switches
    assert uneven.overfull <= 1
    assert uneven.quantiles()["most"] > 2 * uneven.quantiles()["median"]


def test_too_many_nodes_to_draw_are_drawn_as_normal_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("followme.analysis.table_load._MOST_DRAWS", 10)
    here, values, chance = np.array([10_000] * 500), np.array([4, 9]), np.array([0.5, 0.5])
    sums, exact = _abroad_sums(np.random.default_rng(1), here, values, chance)
    assert not exact
    assert sums.mean() == pytest.approx(65_000, rel=1e-3)
    assert sums.std() == pytest.approx(2.5 * 100, rel=0.2)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"users": 0}, "users"),
        ({"moves_per_hour": float("nan")}, "moves"),
        ({"peers": -1.0}, "peers"),
        ({"peers": 2.5, "peers_kind": "fixed"}, "whole"),
        ({"peers_kind": "zipf"}, "distribution"),
        ({"away": 1.5}, "away"),
        ({"follow": -0.1}, "follows"),
        ({"uneven": 9.0}, "unevenness"),
        ({"services_per_user": -1}, "services"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Demand(**wrong)  # type: ignore[arg-type]


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(ValueError, match="no room"):
        plan(Demand(10), Limits(12))
    with pytest.raises(ValueError, match="too small"):
        plan(Demand(1_000_000_000), Limits(100))
    with pytest.raises(ValueError, match="too few moves"):
        plan(Demand(1_000_000_000, moves_per_hour=3600.0), Limits(moves_s=1.0))
    with pytest.raises(ValueError, match="more than 0"):
        Limits(moves_s=0.0)
    with pytest.raises(ValueError, match="0 to 1"):
        Population(10, 2.0, 1.0)


def test_a_plot_and_the_sweep_behind_it(tmp_path: Path) -> None:
    points = sweep(Demand(), Limits(), [1_000, 100_000, 10_000_000])
    assert [users for users, _, _ in points] == [1_000, 100_000, 10_000_000]
    assert points == sorted(points, key=lambda point: point[1])
    plot([plan(Demand(50_000), Limits(10_000))], tmp_path / "plan.svg")
    assert "50,000 users" in (tmp_path / "plan.svg").read_text() or (tmp_path / "plan.svg").stat().st_size > 10_000
