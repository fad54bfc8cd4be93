"""The agent's file: what is right is read, every mistake is named with its key, no secret is shown."""

from __future__ import annotations

import copy
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from followme.agent.config import check, load
from followme.config.document import ConfigError

from .document import RIGHT, SECRET

PEER = RIGHT["control"]["peers"]["dc2"]


def changed(section: str, **values: object) -> dict[str, Any]:
    data = copy.deepcopy(RIGHT)
    where: Any = data
    for part in section.split("."):
        where = where[int(part) if part.isdigit() else part]
    where.update(values)
    return data


def problems(data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(data, "agent.yaml")
    assert SECRET not in str(caught.value)
    return caught.value.problems


def test_a_right_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(RIGHT))
    config = load(path)
    assert config.router.site == "dc1"
    assert config.control.peers["dc2"].address == IPv4Address("192.0.2.6")
    assert config.control.peers["ctl"].address is None
    assert config.host is not None
    assert config.host.namespace is None
    assert config.machines[0].mac == bytes.fromhex("020000000001")
    assert (config.migration.max_pause_ms, config.migration.timeout_s) == (50, 60)
    assert SECRET not in repr(config)


def test_an_eid_with_a_mac_may_be_of_our_own_subnet_or_roam() -> None:
    macs = {"10.1.0.9": "02:00:00:00:00:09", "10.3.0.9": "02:00:00:00:00:0a"}
    config = check(changed("router", dynamic={"prefixes": ["10.3.0.0/24"], "macs": macs}), "agent.yaml")
    assert len(config.router.dynamic.macs) == 2


def test_a_router_without_machines_and_its_defaults() -> None:
    config = check({"router": RIGHT["router"]}, "agent.yaml")
    assert (str(config.control.address), config.control.port) == ("127.0.0.1", 4360), "loopback unless told"
    assert config.control.peers == {}
    assert (config.host, config.machines) == (None, ())
    assert (config.migration.max_pause_ms, config.migration.timeout_s) == (100.0, 300.0)
    assert str(config.store) == "followme-agent.db"


@pytest.mark.parametrize(
    ("section", "values", "key", "says"),
    [
        ("router", {"lann": "lan"}, "router.lann", "unknown key; see docs/agent.md"),
        ("router", {"rlocs": []}, "router.rlocs", "at least 1 item"),
        ("router", {"prefixes": ["172.16.0.0/24"]}, "router.prefixes[0]", "not within the EID space"),
        ("router.rlocs.0", {"address": "10.9.0.1"}, "router.rlocs[0].address", "lies in the EID space"),
        ("router.map_servers.0", {"key": "short"}, "router.map_servers[0].key", "at least 8"),
        ("router.map_servers.0", {"key_file": "/k"}, "router.map_servers[0]", "give either key or key_file"),
        ("control", {"port": 70000}, "control.port", "less than or equal to 65535"),
        ("control", {"address": 3221225986}, "control.address", "write an IP address in quotes"),
        ("control.peers.ctl", {"role": "user"}, "control.peers.ctl.role", "'controller' or 'agent'"),
        ("control.peers.ctl", {"key": SECRET}, "control.peers.ctl.key", "unknown key"),
        ("control.peers", {"dc1": PEER}, "control.peers.dc1", "that is this site itself"),
        ("control.peers", {"no name": PEER}, "control.peers.no name", "match pattern"),
        ("host", {"images": []}, "host.images", "at least 1 item"),
        ("host", {"images": ["images"]}, "host.images[0]", "images is relative"),
        ("machines.0", {"kernel": "/boot/k"}, "machines[0].kernel", "/boot/k is in none of host.images"),
        ("machines.0", {"initrd": "/var/lib/followme/images/../i"}, "machines[0].initrd", "is in none of"),
        ("router", {"dynamic": {"prefixes": ["10.3.0.0/24"], "macs": {"10.4.0.9": "02:00:00:00:00:09"}}},
         "router.dynamic.macs.10.4.0.9", "is in none of router.dynamic.prefixes"),
        ("host", {"max_memory_mib": 1}, "host.max_memory_mib", "greater than or equal to 32"),
        ("machines.0", {"mac": "01:00:5e:00:00:01"}, "machines[0].mac", "is a multicast address"),
        ("machines.0", {"address": "10.2.0.5"}, "machines[0].address", "10.2.0.5 is in none of router.prefixes"),
        ("machines.0", {"memory_mib": 16}, "machines[0].memory_mib", "greater than or equal to 32"),
        ("migration", {"max_pause_ms": 0}, "migration.max_pause_ms", "greater than 0"),
        ("migration", {"mode": "paper"}, "migration.mode", "unknown key"),
    ],
)
def test_a_mistake_is_named_with_its_key(section: str, values: dict[str, Any], key: str, says: str) -> None:
    lines = problems(changed(section, **values))
    assert any(line.startswith(f"agent.yaml: {key}") and says in line for line in lines), lines


def test_machines_without_a_host() -> None:
    data = copy.deepcopy(RIGHT)
    del data["host"]
    assert problems(data) == ["agent.yaml: host: missing, and there are machines; say where they run"]


@pytest.mark.parametrize("key", ["name", "mac", "address"])
def test_two_machines_with_the_same(key: str) -> None:
    data = copy.deepcopy(RIGHT)
    other = {**data["machines"][0], "name": "vm2", "mac": "02:00:00:00:00:02", "address": "10.1.0.6"}
    data["machines"].append({**other, key: data["machines"][0][key]})
    (line,) = problems(data)
    value = RIGHT["machines"][0][key]
    assert line == f"agent.yaml: machines[1].{key}: {key} {value} stands already at machines[0].{key}"


@pytest.mark.parametrize("router", [None, [], "dc1", 7, {}])
def test_a_router_that_is_none_is_said(router: object) -> None:
    assert all(line.startswith("agent.yaml: router") for line in problems({"router": router}))


def test_a_file_without_a_router() -> None:
    assert problems({}) == ["agent.yaml: router: missing; see docs/agent.md"]
    (line,) = problems({**RIGHT, "routers": {}})
    assert line == "agent.yaml: routers: unknown key; see docs/agent.md for the keys"


def test_all_mistakes_at_once_and_each_once() -> None:
    data = changed("router", lann="x", prefixes=["172.16.0.0/24"])
    data["store"] = ""
    data["machines"][0]["name"] = "no name"
    lines = problems(data)
    assert [line.split(": ")[1] for line in lines] == ["machines[0].name", "store", "router.lann"]
