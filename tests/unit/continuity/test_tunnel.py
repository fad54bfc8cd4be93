"""The virtual tunnel, by packets: whatever has moved, both ends only ever see identifiers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from followme.continuity.binding import Binding
from followme.continuity.manipulator import node_rules
from followme.continuity.pipeline import Priority, Rule
from followme.domain import Node, NodeKind, Placement, mac_bytes

from .fabric import CONTROLLER, Fabric, Packet, Seen, network

PLAIN = (network("dc1", 1), network("dc2", 2), network("wlan1", 3, access=True), network("wlan2", 4, access=True))
OVERLAPPING = (
    network("dc1", 1, inside="10.0.0.0/24", gateway="10.0.0.1"),
    network("dc2", 2, inside="10.0.0.0/24", gateway="10.0.0.254"),
    *PLAIN[2:],
)
VM_MAC, CLIENT_MAC, PEER_MAC = (mac_bytes(f"02:00:00:00:00:0{n}") for n in (1, 2, 3))
GATEWAY_AS_CACHED = mac_bytes("02:aa:00:00:00:01")


class World:
    """One machine of dc1, one client of wlan1, and where they are."""

    def __init__(self, overlapping: bool = False) -> None:
        self.fabric = Fabric(OVERLAPPING if overlapping else PLAIN)
        home = self.fabric.networks["dc1"]
        address = home.inside[5]
        self.machine = Node("vm", NodeKind.MACHINE, VM_MAC, home.outer(address), address, "dc1", 2)
        self.user = Node(
            "user", NodeKind.USER, CLIENT_MAC, IPv4Address("10.3.0.10"), IPv4Address("10.3.0.10"), "wlan1"
        )
        self.vm = Binding(self.machine, Placement("vm", "dc1", 2, self.machine.identifier, 1))
        self.client = Binding(self.user, Placement("user", "wlan1", 2, self.user.identifier, 1))
        self.apply()

    def apply(self) -> None:
        for binding in (self.vm, self.client):
            self.fabric.set(binding.node.name, node_rules(binding, self.fabric.networks))

    def place(self, node: Node, name: str, version: int = 2) -> Placement:
        where = self.fabric.networks[name]
        return Placement(node.name, name, 2, where.locators[version + (10 if node is self.user else 50)], version)

    def move_client(self, name: str) -> None:
        self.client = self.client.move(self.place(self.user, name), frozenset({self.vm.here.network}))
        self.apply()

    def to_machine(self) -> list[Seen]:
        here = self.client.here
        packet = Packet(self.fabric.networks["wlan1"].router_mac, CLIENT_MAC, self.user.address,
                        self.machine.identifier)  # fmt: skip
        return self.fabric.send(here.network, here.port, packet)

    def to_client(self, place: Placement | None = None) -> list[Seen]:
        here = place or self.vm.here
        packet = Packet(GATEWAY_AS_CACHED, VM_MAC, self.machine.address, self.user.identifier)
        return self.fabric.send(here.network, here.port, packet)

    def assert_talks(self) -> None:
        (out,) = [seen for seen in self.to_machine() if seen.port != CONTROLLER]
        here = self.vm.here
        assert (out.network, out.port) == (here.network, here.port)
        assert out.packet.ipv4_dst == self.machine.address
        assert out.packet.ipv4_src == self.user.identifier
        assert out.packet.eth_dst == VM_MAC
        self.assert_nothing_under_way_is_lost()
        (back,) = [seen for seen in self.to_client() if seen.port != CONTROLLER]
        assert (back.network, back.port) == (self.client.here.network, self.client.here.port)
        assert back.packet.ipv4_src == self.machine.identifier
        assert back.packet.ipv4_dst == self.user.address
        assert back.packet.eth_dst == CLIENT_MAC


    def assert_nothing_under_way_is_lost(self) -> None:
        """Packets that were rewritten before the last change carry an older locator."""
        vm = self.vm
        for place in (vm.here, vm.arriving, vm.leaving, *vm.old):
            if place is None or place == vm.arriving:
                continue
            where = self.fabric.networks[place.network]
            packet = Packet(b"\x0e" * 6, where.router_mac, self.client.here.locator, place.locator)
            seen = self.fabric.send(where.name, where.uplink_port, packet)
            out = [one for one in seen if one.port != CONTROLLER]
            assert [(one.network, one.port) for one in out] == [(vm.here.network, vm.here.port)], place
            assert out[0].packet.ipv4_dst == self.machine.address


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("client_at", ["wlan1", "wlan2", "dc2"])
def test_both_directions_through_every_phase_of_a_move_there_and_back(overlapping: bool, client_at: str) -> None:
    world = World(overlapping)
    world.assert_talks()
    if client_at != "wlan1":
        world.move_client(client_at)
        world.assert_talks()
    for target, version in (("dc2", 2), ("dc1", 3), ("dc2", 4)):
        arriving = world.place(world.machine, target, version)
        world.vm = world.vm.prepare(arriving, frozenset({client_at}))
        world.client = replace(world.client, told=world.client.told | {target})
        world.apply()
        world.assert_talks()
        source = world.vm.here
        world.vm = world.vm.switch()
        world.apply()
        world.assert_talks()
        # From the flip until it stops the machine still runs at the source, and speaks.
        last = world.to_client(source)
        assert [(one.network, one.port) for one in last] == [(world.client.here.network, world.client.here.port)]
        assert last[0].packet.ipv4_src == world.machine.identifier
        world.vm = world.vm.release()
        world.apply()
        world.assert_talks()
        for place in world.vm.old:
            world.vm = world.vm.forget(place)
        world.apply()
        world.assert_talks()


def test_frames_that_the_source_host_sends_back_reach_the_target() -> None:
    world = World()
    source, target = world.vm.here, world.place(world.machine, "dc2")
    late = Packet(VM_MAC, GATEWAY_AS_CACHED, world.user.identifier, world.machine.address)
    world.vm = world.vm.prepare(target, frozenset({"wlan1"}))
    world.apply()
    for _ in ("prepared", "switched"):
        (out,) = world.fabric.send(source.network, source.port, late)
        assert (out.network, out.port, out.packet.ipv4_dst) == ("dc2", 2, world.machine.address)
        assert out.packet.eth_dst == VM_MAC
        world.vm = world.vm.switch() if world.vm.arriving else world.vm
        world.apply()


def test_frames_parked_at_the_target_come_back_after_a_roll_back() -> None:
    world = World()
    world.vm = world.vm.prepare(world.place(world.machine, "dc2"), frozenset({"wlan1"}))
    world.apply()
    parked = Packet(VM_MAC, GATEWAY_AS_CACHED, world.user.identifier, world.machine.address)
    (out,) = world.fabric.send("dc2", 2, parked)
    assert (out.network, out.port) == ("dc1", 2)
    world.vm = world.vm.switch().roll_back()
    world.apply()
    world.assert_talks()
    (out,) = world.fabric.send("dc2", 2, parked)
    assert (out.network, out.port) == ("dc1", 2), "what was parked at the target must still find its way back"


def test_the_way_back_for_frames_parked_at_the_target_is_there_from_prepare_to_retire() -> None:
    world = World()
    parked = Packet(VM_MAC, GATEWAY_AS_CACHED, world.user.identifier, world.machine.address)

    def way_back() -> list[Rule]:
        rules = node_rules(world.vm, world.fabric.networks).get(2, [])
        return [rule for rule in rules if rule.priority == Priority.LATE and rule.match.eth_dst == VM_MAC]

    source = world.vm.here
    world.vm = world.vm.prepare(world.place(world.machine, "dc2"), frozenset({"wlan1"}))
    world.apply()
    (armed,) = way_back()
    world.vm = world.vm.switch()
    world.apply()
    assert way_back() == [armed], "the very same rule, so that it is never taken out of the switch"
    # Sent before the roll back, a frame goes round, and waits at the target again: it is not dropped.
    (out,) = [seen for seen in world.fabric.send("dc2", 2, parked) if seen.port != CONTROLLER]
    assert (out.network, out.port, out.packet.eth_dst) == ("dc2", 2, VM_MAC)
    world.vm = world.vm.roll_back()
    world.apply()
    assert way_back() == [armed]
    (out,) = world.fabric.send("dc2", 2, parked)
    assert (out.network, out.port, out.packet.ipv4_dst) == (source.network, source.port, world.machine.address)
    for place in world.vm.old:
        world.vm = world.vm.forget(place)
    assert way_back() == []
    released = world.vm.prepare(world.place(world.machine, "dc2", 3), frozenset()).switch().release()
    world.vm = released
    assert way_back() == [], "nobody goes back after the release"


def test_a_peer_that_is_not_told_goes_by_way_of_home_and_the_controller_hears_of_it() -> None:
    world = World()
    world.vm = world.vm.prepare(world.place(world.machine, "dc2"), frozenset()).switch().release()
    world.apply()
    seen = world.to_machine()
    assert {(one.network, one.port) for one in seen} == {("dc1", CONTROLLER), ("dc2", 2)}
    copy = next(one.packet for one in seen if (one.network, one.port) == ("dc1", CONTROLLER))
    assert (copy.ipv4_src, copy.ipv4_dst) == (world.user.identifier, world.machine.identifier)
    # The machine's answer waits for its correspondent to be told: nobody must see the locator.
    assert [(one.network, one.port) for one in world.to_client() if one.port == CONTROLLER][-1:] == [
        ("dc2", CONTROLLER)
    ]
    assert not [one for one in world.to_client() if one.port != CONTROLLER]


def test_a_resident_with_the_same_address_is_not_mixed_up_with_the_guest() -> None:
    world = World(overlapping=True)
    fabric = world.fabric
    dc2 = fabric.networks["dc2"]
    resident = Node("res", NodeKind.MACHINE, PEER_MAC, dc2.outer(dc2.inside[5]), dc2.inside[5], "dc2", 10)
    fabric.set(
        "res", node_rules(Binding(resident, Placement("res", "dc2", 10, resident.identifier, 1)), fabric.networks)
    )
    world.vm = world.vm.prepare(world.place(world.machine, "dc2"), frozenset({"wlan1"})).switch().release()
    world.apply()
    world.assert_talks()
    packet = Packet(fabric.networks["wlan1"].router_mac, CLIENT_MAC, world.user.address, resident.identifier)
    (out,) = fabric.send("wlan1", 2, packet)
    assert (out.network, out.port, out.packet.eth_dst) == ("dc2", 10, PEER_MAC)
    reply = Packet(dc2.router_mac, PEER_MAC, resident.address, world.user.identifier)
    (back,) = fabric.send("dc2", 10, reply)
    assert back.packet.ipv4_src == resident.identifier


def test_a_neighbour_at_home_and_one_in_the_foreign_network_talk_to_the_moved_machine() -> None:
    world = World()
    fabric = world.fabric
    for name, number in (("dc1", 7), ("dc2", 8)):
        where = fabric.networks[name]
        mac = bytes([2, 0, 0, 0, 0, number])
        node = Node(name + "-host", NodeKind.USER, mac, where.prefix[7], where.prefix[7], name, 10)
        binding = Binding(node, Placement(node.name, name, 10, node.identifier, 1))
        fabric.set(node.name, node_rules(binding, fabric.networks))
    world.vm = world.vm.prepare(world.place(world.machine, "dc2"), frozenset({"dc1", "dc2"})).switch().release()
    world.apply()
    for name, number in (("dc1", 7), ("dc2", 8)):
        where = fabric.networks[name]
        mac = bytes([2, 0, 0, 0, 0, number])
        out = fabric.send(name, 10, Packet(VM_MAC, mac, where.prefix[7], world.machine.identifier))
        assert ("dc2", 2) in [(one.network, one.port) for one in out]
        back = fabric.send("dc2", 2, Packet(mac, VM_MAC, world.machine.address, where.prefix[7]))
        (seen,) = [one for one in back if one.port != CONTROLLER]
        assert (seen.network, seen.port, seen.packet.ipv4_src) == (name, 10, world.machine.identifier)


def test_the_ingress_rule_lets_nobody_else_speak_as_the_machine() -> None:
    world = World()
    for forged in (
        Packet(GATEWAY_AS_CACHED, PEER_MAC, world.machine.address, world.user.identifier),
        Packet(GATEWAY_AS_CACHED, VM_MAC, IPv4Address("10.1.0.9"), world.user.identifier),
    ):
        assert [(one.network, one.port) for one in world.fabric.send("dc1", 2, forged)] == [("dc1", CONTROLLER)]
    honest = Packet(GATEWAY_AS_CACHED, VM_MAC, world.machine.address, world.user.identifier)
    assert [(one.network, one.port) for one in world.fabric.send("dc1", 9, honest)] == [("dc1", CONTROLLER)]


def test_fewer_rules_than_the_papers() -> None:
    """Equations 2 to 4 of the scalability paper with H = 0, F = 0 and one correspondent node."""
    world = World()
    world.vm = world.vm.prepare(world.place(world.machine, "dc2"), frozenset({"wlan2"})).switch().release()
    for place in world.vm.old:
        world.vm = world.vm.forget(place)
    rules = {dp: len(some) for dp, some in node_rules(replace(world.vm, seen=True), world.fabric.networks).items()}
    assert rules == {1: 2, 2: 4, 4: 2}
    assert rules[1] < 3
    assert rules[2] < 6
    assert rules[4] < 3 + 1


def test_neighbours_with_private_addresses_talk_at_home_and_a_guest_never_reaches_their_namesake() -> None:
    world = World(overlapping=True)
    fabric = world.fabric
    dc1, dc2 = fabric.networks["dc1"], fabric.networks["dc2"]
    for where, mac in ((dc1, PEER_MAC), (dc2, mac_bytes("02:00:00:00:00:04"))):
        node = Node(
            where.name + "-host", NodeKind.USER, mac, where.outer(where.inside[7]), where.inside[7], where.name, 10
        )
        fabric.set(node.name, node_rules(Binding(node, Placement(node.name, where.name, 10, node.identifier, 1)),
                                         fabric.networks))  # fmt: skip
    to_neighbour = Packet(PEER_MAC, VM_MAC, world.machine.address, dc1.inside[7])
    (out,) = fabric.send("dc1", 2, to_neighbour)
    assert (out.port, out.packet.ipv4_src) == (10, world.machine.address)
    world.vm = world.vm.prepare(world.place(world.machine, "dc2"), frozenset({"wlan1"})).switch().release()
    world.apply()
    assert not [one for one in fabric.send("dc2", 2, to_neighbour) if one.port == 10]
