"""Two controllers for a domain: whichever dies, freezes or is cut off, in the middle of a move too, its place is
taken, and nothing that was promised is lost."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.interop.instances import Fleet, fleet
from tests.interop.nats_lab import needs_nats
from tests.unit.continuity.fabric import Packet
from tests.unit.controller.domains import MACHINE_PORT, VM, VM_MAC

from followme.federation.codec import MAX_ORDERS, encode_orders
from followme.federation.engine import FederationError
from followme.federation.messages import Attach
from followme.federation.nats import NatsBus
from followme.federation.nats_connection import NatsAccess
from followme.system.process import run

pytestmark = needs_nats
TAKEN_OVER_S = 3.0
SERVES = "is served, epoch"
CLOCK_AHEAD_S = 600
ANOTHER_CLOCK = ["unshare", "--time", "--boottime", str(CLOCK_AHEAD_S), "--monotonic", str(CLOCK_AHEAD_S), "--fork",
                 "--kill-child"]  # fmt: skip


def clocks_can_differ() -> bool:
    tried = subprocess.run([*ANOTHER_CLOCK, "true"], capture_output=True, check=False)
    return tried.returncode == 0


async def killed(world: Fleet, domain: str) -> str:
    """The active controller, which is no more."""
    dead = await world.active(domain)
    await world.kill(dead)
    return dead


async def taken_over(world: Fleet, name: str, within_s: float = 10.0) -> str:
    """Wait until the other one serves."""
    other = world.other(name)
    await world.until_said(other, SERVES, world.said(other).count(SERVES) + 1, within_s)
    return other


async def test_killed_in_each_phase_of_a_move_and_all_at_once(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"alpha": 2, "beta": 2}) as world:
        host = await world.agent("dc-a")
        idle = await killed(world, "alpha")
        await taken_over(world, idle, TAKEN_OVER_S)
        await world.sessions_are_well()
        assert not world.upward, "switches alone bring all that was known"
        await world.begin(idle)
        await world.until_said(idle, "stands by")
        await host.prepare(VM, "dc-b", "m1")
        await killed(world, "alpha")
        world.at = "dc-b"
        await host.flipped(VM, "m1")
        await killed(world, "beta")
        await host.released(VM, "m1")
        await world.same_everywhere("dc-b")
        await world.sessions_are_well()
        rules = {network: set(switch.table.entries) for network, switch in world.switches.items()}
        for name in list(world.children):
            await world.kill(name)
        await world.begin()
        await world.ready()
        assert {network: set(switch.table.entries) for network, switch in world.switches.items()} == rules
        await world.carry_by_host("dc-a", "m2")
        await world.same_everywhere("dc-a")
        await world.sessions_are_well()


async def test_frozen_it_is_replaced_and_changes_nothing_when_it_goes_on(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"alpha": 2, "beta": 1}) as world:
        frozen = await world.active("alpha")
        line = world.switches["dc-a"].lines[world.ports[frozen]]
        host = await world.agent("dc-a")
        world.signal(frozen, signal.SIGSTOP)
        # What the switch and the host say now waits in its sockets, and is the first that it will see.
        accepted = line.accepted
        stranger = Packet(b"\x0e" * 6, VM_MAC, VM, VM + 90)
        world.send("dc-a", MACHINE_PORT, stranger)
        preparing = asyncio.ensure_future(host.prepare(VM, "dc-b", "m1"))
        other = await taken_over(world, frozen, TAKEN_OVER_S)
        await preparing
        world.at = "dc-b"
        await host.flipped(VM, "m1")
        await host.released(VM, "m1")
        await world.same_everywhere("dc-b")
        stood_by = world.said(frozen).count("stands by")
        world.signal(frozen, signal.SIGCONT)
        await world.until_said(frozen, "stands by", stood_by + 1)
        assert line.accepted == accepted
        assert world.switches["dc-a"].lines[world.ports[frozen]] is line, "the connection is kept"
        assert await world.active("alpha") == other
        await world.same_everywhere("dc-b")
        await world.kill(other)
        await taken_over(world, other, TAKEN_OVER_S)
        await world.carry_by_host("dc-a", "m2")
        await world.same_everywhere("dc-a")
        await world.sessions_are_well()


async def test_cut_off_from_the_bus_or_the_switches_with_clocks_minutes_apart(tmp_path: Path) -> None:
    """The second one's clocks are ten minutes ahead, where the kernel lets us."""
    wrap = {"alpha/2": ANOTHER_CLOCK} if clocks_can_differ() else {}
    pair = ("alpha/1", "alpha/2")
    async with fleet(tmp_path, {"alpha": 2, "beta": 1}, gated=pair, wrap=wrap) as world:
        target = "dc-b"
        for number in range(2):  # each of them once
            cut = await world.active("alpha")
            line = world.switches["dc-a"].lines[world.ports[cut]]
            world.gates[cut].block()
            other = await taken_over(world, cut)
            accepted = line.accepted
            await world.carry_by_host(target, f"m{number}")
            await world.same_everywhere(target)
            await world.until_said(cut, "not the active one any more")
            stood_by = world.said(cut).count("stands by")
            world.gates[cut].block(on=False)
            await world.until_said(cut, "stands by", stood_by + 1)
            assert line.accepted == accepted
            assert await world.active("alpha") == other
            target = "dc-a"
        cut = await world.active("alpha")
        await world.switches["dc-a"].disconnect(world.ports[cut])
        other = await taken_over(world, cut)
        await world.carry_by_host("dc-b", "m3")
        await world.same_everywhere("dc-b")
        await world.sessions_are_well()
        assert await world.active("alpha") == other


