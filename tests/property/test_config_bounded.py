"""Whatever stands in a config file: a ``Config`` or a ``ConfigError``, never another exception."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from followme.config.document import ConfigError
from followme.config.openflow import Config, check, load

SEED: dict[str, Any] = {
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

plausible: st.SearchStrategy[Any] = st.sampled_from([
    "10.1.0.0/24", "10.1.0.0/32", "10.1.0.0/31", "0.0.0.0/0", "10.0.0.0/8", "255.255.255.255/32", "10.1.0.255/32",
    "10.1.0.1", "0.0.0.0", "255.255.255.255", "dc1", "u", "vm", "access", "datacentre", "02:00:00:00:00:01", "live",
    1, 2, 0, -1, 1 << 64, 10**30, True, None, float("nan"), float("inf"), "a\0b", "", "wlan", [], {},
])  # fmt: skip
anything = st.recursive(
    plausible | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=8) | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


def judged(data: dict[Any, Any]) -> None:
    try:
        verdict: Config | list[str] = check(data, "file")
    except ConfigError as error:
        verdict = error.problems
    if isinstance(verdict, list):
        assert verdict
        assert all(line.startswith("file: ") for line in verdict)
        assert all(len(line) < 500 for line in verdict), "a message must be readable"
    else:
        assert verdict.networks


@given(st.dictionaries(st.text(max_size=8) | st.sampled_from(sorted(SEED)) | st.integers(), anything, max_size=4))
def test_any_data(data: dict[Any, Any]) -> None:
    judged(data)


def places(value: Any) -> list[tuple[Any, Any]]:
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    found = [(value, key) for key, _ in items]
    for _, inner in items:
        if isinstance(inner, (dict, list)):
            found += places(inner)
    return found


@given(st.lists(st.tuples(st.integers(min_value=0), plausible | anything), min_size=1, max_size=3))
@settings(max_examples=300)
def test_a_right_config_with_some_values_changed(changes: list[tuple[int, Any]]) -> None:
    data = copy.deepcopy(SEED)
    for number, value in changes:
        there = places(data)
        where, key = there[number % len(there)] if there else (data, "networks")
        where[key] = copy.deepcopy(value)
    judged(data)


def test_data_of_any_depth() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    judged({"networks": deep, "colour": deep})


def test_data_that_contains_itself() -> None:
    loop: dict[str, Any] = {}
    loop["networks"] = [loop, [loop]]
    loop["policy"] = {"parameters": loop}
    judged(loop)


yamlish = st.text(st.sampled_from("abz0159:-[]{}&*!|>'\"#%@`,?. \n\t~<=\\\0\x85\ufeff"), max_size=60)


@given(st.binary(max_size=80) | yamlish.map(str.encode))
@settings(max_examples=300)
def test_any_file(tmp_path_factory: Any, content: bytes) -> None:
    path: Path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:  # nothing this short is a config
        load(path)
    assert all(line.startswith(f"{path}: ") for line in caught.value.problems)


@pytest.mark.parametrize("key", ["datapath", "area", "gateway", "name", "colour"])
def test_a_number_that_python_refuses_to_print(key: str) -> None:
    data = copy.deepcopy(SEED)
    data["networks"][0][key] = 16**6000
    judged(data)
