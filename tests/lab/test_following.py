"""The whole thing on real packets, switches and machines: what the papers promise, and what must not go wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface

import pytest

from followme.domain import mac_text
from followme.lab.client import dhcp
from followme.lab.latency import Windows, watch_move
from followme.lab.pinger import Pinger
from followme.lab.plan import LabConfig
from followme.lab.scenario import MACHINE, USER, Scenario, ScenarioConfig
from followme.lab.tcpmeter import TcpMeter
from followme.migration.host import MigrationError
from followme.migration.mover import Result
from followme.migration.qemu import Qemu
from followme.system import needs, netns
from followme.system.process import ProcessError, run

_missing = needs.check(needs.MACHINE_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_missing), reason="; ".join(_missing))]

QUICK = Windows(1.0, 1.5, 1.0)


@asynccontextmanager
async def watched(scenario: Scenario) -> AsyncIterator[tuple[Pinger, TcpMeter]]:
    """Pings and an open TCP session from the client to the machine, every 10 ms."""
    client, address = scenario.lab.client.namespace, scenario.machine_identifier
    async with Pinger(client, address) as pinger, TcpMeter(client, address) as meter:
        await asyncio.sleep(0.3)
        yield pinger, meter
        await asyncio.sleep(0.5)


def place(scenario: Scenario, node: str = MACHINE) -> str:
    return scenario.controller.redirect.bindings[node].here.network


async def begun(scenario: Scenario) -> asyncio.Task[Result]:
    """The machine is being carried to dc2, and a part of it has been sent."""
    carry = asyncio.create_task(scenario.controller.machines.carry(MACHINE, "dc2"))
    while not any("sent" in happening.text for happening in scenario.happenings):
        await asyncio.sleep(0.01)
    return carry


async def settled_rules_are_in_the_switches(scenario: Scenario) -> None:
    """What the ledger wants is what each real switch has, entry by entry."""
    controller = scenario.controller
    await controller.machines.retired()
    await controller.southbound.barrier([network.datapath for network in scenario.lab.networks], 5.0)
    for network in scenario.lab.networks:
        for owner in ("base", MACHINE, USER):
            flows = await controller.southbound.flows(network.datapath, owner)
            # Rules for peers beyond all edges are the switch's own to forget (idle_timeout).
            flows = tuple(flow for flow in flows if not flow.idle_timeout)
            assert len(flows) == controller.ledger.count(owner, network.datapath), (network.name, owner)


async def runs_on_at_the_source(scenario: Scenario, pinger: Pinger, meter: TcpMeter) -> None:
    """A migration that came to nothing: the user has noticed nothing, the rules are those of before."""
    assert place(scenario) == "dc1"
    assert not pinger.lost
    assert meter.report().intact
    assert meter.report().alive
    await settled_rules_are_in_the_switches(scenario)


async def test_a_machine_follows_its_user_and_the_sessions_go_on() -> None:
    async with Scenario() as scenario:
        await scenario.lab.move_client("wlan1")
        run_ = await watch_move(scenario, "wlan2", QUICK)
        assert run_.followed
        assert place(scenario) == "dc2"
        assert run_.migration is not None
        sent, lost = run_.sent_and_lost(run_.migration[0], run_.migration[1] + 0.5)
        assert sent > 20
        assert lost == 0
        assert run_.duplicates == 0
        assert run_.tcp.alive
        assert run_.tcp.intact
        # Near again: both data centres are 50 ms apart, so half of that tells them apart on any machine.
        assert run_.before_s < 0.025
        assert run_.after_s < 0.025
        await settled_rules_are_in_the_switches(scenario)
        rules = {
            name: len(await scenario.controller.southbound.flows(scenario.network(name).datapath, MACHINE))
            for name in ("dc1", "dc2", "wlan1", "wlan2")
        }
        assert rules == {"dc1": 2, "dc2": 4, "wlan1": 0, "wlan2": 2}
        steps = [happening.step for happening in run_.happenings]
        assert {"mobility", "placement", "migration", "continuity"} <= set(steps)
        assert not scenario.controller.watcher.refusals.counts
        # And home again, with the same session rules: nothing is left abroad.
        back = await watch_move(scenario, "wlan1", QUICK)
        assert place(scenario) == "dc1"
        assert back.tcp.alive
        assert back.tcp.intact
        await settled_rules_are_in_the_switches(scenario)
        for network in ("wlan1", "wlan2", "dc2"):
            assert scenario.controller.ledger.count(MACHINE, scenario.network(network).datapath) == 0
        assert scenario.store.locators() == {}


async def test_overlapping_data_centres_with_a_namesake_at_the_target() -> None:
    settings = ScenarioConfig(
        lab=LabConfig(overlapping=True),
        users=[{"name": "namesake", "home": "dc2", "mac": "02:fc:00:00:d0:01", "address": "10.0.0.5", "port": 10}],
    )
    async with Scenario(settings) as scenario:
        lab = scenario.lab
        resident = await lab.add_host("dc2", "namesake", port=10, address=IPv4Interface("10.0.0.5/24"))
        assert mac_text(resident.mac) == "02:fc:00:00:d0:01"
        assert scenario.machine_identifier == IPv4Address("10.1.0.5")
        await lab.move_client("wlan1")
        async with Pinger(lab.client.namespace, IPv4Address("10.2.0.5")) as other:
            run_ = await watch_move(scenario, "wlan2", QUICK)
        assert run_.followed
        assert run_.tcp.alive
        assert run_.tcp.intact
        assert run_.after_s < 0.025
        after = [ping for ping in other.pings if ping.sent_s > run_.attached_at + 0.2]
        assert len(after) > 50
        assert all(ping.rtt_s is not None for ping in after), "the namesake's own traffic must not suffer"


@pytest.mark.parametrize("mode", ["cold", "paper"])
async def test_other_modes_keep_the_session_too(mode: str) -> None:
    async with Scenario(ScenarioConfig(policy="never", mode=mode)) as scenario:
        await scenario.lab.move_client("wlan2")
        async with watched(scenario) as (_, meter):
            result = await scenario.controller.machines.carry(MACHINE, "dc2")
            await asyncio.sleep(2.0)
        assert result.mode == mode
        assert place(scenario) == "dc2"
        assert meter.report().intact
        assert meter.report().alive
        await settled_rules_are_in_the_switches(scenario)


async def test_a_migration_that_is_cancelled_leaves_the_machine_where_it_was() -> None:
    async with Scenario(ScenarioConfig(policy="never", dirty_bytes_s=20 << 20)) as scenario:
        await scenario.lab.move_client("wlan2")
        machines = scenario.controller.machines
        async with watched(scenario) as (pinger, meter):
            carry = await begun(scenario)
            assert machines.cancel(MACHINE, "somebody changed their mind")
            with pytest.raises(MigrationError, match="somebody changed their mind"):
                await carry
        assert place(scenario) == "dc1"
        assert await machines.running[MACHINE].status() == "running"
        assert not pinger.lost
        assert meter.report().intact
        assert meter.report().alive
        await settled_rules_are_in_the_switches(scenario)
        assert scenario.store.locators() == {(place(scenario, USER), USER): scenario.controller.redirect.bindings[
            USER].here.locator}  # fmt: skip
        assert not scenario.store.unfinished_migrations()


async def test_a_target_that_refuses_the_migration(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Scenario(ScenarioConfig(policy="never")) as scenario:
        await scenario.lab.move_client("wlan2")
        machines = scenario.controller.machines
        # The target's host has another, incompatible kind of machine.
        start = Qemu.start

        async def start_other(host, spec, **options):  # type: ignore[no-untyped-def]
            return await start(host, replace(spec, memory_bytes=spec.memory_bytes * 2), **options)

        monkeypatch.setattr(Qemu, "start", start_other)
        async with watched(scenario) as (pinger, meter):
            with pytest.raises(MigrationError):
                await machines.carry(MACHINE, "dc2")
        await runs_on_at_the_source(scenario, pinger, meter)


async def test_a_target_that_dies_in_the_middle() -> None:
    async with Scenario(ScenarioConfig(policy="never", dirty_bytes_s=20 << 20)) as scenario:
        await scenario.lab.move_client("wlan2")
        machines = scenario.controller.machines
        async with watched(scenario) as (pinger, meter):
            carry = await begun(scenario)
            target = machines._movers[MACHINE].target
            assert target is not None
            assert target.pid is not None
            await run(["kill", "-KILL", str(target.pid)])
            with pytest.raises(MigrationError):
                await carry
        await runs_on_at_the_source(scenario, pinger, meter)
        # Nothing is left at the target, so it can be tried again.
        await machines.carry(MACHINE, "dc2")
        assert place(scenario) == "dc2"


@pytest.mark.parametrize("switch", ["dc2", "wlan2"])
async def test_a_switch_that_drops_in_mid_migration_and_comes_back_empty(switch: str) -> None:
    async with Scenario(ScenarioConfig(policy="never", dirty_bytes_s=20 << 20)) as scenario:
        lab = scenario.lab
        await lab.move_client("wlan2")
        async with watched(scenario) as (_, meter):
            carry = await begun(scenario)
            await lab.switch.drop_controller(switch)
            await lab.switch.ofctl("del-flows", switch)
            await lab.switch.set_controller(switch, "tcp:{}:{}".format(*lab.controller_address))
            await carry
            await scenario.controller.wait_for_switches(10.0)
            await asyncio.sleep(1.0)
        assert place(scenario) == "dc2"
        assert meter.report().alive
        assert meter.report().intact
        await settled_rules_are_in_the_switches(scenario)


async def test_nobody_can_pretend_to_be_somebody_else() -> None:
    async with Scenario(ScenarioConfig(policy="never")) as scenario:
        lab, watcher = scenario.lab, scenario.controller.watcher
        await lab.move_client("wlan1")
        intruder = await lab.add_host("wlan1", "intruder", port=12, address=IPv4Interface("10.3.0.77/24"))
        inside = intruder.namespace
        async with watched(scenario) as (pinger, meter):
            # A stranger's own address, then the client's, then the machine's, then the client's MAC.
            for address in ("10.3.0.77", "10.3.0.10", "10.1.0.5"):
                await netns.ip(inside, ["address flush dev eth0", f"address add {address}/24 dev eth0",
                                        "route replace default dev eth0"])  # fmt: skip
                with pytest.raises(ProcessError):
                    await run(["ping", "-c", "2", "-i", "0.2", "-W", "1", "10.3.0.1"], namespace=inside)
            assert watcher.refusals.counts["arp"] >= 3
            await netns.ip(inside, [f"link set dev eth0 address {mac_text(lab.client.mac)}",
                                    "address flush dev eth0", "address add 10.3.0.10/24 dev eth0"])  # fmt: skip
            with pytest.raises(ProcessError):
                await run(["ping", "-c", "3", "-i", "0.3", "-W", "1", "10.3.0.1"], namespace=inside)
        assert watcher.refusals.counts["mac"] >= 1
        assert scenario.controller.redirect.bindings[USER].here.port == 2
        assert not pinger.lost, "the victim's traffic must not suffer"
        assert meter.report().alive


async def test_an_unknown_client_gets_an_address_keeps_it_on_the_move_and_keeps_its_own_sessions() -> None:
    async with Scenario(ScenarioConfig(policy="never", know_user=False)) as scenario:
        first = await scenario.lab.move_client("wlan1")
        assert first.address == IPv4Interface("10.3.0.20/24")
        async with watched(scenario) as (pinger, meter):
            again = await scenario.lab.move_client("wlan2")
            assert again.address == first.address
            assert not again.changed
            since = time.monotonic()
            await asyncio.sleep(1.0)
        assert all(ping.rtt_s is not None for ping in pinger.pings if ping.sent_s > since)
        assert meter.report().alive
        assert meter.report().intact


async def test_a_client_with_a_new_address_is_recognised_and_followed() -> None:
    async with Scenario(ScenarioConfig(policy="always")) as scenario:
        lab = scenario.lab
        await lab.move_client("wlan1")
        await lab.attach_client("wlan2")
        client = lab.client
        # Another server of that network, or its owner by hand, gave it an address of the new network.
        await netns.ip(client.namespace, [
            f"address flush dev {client.interface}", f"address add 10.4.0.33/24 dev {client.interface}",
            "route replace default via 10.4.0.1",
        ])  # fmt: skip
        async with Pinger(client.namespace, scenario.machine_identifier) as pinger:
            await asyncio.sleep(0.5)
            await scenario.controller.deciding.idle()
            await asyncio.sleep(1.0)
        binding = scenario.controller.redirect.bindings[USER]
        assert (binding.node.identifier, binding.here.network) == (IPv4Address("10.4.0.33"), "wlan2")
        assert place(scenario) == "dc2"
        tail = pinger.pings[-50:]
        assert all(ping.rtt_s is not None and ping.rtt_s < 0.025 for ping in tail)


async def test_peers_that_no_service_names_are_told_when_they_speak() -> None:
    """A host of wlan1 talks to the moved machine first; a host of dc2, where it is, is spoken to by it."""
    users = [
        {"name": "peer1", "home": "wlan1", "mac": "02:fc:00:00:d0:01", "address": "10.3.0.50", "port": 10},
        {"name": "peer2", "home": "dc2", "mac": "02:fc:00:00:d0:02", "address": "10.2.0.50", "port": 10},
    ]
    async with Scenario(ScenarioConfig(policy="never", users=users)) as scenario:
        lab = scenario.lab
        hosts = [
            await lab.add_host("wlan1", "peer1", port=10, address=IPv4Interface("10.3.0.50/24")),
            await lab.add_host("dc2", "peer2", port=10, address=IPv4Interface("10.2.0.50/24")),
        ]
        await lab.move_client("wlan2")
        await scenario.controller.machines.carry(MACHINE, "dc2")
        for host in hosts:
            async with Pinger(host.namespace, scenario.machine_identifier) as pinger:
                await asyncio.sleep(1.0)
            assert not pinger.lost
        told = scenario.controller.redirect.bindings[MACHINE].told
        assert {"wlan1", "dc2", "wlan2"} <= told
        assert (await dhcp(lab.client.namespace, lab.client.interface)).address == IPv4Interface("10.3.0.10/24")
