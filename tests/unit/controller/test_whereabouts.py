"""Who has a node is asked before it is let go; and who may speak for a machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from followme.controllers.openflow import federated
from followme.domain import Network, mac_text
from followme.federation import hosts
from followme.federation.codec import decode_answers, encode_orders
from followme.federation.custody import Has
from followme.federation.edge_network import NotKnown
from followme.federation.engine import FederationError, NotYet
from followme.federation.hosts import HostRequest
from followme.federation.messages import Accepted, Answer, Attach, Left, Refused
from followme.federation.presence import BUSY, PRESENT, SILENT
from tests.until import until

from . import domains as world_of
from .domains import HOSTS, VM, VM_MAC, Domains, Guest, document, domains

STOLEN = Attach(VM, VM_MAC, "dc-c", 1)


async def _left_on_the_way(world: Domains, monkeypatch: pytest.MonkeyPatch, flipped: bool) -> None:
    """The machine's source has prepared its way to dc-b, and perhaps flipped; it says no more of that."""
    monkeypatch.setattr(federated, "HEARD_S", 0.1)
    monkeypatch.setattr(federated, "CLAIM_S", 0.5)
    monkeypatch.setattr(hosts, "AGAIN_S", 0.01)
    if flipped:
        await world.carry("dc-a", "dc-b", "m1", release=False)
    else:
        engine = world.instances["alpha"].engine
        assert engine is not None
        await engine.prepare(VM, "dc-b", "m1")


async def _ask(world: Domains, domain: str, sender: str, *orders: Attach | Left) -> list[Answer]:
    engine = world.instances[domain].engine
    assert engine is not None
    asking: Awaitable[bytes] = engine.receive(sender, encode_orders(1, orders))
    task = asyncio.ensure_future(asking)
    async with asyncio.timeout(10):
        while not task.done():
            world.pump()
            await asyncio.sleep(0.001)
    return decode_answers(task.result())[1]


