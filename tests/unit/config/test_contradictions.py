"""What no single key shows: overlaps, duplicates, and names of what is not there."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from followme.config.document import ConfigError
from followme.config.openflow import check

from .document import GONE, RIGHT, Key, changed

WLAN, DC = ("networks", 0), ("networks", 1)
USER, MACHINE, SERVICE = ("users", 0), ("machines", 0), ("services", 0)


def lines(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check(document, "fmc.yaml")
    return caught.value.problems


def second(kind: str, **other: object) -> tuple[Key, object]:
    """A second entry like the first one, but for some keys."""
    return (kind,), [RIGHT[kind][0], {**copy.deepcopy(RIGHT[kind][0]), **other}]


BOB = {"name": "bob", "mac": "02:00:00:00:00:09", "address": "10.3.0.11"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        # ranges
        (((*DC, "prefix"), "10.3.0.0/23"), "networks[1].prefix: 10.3.0.0/23 overlaps networks[0].prefix"),
        (((*WLAN, "inside"), "10.3.0.0/25"), "networks[0].inside: 10.3.0.0/25 and prefix 10.3.0.0/24 differ"),
        (((*WLAN, "gateway"), "10.4.0.1"), "networks[0].gateway: 10.4.0.1 is not in 10.3.0.0/24"),
        (((*WLAN, "locators"), "10.4.0.0/25"), "networks[0].locators: 10.4.0.0/25 is not within prefix"),
        (((*WLAN, "locators"), "10.3.0.252/31"), "networks[0].locators: 10.3.0.252/31 must hold four addresses"),
        (((*WLAN, "locators"), "10.3.0.254/32"), "networks[0].locators: 10.3.0.254/32 must hold four addresses"),
        (((*WLAN, "locators"), "10.3.0.0/30"), "networks[0].locators: 10.3.0.0/30 must hold"),
        (((*WLAN, "gateway"), "10.3.0.200"), "networks[0].locators: 10.3.0.128/25 holds the gateway"),
        (((*DC, "gateway"), "192.168.0.200"), "networks[1].locators: 10.1.0.128/25 holds the gateway"),
        (((*WLAN, "uplink", "router_address"), "10.3.0.200"), "networks[0].locators: 10.3.0.128/25 holds the r"),
        # the pool of DHCP
        (((*WLAN, "dhcp", "first"), "10.4.0.20"), "networks[0].dhcp: 10.4.0.20 to 10.3.0.99 is not a range"),
        (((*WLAN, "dhcp", "last"), "10.3.0.19"), "networks[0].dhcp: 10.3.0.20 to 10.3.0.19 is not a range"),
        (((*WLAN, "dhcp", "last"), "10.3.0.130"), "networks[0].dhcp: 10.3.0.20 to 10.3.0.130 overlaps locators"),
        (((*WLAN, "dhcp", "first"), "10.3.0.0"), "networks[0].dhcp: 10.3.0.0 to 10.3.0.99 holds"),
        (((*WLAN, "locators"), "10.3.0.64/28"), "networks[0].dhcp: 10.3.0.20 to 10.3.0.99 overlaps locators"),
        # ports and hosts
        (((*DC, "host", "port"), 1), "networks[1].host.port: 1 is the uplink's port"),
        (((*DC, "host"), GONE), "machines[0].home: data centre 'dc1' has no 'host' to run 'vm1' on"),
        (((*WLAN, "host"), RIGHT["networks"][1]["host"]), "networks[0].host: an access network has no hypervisor"),
        (((*USER, "port"), 1), "users[0].port: 1 is the uplink's port of wlan1"),
        # duplicates
        (((*DC, "name"), "wlan1"), "networks[1].name: network name wlan1 stands already at networks[0].name"),
        (((*DC, "datapath"), 0xA1), "networks[1].datapath: datapath 0xa1 stands already at networks[0].datapath"),
        (((*USER, "name"), "vm1"), "users[0].name: node name vm1 stands already at machines[0].name"),
        (((*USER, "mac"), "02:00:00:00:00:01"), "users[0].mac: mac 02:00:00:00:00:01 stands already"),
        (second("users", **{**BOB, "address": "10.3.0.10"}), "users[1].address: address 10.3.0.10 in wlan1 stands"),
        (second("services", user="alice", machine="vm1"), "services[1].name: service name desktop stands already"),
        (second("services", name="other"), "services[1].machine: service of machine vm1 stands already"),
        # nodes and what they name
        (((*USER, "home"), "wlan9"), "users[0].home: 'wlan9' is not the name of a network"),
        (((*MACHINE, "home"), "dc9"), "machines[0].home: 'dc9' is not the name of a network"),
        (((*USER, "address"), "10.4.0.10"), "users[0].address: 10.4.0.10 is not a host's address in 10.3.0.0"),
        (((*USER, "address"), "10.3.0.2"), "users[0].address: 10.3.0.2 is not a host's address"),
        (((*USER, "address"), "10.3.0.0"), "users[0].address: 10.3.0.0 is not a host's address"),
        (((*USER, "address"), "10.3.0.255"), "users[0].address: 10.3.0.255 is not a host's address"),
        (((*USER, "address"), "10.3.0.1"), "users[0].address: 10.3.0.1 is the router's address"),
        (((*USER, "address"), "10.3.0.140"), "users[0].address: 10.3.0.140 lies in the locators"),
        (((*MACHINE, "address"), "192.168.0.140"), "machines[0].address: 192.168.0.140 lies in the locators"),
        (((*SERVICE, "machine"), "vm9"), "services[0].machine: 'vm9' is not the name of a machine"),
        (((*SERVICE, "user"), "bob"), "services[0].user: 'bob' is not the name of a user"),
        (((*SERVICE, "machine"), "alice"), "services[0].machine: 'alice' is not the name of a machine"),
    ],
)
def test_a_contradiction_is_named_with_file_key_and_value(change: tuple[Key, object], line: str) -> None:
    found = lines(changed(change))
    assert any(one.startswith(f"fmc.yaml: {line}") for one in found), found


def test_a_machine_at_home_in_an_access_network() -> None:
    found = lines(changed(((*MACHINE, "home"), "wlan1"), ((*MACHINE, "address"), "10.3.0.7")))
    assert found == ["fmc.yaml: machines[0].home: 'wlan1' is an access network; a machine's home is a data centre"]


def test_a_shared_private_range_is_no_overlap() -> None:
    third = {**copy.deepcopy(RIGHT["networks"][1]), "name": "dc2", "datapath": 0xD2, "prefix": "10.2.0.0/24",
             "locators": "10.2.0.128/25"}  # fmt: skip
    third["host"]["management_address"] = "10.9.0.2"
    config = check(changed((("networks",), [*RIGHT["networks"], third])), "fmc.yaml")
    assert config.network("dc1").inside == config.network("dc2").inside


def test_users_beside_the_one_that_is_there() -> None:
    assert len(check(changed(second("users", **BOB)), "fmc.yaml").nodes) == 3


def test_two_hypervisors_cannot_have_one_management_address() -> None:
    third = {**copy.deepcopy(RIGHT["networks"][1]), "name": "dc2", "datapath": 0xD2, "prefix": "10.2.0.0/24",
             "locators": "10.2.0.128/25"}  # fmt: skip
    with pytest.raises(ConfigError, match=r"networks\[2\].host.management_address: host 10.9.0.1 stands already"):
        check(changed((("networks",), [*RIGHT["networks"], third])), "fmc.yaml")


def test_a_run_dir_that_is_too_long_for_a_socket() -> None:
    with pytest.raises(ConfigError, match=r"run_dir: .* is too long"):
        check(changed((("networks", 1, "host", "run_dir"), "/run/" + "x" * 100)), "fmc.yaml")
