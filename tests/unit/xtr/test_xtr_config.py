"""The tunnel router's config, its keys and its state file: mistakes named, all at once, and no secret shown."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from followme.config.document import ConfigError
from followme.xtr.config import check, load
from followme.xtr.errors import DataPlaneError
from followme.xtr.residents import Resident
from followme.xtr.state import Arm, State, StateFile

from .play import MAC, eid

SECRET = "not to be seen"


def data(**more: object) -> dict[str, Any]:
    return {
        "site": "dc1", "rlocs": [{"address": "192.0.2.2"}], "prefixes": ["10.1.0.0/24", "fd00:1::/64"],
        "space": ["10.0.0.0/8", "fd00::/16"], "map_servers": [{"address": "192.0.2.18", "key": SECRET}],
        "state_dir": "/var/lib/x", **more,
    }  # fmt: skip


def problems(**more: object) -> str:
    with pytest.raises(ConfigError) as caught:
        check(data(**more), "agent.yaml")
    return str(caught.value)


def test_a_config_becomes_a_site() -> None:
    config = check(data(peers={"192.0.2.9": "rfc9300"}), "agent.yaml")
    site = config.lisp_site()
    assert site.prefixes == (eid("10.1.0.0/24"), eid("fd00:1::/64"))
    assert site.resolvers == ((IPv4Address("192.0.2.18"), 4342),)
    assert site.servers[0].key == SECRET.encode()
    assert len(site.xtr_id) == 16
    assert site.xtr_id == check(data(), "again").lisp_site().xtr_id
    assert config.plain(IPv4Address("192.0.2.9"))
    assert not config.plain(IPv4Address("192.0.2.8"))


def test_no_secret_is_shown() -> None:
    config = check(data(), "agent.yaml")
    for text in (repr(config), str(config), repr(config.lisp_site()), config.model_dump_json()):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"lann": "lan"}, "lann: unknown key"),
        ({"prefixes": ["172.16.0.0/24"]}, "prefixes[0]: 172.16.0.0/24 is not within the EID space"),
        ({"prefixes": ["10.1.0.0/24", "10.1.0.0/25"]}, "prefixes[1]: 10.1.0.0/25 overlaps"),
        ({"prefixes": ["10.1.0.0/32"]}, "prefixes[0]: 10.1.0.0/32 is one address"),
        ({"rlocs": [{"address": "10.0.0.1"}]}, "rlocs[0].address: 10.0.0.1 lies in the EID space"),
        ({"rlocs": [{"address": "192.0.2.2", "priority": 255}]}, "all have priority 255"),
        ({"rlocs": [{"address": "192.0.2.2"}] * 2}, "rlocs[1].address: RLOC 192.0.2.2 stands already at rlocs[0]"),
        ({"rlocs": [{"address": 5}]}, "rlocs[0].address"),
        ({"map_servers": [{"address": "192.0.2.18"}]}, "give either key or key_file"),
        ({"map_servers": [{"address": "2001:db8::1", "key": SECRET}]}, "none of our RLOCs is of its IP version"),
        ({"map_servers": [{"address": "192.0.2.18", "key": "short"}]}, "map_servers[0].key"),
        ({"tunnel": "up"}, "four different devices"),
        ({"dynamic": {"prefixes": ["192.0.2.0/24"]}}, "dynamic.prefixes[0]: 192.0.2.0/24 is not within"),
        *(({"rlocs": [{"address": one}]}, f"rlocs[0].address: {one} is not an address of one host")
          for one in ("0.0.0.0", "224.0.0.1", "255.255.255.255")),
        ({"rlocs": [{"address": "127.0.0.1"}]}, "rlocs[0].address: 127.0.0.1: no other router reaches us by it"),
        ({"map_servers": [{"address": "224.0.0.5", "key": SECRET}]}, "map_servers[0].address: 224.0.0.5 is not"),
        ({"map_servers": [{"address": "192.0.2.2", "key": SECRET}]}, "192.0.2.2 port 4342 is this router itself"),
        ({"map_servers": [{"address": "192.0.2.18", "port": port, "key": SECRET} for port in (4342, 4343)]},
         "map_servers[1].address: map server 192.0.2.18 stands already at map_servers[0]"),
        ({"xtr_id": "12"}, "xtr_id"),
    ],
)
def test_each_mistake_is_named(more: dict[str, object], said: str) -> None:
    text = problems(**more)
    assert said in text
    assert text.startswith("agent.yaml: ")


def test_all_mistakes_at_once() -> None:
    text = problems(prefixes=["172.16.0.0/24"], tunnel="up", rlocs=[{"address": "10.0.0.1"}])
    assert len(text.splitlines()) == 3


def test_a_key_file_must_be_ours_alone(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    config = check(data(map_servers=[{"address": "192.0.2.18", "key_file": str(file)}]), "agent.yaml")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        config.lisp_site()
    file.chmod(0o600)
    assert config.lisp_site().servers[0].key == SECRET.encode()
    file.write_text("short")
    with pytest.raises(ConfigError, match="this one has 5"):
        config.lisp_site()
    file.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        config.lisp_site()


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "agent.yaml"
    file.write_text(
        "site: dc1\nrlocs: [{address: 192.0.2.2}]\nspace: [10.0.0.0/8]\nstate_dir: /x\n"
        "map_servers: [{address: 192.0.2.18, key: 1234567890}]\n"
    )
    with pytest.raises(ConfigError, match=r"map_servers\[0\].key"):
        load(file)  # a number, not text
    file.write_text(file.read_text().replace("1234567890", "'1234567890'"))
    assert load(file).site == "dc1"


def test_the_state_survives(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "new", "dc1")
    assert file.load(0) == State()
    state = State(
        1 << 62,
        (Resident(eid("10.3.0.10/32"), MAC), Resident(eid("fd00::7/128"), MAC, True, True)),
        (Arm(eid("10.1.0.9/32"), MAC, IPv4Address("192.0.2.6")),),
        (eid("10.1.0.8/32"),),
        departed=((eid("10.3.0.10/32"), 1 << 63), (eid("10.3.0.128/25"), 7)),
    )
    file.save(state)
    assert file.load(0) == state
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 2}', '{"version": 1, "nonce": "x"}', "[" * 9000]
)
def test_a_damaged_state_is_not_guessed_at(tmp_path: Path, text: str) -> None:
    file = StateFile(tmp_path, "dc1")
    file.path.write_text(text)
    with pytest.raises(DataPlaneError, match="damaged"):
        file.load(0)


def test_a_state_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataPlaneError, match="cannot be"):
        StateFile(tmp_path / "file" / "dir", "dc1").save(State())
