"""Whatever stands in a daemon's config file: a checked config or a ``ConfigError``, never another exception."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from followme.agent import config as agent_config
from followme.agent import host_config
from followme.config import lisp as config_lisp
from followme.config import openflow as config_openflow
from followme.config.document import ConfigError
from followme.mapsystem import config as mapserver_config
from followme.placement.settings import chooser_of, policy_of

SECRET = "correct horse battery staple"
SWITCHES: dict[str, Any] = {
    "networks": [{
        "name": "dc1", "kind": "datacentre", "datapath": 1,
        "uplink": {"port": 1, "router_mac": "02:aa:00:00:00:01"},
        "prefix": "10.1.0.0/24", "inside": "10.0.0.0/24", "gateway": "10.0.0.1", "locators": "10.1.0.128/25",
        "dhcp": {"first": "10.0.0.20", "last": "10.0.0.99"},
        "host": {"port": 2, "bridge": "br", "uplink": "e", "management_address": "10.9.0.1", "run_dir": "/run"},
    }],
    "machines": [{"name": "vm", "home": "dc1", "mac": "02:00:00:00:00:01", "address": "10.0.0.5"}],
    "users": [{"name": "u", "home": "dc1", "mac": "02:00:00:00:00:02", "address": "10.0.0.6", "port": 3}],
    "services": [{"name": "s", "user": "u", "machine": "vm"}],
}  # fmt: skip
CONTROLLER: dict[str, Any] = {
    "plane": "lisp",
    "networks": [{
        "name": "dc1", "kind": "datacentre", "prefix": "10.1.0.0/24", "gateway": "10.1.0.1", "area": 0,
        "rlocs": ["192.0.2.2"], "agent": {"address": "192.0.2.2", "port": 4360, "key_file": "/k"},
        "offer": {"capacity": 3},
    }],
    "map_server": {"address": "192.0.2.18", "key_file": "/k", "site_id": 1, "algorithm": 2},
    "machines": [{"name": "vm", "home": "dc1", "mac": "02:00:00:00:00:01", "address": "10.1.0.5"}],
    "users": [{"name": "u", "home": "dc1", "address": "10.1.0.6"}],
    "services": [{"name": "s", "user": "u", "machine": "vm"}],
    "policy": {"name": "mdp", "parameters": {"gamma": 0.9}},
}  # fmt: skip
AGENT: dict[str, Any] = {
    "router": {
        "site": "dc1", "site_id": 1, "rlocs": [{"address": "192.0.2.2", "priority": 1}],
        "prefixes": ["10.1.0.0/24"], "space": ["10.0.0.0/8"], "state_dir": "/var/x",
        "map_servers": [{"address": "192.0.2.18", "key": SECRET}],
        "dynamic": {"prefixes": ["10.3.0.0/24"], "macs": {"10.3.0.9": "02:00:00:00:00:09"}},
        "peers": {"192.0.2.6": "rfc9300"},
    },
    "control": {"address": "192.0.2.2", "peers": {"ctl": {"role": "controller", "key_file": "/k"}}},
    "host": {
        "bridge": "br0", "uplink": "up", "management_address": "192.0.2.26", "run_dir": "/run/x", "images": ["/i"],
    },
    "machines": [{
        "name": "vm", "mac": "02:00:00:00:00:01", "address": "10.1.0.5", "kernel": "/i/k", "initrd": "/i/i",
    }],
    "migration": {"max_pause_ms": 100},
}  # fmt: skip
HOST: dict[str, Any] = {
    "federation": {
        "domain": "alpha", "host": "dc1", "network": "dc1", "bus": "nats://192.0.2.9:4222", "user": "alpha.dc1",
        "password_file": "/k",
    },
    "control": {"address": "192.0.2.2", "peers": {"dc2": {"role": "agent", "key_file": "/k"}}},
    **{key: AGENT[key] for key in ("host", "machines", "migration")},
}
MAP_SERVER: dict[str, Any] = {
    "sites": [{
        "name": "dc1", "site_id": 1, "keys": [{"key": SECRET, "id": 0}], "prefixes": ["10.1.0.0/24"],
        "visitors": [{"prefix": "10.3.0.0/24", "instance_id": 0}], "rlocs": ["192.0.2.0/30"],
    }],
    "listen": {"addresses": ["127.0.0.1"], "port": 4342}, "negative": {"outside": "drop"},
    "damping": {"changes": 5}, "processes": 1,
}  # fmt: skip


def lisp_controller(data: dict[Any, Any], name: str) -> object:
    checked = config_lisp.check(data, name)
    policy_of(checked)
    return chooser_of(checked) or checked


Check = Callable[[dict[Any, Any], str], object]
FILES: dict[str, tuple[dict[str, Any], Check, Callable[[Path], object]]] = {
    "controller": (SWITCHES, config_openflow.check, config_openflow.load),
    "lisp controller": (CONTROLLER, lisp_controller, config_lisp.load),
    "agent": (AGENT, agent_config.check, agent_config.load),
    "host": (HOST, host_config.check, host_config.load),
    "mapserver": (MAP_SERVER, mapserver_config.check, mapserver_config.load),
}
every_file = pytest.mark.parametrize("kind", FILES)

plausible: st.SearchStrategy[Any] = st.sampled_from([
    "10.1.0.0/24", "10.1.0.0/32", "10.1.0.0/31", "0.0.0.0/0", "10.0.0.0/8", "255.255.255.255/32", "10.1.0.255/32",
    "::/0", "2001:db8::/48", "10.1.0.5/24", "10.1.0.1", "192.0.2.2", "0.0.0.0", "255.255.255.255", "::1",
    "::ffff:10.0.0.1", "fe80::1%lan", "dc1", "u", "vm", "ctl", "access", "agent", "controller", "datacentre",
    "02:00:00:00:00:01", "live", "gpe", "drop", "a\0b", "", "wlan", [], {}, ["10.1.0.0/24"], {"key": SECRET},
    {"key_file": "/none"}, {"address": "192.0.2.2"}, {"prefix": "10.1.0.0/24"}, 1, 2, 0, -1, 1 << 24, 1 << 64,
    10**30, True, None, float("nan"), float("inf"),
])  # fmt: skip
anything = st.recursive(
    plausible | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
yamlish = st.text(st.sampled_from("abz0159:-[]{}&*!|>'\"#%@`,?. \n\t~<=\\\0\x85\ufeff"), max_size=60)
keys = sorted({key for seed, _, _ in FILES.values() for key in seed})


def judged(kind: str, data: dict[Any, Any]) -> None:
    try:
        verdict: object = FILES[kind][1](data, "file")
    except ConfigError as error:
        verdict = error.problems
        assert verdict
        assert all(line.startswith("file: ") for line in verdict), verdict
        assert all(len(line) < 500 for line in verdict), "a message must be readable"
    assert verdict is not None
    assert SECRET not in repr(verdict)


@every_file
@given(changes=st.lists(st.tuples(st.integers(min_value=0), plausible | anything), min_size=1, max_size=3))
@settings(max_examples=300)
def test_a_right_config_with_some_values_changed(kind: str, changes: list[tuple[int, Any]]) -> None:
    data = copy.deepcopy(FILES[kind][0])
    for number, value in changes:
        there = places(data)
        where, key = there[number % len(there)] if there else (data, keys[number % len(keys)])
        where[key] = copy.deepcopy(value)
    judged(kind, data)


def places(value: Any) -> list[tuple[Any, Any]]:
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    found = [(value, key) for key, _ in items]
    for _, inner in items:
        if isinstance(inner, (dict, list)):
            found += places(inner)
    return found


@every_file
@given(data=st.dictionaries(st.text(max_size=8) | st.sampled_from(keys) | st.integers(), anything, max_size=4))
def test_any_data(kind: str, data: dict[Any, Any]) -> None:
    judged(kind, data)


@every_file
def test_the_seed_is_right(kind: str) -> None:
    seed, check, _ = FILES[kind]
    assert check(copy.deepcopy(seed), "file") is not None


@every_file
def test_data_of_any_depth_and_data_that_contains_itself(kind: str) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    loop: dict[str, Any] = {}
    loop["self"] = loop["networks"] = [loop, [loop]]
    loop["policy"] = {"parameters": loop}
    judged(kind, loop)
    for key in (*FILES[kind][0], "colour"):
        judged(kind, {**FILES[kind][0], key: deep})
        judged(kind, {**FILES[kind][0], key: loop})


@every_file
@given(content=st.binary(max_size=80) | yamlish.map(str.encode))
@settings(max_examples=300)
def test_any_file(tmp_path_factory: Any, kind: str, content: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / f"any-{kind}.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:  # nothing this short is a config
        FILES[kind][2](path)
    assert all(line.startswith(f"{path}: ") for line in caught.value.problems)


@every_file
def test_a_number_that_python_refuses_to_print(kind: str) -> None:
    for number in range(len(places(FILES[kind][0]))):
        data = copy.deepcopy(FILES[kind][0])
        where, key = places(data)[number]
        where[key] = 16**6000
        judged(kind, data)
    judged(kind, {**FILES[kind][0], "colour": 16**6000})
