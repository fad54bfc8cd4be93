"""Policies side by side, on a small city made from a seed: never on a shared file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from followme.analysis.capacity import Limits
from followme.analysis.cells import make_areas
from followme.analysis.comparison import POLICY_NAMES, compare, simulate_trace
from followme.analysis.comparison_plot import plot
from followme.analysis.comparison_table import Comparison, warnings
from followme.analysis.outcome import Costs, Margin
from followme.analysis.simulator import simulate
from followme.analysis.synthetic import City, make_city
from followme.analysis.trace import Trace, TraceError
from followme.analysis.training import best_threshold
from followme.analysis.visits import find_visits
from followme.placement import Threshold


@pytest.fixture(scope="module")
def city() -> City:
    return make_city(seed=3, users=20, hours=24.0)


@pytest.fixture(scope="module")
def comparison(city: City) -> Comparison:
    return compare(city.trace, make_areas(city.names, city.lat, city.lon), train_hours=16.0)


def test_all_ran_over_the_same_hours(comparison: Comparison) -> None:
    assert tuple(one.policy for one in comparison.outcomes) == POLICY_NAMES
    assert {one.handoffs for one in comparison.outcomes} == {comparison.held_out.handoffs}
    for one in comparison.outcomes:
        assert one.watched_s == pytest.approx(20 * 8 * 3600.0, rel=1e-2)
    assert comparison.train.start_s.max() < 16 * 3600.0 <= comparison.held_out.start_s.min()
    by_name = {one.policy: one for one in comparison.outcomes}
    assert by_name["never"].migrations == by_name["never"].migrating_s == 0
    assert by_name["always"].migrations == comparison.held_out.handoffs
    assert by_name["always"].mean_distance_hops == by_name["always"].waiting_s == 0.0


@pytest.mark.parametrize("service_bytes", [20e6, 125e6, 1e9])
def test_the_learned_process_is_the_cheapest_on_held_out_hours(city: City, service_bytes: float) -> None:
    found = compare(
        city.trace, make_areas(city.names, city.lat, city.lon), costs=Costs(service_bytes=service_bytes)
    )
    costs = {one.policy: one.cost_s for one in found.outcomes}
    others = [cost for name, cost in costs.items() if name != "mdp"]
    assert found.margin is not None
    assert found.margin.share == pytest.approx(costs["mdp"] / min(others) - 1.0)
    assert costs["mdp"] < min(others)


def test_the_same_seed_gives_the_same(city: City, comparison: Comparison) -> None:
    again = compare(city.trace, make_areas(city.names, city.lat, city.lon), train_hours=16.0)
    assert again.to_json() == comparison.to_json()
    assert make_city(seed=4, users=2, hours=1.0).trace.lat.tolist() != city.trace.lat[:120].tolist()


def test_the_threshold_is_the_cheapest_in_training(comparison: Comparison) -> None:
    train, areas, costs = comparison.train, comparison.areas, comparison.costs
    every = [simulate(Threshold(hops), train, areas, costs).cost_s for hops in range(1, areas.hops.max() + 1)]
    assert best_threshold(train, areas, costs) == 1 + int(np.argmin(every))


def test_the_table_names_everything(comparison: Comparison) -> None:
    lines = comparison.lines()
    assert lines[0].startswith("read 28,800 rows of 20 users; dropped: none; 0 behind a later one")
    table = [line for line in lines if line.split() and line.split()[0] in POLICY_NAMES]
    assert [line.split()[0] for line in table[:6]] == list(POLICY_NAMES)
    always = next(one for one in comparison.outcomes if one.policy == "always")
    assert f"{always.migrations:,}" in table[1]
    assert f"{always.cost_s:,.0f}" in table[1]
    assert lines[-1].startswith("mdp costs -")


def test_json_is_plain_and_in_si_units(comparison: Comparison) -> None:
    data = json.loads(json.dumps(comparison.to_json()))
    assert [one["policy"] for one in data["policies"]] == list(POLICY_NAMES)
    for one in data["policies"]:
        assert one["cost_s"] == pytest.approx(one["waiting_s"] + one["migrating_s"])
        assert sum(one["share_of_time_at_hops"]) == pytest.approx(1.0)
        assert sum(one["cost_by_hour_s"]) == pytest.approx(one["cost_s"])
    assert data["held_out"]["handoffs"] == comparison.held_out.handoffs


def test_the_picture(comparison: Comparison, tmp_path: Path, drawn: list[Figure]) -> None:
    plot(comparison, tmp_path / "new" / "all.png")
    assert (tmp_path / "new" / "all.png").read_bytes().startswith(b"\x89PNG")
    bars = drawn[0].axes[0].patches
    heights = [bars[i].get_height() + bars[i + 6].get_height() for i in range(6)]  # type: ignore[attr-defined]
    hours = comparison.held_out.stay_s.sum() / 3600.0
    assert heights == pytest.approx([one.cost_s / hours for one in comparison.outcomes])
    assert [one.get_label() for one in drawn[0].axes[1].lines] == list(POLICY_NAMES)


def test_from_files_as_from_memory(city: City, comparison: Comparison, tmp_path: Path) -> None:
    trace, cells = tmp_path / "trace.csv.gz", tmp_path / "cells.csv"
    one = city.trace
    rows = zip(one.user.tolist(), one.t_s.tolist(), one.lat.tolist(), one.lon.tolist(), strict=True)
    text = "user,t_s,lat,lon\n" + "".join(f"user{who},{at},{lat!r},{lon!r}\n" for who, at, lat, lon in rows)
    trace.write_bytes(gzip.compress((text + "broken\n").encode(), 1))
    stations = zip(city.names, city.lat.tolist(), city.lon.tolist(), strict=True)
    cells.write_text("cell,lat,lon\n" + "".join(f"{name},{lat!r},{lon!r}\n" for name, lat, lon in stations))
    told: list[str] = []
    found = simulate_trace(trace, cells, policies=("never", "mdp"), say=told.append)
    expected = {one.policy: one for one in comparison.outcomes}
    for outcome in found.outcomes:
        assert outcome.to_json() == expected[outcome.policy].to_json()
    assert found.to_json()["dropped"]["wrong number of fields"] == 1
    assert told == [f"reading {trace}", "learning and running never", "learning and running mdp"]


def test_without_files_a_city_is_made() -> None:
    found = simulate_trace(policies=("always", "always"), seed=5, cells_per_centre=2)
    assert [one.policy for one in found.outcomes] == ["always"]
    assert len(found.areas) == 31
    assert found.margin is None


def test_wrong_use(city: City, tmp_path: Path) -> None:
    areas = make_areas(city.names, city.lat, city.lon)
    for arguments, complaint in (
        ({"policies": ("sometimes",)}, "policy 'sometimes' is unknown; known are never, always"),
        ({"policies": ()}, "name a policy"),
        ({"train_hours": 0.0}, "train_hours 0.0 must be positive"),
        ({"train_hours": float("nan")}, "train_hours nan must be positive"),
        ({"train_hours": 24.0}, "leaves nothing to judge on: the trace has 24.0 hours"),
    ):
        with pytest.raises(ValueError, match=complaint):
            compare(city.trace, areas, **arguments)
    with pytest.raises(ValueError, match="give both or neither"):
        simulate_trace(tmp_path / "trace.csv")
    missing = tmp_path / "trace.csv", tmp_path / "cells.csv"
    with pytest.raises(TraceError, match="No such file"):
        simulate_trace(*missing)
    # What is wrong without a look at the files is said first.
    with pytest.raises(ValueError, match="'sometimes' is unknown"):
        simulate_trace(*missing, policies=("sometimes",))
    with pytest.raises(ValueError, match="must be positive"):
        simulate_trace(*missing, train_hours=-1.0)


def test_a_trace_from_elsewhere(city: City) -> None:
    one = city.trace
    moved = Trace(one.users, one.user, one.t_s, one.lat - 60.0, one.lon, one.rows)
    with pytest.raises(TraceError, match="from the same place"):
        compare(moved, make_areas(city.names, city.lat, city.lon))


def test_a_trace_of_single_positions_is_told_by_its_counts(city: City) -> None:
    one = city.trace
    first = np.array([0])
    alone = Trace(one.users[:1], one.user[first], one.t_s[first], one.lat[first], one.lon[first], 1)
    with pytest.raises(TraceError, match="of 1 positions 0 are out of range, 1 alone in a session") as caught:
        compare(alone, make_areas(city.names, city.lat, city.lon))
    assert "same place" not in str(caught.value)


def test_users_who_stand_still_leave_out_only_what_learns(city: City) -> None:
    areas = make_areas(city.names, city.lat, city.lon)
    t_s = 60.0 * np.arange(1440, dtype=np.float64)
    still = Trace(("u",), np.zeros(1440, dtype=np.int64), t_s, np.full(1440, city.lat[0]),
                  np.full(1440, city.lon[0]), 1440)  # fmt: skip
    found = compare(still, areas)
    assert [one.policy for one in found.outcomes] == ["never", "always", "myopic", "threshold"]
    for name in ("mdp-line", "mdp"):
        (note,) = [line for line in found.lines() if line.startswith(f"{name} is left out")]
        assert note.endswith("too few training hours, or users who stand still")
    with pytest.raises(ValueError, match="mdp is left out: there is no handoff to learn from"):
        compare(still, areas, policies=("mdp",))


def test_the_city_is_one() -> None:
    city = make_city(seed=1, users=3, hours=2.0)
    assert len(city.names) == 61
    visits, mapped = find_visits(city.trace, make_areas(city.names, city.lat, city.lon))
    assert (mapped.outside, visits.sessions) == (0, 3)
    with pytest.raises(ValueError, match="users 0"):
        make_city(users=0)


def test_too_few_hours_are_warned_of_and_lost_margins_too(city: City) -> None:
    one = city.trace
    alone = one.user == 0
    trace = Trace(one.users[:1], one.user[alone], one.t_s[alone], one.lat[alone], one.lon[alone], int(alone.sum()))
    found = compare(trace, make_areas(city.names, city.lat, city.lon))
    assert found.chosen is not None
    assert found.margin is not None
    assert found.chosen.unsure
    lines = [line for line in found.lines() if line.startswith("warning: ")]
    assert lines == found.to_json()["warnings"] == warnings(found.margin, found.chosen)
    assert "hours of use in training are too few" in lines[-1]
    lost = warnings(Margin("mdp", "always", 0.05, -0.01, 0.1), found.chosen)
    assert len(lost) == 2
    assert "mdp is dearer: +5.00 % on the held-out hours against always" in lost[0]
    # A rule was taken then, so that mdp is one of the others, and no dearer than it.
    costs = {one.policy: one.cost_s for one in found.outcomes}
    assert costs["mdp"] == pytest.approx(costs[found.chosen.rule] if found.chosen.rule in costs else costs["mdp"])


def test_limits_that_never_bind_change_nothing(city: City, comparison: Comparison) -> None:
    areas = make_areas(city.names, city.lat, city.lon)
    found = compare(city.trace, areas, limits=Limits(20))
    for one, free in zip(found.outcomes, comparison.outcomes, strict=True):
        assert one.crowding is not None
        assert (one.crowding.refused, one.crowding.displaced, one.crowding.over) == (0, 0, 0)
        without = {key: value for key, value in one.to_json().items() if key != "crowding"}
        assert without == free.to_json()
    head = next(line for line in found.lines() if line.startswith("policy "))
    assert "refused  displaced  elsewhere  fullest  gap, s" in head
