"""``followme reproduce rules``, ``messages`` and ``followme plan``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from followme.cli import app

runner = CliRunner()


@pytest.mark.parametrize(("name", "central"), [("rules", 17), ("messages", 8)])
def test_without_switches_and_a_server_the_model_stands_with_what_can_be_counted(
    name: str, central: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("followme.lab.roles_counts.QUICK_NODES", (1,))
    monkeypatch.setattr("followme.federation.nats_server.program", lambda: None)
    monkeypatch.setattr("followme.system.needs.check", lambda needs: ["not root: and so on"])
    files = [tmp_path / "out.json", tmp_path / "out.png"]
    result = runner.invoke(app, ["reproduce", name, "--quick", "--json", str(files[0]), "--plot", str(files[1])])
    assert result.exit_code == 0, result.output
    assert "missing nats-server" in result.output
    assert ("not root" in result.output) is (name == "rules")
    figures = json.loads(files[0].read_text())
    assert figures["paper"]["central"] == [central]
    assert figures["counted"]["bus"] == "memory"
    assert files[1].stat().st_size > 1000


def test_a_plan(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    result = runner.invoke(app, ["plan", "--users", "1000", "--users", "2M", "--json", str(file)])
    assert result.exit_code == 0, result.output
    assert "2,000,000 users: controllers are as many as" in result.output
    plans = json.loads(file.read_text())["plans"]
    assert [one["demand"]["users"] for one in plans] == [1000, 2000000]
    assert plans[0]["switches"] < plans[1]["switches"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--users", "0"], "users"),
        (["--users", "many"], "250k"),
        (["--users", "1.5"], "250k"),
        (["--users", "infM"], "250k"),
        (["--peers-kind", "zipf"], "zipf"),
        (["--table", "12"], "no room"),
        (["--seed", "-1"], "--seed"),
        (["--plot", "plan.txt"], "--plot"),
    ],
)
def test_wrong_use_is_one_line(arguments: list[str], says: str) -> None:
    result = runner.invoke(app, ["plan", *arguments])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert says in line
