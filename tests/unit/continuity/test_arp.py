"""The ARP proxy: who is answered, with whose MAC, and who is met with silence."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from followme.continuity.arp import ArpProxy, alive_request, locator_request
from followme.continuity.binding import Binding
from followme.continuity.pipeline import edge_mac
from followme.domain import Node, NodeKind, Placement, mac_bytes
from followme.packets import ARP_REPLY, ARP_REQUEST, Arp, parse_arp

from .fabric import network

HOME = network("dc1", 1, inside="192.168.0.0/24", gateway="192.168.0.1")
AWAY = network("dc2", 2)
NETWORKS = {"dc1": HOME, "dc2": AWAY}
ROUTER = mac_bytes("02:aa:00:00:00:01")


def node(number: int) -> Node:
    inner = HOME.inside[number]
    return Node(f"vm{number}", NodeKind.MACHINE, bytes([2, 0, 0, 0, 0, number]), HOME.outer(inner), inner, "dc1", 2)


VM, NEIGHBOUR = node(5), node(6)
BINDINGS = {
    ("dc1", VM.identifier): Binding(VM, Placement("vm5", "dc2", 2, AWAY.locators[0], 2)),
    ("dc2", AWAY.locators[0]): Binding(VM, Placement("vm5", "dc2", 2, AWAY.locators[0], 2)),
    ("dc1", NEIGHBOUR.identifier): Binding(NEIGHBOUR, Placement("vm6", "dc1", 2, NEIGHBOUR.identifier, 1)),
}
PROXY = ArpProxy(NETWORKS, lambda name, address: BINDINGS.get((name, address)))


def request(sender: Node | None, target: str, op: int = ARP_REQUEST) -> Arp:
    sha, spa = (sender.mac, sender.address) if sender else (ROUTER, IPv4Address("10.1.0.1"))
    return Arp(op, sha, spa.packed, bytes(6), IPv4Address(target).packed)


@pytest.mark.parametrize(
    ("where", "target", "mac"),
    [
        (HOME, "10.1.0.5", VM.mac),  # the identifier of one who is away: packets come by way of home
        (HOME, "10.1.0.6", NEIGHBOUR.mac),
        (AWAY, str(AWAY.locators[0]), VM.mac),
        (AWAY, str(AWAY.probe_address), edge_mac(AWAY)),
        (HOME, "10.1.0.77", None),
        (AWAY, "10.1.0.5", None),
    ],
)
def test_the_router_asks(where: object, target: str, mac: bytes | None) -> None:
    assert where in (HOME, AWAY)
    reply = PROXY.for_router(HOME if where is HOME else AWAY, request(None, target))
    if mac is None:
        assert reply is None
    else:
        assert reply is not None
        answer = parse_arp(reply, 14)
        assert (answer.op, answer.sha, answer.sender, answer.tha) == (ARP_REPLY, mac, IPv4Address(target), ROUTER)
        assert reply[:6] == ROUTER


@pytest.mark.parametrize(
    ("target", "mac"),
    [
        ("192.168.0.1", HOME.router_mac),  # its gateway is that of its home, wherever it is
        ("192.168.0.6", NEIGHBOUR.mac),
        ("192.168.0.77", None),
        ("192.168.0.5", None),  # its own address: an answer would make it believe in a conflict
        ("10.2.0.1", None),  # the visited network's gateway is none of its neighbours
    ],
)
def test_a_host_asks(target: str, mac: bytes | None) -> None:
    reply = PROXY.for_host(VM, request(VM, target))
    assert (parse_arp(reply, 14).sha if reply else None) == mac


def test_replies_are_not_answered() -> None:
    assert PROXY.for_host(VM, request(VM, "192.168.0.1", ARP_REPLY)) is None
    assert PROXY.for_router(HOME, request(None, "10.1.0.6", ARP_REPLY)) is None


def test_a_probe_for_ones_own_address_meets_silence_and_one_for_a_neighbours_an_answer() -> None:
    def probe(target: str) -> Arp:
        return Arp(ARP_REQUEST, VM.mac, bytes(4), bytes(6), IPv4Address(target).packed)

    assert PROXY.for_host(VM, probe("192.168.0.5")) is None
    assert PROXY.for_host(VM, probe("192.168.0.6")) is not None


def test_our_own_requests() -> None:
    learn = parse_arp(locator_request(AWAY, VM, AWAY.locators[0]), 14)
    assert (learn.op, learn.sha, learn.sender) == (ARP_REQUEST, VM.mac, AWAY.locators[0])
    assert learn.target == AWAY.router
    alive = parse_arp(alive_request(HOME, VM), 14)
    assert (alive.sha, alive.sender, alive.target) == (HOME.router_mac, HOME.gateway, VM.address)