async def test_the_bus_is_away_in_the_middle_of_a_move(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"alpha": 2, "beta": 1}) as world:
        host, other = await world.agent("dc-a"), await world.agent("dc-b")
        await host.prepare(VM, "dc-b", "m1")
        (server,) = world.servers
        await server.kill()
        world.at = "dc-b"
        flipping = asyncio.ensure_future(host.flipped(VM, "m1"))
        with pytest.raises(FederationError, match="no controller of beta has answered"):
            await other.prepare(VM, "dc-a", "m2", timeout=3)
        await asyncio.sleep(2)
        assert not flipping.done()
        await server.start()
        await flipping
        await host.released(VM, "m1")
        await world.same_everywhere("dc-b")
        await world.sessions_are_well()


async def test_a_node_of_the_cluster_dies_while_a_machine_moves(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"alpha": 1, "beta": 1}, servers=3) as world:
        moving = asyncio.ensure_future(world.carry_by_host("dc-b", "m1"))
        await asyncio.sleep(0.01)
        await world.servers[0].kill()
        await moving
        mappings = await world.same_everywhere("dc-b")
        assert {domain: one.here.network for domain, one in mappings.items()} == {"alpha": "dc-b", "beta": "dc-b"}
        await world.carry_by_host("dc-a", "m2")
        await world.same_everywhere("dc-a")
        await world.sessions_are_well()


async def test_a_member_that_floods_takes_no_lease_away(tmp_path: Path) -> None:
    """In the name of beta, whose own requests have to wait; nothing else has."""
    async with fleet(tmp_path, {"alpha": 1, "beta": 1}) as world:
        access = NatsAccess((world.servers[0].url,), "beta", world.logins["beta"].controller.password)
        bus = await NatsBus.open(access, "beta", "flood")
        many = encode_orders(1, [Attach(VM, VM_MAC, "dc-b", claim) for claim in range(MAX_ORDERS)])
        try:
            for frame in (b"[1,[" + b"0" * 2000, many):
                until = time.monotonic() + 4
                while time.monotonic() < until:
                    for _ in range(100):
                        await bus.connection.publish("fmc.alpha.beta", frame)
                    await asyncio.sleep(0.01)
        finally:
            await bus.close()
        said = world.said("alpha/1")
        assert said.count(SERVES) == 1
        assert "lost (epoch" not in said
        assert len(said.splitlines()) < 50
        await world.carry_by_host("dc-b", "m1")
        await world.same_everywhere("dc-b")
        await world.sessions_are_well()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a disk of its own")
async def test_a_full_disk_under_the_bus(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    await run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk])
    try:
        async with fleet(tmp_path, {"alpha": 2, "beta": 1}, store=str(disk)) as world:
            host = await world.agent("dc-a")
            filler = disk / "filler"
            filler.write_bytes(bytes(shutil.disk_usage(disk).free))
            with pytest.raises(FederationError, match="no controller of alpha has answered"):
                await host.prepare(VM, "dc-b", "m1", timeout=6)
            aborting = asyncio.ensure_future(host.aborted(VM, "m1"))
            await world.sessions_are_well()
            filler.unlink()
            (server,) = world.servers
            await server.kill()  # it writes nothing any more after a full disk, until it begins again
            await server.start()
            await aborting
            await world.carry_by_host("dc-b", "m2")
            await world.same_everywhere("dc-b")
            await world.sessions_are_well()
    finally:
        await run(["umount", disk])
