"""The commands of the LISP plane: examples that are good, key files that are looked at, exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from followme.cli import app

EXAMPLES = Path(__file__).parents[3] / "examples"
SECRET = "0123456789abcdef of a key"
runner = CliRunner()


def local_copy(tmp_path: Path, name: str) -> Path:
    """The example, with its key files here."""
    text = (EXAMPLES / name).read_text()
    for key in set(re.findall(r"/etc/followme/([\w.-]+\.(?:key|password))", text)):
        (tmp_path / key).touch(0o600)
        (tmp_path / key).write_text(SECRET + "\n")
    file = tmp_path / name
    file.write_text(text.replace("/etc/followme/", f"{tmp_path}/"))
    return file


def run(command: str, file: Path) -> tuple[int, list[str]]:
    arguments = [command, str(file)] if command == "check-config" else [command, "-c", str(file)]
    result = runner.invoke(app, arguments)
    assert "Traceback" not in result.output
    assert SECRET not in result.output
    return result.exit_code, (result.stderr if result.exit_code else result.stdout).splitlines()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("controller.yaml", "4 networks, 1 machines, 1 users, 1 services"),
        ("controller-lisp.yaml", "4 networks, 1 machines, 1 users, 1 services"),
        ("agent-dc.yaml", "agent of dc1: 2 peers, 1 machines"),
        ("agent-access.yaml", "agent of wlan1: 1 peers, 0 machines"),
        ("mapserver.yaml", "map server of 5 sites"),
        ("agent-host.yaml", "agent of dc1: 2 peers, 1 machines"),
        ("operator.yaml", "operator of alpha"),
    ],
)
def test_every_example_is_good(tmp_path: Path, name: str, says: str) -> None:
    code, lines = run("check-config", local_copy(tmp_path, name))
    assert (code, lines) == (0, [f"{tmp_path / name}: good: {says}"])


def test_an_agent_without_a_router_has_nothing_to_take_out(tmp_path: Path) -> None:
    result = runner.invoke(app, ["agent", "-c", str(local_copy(tmp_path, "agent-host.yaml")), "--remove"])
    assert (result.exit_code, "this agent has no router" in result.stderr) == (2, True)


def test_there_is_no_other_example() -> None:
    assert {path.name for path in EXAMPLES.iterdir()} == {
        "controller.yaml", "controller-lisp.yaml", "agent-dc.yaml", "agent-access.yaml", "mapserver.yaml",
        "agent-host.yaml", "controller-federated.yaml", "operator.yaml",
    }  # fmt: skip


def test_the_examples_fit_together() -> None:
    """One set-up: each end of a key names the same file, RLOCs, EIDs and site ids agree."""
    controller, dc, access, server = (
        yaml.safe_load((EXAMPLES / name).read_text())
        for name in ("controller-lisp.yaml", "agent-dc.yaml", "agent-access.yaml", "mapserver.yaml")
    )
    sites = {site["name"]: site for site in controller["networks"]}
    registered = {site["name"]: site for site in server["sites"]}
    for agent in (dc, access):
        router = agent["router"]
        name = router["site"]
        assert sites[name]["rlocs"] == [one["address"] for one in router["rlocs"]]
        assert [sites[name]["prefix"]] == router["prefixes"]
        assert sites[name]["agent"]["address"] == agent["control"]["address"]
        assert sites[name]["agent"]["key_file"] == agent["control"]["peers"]["ctl"]["key_file"]
        assert registered[name]["site_id"] == router["site_id"]
        assert registered[name]["keys"][0]["key_file"] == router["map_servers"][0]["key_file"]
        assert router["map_servers"][0]["address"] == controller["map_server"]["address"]
    assert controller["map_server"]["address"] in server["listen"]["addresses"]
    assert registered["ctl"]["site_id"] == controller["map_server"]["site_id"]
    assert registered["ctl"]["keys"][0]["key_file"] == controller["map_server"]["key_file"]
    assert sites["dc2"]["agent"]["address"] == dc["control"]["peers"]["dc2"]["address"]
    for key in ("name", "mac", "address", "memory_mib"):
        assert controller["machines"][0][key] == dc["machines"][0][key]


KEY_FILES = [
    ("agent-dc.yaml", "ms-dc1.key", "router.map_servers[0].key_file"),
    ("agent-dc.yaml", "dc1-dc2.key", "control.peers.dc2.key_file"),
    ("agent-access.yaml", "ctl-wlan1.key", "control.peers.ctl.key_file"),
    ("controller-lisp.yaml", "ms-ctl.key", "map_server.key_file"),
    ("controller-lisp.yaml", "ctl-dc2.key", "networks[1].agent.key_file"),
    ("mapserver.yaml", "ms-ctl.key", "sites[4].keys[0]"),
]
TROUBLES: list[tuple[Callable[[Path], Any], str]] = [
    (Path.unlink, "No such file or directory"),
    (lambda file: file.chmod(0o644), "others can read or change it; chmod 600"),
    (lambda file: file.write_text("short"), "bytes, this one has 5"),
]


@pytest.mark.parametrize(("name", "key_file", "key"), KEY_FILES)
@pytest.mark.parametrize(("spoil", "says"), TROUBLES, ids=["missing", "open", "short"])
def test_a_key_file_that_is_no_good_is_named(
    tmp_path: Path, name: str, key_file: str, key: str, spoil: Callable[[Path], Any], says: str
) -> None:
    file = local_copy(tmp_path, name)
    spoil(tmp_path / key_file)
    command = "mapserver" if name == "mapserver.yaml" else name.partition("-")[0]
    for each in ("check-config", command):
        code, (line,) = run(each, file)
        assert code == 2
        assert line.startswith(f"{file}: {key}: key file {tmp_path / key_file}"), line
        assert says in line


def test_all_missing_key_files_are_said_at_once(tmp_path: Path) -> None:
    file = local_copy(tmp_path, "controller-lisp.yaml")
    for key in tmp_path.glob("*.key"):
        key.unlink()
    code, lines = run("check-config", file)
    assert (code, len(lines)) == (2, 5)


@pytest.mark.parametrize("command", ["mapserver", "agent", "controller", "check-config"])
def test_a_file_of_another_kind_or_none_is_said(tmp_path: Path, command: str) -> None:
    file = tmp_path / "odd.yaml"
    code, lines = run(command, file)
    assert (code, lines) == (2, [f"{file}: cannot be read: No such file or directory"])
    file.write_text("colour: blue\n")
    code, lines = run(command, file)
    assert code == 2
    assert all(line.startswith(f"{file}: ") for line in lines)
    assert any("missing" in line for line in lines)


def test_mistakes_of_step_2_are_found_in_a_file_for_lisp_too(tmp_path: Path) -> None:
    file = local_copy(tmp_path, "controller-lisp.yaml")
    data = yaml.safe_load(file.read_text())
    data["policy"]["parameters"]["gamma"] = 1.5
    file.write_text(yaml.safe_dump(data))
    code, (line,) = run("check-config", file)
    assert code == 2
    assert "policy.parameters" in line
    assert "1.5" in line


def test_the_daemons_are_listed() -> None:
    shown = runner.invoke(app, ["--help"]).stdout
    for command in ("mapserver", "agent", "controller", "check-config"):
        assert command in shown
