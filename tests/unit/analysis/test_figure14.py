"""Figure 14 against the paper as printed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from followme.analysis import figure14_search as search
from followme.analysis.figure14 import BEST, CELLS, FIRST, LINEAR, PRINTED, compare
from followme.analysis.figure14_report import PolicyReproduction, reproduce_policy

TABLE_A = """CCCCCCCCCM CCCCCCCCMM CCCCCCCMMM CCCCCCMMMM CCCCCMMMMM
             CCCCCMMMMM CCCCMMMMMM CCCCMMMMMM CCCCMMMMMM CCCCMMMMMM"""
TABLE_B = """CCCCCCCCCC CCCCCCCCCM CCCCCCCCMM CCCCCCMMMM CCCCCCMMMM
             CCCCCMMMMM CCCCCMMMMM CCCCCMMMMM CCCCCMMMMM CCCCMMMMMM"""


def test_the_printed_tables_are_the_papers() -> None:
    """Copied from the paper row by row, once more and in another form."""
    for table, rows in zip(PRINTED, (TABLE_A.split(), TABLE_B.split()), strict=True):
        assert ["".join("CM"[int(cell)] for cell in row) for row in table] == rows
    assert CELLS == 200


def test_the_best_reading_agrees_everywhere_and_the_others_where_they_say() -> None:
    best = compare(BEST)
    assert best.agreeing == 200
    assert best.differing == ()
    linear = compare(LINEAR)
    assert linear.agreeing == 198
    assert [(cell.tau, cell.p, cell.distance, cell.printed, cell.ours) for cell in linear.differing] == [
        (0.1, 1.0, 5, "M", "C"), (0.5, 1.0, 5, "M", "C")]  # fmt: skip
    assert "C(M)" in PolicyReproduction(linear, ()).text()
    first = compare(FIRST)
    assert first.agreeing == 200 - len(first.differing) < linear.agreeing


def test_the_search_counts_as_the_solver_does() -> None:
    """The search solves its problems in bulk; each family's count must be the exact solver's."""
    for family in search.families():
        second = None if family.alpha is None else 15.0
        points: list[search.Point] = [(0.7, 15.3, family.alpha), (0.93, 72.0, second)]
        counts = search._agreeing(family, points)
        for count, (gamma, amount, alpha) in zip(counts, points, strict=True):
            reading = replace(family, gamma=gamma, amount=amount, alpha=alpha)
            assert count == compare(reading).agreeing


def test_the_search_finds_what_the_figure_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [one for one in search.families() if one.quality == "square" and one.home_pays and one.alpha == 0.0]
    monkeypatch.setattr(search, "families", lambda: iter(wanted))
    heard: list[str] = []
    found = search.search(heard.append)
    assert len(found) == len(heard) == 2
    assert compare(found[0]).agreeing == 200
    # The documentation shows what the search prints.
    one = found[0]
    row = f"| **200** | Q(0) - s^2 | cost | pays | {one.alpha:.4g} | {one.gamma:.4g} | {one.amount:.4g} |"
    assert row in (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
    assert found == search.search()


def test_it_prints_and_draws(tmp_path: Path) -> None:
    reproduction = reproduce_policy()
    assert reproduction.text().startswith("200 of 200 cells agree; quality square")
    data = reproduction.as_json()
    assert data["best"]["tables"][1]["printed"][0] == "C" * 10
    assert data["others"][0]["differing"][0] == {"tau": 0.1, "p": 1.0, "distance": 5, "printed": "M", "ours": "C"}
    reproduction.plot(tmp_path / "deep" / "policy.png")
    assert (tmp_path / "deep" / "policy.png").read_bytes().startswith(b"\x89PNG")
    assert np.array_equal(reproduction.best.migrate, PRINTED)
