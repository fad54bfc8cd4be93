"""The config of a controller in a federation: what is right is read, every wrong value is named with its key."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from followme.config.document import ConfigError
from followme.config.federation import OPERATOR, check
from followme.domain import NO_DATAPATH
from followme.federation import orders

from .document import GONE, Key, changed

EXAMPLE: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[3] / "examples" / "controller-federated.yaml").read_text()
)


def problems(*changes: tuple[Key, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(changed(*changes, of=EXAMPLE), "fmc.yaml")
    return caught.value.problems


def test_the_example_is_right_and_says_whose_each_network_is() -> None:
    config = check(copy.deepcopy(EXAMPLE), "fmc.yaml")
    assert [(one.name, one.ours) for one in config.networks] == [
        ("dc-east", True), ("wlan-east", True), ("dc-west", False), ("wlan-west", False),
    ]  # fmt: skip
    assert {one.datapath for one in config.networks if not one.ours} == {NO_DATAPATH}
    (machine,) = config.nodes
    assert (machine.name, machine.home, machine.port) == ("vm1", "dc-east", 2)
    assert config.file.federation.lease_s == 1.5
    assert [one.host_name for one in config.file.networks] == ["dc-east", None]


WEST = ("federation", "domains", 0)
WRONG: list[tuple[tuple[Key, Any], str]] = [
    ((("federation", "bus"), "http://x"), "federation.bus: 'http://x': write 'memory', or servers as in nats://"),
    ((("federation", "bus"), "nats://u:p@x"), "no user or password in here"),
    ((("federation", "user"), GONE), "federation.user, federation.password_file: missing"),
    ((("federation", "bus"), "memory"), "federation.bus: memory knows no user, password_file or ca"),
    ((("store",), "f.db"), "store: the bus keeps what must survive"),
    ((("federation", "domain"), "a.b"), "federation.domain: "),
    ((("federation", "domain"), "west"), "federation.domains[0].name: west stands already at federation.domain"),
    ((("federation", "lease_s"), 0.1), "federation.lease_s: 0.1: "),
    ((("federation", "replicas"), True), "federation.replicas: "),
    ((("federation", "replicas"), 2), "federation.replicas: 2: write 1, 3 or 5"),
    (((*WEST, "public_key"), "AAAA"), "federation.domains[0].public_key: "),
    (((*WEST, "public_key"), "A" * 43 + "="), "federation.domains[0].public_key: "),
    (((*WEST, "networks", 0, "name"), "dc-east"), "federation.domains[0].networks[0].name: dc-east stands already"),
    (((*WEST, "networks", 0, "prefix"), "10.3.0.0/24"), "10.3.0.0/24 overlaps networks[1].prefix 10.3.0.0/24"),
    (((*WEST, "networks", 0, "locators"), "10.9.0.0/25"), "domains[0].networks[0].locators: 10.9.0.0/25"),
    (((*WEST, "networks", 0, "gateway"), "10.9.0.1"), "federation.domains[0].networks[0].gateway: 10.9.0.1 is not"),
    ((("networks", 0, "hypervisor_port"), 1), "networks[0].hypervisor_port: 1 is the uplink's port"),
    ((("networks", 1, "hypervisor_port"), 2), "networks[1].hypervisor_port: an access network has no hypervisor"),
    ((("networks", 1, "hypervisor_host"), "h"), "networks[1].hypervisor_host: has no effect without"),
    ((("networks", 1, "hypervisor_lost"), True), "networks[1].hypervisor_lost: has no effect without"),
    ((("networks", 0, "hypervisor_host"), "operator"), "networks[0].hypervisor_host: operator is who gives orders"),
    ((("networks", 0, "offer"), {"capacity": 1}), "networks[0].offer: has no effect in a federation"),
    ((("networks", 0, "hypervisor_port"), GONE), "machines[0].home: data centre 'dc-east' has no 'host'"),
    ((("machines", 0, "kernel"), "/k"), "machines[0].kernel: belongs into the config of the agent"),
    ((("policy",), {"name": "mdp"}), "policy: unknown key"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[said[:60] for _, said in WRONG])
def test_each_mistake_is_named(change: tuple[Key, Any], said: str) -> None:
    assert any(said in problem for problem in problems(change)), problems(change)


@pytest.mark.parametrize("bus", ["nats://u:sesame@x", "nats://u:sesame@x:notaport", "u:sesame@x", "nats://sesame@h/"])
def test_a_password_in_the_bus_is_not_shown(bus: str) -> None:
    (said,) = problems((("federation", "bus"), bus))
    assert "federation.bus: " in said
    assert "sesame" not in said


def test_two_domains_with_one_key_are_refused() -> None:
    west = copy.deepcopy(EXAMPLE["federation"]["domains"][0])
    north = {**west, "name": "north", "networks": [
        {"name": "dc-n", "kind": "datacentre", "prefix": "10.7.0.0/24", "gateway": "10.7.0.1",
         "locators": "10.7.0.128/25"}]}  # fmt: skip
    said = problems((("federation", "domains"), [west, north]))
    assert said == ["fmc.yaml: federation.domains[1].public_key: it is that of federation.domains[0] too; each "
                    "domain has a key of its own"]  # fmt: skip


def test_the_operators_name_is_the_same_everywhere() -> None:
    assert OPERATOR == orders.OPERATOR
