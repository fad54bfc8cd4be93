"""The command line: exit codes, and one line for each thing that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from followme.cli import app

EXAMPLE = Path(__file__).parents[3] / "examples" / "controller.yaml"
runner = CliRunner()


def check(tmp_path: Path, change: object) -> tuple[int, list[str]]:
    """Exit code and error lines of ``check-config`` on the example with one thing changed."""
    data = yaml.safe_load(EXAMPLE.read_text())
    change(data)  # type: ignore[operator]
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump(data))
    result = runner.invoke(app, ["check-config", str(file)])
    return result.exit_code, result.stderr.splitlines()


def test_the_example_is_good() -> None:
    result = runner.invoke(app, ["check-config", str(EXAMPLE)])
    assert result.exit_code == 0
    assert "4 networks" in result.stdout


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        (lambda d: d["networks"][0].update(gatewya="10.1.0.1"), "networks[0].gatewya", "unknown key"),
        (lambda d: d["networks"][1].update(area="west"), "networks[1].area", "west"),
        (lambda d: d["networks"][1].update(prefix="10.1.0.0/25"), "networks[1].prefix", "10.1.0.0/25"),
        (lambda d: d["networks"][0].pop("host"), "machines[0].home", "dc-east"),
        (lambda d: d["services"][0].update(machine="vm9"), "services[0].machine", "vm9"),
        (lambda d: d["listen"].update(port=70000), "listen.port", "70000"),
        (lambda d: d.update(polcy={}), "polcy", "unknown key"),
        (lambda d: d["policy"]["parameters"].update(gamma=1.5), "policy.parameters", "1.5"),
    ],
)
def test_a_mistake_names_file_key_and_value(tmp_path: Path, change: object, key: str, value: str) -> None:
    code, lines = check(tmp_path, change)
    assert code == 2
    assert any("my.yaml" in line and key in line and value in line for line in lines), lines
    assert not any("Traceback" in line for line in lines)


def test_a_file_that_is_not_there_and_one_that_is_not_yaml(tmp_path: Path) -> None:
    result = runner.invoke(app, ["check-config", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
    (tmp_path / "bad.yaml").write_text("networks: [")
    result = runner.invoke(app, ["controller", "-c", str(tmp_path / "bad.yaml")])
    assert result.exit_code == 2
    assert "not valid YAML" in result.stderr


def test_unknown_figures_and_planes_are_wrong_use() -> None:
    result = runner.invoke(app, ["reproduce", "figure-99"])
    assert result.exit_code == 2
    assert "openflow-latency" in result.stderr
    assert runner.invoke(app, ["demo", "--plane", "carrier-pigeon"]).exit_code == 2
    listed = runner.invoke(app, ["reproduce", "--list"])
    assert listed.exit_code == 0
    assert "openflow-latency" in listed.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is Linux's")
def test_without_root_one_line_says_what_is_missing() -> None:
    import os

    if os.geteuid() != 0:
        command = [sys.executable, "-m", "followme", "demo"]
    else:
        command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all",
                   sys.executable, "-m", "followme", "demo", "--plot", "/tmp/never.png"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    if "Permission denied" in done.stderr and "followme" not in done.stderr:
        pytest.skip("this Python is not readable for others")
    assert done.returncode == 1
    assert "root" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_policy_table_as_text_and_as_json() -> None:
    table = runner.invoke(app, ["policy", "--tau", "0.1", "--p", "0.5"])
    assert table.exit_code == 0
    assert "M" in table.stdout
    data = json.loads(runner.invoke(app, ["policy", "--tau", "0.1", "--p", "0.5", "--json", "-"]).stdout)
    assert data["parameters"]["tau"] == 0.1
    wrong = runner.invoke(app, ["policy", "--gamma", "1.0"])
    assert wrong.exit_code == 2
    assert "gamma" in wrong.stderr


def test_figures_that_need_no_root(tmp_path: Path) -> None:
    for name in ("model", "policy"):
        plot, figures = tmp_path / f"{name}.png", tmp_path / f"{name}.json"
        quick = ["--quick"] if name == "model" else []
        done = runner.invoke(app, ["reproduce", name, *quick, "--plot", str(plot), "--json", str(figures)])
        assert done.exit_code == 0, done.stderr
        assert plot.stat().st_size > 10_000
        assert json.loads(figures.read_text())
    assert json.loads((tmp_path / "policy.json").read_text())["best"]["agreeing"] == 200


def test_simulate_without_a_trace_and_with_wrong_ones(tmp_path: Path) -> None:
    figures = tmp_path / "city.json"
    done = runner.invoke(app, ["simulate", "--json", str(figures), "--plot", str(tmp_path / "city.png")])
    assert done.exit_code == 0, done.stderr
    assert "never" in done.stdout
    assert json.loads(figures.read_text())
    for arguments, word in (
        (["--trace", "nowhere.csv"], "both or neither"),
        (["--policy", "best"], "'best' is unknown"),
        (["--train-hours", "-1"], "-1.0 must be positive"),
        (["--policy", "best", "--trace", "nowhere.csv", "--cells", "no.csv"], "'best' is unknown"),
        (["--train-hours", "-1", "--trace", "nowhere.csv", "--cells", "no.csv"], "-1.0 must be positive"),
        (["--seed", "-1"], "--seed -1"),
        (["--capacity", "0"], "capacity 0"),
        (["--capacity", "99999999999999999999"], "capacity 99999999999999999999 must be at least 1 and at most"),
        (["--save-policy", "-"], "--save-policy -"),
        (["--capacity", "1", "--window", "0"], "window 0"),
        (["--window", "5"], "--window: it is for --capacity"),
        (["--policy", "never", "--save-policy", str(tmp_path / "p.npz")], "--save-policy: none"),
        (["--save-policy", "/proc/none/p.npz"], "/proc/none/p.npz: cannot be written"),
    ):
        wrong = runner.invoke(app, ["simulate", *arguments])
        assert wrong.exit_code == 2, arguments
        assert len(wrong.stderr.strip().splitlines()) == 1
        assert word in wrong.stderr


def test_what_cannot_be_written_is_named() -> None:
    for arguments in (["policy", "--json", "/dev/full"], ["policy", "--json", "-"]):
        command = [sys.executable, "-m", "followme", *arguments]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full if arguments[-1] == "-" else None, stderr=subprocess.PIPE,
                                  text=True, timeout=60)  # fmt: skip
        assert done.returncode == 1
        (line,) = done.stderr.strip().splitlines()
        named = "standard output" if arguments[-1] == "-" else "/dev/full"
        assert line.startswith("followme: ")
        assert named in line
        assert "cannot be written: No space left on device" in line


def test_files_that_were_only_tried_are_gone_when_the_work_fails(tmp_path: Path) -> None:
    (tmp_path / "kept.json").write_text("mine")
    bad = tmp_path / "bad.csv"
    bad.write_text("what,is,this\n")
    done = runner.invoke(app, ["simulate", "--trace", str(bad), "--cells", str(bad), "--json",
                               str(tmp_path / "kept.json"), "--plot", str(tmp_path / "a" / "b" / "c.png"),
                               "--save-policy", str(tmp_path / "p.npz")])  # fmt: skip
    assert done.exit_code == 2
    assert "no column cell" in done.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bad.csv", "kept.json"]
    assert (tmp_path / "kept.json").read_text() == "mine"
    made = tmp_path / "new" / "deep" / "policy.json"
    assert runner.invoke(app, ["policy", "--json", str(made)]).exit_code == 0
    assert json.loads(made.read_text())


def test_an_option_that_would_do_nothing_is_refused() -> None:
    for arguments, word in (
        (["model", "--search"], "--search"),
        (["openflow-latency", "--search"], "--search"),
        (["policy", "--quick"], "--quick"),
    ):
        wrong = runner.invoke(app, ["reproduce", *arguments])
        assert wrong.exit_code == 2
        assert word in wrong.stderr


def test_what_simulate_saves_can_be_loaded_and_capacity_shows(tmp_path: Path) -> None:
    from followme.placement.learned_file import load_learned

    file = tmp_path / "learned.npz"
    arguments = ["simulate", "--policy", "mdp", "--capacity", "3", "--window", "30", "--save-policy", str(file)]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert "displaced" in done.stdout
    assert f"policy: {file}" in done.stdout
    assert load_learned(file).users[:2] == ("user0", "user1")


def test_the_modules_are_commands() -> None:
    for module in ("followme", "followme.cli"):
        done = subprocess.run([sys.executable, "-m", module, "version"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert done.stdout.strip()