async def test_a_machine_that_runs_is_not_given_to_another_domain(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        for network in ("dc-a", "dc-b"):
            await world.host_agent(network, "no")  # whatever its host believes
        world.answering["dc-a"] = Guest("dc-a", 1)
        assert await _ask(world, "alpha", "gamma", STOLEN) == [PRESENT]
        world.answering.clear()
        await world.carry("dc-a", "dc-b", "m1")
        await world.settled("dc-b")
        world.answering["dc-b"] = Guest("dc-b", 2)
        assert await _ask(world, "alpha", "gamma", STOLEN) == [PRESENT]
        await world.stop("beta")
        assert await _ask(world, "alpha", "gamma", STOLEN) == [SILENT]
        await world.settled("dc-b")


@pytest.mark.parametrize("has", ["yes", "unsettled", None])
@pytest.mark.parametrize("where", ["dc-a", "dc-b"])
async def test_a_machine_that_does_not_run_is_its_hosts_all_the_same(
    tmp_path: Path, where: str, has: Has | None
) -> None:
    """It is paused, say, and answers no ARP; or its host's agent is just starting, and says nothing."""
    async with domains(tmp_path) as world:
        if where == "dc-b":
            await world.carry("dc-a", "dc-b", "m1")
            await world.settled("dc-b")
        if has is not None:
            await world.host_agent(where, has)
        (answer,) = await _ask(world, "alpha", "gamma", STOLEN)
        assert isinstance(answer, Refused)
        if has == "yes":
            assert answer == PRESENT
        else:
            assert answer.again
            says = f"so says {where}" if has else "its agent does not say whether it has the machine"
            assert f"host {where}: {says}" in answer.reason
        assert world.asked == ([(where, VM, VM_MAC)] if has else [])
        await world.settled(where)


async def test_a_machine_that_its_host_has_lost_is_believed_where_it_is(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        await world.carry("dc-a", "dc-b", "m1")
        await world.settled("dc-b")
        await world.host_agent("dc-b", "no")
        (answer,) = await _ask(world, "alpha", "gamma", STOLEN)
        assert isinstance(answer, Accepted)
        await world.settled("dc-c")


async def test_an_arrival_waits_for_the_word_of_the_host_where_the_machine_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(federated, "CLAIM_S", 0.7)
    monkeypatch.setattr(hosts, "AGAIN_S", 0.01)
    async with domains(tmp_path) as world:
        await world.carry("dc-a", "dc-b", "m1")
        await world.settled("dc-b")
        target = await world.host_agent("dc-c", "yes")
        arriving = asyncio.ensure_future(target.arrived(VM, "m2", "dc-c", VM_MAC))
        why = "host dc-b: its agent does not say whether it has the machine"
        await until(lambda: any(why in record.getMessage() for record in caplog.records))
        assert not arriving.done()
        await world.host_agent("dc-b", "no")
        await asyncio.wait_for(arriving, 10)
        await world.settled("dc-c")


@pytest.mark.parametrize("flipped", [False, True])
async def test_a_machine_whose_source_died_on_the_way_arrives_by_the_targets_word(
    tmp_path: Path, flipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with domains(tmp_path) as world:
        await _left_on_the_way(world, monkeypatch, flipped)
        world.at = "dc-b"
        await world.host_agent("dc-a", "unsettled")  # it is still on its way
        arriving = asyncio.ensure_future((await world.host_agent("dc-b", "yes")).arrived(VM, "m1", "dc-b", VM_MAC))
        await until(lambda: len(world.asked) > 1)
        assert not arriving.done()
        await world.host_agent("dc-a", "no")
        await asyncio.wait_for(arriving, 10)
        await world.settled("dc-b")
        for host in HOSTS.values():
            await world.talks(host, "dc-b")
        await world.carry("dc-b", "dc-c", "m2")
        await world.settled("dc-c")


async def test_a_host_that_is_gone_for_good_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(domain: str, directory: Path, public: dict[str, str]) -> dict[str, Any]:
        made = document(domain, directory, public)
        if domain == "alpha":
            made["networks"][0]["hypervisor_lost"] = True
        return made

    async with domains(tmp_path) as world:
        (answer,) = await _ask(world, "alpha", "gamma", STOLEN)
        assert isinstance(answer, Refused)
        await world.stop("alpha")
        monkeypatch.setattr(world_of, "document", lost)
        await world.start("alpha")
        await asyncio.wait_for((await world.host_agent("dc-c", "yes")).arrived(VM, "m1", "dc-c", VM_MAC), 5)
        await world.settled("dc-c")


async def test_between_networks_of_one_domain_its_controller_asks(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        controller = world.instances["alpha"].controller
        assert controller is not None
        networks = cast(dict[str, Network], controller.networks)
        networks["dc-a2"] = replace(networks["dc-a"], name="dc-a2")
        request = HostRequest("arrived", VM, "m1", "dc-a2", VM_MAC)
        with pytest.raises(NotYet, match="host dc-a: its agent does not say"):
            await controller.arrived("dc-a2", request)
        await world.host_agent("dc-a", "yes")
        with pytest.raises(FederationError, match=r"10\.1\.0\.5 is at dc-a"):
            await controller.arrived("dc-a2", request)


async def test_of_a_machine_that_a_domain_knows_nothing_of_all_its_hosts_are_asked(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        controller = world.instances["beta"].controller
        assert controller is not None
        unknown = IPv4Address("10.1.0.99")
        with pytest.raises(NotKnown, match="host dc-b"):
            await controller.still_here(unknown)
        await world.host_agent("dc-b", "yes")
        assert await controller.still_here(unknown) is True
        await world.host_agent("dc-b", "no")
        assert await controller.still_here(unknown) is False
        controller = world.instances["delta"].controller
        assert controller is not None
        assert await controller.still_here(unknown) is False, "it has no hosts"


async def test_users_are_handed_over_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [(IPv4Address(f"10.4.0.{20 + number}"), bytes((2, 0, 0, 7, 0, number))) for number in range(60)]

    def with_users(domain: str, directory: Path, public: dict[str, str]) -> dict[str, Any]:
        made = document(domain, directory, public)
        if domain == "delta":
            made["users"] += [
                {"name": f"u{number}", "home": "wlan-d", "mac": mac_text(mac), "address": str(address), "port": 2}
                for number, (address, mac) in enumerate(users)
            ]
        return made

    monkeypatch.setattr(world_of, "document", with_users)
    async with domains(tmp_path) as world:
        began = time.monotonic()
        answers = await _ask(world, "delta", "alpha", *(Attach(one, mac, "dc-a", 1) for one, mac in users))
        assert time.monotonic() - began < 2.0  # one takes 0.3 s
        assert all(isinstance(answer, Accepted) for answer in answers)


async def test_one_that_is_not_the_user_does_not_stop_the_user(tmp_path: Path) -> None:
    """Both come while it is being found out whether it is still at home; it is not."""
    async with domains(tmp_path) as world:
        user = HOSTS["wlan-d"]
        strange = asyncio.ensure_future(_ask(world, "delta", "gamma", Attach(user.address, user.mac, "dc-c", 1)))
        await asyncio.sleep(0.05)
        (answer,) = await _ask(world, "delta", "beta", Attach(user.address, user.mac, "dc-b", 1))
        assert isinstance(answer, Accepted)
        await strange


async def test_hosts_speak_for_machines_in_their_networks(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        phases = ("prepare", "flipped", "released", "aborted")

        def who(domain: str) -> list[set[str]]:
            controller = world.instances[domain].controller
            assert controller is not None
            return [controller.hosts(HostRequest(phase, VM, "m1", "dc-b")) for phase in phases]

        assert who("alpha") == [{"dc-a"}] * 4
        assert who("beta") == [set()] * 4
        controller = world.instances["alpha"].controller
        assert controller is not None
        assert controller.hosts(HostRequest("arrived", VM, "m1", "dc-a", VM_MAC)) == {"dc-a"}
        assert controller.hosts(HostRequest("arrived", VM, "m1", "dc-b", VM_MAC)) == set()
        await world.carry("dc-a", "dc-b", "m1", release=False)
        assert who("alpha") == [set(), *[{"dc-a"}] * 3]
        assert who("beta")[0] == {"dc-b"}


@pytest.mark.parametrize(("flipped", "network"), [(False, "dc-a"), (True, "dc-a"), (False, "dc-c"), (True, "dc-c")])
async def test_a_machine_whose_source_died_on_the_way_is_started_anew(
    tmp_path: Path, flipped: bool, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a host that knows nothing of the migration: once both that do know say that they do not have it."""
    async with domains(tmp_path) as world:
        await _left_on_the_way(world, monkeypatch, flipped)
        if network != "dc-a":
            await world.host_agent("dc-a", "no")
        await world.host_agent("dc-b", "unsettled")
        world.at = network
        agent = await world.host_agent(network, "yes")
        arriving = asyncio.ensure_future(agent.arrived(VM, "m2", network, VM_MAC))
        await until(lambda: ("dc-b", VM, VM_MAC) in world.asked)
        assert not arriving.done()
        await world.host_agent("dc-b", "no")
        await asyncio.wait_for(arriving, 10)
        await world.settled(network)
        for host in HOSTS.values():
            await world.talks(host, network)
        await world.carry(network, "dc-b", "m3")
        await world.settled("dc-b")


async def test_a_member_that_asks_of_many_that_are_not_known_does_not_keep_our_hosts_busy(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        await world.host_agent("dc-a", "no")
        orders = [Left(IPv4Address("10.2.0.0") + number) for number in range(1, 251)]
        answers = await _ask(world, "alpha", "beta", *orders)
        assert federated.UNKNOWN_S <= len(world.asked) <= 3 * federated.UNKNOWN_S
        assert answers.count(BUSY) == 250 - len(world.asked)
