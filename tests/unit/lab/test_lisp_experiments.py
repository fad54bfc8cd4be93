"""The LISP experiments' plans, tables and JSON, on samples that are made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from followme.lab import lisp_downtime, lisp_plots, lisp_rtt, lisp_sizes
from followme.lab.lisp_downtime import CASES, DIRECTIONS, MODES, Downtimes, Sample, Sweep
from followme.lab.lisp_sizes import Carried, Sizes


def made_up() -> Downtimes:
    """Ours is flat but for a millisecond to and fro, the papers' rises by half the round trip."""
    samples = [
        Sample(case.name, mode, varied, x, case.dc1_s, downtime_s=0.03 + (mode == "paper") * x / 2 + jitter,
               pause_s=0.02, guest_cold_s=0.006, network_s=0.004 + (mode == "paper") * x / 2 + jitter,
               silent_s=0.001, migration_s=6.0, bytes=80_000_000, probes=8000, lost=int(mode == "paper"))
        for case in CASES for mode in MODES for varied in DIRECTIONS
        for x in (0.001, 0.05, 0.1) for jitter in (0.0, 0.001)
    ]  # fmt: skip
    return Downtimes(samples, "tcg", "delayline")


def test_the_slopes_of_both_orders() -> None:
    found = made_up()
    for case in CASES:
        assert found.line(case.name, "live", "target").flat
        paper = found.line(case.name, "paper", "target")
        assert paper.slope == pytest.approx(0.5, abs=0.01)
        assert not paper.flat
        for part, less_s in ((lisp_downtime.added, 0.02), (lisp_downtime.network, 0.026)):
            less = found.line(case.name, "paper", "target", part)
            assert less.intercept == pytest.approx(paper.intercept - less_s)
            assert less.slope == pytest.approx(paper.slope)
    said = list(found.sentences())
    assert len(said) == 8
    assert sum("rises" in one for one in said) == 4


def test_the_json_has_units_in_its_keys_and_the_table_a_row_for_each_point() -> None:
    found = made_up()
    data = json.loads(json.dumps(found.as_json()))
    assert len(data["samples"]) == len(found.samples)
    first = data["samples"][0]
    assert first["downtime_ms"] == 30.5
    assert first["downtime_ms"] == pytest.approx(
        first["machine_pause_ms"] + first["guest_cold_ms"] + first["network_ms"]
    )
    assert len(data["lines"]) == 24
    rows = list(found.rows())
    assert len(rows) == 2 * 2 * 2 * 3
    assert rows[0][:4] == ("target", "case 1", "paper", "1")
    assert rows[0][6:9] == ("20.0", "6.0", "5.0")


def test_the_delays_of_the_cases_are_the_labs() -> None:
    lab = lisp_downtime.setting(0.1, 0.025).lab
    assert lab.round_trip("ctl", "dc1") == 0.1
    assert lab.round_trip("ctl", "dc2") == 0.025
    assert lab.round_trip("wlan1", "dc1") == lab.round_trip("wlan1", "dc2")
    assert lab.round_trip("dc1", "dc2") == 0.010
    assert lab.rate("dc1") == lab.rate("hv2") == 100_000_000
    rtt = lisp_rtt.setting().lab
    assert (rtt.round_trip("wlan1", "dc1"), rtt.round_trip("wlan2", "dc1"), rtt.round_trip("wlan2", "dc2")) == (
        0.012, 0.250, 0.003)  # fmt: skip
    assert (rtt.round_trip("ctl", "dc1"), rtt.round_trip("ctl", "dc2")) == (0.001, 0.010)


@pytest.mark.parametrize(("sweep", "total"), [("QUICK", 24), ("SHORT", 96), ("FULL", 160)])
def test_each_line_gets_points_enough_for_an_error(sweep: str, total: int) -> None:
    one: Sweep = getattr(lisp_downtime, sweep)
    for case in CASES:
        assert len({x for where, x in one.visits() if where is case}) >= 3
    assert one.total == total


@pytest.mark.parametrize("quick", [True, False])
def test_as_many_migrations_as_are_announced(quick: bool) -> None:
    assert lisp_sizes.total(quick) == len(lisp_sizes.plan(quick)) * lisp_sizes.rounds_of(quick)


def test_the_links_share_is_of_bytes_in_time() -> None:
    one = Carried(96, 0, bytes=100_000_000, transfer_s=10.0, migration_s=16.0, pause_s=0.02, passes=2)
    assert one.link_share == pytest.approx(0.8)
    assert one.whole_share == pytest.approx(0.5)
    other, large = Carried(96, 0, 50_000_000, 5.0, 8.0, 0.03, 2), Carried(256, 0, 90, 1.0, 1.0, 0.0, 1)
    sizes = Sizes([one, other, large], "", "")
    assert [len(group) for group in sizes.groups()] == [2, 1]
    assert next(sizes.rows())[:3] == ("96", "0", "75.0")
    assert sizes.as_json()["migrations"][0]["link_share"] == 0.8


def test_the_pictures_are_drawn(tmp_path: Path) -> None:
    lisp_plots.plot_downtimes(made_up(), tmp_path / "d.png")
    lisp_plots.plot_sizes(Sizes([Carried(96, 0, 100_000_000, 10.0, 16.0, 0.02, 2)], "", ""), tmp_path / "s.svg")
    assert (tmp_path / "d.png").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "s.svg").read_text()
