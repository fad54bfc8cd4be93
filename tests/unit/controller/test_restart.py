"""What a controller that starts again makes of what the store says."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import yaml

from followme.config import openflow as config
from followme.domain import Node, NodeKind, Placement, mac_bytes
from followme.store import Store

from .world import EXAMPLE, restarted


def guest(mac: str, address: str) -> Node:
    return Node("user-x", NodeKind.USER, mac_bytes(mac), IPv4Address(address), IPv4Address(address), "wlan-east")


async def test_a_leased_user_is_known_again_where_it_was() -> None:
    store = Store(":memory:")
    node = guest("52:54:00:00:09:09", "10.3.0.30")
    store.put_node(node)
    store.put_placement(Placement(node.name, "wlan-west", 7, IPv4Address("10.4.0.130"), 3))
    controller = restarted(store)
    assert controller.redirect.bindings[node.name].here.network == "wlan-west"
    assert controller.locations.node(node.mac) == node


async def test_who_has_what_the_config_now_gives_to_another_is_forgotten() -> None:
    for node in (guest("52:54:00:00:01:01", "10.3.0.30"), guest("52:54:00:00:09:09", "10.3.0.10")):
        store = Store(":memory:")
        store.put_node(node)
        store.put_placement(Placement(node.name, "wlan-east", 7, node.identifier, 1))
        controller = restarted(store)
        assert node.name not in controller.redirect.bindings
        assert node.name not in {one.name for one in store.nodes()}
        assert controller.locations.holder("wlan-east", IPv4Address("10.3.0.10")) is not None


async def test_locators_that_were_being_given_back_are_free_after_a_restart() -> None:
    store = Store(":memory:")
    known = config.check(yaml.safe_load(EXAMPLE.read_text()), "example").nodes
    alice = next(node for node in known if node.name == "alice")
    store.put_node(alice)
    here = store.allocate_locator("wlan-west", "alice", [IPv4Address("10.4.0.128")])
    store.allocate_locator("dc-west", "alice", [IPv4Address("10.2.0.128")])
    store.put_placement(Placement("alice", "wlan-west", 2, here, 4))
    controller = restarted(store)
    controller.redirect.free_unused()
    assert store.locators() == {("wlan-west", "alice"): here}


async def test_a_user_that_was_never_seen_has_no_rules_with_a_port() -> None:
    controller = restarted(Store(":memory:"))
    binding = controller.redirect.bindings["alice"]
    assert binding.here.port == 0
    seen = replace(binding, here=replace(binding.here, port=5))
    from followme.continuity.manipulator import node_rules

    assert node_rules(binding, controller.networks) == {}
    assert len(node_rules(seen, controller.networks)) == 1
