"""Figures 10 to 13 as data, as JSON, as a picture; and what the paper says of them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from followme.analysis.figures import Model, Table, plot, reproduce_model

DOCS = Path(__file__).parents[3] / "docs" / "model.md"


@pytest.fixture(scope="module")
def model() -> Model:
    return reproduce_model(quick=True)


def test_the_figures_go_from_2_to_7(model: Model) -> None:
    for table in (model.distance, model.latency, model.cost, model.disruption, model.line):
        assert table.column("k") == (2, 3, 4, 5, 6, 7)


def test_the_check_values(model: Model) -> None:
    assert model.distance.rows[0] == pytest.approx((2, 0.4, 0.6), abs=1e-15)
    assert model.distance.rows[3] == pytest.approx((5, 0.0903642, 2.0851979), abs=5e-8)
    assert model.latency.rows[5] == pytest.approx((7, 0.232971), abs=5e-7)


def test_half_and_a_tenth_of_the_service(model: Model) -> None:
    # At k = 2 three handovers in ten move 125 MB and three messages.
    assert model.cost.rows[0] == pytest.approx((2, 0.3, 0.3 * 125_004_500, 0.3 * 62_504_500, 0.3 * 12_504_500))
    for _, rtt, whole, half, tenth in model.disruption.rows:
        # Slow start, some 25 round trips, is the same for all: so halves take a little more than half.
        assert whole / 2 < half < whole / 2 + 25 * rtt
        assert whole / 10 < tenth < whole / 10 + 25 * rtt


def test_round_trips_of_figure_13(model: Model) -> None:
    assert model.disruption.column("rtt_s") == pytest.approx([0.01 * k**2 for k in range(2, 8)])


def test_full_and_aggregated_agree(model: Model) -> None:
    assert max(model.agreement.column("largest_difference")) < 1e-12
    assert model.agreement.column("cells") == tuple(1 + 3 * k * (k - 1) for k in range(2, 8))
    large = reproduce_model().agreement
    assert large.column("k")[-1] == 60
    assert max(large.column("largest_difference")) < 1e-12


def test_the_shapes_that_the_paper_sees(model: Model) -> None:
    for falling in (model.distance.column("optimal_probability"), model.cost.column("all_bytes")):
        assert all(after < before for before, after in pairwise(falling))
    rising = (model.distance.column("mean_distance_hops"), model.latency.column("mean_latency_s"))
    for values in (*rising, model.disruption.column("all_s"), model.disruption.column("tenth_s")):
        assert all(after > before for before, after in pairwise(values))


def test_sentences_that_do_not_hold(model: Model) -> None:
    false = {one.paper for one in model.sentences() if not one.holds}
    assert len(model.sentences()) == 8
    assert false == {
        "the mean distance exceeds two hops when k is higher than 6",
        "k = 7 corresponds to a situation without Follow-Me Cloud",
        "how much of the service moves is not important to the disruption for low k",
    }


def test_the_docs_say_what_the_chain_says(model: Model) -> None:
    text = DOCS.read_text()
    for sentence in model.sentences():
        assert f"| {sentence.paper} | {sentence.exact} | {'yes' if sentence.holds else '**no**'} |" in text
    for (k, optimal, hops), (_, latency), (_, share, *_) in zip(
        model.distance.rows, model.latency.rows, model.cost.rows, strict=True
    ):
        assert f"| {k} | {optimal:.7f} | {hops:.7f} | {latency:.6f} | {share:.7f} |" in text


def test_json_has_every_table_and_nothing_that_json_has_not(model: Model) -> None:
    data = json.loads(json.dumps(model.to_json(), allow_nan=False))
    for table in model.tables:
        for name in table.columns:
            assert data[table.name][name] == pytest.approx(list(table.column(name)), rel=1e-15)
    assert data["parameters"]["service_bytes"] == 125e6
    assert [one["holds"] for one in data["sentences"]].count(False) == 3


def test_a_table_as_text() -> None:
    table = Table("t", "Title", ("k", "share"), ((2, 0.4), (10, 1 / 3)))
    assert table.lines() == ["Title", " k      share", " 2        0.4", "10  0.3333333"]
    with pytest.raises(KeyError, match="no column 'cost'"):
        table.column("cost")


def test_the_picture_has_four_plots_with_the_tables_numbers(
    model: Model, tmp_path: Path, drawn: list[Figure]
) -> None:
    plot(model, tmp_path / "new" / "model.png")
    assert (tmp_path / "new" / "model.png").read_bytes().startswith(b"\x89PNG")
    axes = drawn[0].axes
    assert [one.get_title()[:10] for one in axes if one.get_title()] == [f"Figure {n}:"[:10] for n in range(10, 14)]
    curves = [[float(y) for y in line.get_ydata()] for one in axes for line in one.lines]  # type: ignore[arg-type, union-attr]
    assert pytest.approx(model.distance.column("mean_distance_hops")) in curves
    assert pytest.approx([1e3 * value for value in model.latency.column("mean_latency_s")]) in curves
    for name in ("all", "half", "tenth"):
        assert pytest.approx([1e-6 * value for value in model.cost.column(f"{name}_bytes")]) in curves
        assert pytest.approx(model.disruption.column(f"{name}_s")) in curves
