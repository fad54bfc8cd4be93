"""``followme reproduce lisp-...`` and ``demo --plane lisp`` where they cannot run, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from followme.cli import app
from followme.cli.figures import FIGURES
from followme.cli.lisp_figures import MEASURES
from followme.lab import lisp_sizes
from followme.lab.lisp_sizes import Carried, Sizes
from followme.system import needs

runner = CliRunner()


def test_each_lisp_figure_is_listed_and_can_be_run() -> None:
    listed = runner.invoke(app, ["reproduce", "--list"])
    assert listed.exit_code == 0
    assert {name for name in FIGURES if name.startswith("lisp-")} == set(MEASURES)
    for name in MEASURES:
        assert name in listed.stdout


@pytest.mark.parametrize("command", [["demo", "--plane", "lisp"], *(["reproduce", name] for name in MEASURES)])
def test_what_is_missing_is_said_in_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[needs.Need] = []

    def nothing_here(wanted: Iterable[needs.Need]) -> list[str]:
        asked.extend(wanted)
        return ["missing nft: apt-get install nftables"]

    monkeypatch.setattr(needs, "check", nothing_here)
    done = runner.invoke(app, [*command, "--plot", str(tmp_path / "p.png")])
    assert done.exit_code == 1
    assert done.stderr.strip() == "followme: this machine cannot run the lab: missing nft: apt-get install nftables"
    assert needs.Need.VXLAN_GPE in asked


@pytest.mark.parametrize("name", list(MEASURES))
def test_options_that_would_do_nothing_are_refused(name: str) -> None:
    for arguments, word in ((["--search"], "--search"), (["--plot", "figure.txt"], "figure.txt")):
        wrong = runner.invoke(app, ["reproduce", name, *arguments])
        assert wrong.exit_code == 2
        assert word in wrong.stderr


def test_overlapping_ranges_are_no_lisp() -> None:
    wrong = runner.invoke(app, ["demo", "--plane", "lisp", "--overlapping"])
    assert wrong.exit_code == 2
    assert "unique" in wrong.stderr


def test_what_was_measured_is_printed_whole_where_no_terminal_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measure(quick: bool, say: Callable[[str], None], step: Callable[[], None]) -> Sizes:
        step()
        say("one of them")
        return Sizes([Carried(96, 0, 100_000_000, 10.0, 16.0, 0.02, 2)], "tcg", "delayline")

    monkeypatch.setattr(needs, "check", lambda wanted: [])
    monkeypatch.setattr(lisp_sizes, "measure", measure)
    plot = tmp_path / "sizes.png"
    done = runner.invoke(app, ["reproduce", "lisp-sizes", "--quick", "--plot", str(plot), "--json", "-"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["migrations"][0]["migrated_bytes"] == 100_000_000
    assert "one of them" in done.stderr
    assert "memory, MiB" in done.stderr  # no heading is cut
    assert plot.stat().st_size > 5_000
