"""Users who have their address by DHCP, and are in another domain when their lease at home runs out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from followme.controllers.openflow.abroad import LEAST_LOOKS, Abroad
from followme.controllers.openflow.federated import FederatedController
from followme.domain import Node, NodeKind
from followme.store import Lease, Store
from tests.until import until

from ..continuity.fabric import Packet
from . import domains as world_of
from .domains import HOSTS, MACHINE_PORT, VM, VM_MAC, Domains, Host, document, domains

USER = HOSTS["wlan-d"]
LEASE_S = 600
ABROAD_PORT = 7


class Visitor(Host):
    """The user, where it is abroad."""

    @property
    def port(self) -> int:
        return ABROAD_PORT


def _with_pool(domain: str, directory: Path, public: dict[str, str]) -> dict[str, Any]:
    made = document(domain, directory, public)
    if domain == "delta":
        made["users"] = []
        made["networks"][0]["dhcp"] = {"first": "10.4.0.10", "last": "10.4.0.12", "lease_s": LEASE_S}
    return made


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Known to delta by DHCP."""
    node = Node("user", NodeKind.USER, USER.mac, USER.address, USER.address, "wlan-d")
    store = Store(tmp_path / "delta.db")
    store.put_node(node)
    store.put_lease(Lease(USER.mac, USER.address, "wlan-d", time.time() + LEASE_S))
    store.close()
    monkeypatch.setattr(world_of, "document", _with_pool)
    return node


@asynccontextmanager
async def _abroad(tmp_path: Path) -> AsyncIterator[Domains]:
    """All domains; the user speaks in gamma's network."""
    async with domains(tmp_path) as world:
        await _says(world, "dc-c", ABROAD_PORT, USER.address)
        yield world


async def _says(world: Domains, network: str, port: int, source: IPv4Address) -> None:
    world.out.clear()
    world.send(network, port, Packet(b"\x0e" * 6, USER.mac, source, VM))
    await world.comes_out()
    (came,) = world.out
    assert (came.network, came.port, came.packet.ipv4_src) == ("dc-a", MACHINE_PORT, source)


def _controller(world: Domains, domain: str) -> FederatedController:
    controller = world.instances[domain].controller
    assert controller is not None
    return controller


def _after(controller: FederatedController, seconds: float) -> None:
    """It looks for leases that have run out, then."""
    controller.dhcp._clock = lambda: time.time() + seconds
    controller._forget_expired(set())


async def _look(world: Domains, controller: FederatedController) -> None:
    looking = asyncio.ensure_future(controller.abroad.look())
    async with asyncio.timeout(10):
        while not looking.done():
            world.pump()
            await asyncio.sleep(0.001)
    await looking


async def test_who_is_in_another_domain_is_known_at_home_though_the_lease_there_is_over(
    tmp_path: Path, user: Node
) -> None:
    async with _abroad(tmp_path) as world:
        delta = _controller(world, "delta")
        world.answering["dc-c"] = Visitor("dc-c", USER.number)
        for times in range(1, 6):
            _after(delta, times * (LEASE_S + 1))
            await _look(world, delta)
            await _look(world, delta)
        await _says(world, "dc-c", ABROAD_PORT, USER.address)
        view = world.federate("delta").view(USER.address)
        assert view is not None
        assert view.mapping is not None
        assert view.mapping.here.network == "dc-c"
        assert delta.locations.holder("wlan-d", USER.address) == user, "nobody else gets its address"


