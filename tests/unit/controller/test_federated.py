"""Controllers of a federation: a machine moves through three domains, and its peers in all of them go on."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from tests.until import until

from ..continuity.fabric import Packet
from .domains import DOMAINS, HOSTS, MACHINE_PORT, VM, VM_MAC, Domains, domains


async def test_sessions_go_on_from_home_to_two_networks_and_back(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        places = ["dc-a", "dc-b", "dc-c", "dc-a"]
        for host in HOSTS.values():
            await world.talks(host, "dc-a")
        for number, (source, target) in enumerate(pairwise(places)):
            await world.carry(source, target, f"m{number}")
            for host in HOSTS.values():
                await world.talks(host, target, first="host" if number % 2 else "machine")
            await world.settled(target)
            for host in HOSTS.values():
                await world.talks(host, target)
        for domain, (network, _) in DOMAINS.items():
            federate = world.federate(domain)
            await until(lambda federate=federate: federate.view(VM) is None)  # type: ignore[misc]
            assert (network == "dc-a") == bool(world.entries(network))


@pytest.mark.parametrize("first", ["host", "machine"])
@pytest.mark.parametrize("network", [name for name, _ in DOMAINS.values()])
async def test_a_first_word_while_it_is_away_reaches_whoever_was_not_told(
    tmp_path: Path, network: str, first: str
) -> None:
    async with domains(tmp_path) as world:
        await world.carry("dc-a", "dc-b", "m1")
        await world.talks(HOSTS[network], "dc-b", first=first)
        await world.carry("dc-b", "dc-c", "m2", release=False)
        await world.talks(HOSTS[network], "dc-c", first=first)
        view = world.federate("alpha").view(VM)
        assert view is not None
        assert view.mapping is not None
        assert view.mapping.here.network == "dc-c"


async def test_a_controller_that_starts_again_has_the_same_rules(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        await world.carry("dc-a", "dc-b", "m1")
        for host in HOSTS.values():
            await world.talks(host, "dc-b")
        await world.settled("dc-b")
        before = {name: set(switch.table.entries) for name, switch in world.switches.items()}
        for domain in DOMAINS:
            await world.stop(domain)
        for domain in DOMAINS:
            await world.start(domain)
        assert {name: set(switch.table.entries) for name, switch in world.switches.items()} == before
        for host in HOSTS.values():
            await world.talks(host, "dc-b")


ABROAD_PORT = 7


async def _says(world: Domains, packet: Packet, network: str, port: int, to: tuple[str, int]) -> None:
    """The packet comes out there, and nowhere else, as it was sent."""
    world.out.clear()
    world.send(network, port, packet)
    await world.comes_out()
    (came,) = world.out
    assert (came.network, came.port) == to
    assert (came.packet.ipv4_src, came.packet.ipv4_dst) == (packet.ipv4_src, packet.ipv4_dst)


async def test_a_user_that_shows_up_in_another_domain_keeps_its_address_there(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        user = HOSTS["wlan-d"]
        to_vm = Packet(b"\x0e" * 6, user.mac, user.address, VM)
        to_user = Packet(b"\x0e" * 6, VM_MAC, VM, user.address)
        await world.talks(user, "dc-a")
        await _says(world, to_vm, "dc-c", ABROAD_PORT, ("dc-a", MACHINE_PORT))
        await _says(world, to_user, "dc-a", MACHINE_PORT, ("dc-c", ABROAD_PORT))
        await world.carry("dc-a", "dc-c", "m1")  # and the machine follows it
        await _says(world, to_vm, "dc-c", ABROAD_PORT, ("dc-c", MACHINE_PORT))
        await _says(world, to_user, "dc-c", MACHINE_PORT, ("dc-c", ABROAD_PORT))


async def _comes_to(world: Domains, packet: Packet, network: str) -> None:
    """The user sends until all know that it is there."""
    def there(domain: str) -> bool:
        view = world.federate(domain).view(packet.ipv4_src)
        return view is not None and view.mapping is not None and view.mapping.here.network == network

    async with asyncio.timeout(10):
        while not all(there(domain) for domain in ("beta", "gamma", "delta")):
            world.send(network, ABROAD_PORT, packet)
            for _ in range(100):
                await asyncio.sleep(0.001)
                world.pump()


async def test_a_user_that_comes_back_while_its_peers_domain_is_away_has_its_old_place(tmp_path: Path) -> None:
    """Which the peer's switch still sends to."""
    async with domains(tmp_path) as world:
        user = HOSTS["wlan-d"]
        to_vm = Packet(b"\x0e" * 6, user.mac, user.address, VM)
        to_user = Packet(b"\x0e" * 6, VM_MAC, VM, user.address)
        await world.talks(user, "dc-a")
        await _says(world, to_vm, "dc-c", ABROAD_PORT, ("dc-a", MACHINE_PORT))
        await _says(world, to_user, "dc-a", MACHINE_PORT, ("dc-c", ABROAD_PORT))
        await world.stop("alpha")
        for network in ("dc-b", "dc-c") * 3:
            await _comes_to(world, to_vm, network)
        await _says(world, to_vm, "dc-c", ABROAD_PORT, ("dc-a", MACHINE_PORT))
        await _says(world, to_user, "dc-a", MACHINE_PORT, ("dc-c", ABROAD_PORT))
        await world.start("alpha")
        await _says(world, to_vm, "dc-b", ABROAD_PORT, ("dc-a", MACHINE_PORT))
        await _says(world, to_user, "dc-a", MACHINE_PORT, ("dc-b", ABROAD_PORT))


async def test_who_has_a_users_address_and_not_its_mac_address_does_not_keep_it_out(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        user = HOSTS["wlan-d"]
        for mac in (b"\2evil!", user.mac, b"\2evil!"):
            world.send("dc-c", ABROAD_PORT, Packet(b"\x0e" * 6, mac, user.address, VM))
        await world.comes_out()
        assert [(came.network, came.port) for came in world.out] == [("dc-a", MACHINE_PORT)]
        controller = world.instances["gamma"].controller
        assert controller is not None
        node = controller.locations.node(user.mac)
        assert node is not None
        assert node.identifier == user.address


async def test_who_pretends_to_be_a_user_that_answers_at_home_is_refused(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        user = HOSTS["wlan-d"]
        world.answering[user.network] = user
        world.send("dc-c", ABROAD_PORT, Packet(b"\x0e" * 6, user.mac, user.address, VM))
        controller = world.instances["gamma"].controller
        assert controller is not None
        async with asyncio.timeout(5):
            while not controller.watcher.refusals.counts["visitor"]:
                await asyncio.sleep(0.001)
                world.pump()
        assert not world.out
        assert world.federate("delta").view(user.address) is None
        await world.talks(user, "dc-a")
