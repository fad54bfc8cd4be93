"""The config of a controller of LISP sites: what is right is read, every wrong value is named with its key."""

from __future__ import annotations

import copy
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from followme.config.document import ConfigError
from followme.config.lisp import check, load
from followme.domain import NetworkKind, NodeKind
from followme.placement.settings import chooser_of, policy_of

from .document import GONE, Key, changed, keys, sections, text
from .lisp_document import LISP


def problems(*changes: tuple[Key, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(changed(*changes, of=LISP), "fmc.yaml")
    return caught.value.problems


def test_a_right_file_becomes_the_nouns_of_the_domain(tmp_path: Path) -> None:
    path = tmp_path / "fmc.yaml"
    path.write_text(yaml.safe_dump(LISP))
    config = load(path)
    assert config.name == str(path)
    assert [(one.name, one.kind) for one in config.networks] == [
        ("dc1", NetworkKind.DATACENTRE), ("dc2", NetworkKind.DATACENTRE), ("wlan1", NetworkKind.ACCESS),
    ]  # fmt: skip
    assert config.networks[0].rlocs == (IPv4Address("192.0.2.2"), IPv6Address("2001:db8::2"))
    assert config.networks[1].agent.port == 4360
    machine, alice, bob = config.nodes
    assert (machine.name, machine.kind, machine.home) == ("vm1", NodeKind.MACHINE, "dc1")
    assert machine.identifier == machine.address == IPv4Address("10.1.0.5"), "an EID is the same inside and outside"
    assert (alice.kind, alice.mac) == (NodeKind.USER, bytes.fromhex("020000000002"))
    assert bob.mac == bytes(6), "its access router knows it"
    assert [(one.user, one.machine) for one in config.services] == [("alice", "vm1")]


def test_the_sections_of_step_2_are_the_same_as_for_switches() -> None:
    config = check(copy.deepcopy(LISP), "fmc.yaml")
    chooser = chooser_of(config)
    assert chooser is not None
    assert list(chooser.names) == ["dc1", "dc2"], "where machines can run"
    assert type(policy_of(config)).__name__.lower().startswith("threshold")
    wrong = changed((("networks", 2, "offer"), {"capacity": 1}), of=LISP)
    with pytest.raises(ConfigError, match=r"networks\[2\].offer: wlan1 is an access network"):
        policy_of(check(wrong, "fmc.yaml"))


def test_a_small_file_gets_the_defaults() -> None:
    data = {key: copy.deepcopy(LISP[key]) for key in ("plane", "networks")}
    data["map_server"] = {"address": "192.0.2.18", "key_file": "k", "site_id": 1}
    file = check(data, "fmc.yaml").file
    assert (file.map_server.port, file.map_server.key_id, file.map_server.algorithm) == (4342, 0, 2)
    assert (str(file.listen.address), file.listen.port) == ("127.0.0.1", 4342), "loopback unless told"
    assert (file.policy.name, file.migration.mode, file.instance_id) == ("mdp", "live", 0)
    assert (file.machines, file.users, file.services) == ((), (), ())


@pytest.mark.parametrize("section", sections(LISP), ids=text)
def test_an_unknown_key_is_refused_wherever_it_stands(section: Key) -> None:
    key = text((*section, "colour"))
    says = "unknown key; see docs/lisp.md for the keys"  # not its value: it may be a key in the wrong place
    assert problems(((*section, "colour"), "blue")) == [f"fmc.yaml: {key}: {says}"]


@pytest.mark.parametrize("key", keys(LISP), ids=text)
def test_a_value_of_a_wrong_type_is_named_with_file_key_and_value(key: Key) -> None:
    wrong: Any = [3.25] if key[-1] == "parameters" else {"surprise": 3.25}
    lines = problems((key, wrong))
    assert lines
    for line in lines:
        # of a list that is left empty by it, that is said too
        assert line.startswith(f"fmc.yaml: {text(key[:-1] if isinstance(key[-1], int) else key)}")
        assert "3.25" not in line


OPTIONAL = {
    "area", "offer", "port", "key_id", "algorithm", "listen", "instance_id", "machines", "users", "services",
    "policy", "probe", "migration", "memory_mib", "parameters", "interval_s", "mode", "capacity", "provider",
    "distance",
}  # fmt: skip


@pytest.mark.parametrize(
    "key",
    [
        key for key in keys(LISP)
        if isinstance(key[-1], str) and key[-1] not in OPTIONAL
        and key not in {("users", 0, "mac"), ("listen", "address"), ("policy", "name")}
    ],
    ids=text,
)  # fmt: skip
def test_a_missing_key_is_named(key: Key) -> None:
    assert f"fmc.yaml: {text(key)}: missing; see docs/lisp.md" in problems((key, GONE))


def test_what_is_optional_can_be_left_out() -> None:
    left_out = [
        (key, GONE) for key in keys(LISP)
        if key[-1] in OPTIONAL and not any(key[:length][-1] in OPTIONAL for length in range(1, len(key)))
    ]  # fmt: skip
    assert len(left_out) > 10
    assert check(changed(*left_out, of=LISP), "fmc.yaml").services == ()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (("plane",), "openflow", "lisp"),
        (("networks",), [], "at least 1 item"),
        (("networks", 0, "kind"), "cloud", "access"),
        (("networks", 0, "prefix"), "10.1.0.0", "with its length"),
        (("networks", 0, "prefix"), "10.1.0.9/24", "has host bits set"),
        (("networks", 0, "area"), True, "valid integer"),
        (("networks", 0, "rlocs"), [], "at least 1 item"),
        (("networks", 0, "rlocs", 0), 3221225986, "write an IP address in quotes"),
        (("networks", 0, "agent", "address"), "dc1.example", "does not appear to be an IPv4 or IPv6 address"),
        (("networks", 0, "agent", "port"), 0, "greater than or equal to 1"),
        (("networks", 0, "agent", "key_file"), "", "is not a path"),
        (("map_server", "site_id"), 0, "greater than or equal to 1"),
        (("map_server", "site_id"), 1 << 64, "less than 18446744073709551616"),
        (("map_server", "key_id"), 256, "less than or equal to 255"),
        (("map_server", "algorithm"), 3, "1 or 2"),
        (("listen", "port"), 65536, "less than or equal to 65535"),
        (("instance_id",), 1 << 24, "less than 16777216"),
        (("machines", 0, "memory_mib"), 16, "greater than or equal to 32"),
        (("machines", 0, "mac"), "01:00:5e:00:00:01", "is a multicast address"),
        (("migration", "mode"), "warm", "paper"),
        (("probe", "interval_s"), 0, "greater than 0"),
        (("migration",), {"mode": "live", "timeout_s": 3.0}, "unknown key"),
        (("machines", 0), {**LISP["machines"][0], "kernel": "/boot/vmlinuz"}, "unknown key"),
    ],
)
def test_a_value_out_of_its_range_is_explained(key: Key, value: object, says: str) -> None:
    (line,) = problems((key, value))
    assert line.startswith(f"fmc.yaml: {text(key)}")
    assert says in line


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (("networks", 1, "prefix"), "10.1.0.0/25", "networks[1].prefix: 10.1.0.0/25 overlaps networks[0].prefix"),
        (("networks", 0, "gateway"), "10.9.0.1", "networks[0].gateway: 10.9.0.1 is not in 10.1.0.0/24"),
        (("networks", 1, "name"), "dc1", "networks[1].name: network name dc1 stands already at networks[0].name"),
        (("networks", 1, "rlocs"), ["192.0.2.2"],
         "networks[1].rlocs: RLOC 192.0.2.2 stands already at networks[0].rlocs"),
        (("machines", 0, "home"), "dc9", "machines[0].home: 'dc9' is not the name of a network"),
        (("machines", 0), {**LISP["machines"][0], "home": "wlan1", "address": "10.3.0.5"},
         "machines[0].home: 'wlan1' is an access network"),
        (("machines", 0, "address"), "10.2.0.5", "machines[0].address: 10.2.0.5 is not a host's address in 10.1"),
        (("machines", 0, "address"), "10.1.0.1", "machines[0].address: 10.1.0.1 is not a host's address"),
        (("users", 0, "address"), "10.3.0.255", "users[0].address: 10.3.0.255 is not a host's address"),
        (("users", 1, "address"), "10.3.0.10", "users[1].address: address 10.3.0.10 stands already at users[0]"),
        (("users", 0, "mac"), "02:00:00:00:00:01",
         "users[0].mac: mac 02:00:00:00:00:01 stands already at machines[0]"),
        (("users", 0, "name"), "vm1", "users[0].name: node name vm1 stands already at machines[0].name"),
        (("services", 0, "user"), "vm1", "services[0].user: 'vm1' is not the name of a user"),
        (("services", 0, "machine"), "alice", "services[0].machine: 'alice' is not the name of a machine"),
    ],
)  # fmt: skip
def test_what_contradicts_something_else_is_named(key: Key, value: object, says: str) -> None:
    assert any(says in line for line in problems((key, value)))


def test_two_services_of_one_machine() -> None:
    twice = [*LISP["services"], {"name": "game", "user": "bob", "machine": "vm1"}]
    assert problems((("services",), twice)) == [
        "fmc.yaml: services[1].machine: service of machine vm1 stands already at services[0].machine"
    ]


def test_all_mistakes_are_reported_at_once() -> None:
    assert len(problems((("instance_id",), -1), (("map_server", "address"), 7), (("colour",), "red"))) == 3
