"""``followme federation bus``: the files of a bus of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from followme.cli import app

runner = CliRunner()
WHO = ("alpha:dc1,operator", "beta:dc2", "gamma")
USERS = {"alpha", "alpha.dc1", "alpha.operator", "beta", "beta.dc2", "gamma"}
THREE = [part for number in (1, 2, 3)
         for part in ("--server", f"n{number},192.0.2.{number}:4222,192.0.2.{number}:6222")]  # fmt: skip


def _bus(directory: Path, *arguments: str) -> Result:
    result = runner.invoke(app, ["federation", "bus", str(directory), *arguments])
    assert "Traceback" not in result.output
    return result


def _passwords(directory: Path) -> dict[str, str]:
    return {file.name.removesuffix(".password"): file.read_text().strip() for file in directory.glob("*.password")}


def _configuration(directory: Path, name: str = "nats-server") -> dict[str, Any]:
    document: dict[str, Any] = json.loads((directory / f"{name}.conf").read_text())
    return document


def _users(document: dict[str, Any]) -> dict[str, str]:
    accounts = [account for name, account in document["accounts"].items() if name != "SYS"]
    return {user["user"]: user["password"] for account in accounts for user in account["users"]}


def test_each_who_may_be_on_it_has_a_password_file_of_its_own(tmp_path: Path) -> None:
    directory = tmp_path / "bus"
    result = _bus(directory, *WHO)
    assert result.exit_code == 0
    passwords = _passwords(directory)
    assert passwords.keys() == USERS
    assert len(set(passwords.values())) == len(USERS)
    assert all(len(password) >= 32 for password in passwords.values())
    document = _configuration(directory)
    assert _users(document) == passwords
    assert document["listen"] == "127.0.0.1:4222"
    assert document["jetstream"]["store_dir"].startswith(str(directory))


def test_nothing_secret_is_printed_or_left_for_others_to_read(tmp_path: Path) -> None:
    result = _bus(tmp_path / "bus", *WHO, *THREE)
    files = list((tmp_path / "bus").iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    secrets = [file.read_text().strip() for file in files if file.suffix in (".password", ".secret")]
    assert len(secrets) == len(USERS) + 1
    assert not [secret for secret in secrets if secret in result.output]
    assert len(result.stdout.splitlines()) == len(files) - 1


def test_again_with_more_changes_nobodys_password(tmp_path: Path) -> None:
    _bus(tmp_path, *WHO)
    before = _passwords(tmp_path)
    (tmp_path / "alpha.password").write_text("chosen by hand\n")
    more = ("--listen", "192.0.2.9:4333", "--mib", "1024", "--monitor", "127.0.0.1:8222")
    _bus(tmp_path, "alpha:dc1,dc9,operator", "beta:dc2", "gamma", "delta", *more)
    after = _passwords(tmp_path)
    assert after.keys() - before.keys() == {"alpha.dc9", "delta"}
    assert {user for user in before if before[user] != after[user]} == {"alpha"}
    assert _users(_configuration(tmp_path)) == after
    assert _configuration(tmp_path)["listen"] == "192.0.2.9:4333"
    assert _configuration(tmp_path)["http"] == "127.0.0.1:8222"
    assert _configuration(tmp_path)["accounts"]["FMC_delta"]["jetstream"]["max_file"] == (1024 + 4) << 20


def test_servers_of_a_cluster_know_each_other(tmp_path: Path) -> None:
    for _ in range(2):
        assert _bus(tmp_path, "alpha", *THREE, "--store", "/srv/nats").exit_code == 0
    clusters = [_configuration(tmp_path, f"n{number}")["cluster"] for number in (1, 2, 3)]
    assert {cluster["authorization"]["password"] for cluster in clusters} == {
        (tmp_path / "servers.secret").read_text().strip()
    }
    assert [route.rpartition("@")[2] for route in clusters[0]["routes"]] == ["192.0.2.2:6222", "192.0.2.3:6222"]
    assert _configuration(tmp_path, "n2")["jetstream"]["store_dir"] == "/srv/nats"


@pytest.mark.parametrize(("arguments", "code", "says"), [
    (["al.pha"], 1, "'al.pha' cannot name a domain or host"),
    (["alpha:"], 0, ""),
    (["alpha:dc1,"], 1, "'' cannot name a domain or host"), (["../alpha"], 1, "cannot name"),
    (["alpha", "alpha:dc1"], 2, "a domain is named twice"),
    (["alpha:dc1,dc1"], 2, "a host of alpha is named twice"),
    (["alpha", "--listen", "here"], 2, "here: write ADDRESS:PORT"),
    (["alpha", "--monitor", "8222"], 2, "8222: write ADDRESS:PORT"),
    (["alpha", *THREE[:2]], 2, "three servers"), (["alpha", *THREE[:4]], 2, "three servers"),
    (["alpha", *THREE[:4], "--server", "n3,192.0.2.3:4222"], 2, "three servers"),
    (["alpha", *THREE[:4], *THREE[2:4]], 2, "stands twice"),
])  # fmt: skip
def test_what_cannot_be_is_said_and_nothing_is_written(
    tmp_path: Path, arguments: list[str], code: int, says: str
) -> None:
    result = _bus(tmp_path / "bus", *arguments)
    assert result.exit_code == code
    assert says in " ".join(result.stderr.split())
    assert (tmp_path / "bus").exists() == (code == 0)


def test_a_password_file_that_others_may_read_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "alpha.password").write_text("0123456789")
    (tmp_path / "alpha.password").chmod(0o644)
    result = _bus(tmp_path, "alpha")
    assert result.exit_code == 1
    assert "alpha.password has mode 644" in result.stderr
    assert not (tmp_path / "nats-server.conf").exists()
