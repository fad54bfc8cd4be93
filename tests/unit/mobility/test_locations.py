"""Who is who, and whether a packet comes from where its sender belongs."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from followme.domain import Network
from followme.mobility.locations import Sighting, usable

from .world import ALICE, DC1, DC2, STRANGER, VM, WLAN1, WLAN2, World, user


@pytest.mark.parametrize(
    ("where", "port", "mac", "address", "sighting"),
    [
        (WLAN1, 5, ALICE.mac, "10.3.0.10", Sighting.HERE),
        (WLAN1, 5, ALICE.mac, "0.0.0.0", Sighting.HERE),
        (WLAN1, 5, ALICE.mac, "", Sighting.HERE),
        (WLAN1, 9, ALICE.mac, "10.3.0.10", Sighting.ELSEWHERE),
        (WLAN2, 5, ALICE.mac, "10.3.0.10", Sighting.ELSEWHERE),
        (WLAN2, 5, ALICE.mac, "", Sighting.ELSEWHERE),
        (WLAN1, 5, ALICE.mac, "10.3.0.77", Sighting.NEW_ADDRESS),
        (WLAN1, 5, ALICE.mac, "10.3.0.1", Sighting.NEW_ADDRESS),  # whoever asks next refuses the gateway's
        (WLAN1, 5, ALICE.mac, "10.3.0.11", Sighting.CLAIMS_ADDRESS),
        (WLAN2, 5, ALICE.mac, "10.3.0.11", Sighting.CLAIMS_ADDRESS),  # a neighbour's at home, from abroad
        (DC1, 5, ALICE.mac, "10.1.0.5", Sighting.CLAIMS_ADDRESS),
        (WLAN1, 5, STRANGER, "10.3.0.10", Sighting.CLAIMS_ADDRESS),
        (WLAN1, 5, STRANGER, "10.3.0.77", Sighting.STRANGER),
        (WLAN1, 5, STRANGER, "", Sighting.STRANGER),
    ],
)
async def test_a_sender_is_classified(
    world: World, where: Network, port: int, mac: bytes, address: str, sighting: Sighting
) -> None:
    packed = IPv4Address(address).packed if address else b""
    found, node = world.locations.sight(where.name, port, mac, packed)
    assert found is sighting
    assert (node.mac if node else STRANGER) == mac


async def test_a_machine_that_is_expected_arrives(world: World) -> None:
    await world.redirect.prepare("vm", "dc2", 2, [])
    assert world.locations.sight("dc2", 2, VM.mac, VM.address.packed)[0] is Sighting.ARRIVING
    assert world.locations.sight("dc1", 2, VM.mac, VM.address.packed)[0] is Sighting.HERE
    assert world.locations.sight("dc2", 3, VM.mac, VM.address.packed)[0] is Sighting.ELSEWHERE


async def test_a_new_node_by_an_old_name_or_mac_replaces_what_was_known(world: World) -> None:
    locations = world.locations
    moved = user("alice", 0x22, 15)
    locations.add(moved)
    assert locations.node(ALICE.mac) is None
    assert locations.holder("wlan1", ALICE.address) is None
    assert locations.holder("wlan1", moved.address) is moved
    locations.remove("alice")
    locations.remove("alice")
    assert locations.holder("wlan1", moved.address) is None
    assert {node.name for node in locations.users()} == {"bob"}


@pytest.mark.parametrize(
    ("address", "name"),
    [("10.1.0.0", "dc1"), ("10.1.0.255", "dc1"), ("10.4.0.200", "wlan2"), ("10.0.255.255", None),
     ("10.5.0.0", None), ("0.0.0.0", None), ("255.255.255.255", None)],
)  # fmt: skip
async def test_the_network_that_the_core_routes_an_address_to(world: World, address: str, name: str | None) -> None:
    assert world.locations.network_of(IPv4Address(address)) == name


@pytest.mark.parametrize(
    ("address", "may"),
    [("10.2.0.7", True), ("10.2.0.1", False), ("10.2.0.0", False), ("10.2.0.255", False), ("10.2.0.128", False),
     ("10.3.0.7", False)],
)  # fmt: skip
def test_what_a_host_may_be_called(address: str, may: bool) -> None:
    assert usable(DC2, IPv4Address(address)) is may


