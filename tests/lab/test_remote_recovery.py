"""Agents and connections that die while a machine is carried: one copy runs, and is found."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
from tests.lab.carrying import (  # noqa: F401 (fixtures)
    MARKS,
    Broken,
    Lab,
    Network,
    Prober,
    image,
    lab,
    machine,
    nothing_left,
    ready,
)
from tests.lab.remote_sites import Agent, Router, Sites, both, connect, sites, until  # noqa: F401 (fixtures)

from followme.domain import Migration, MigrationState
from followme.lab.guest import GuestImage
from followme.migration.carrier import Relay
from followme.migration.host import MachineSpec, MigrationError
from followme.migration.monitor import migration_event
from followme.migration.mover import MachineMover
from followme.remote.client import Client
from followme.remote.guest import Guest
from followme.remote.qemu import RemoteQemu

pytestmark = MARKS


@pytest.mark.parametrize("whole", [True, False])
async def test_the_connection_is_cut_when_the_target_was_told(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Whether it runs there is not known: nothing runs here until the target has said. Where the machine was
    whole there it runs there then, else here."""
    await both(sites)
    agent = sites.a
    reached = asyncio.Event()
    told = RemoteQemu.run_when_loaded

    async def cutting(self: RemoteQemu, timeout: float) -> None:
        if whole:
            await self.monitor.wait(migration_event("completed"))
        else:
            monkeypatch.setattr(Relay, "open", lambda relay: None)  # what is left of the machine stays here
        asyncio.get_running_loop().call_soon(agent.connections[-1]._wire.end, "cut")
        reached.set()
        await told(self, timeout)

    monkeypatch.setattr(RemoteQemu, "run_when_loaded", cutting)
    monkeypatch.setattr("followme.remote.machines.AGAIN_S", 0.5)
    with pytest.raises(MigrationError) as caught:
        await agent.machines.carry("vm", "b")
    assert reached.is_set()
    assert agent.store.migrations()[0].state is MigrationState.SWITCHED
    assert "may run at b" in "".join(caught.value.__notes__)
    with pytest.raises(MigrationError, match=r"does not run|already"):
        await agent.machines.carry("vm", "b")
    await until(lambda: agent.store.migrations()[0].state is not MigrationState.SWITCHED, "it is settled")
    await until(lambda: not agent.machines.carried_to, "its agent has it again")
    state, place = (MigrationState.RELEASED, "b") if whole else (MigrationState.FAILED, "a")
    assert agent.store.migrations()[0].state is state
    assert await sites.running() == [place]
    await nothing_left(sites.lab, "a" if whole else "b")
    async with Prober(sites.lab) as prober:
        await asyncio.sleep(0.2)
    assert prober.lost == []


async def test_what_fails_after_the_switch_is_done_later(sites: Sites, monkeypatch: pytest.MonkeyPatch) -> None:
    await both(sites)
    monkeypatch.setattr("followme.remote.machines.AGAIN_S", 0.3)
    agent = sites.a
    network = Broken(sites.lab, "b", agent.router.calls, broken="commit")
    monkeypatch.setattr(agent.router, "hooks", lambda *_: network)
    with pytest.raises(MigrationError, match="commit is broken") as caught:
        await agent.machines.carry("vm", "b")
    assert caught.value.__notes__ == ["vm runs at b"]
    assert await sites.running() == ["b"]
    with pytest.raises(MigrationError, match="already"):
        await agent.machines.carry("vm", "b")
    assert agent.store.migrations()[0].state is MigrationState.SWITCHED
    network.broken = ""
    await until(lambda: "vm" in sites.b.machines.running, "the target keeps it")
    assert agent.store.migrations()[0].state is MigrationState.RELEASED
    assert await sites.running() == ["b"]
    await nothing_left(sites.lab, "a")