@pytest.mark.parametrize("says", [True, False])
async def test_who_has_not_answered_abroad_for_a_whole_lease_is_forgotten(
    tmp_path: Path, user: Node, says: bool
) -> None:
    """Unless the domain that has it says nothing."""
    async with _abroad(tmp_path) as world:
        delta = _controller(world, "delta")
        if not says:
            await world.stop("gamma")
        _after(delta, LEASE_S + 1)
        for _ in range(LEAST_LOOKS):
            assert delta.locations.holder("wlan-d", USER.address) == user
            await _look(world, delta)
        _after(delta, LEASE_S + 1 + LEASE_S // 2)
        assert delta.locations.holder("wlan-d", USER.address) == user
        _after(delta, 2 * LEASE_S + 2)
        if not says:
            assert delta.locations.holder("wlan-d", USER.address) == user
            return
        feds = [world.federate(domain) for domain in world.instances]
        await until(lambda: all(fed.view(USER.address) is None for fed in feds), "all have forgotten it")
        assert delta.locations.holder("wlan-d", USER.address) is None


async def test_once_seen_is_enough_and_once_looked_is_not(tmp_path: Path, user: Node) -> None:
    async with _abroad(tmp_path) as world:
        delta = _controller(world, "delta")
        _after(delta, LEASE_S + 1)
        for _ in range(LEAST_LOOKS):
            await _look(world, delta)
        world.answering["dc-c"] = Visitor("dc-c", USER.number)
        await _look(world, delta)
        world.answering.clear()
        _after(delta, 2 * LEASE_S + 2)
        assert delta.locations.holder("wlan-d", USER.address) == user, "it has answered once"
        await _look(world, delta)
        _after(delta, 3 * LEASE_S + 3)
        assert delta.locations.holder("wlan-d", USER.address) == user, "and was asked once since"


async def test_who_has_come_home_is_forgotten_when_the_lease_is_over(tmp_path: Path, user: Node) -> None:
    async with _abroad(tmp_path) as world:
        delta = _controller(world, "delta")
        _after(delta, LEASE_S + 1)
        await _says(world, "wlan-d", USER.port, USER.address)
        await until(lambda: world.federate("delta").view(USER.address) is None)
        _after(delta, 2 * LEASE_S)
        assert delta.locations.node(USER.mac) == user
        _after(delta, 2 * LEASE_S + 2)
        assert delta.locations.node(USER.mac) is None
        assert not delta.store.leases()


async def test_a_visitors_lease_that_runs_out_is_not_its_end(tmp_path: Path, user: Node) -> None:
    async with _abroad(tmp_path) as world:
        gamma = _controller(world, "gamma")
        gamma.dhcp._leases[USER.mac] = lease = Lease(USER.mac, USER.address, "wlan-d", time.time() + 1)
        gamma.store.put_lease(lease)
        _after(gamma, 2)
        assert not gamma.store.leases()
        visitor = gamma.locations.node(USER.mac)
        assert visitor is not None
        assert visitor.identifier == USER.address


async def test_who_comes_home_with_another_address_is_not_abroad_under_the_one_before(
    tmp_path: Path, user: Node
) -> None:
    another = IPv4Address("10.4.0.99")
    async with _abroad(tmp_path) as world:
        world.send("wlan-d", USER.port, Packet(b"\x0e" * 6, USER.mac, another, VM))
        delta = _controller(world, "delta")
        await until(lambda: delta.locations.holder("wlan-d", another))
        await _says(world, "wlan-d", USER.port, another)
        feds = [world.federate(domain) for domain in world.instances]
        await until(lambda: all(fed.view(USER.address) is None for fed in feds), "all have forgotten the address")
        assert delta.locations.holder("wlan-d", USER.address) is None
        world.out.clear()
        world.send("dc-a", MACHINE_PORT, Packet(b"\x0e" * 6, VM_MAC, VM, another))
        assert [(came.network, came.port) for came in world.out] == [("wlan-d", USER.port)]


async def test_one_of_whom_nothing_can_be_found_out_keeps_no_other_from_being_looked_for() -> None:
    asked: list[IPv4Address] = []

    async def has_left(identifier: IPv4Address, domain: str) -> bool:
        asked.append(identifier)
        if len(asked) == 1:
            raise LookupError(str(identifier))
        return True

    abroad = Abroad(lambda identifier: "dc-c", {"dc-c": "gamma"}, has_left)
    users = [Node(f"u{n}", NodeKind.USER, bytes((2, 0, 0, 0, 0, n)), USER.address + n, USER.address + n, "wlan-d")
             for n in range(3)]  # fmt: skip
    assert [abroad.keeps(user) for user in users] == [True] * 3
    for _ in range(LEAST_LOOKS):
        await abroad.look()
    assert [abroad.keeps(user) for user in users] == [True, False, False]


@pytest.mark.parametrize("left", [False, True])
async def test_who_abroad_gets_another_address_at_home_only_if_it_has_left(
    left: bool, user: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody at home may use its MAC address and a free address, which makes a user at home another identifier."""
    async with _abroad(tmp_path) as world:
        delta, gamma = _controller(world, "delta"), _controller(world, "gamma")

        async def verdict(node: Node) -> bool:
            return left

        monkeypatch.setattr(gamma.watcher._checks, "verdict", verdict)
        free = IPv4Address("10.4.0.77")
        delta.watcher._sighted(delta.networks["wlan-d"], 9, USER.mac, free.packed, b"")
        if left:
            await until(lambda: delta.where(free) == "wlan-d")
            await until(lambda: gamma.federate.view(USER.address) is None)
        else:
            await until(lambda: bool(delta.watcher.refusals.counts["mac"]))
            assert delta.where(USER.address) == "dc-c"
            assert delta.shared.name_of(free) is None