async def test_a_guest_whose_source_is_gone(sites: Sites) -> None:
    """Half a copy is ended; one that runs is the machine; a whole one that is stopped is kept."""
    await both(sites)
    source = sites.a.machines.running["vm"]
    client = await connect(sites.lab, "a", "b")
    await RemoteQemu.start(client, sites.spec, "m")
    await client.close()
    await until(lambda: not sites.b.hypervisor.guests, "half a copy is ended")
    await nothing_left(sites.lab, "b")
    assert sites.b.router.calls[-1] == "gone"

    client = await connect(sites.lab, "a", "b")
    copies: list[RemoteQemu] = []

    async def waiting(spec: MachineSpec) -> RemoteQemu:
        copies.append(await RemoteQemu.start(client, spec, "m"))
        return copies[-1]

    class Stuck(Exception):
        pass

    def record(migration: Migration) -> None:
        if migration.state is MigrationState.RELEASED:
            raise Stuck

    moved = Migration("m", "vm", "a", "b", "cold", MigrationState.PLANNED, 0.0)
    del sites.a.hypervisor.machines["vm"]
    with pytest.raises(Stuck):
        await MachineMover(moved, source, waiting, Network(sites.lab, "b"), record).run()
    await copies[0].execute("query-status")
    await client.close()
    assert list(sites.b.hypervisor.guests) == ["vm"]
    await until(lambda: "vm" in sites.b.machines.running, "it is the machine")
    assert await sites.running() == ["b"]

    # A guest that is whole, and stopped.
    guest = sites.b.machines.running["vm"]
    await guest.execute("stop")
    sites.b.hypervisor.disown("vm")
    kept = sites.b.hypervisor.guests["vm"] = Guest(sites.spec, "a", "m2", guest)
    sites.b.hypervisor._leave(kept)
    await asyncio.sleep(1.5)
    assert sites.b.hypervisor.guests["vm"].qemu is guest
    assert await guest.status() == "paused"


async def doomed(lab: Lab, guest: GuestImage, moment: str, directory: Path) -> None:
    """The source's agent, until it dies at ``moment``: a recorded state, or so long after the flip."""

    class Doom(Network):
        async def flip(self) -> None:
            asyncio.get_running_loop().call_later(float(moment), os._exit, 9)

        async def release(self) -> None:
            await asyncio.sleep(10)

    class DoomRouter(Router):
        def hooks(self, migration: Migration, spec: MachineSpec, client: Client) -> Network:
            return Doom(self.lab, migration.target) if moment[0].isdigit() else super().hooks(migration, spec,
                                                                                              client)

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == moment:
            os._exit(9)

    agent = Agent(lab, "a", guest, directory, 1.0)
    agent.machines.network = DoomRouter(lab)
    await agent.start(machine(guest))
    await ready(lab)
    await agent.machines.carry("vm", "b", tell=tell)


def run_doomed(lab: Lab, guest: GuestImage, moment: str, directory: Path) -> None:
    asyncio.run(doomed(lab, guest, moment, directory))


@pytest.mark.parametrize(("moment", "target_too"), [
    ("prepared", False), ("transferring", False), ("transferring", True), ("switched", False), ("0.004", False),
    ("0.015", False), ("0.1", False), ("0.1", True), ("resumed", True),
])
async def test_a_killed_agent_leaves_one_machine(sites: Sites, moment: str, target_too: bool) -> None:
    lab = sites.lab
    await lab.send_to("a")
    await sites.begin("b", patience_s=3.0)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run_doomed, args=(lab, sites.image, moment, sites.directory))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == 9
    if target_too:
        await sites.end("b")
        # Nobody to ask: both copies are left alone, and the agent says so.
        await sites.begin("a", sites.spec)
        assert "neither copy is touched" in sites.a.machines.problems["vm"]
        assert "vm" not in sites.a.machines.running
        with contextlib.suppress(MigrationError):
            await sites.a.machines.carry("vm", "b")
            pytest.fail("it is not settled yet")
        await sites.begin("b")
        await until(lambda: "vm" not in sites.a.machines.problems, str(sites.a.machines.problems))
    else:
        await sites.begin("a", sites.spec)
    assert sites.a.machines.problems == {}
    last = sites.a.store.migrations()[0]
    where, other = ("b", "a") if last.state is MigrationState.RELEASED else ("a", "b")
    print(f"killed at {moment}: {last.detail['recovered']}")
    if moment in ("prepared", "transferring", "switched"):
        assert where == "a"
    if moment in ("0.1", "resumed"):
        assert where == "b"
    assert await sites.running() == [where]
    assert list(sites.agents[where].machines.running) == ["vm"]
    async with Prober(lab) as prober:
        await asyncio.sleep(0.3)
    assert prober.lost == []
    await nothing_left(lab, other)
    # And it can be carried as if nothing had been.
    await sites.agents[where].machines.carry("vm", other)
    assert await sites.running() == [other]
