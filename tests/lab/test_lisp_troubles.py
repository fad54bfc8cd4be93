"""Daemons of the LISP plane that die while a machine is carried: one copy runs, is found, and is carried on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from tests import until as waiting
from tests.lab.following import MARKS

from followme.controllers.lisp.controller import LispController
from followme.lab.document import MACHINE
from followme.lab.lisp_document import LispScenarioConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.meter import Meter
from followme.migration.host import MigrationError

pytestmark = MARKS
READY_S = 15.0
SETTLED_S = 20.0
until = partial(waiting.until, seconds=SETTLED_S)
DEAD_S = 0.5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario() -> AsyncIterator[LispScenario]:
    async with LispScenario(LispScenarioConfig(policy="always")) as scenario:
        yield scenario


async def at_dc1(scenario: LispScenario) -> None:
    """The user at home, the machine too; nothing moves unless it is ordered."""
    scenario.use_policy("never", {})
    await scenario.move_client("wlan1")
    await scenario.idle()
    if await at_rest(scenario) != "dc1":
        await scenario.controller.carry(MACHINE, "dc1")
        assert await at_rest(scenario) == "dc1"


def copies(scenario: LispScenario) -> list[str]:
    """The sites where a QEMU of the machine is."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = file.read_bytes()
            found += [
                site for site, host in scenario.lab.hosts.items()
                if b"qemu-system" in command.split(b"\0")[0] and str(host.run_dir).encode() in command
            ]  # fmt: skip
    return found


async def at_rest(scenario: LispScenario, *sites: str) -> str:
    """Wait until one copy is left, which an agent has as running; where."""
    deadline = asyncio.get_running_loop().time() + SETTLED_S
    while True:
        running = []
        for name in ("dc1", "dc2"):
            machines = await scenario.controller.sites[name].call("machines", {})
            running += [name for one in machines if one["state"] == "running" and not one["carried_to"]]
        if len(running) == 1 and copies(scenario) == running:
            return running[0]
        assert asyncio.get_running_loop().time() < deadline, f"runs at {running}, copies at {copies(scenario)}"
        await asyncio.sleep(0.1)


async def carried_until(scenario: LispScenario, target: str, text: str) -> asyncio.Task[object]:
    """Order the machine to ``target`` and return when ``text`` has been told."""
    first = len(scenario.happenings)
    task: asyncio.Task[object] = asyncio.ensure_future(scenario.controller.carry(MACHINE, target))
    await until(
        lambda: task.done() or any(text in one.text for one in scenario.happenings[first:]), f"{text!r} is told"
    )
    return task


MOMENTS = [
    ("dc1", "MB sent", False, "the source's, in the transfer"),
    ("dc1", "packets go to dc2", True, "the source's, after the flip"),
    ("dc2", "MB sent", False, "the target's, in the transfer"),
    ("dc2", "packets go to dc2", True, "the target's, after the flip"),
]


@pytest.mark.parametrize(
    ("daemon", "text", "paused"), [one[:3] for one in MOMENTS], ids=[one[3] for one in MOMENTS]
)
async def test_an_agent_dies_while_the_machine_is_carried(
    scenario: LispScenario, daemon: str, text: str, paused: bool
) -> None:
    """In the transfer nothing is lost. After the flip the machine is paused, and nobody is left to let it go on
    until the agent is back: at most what was sent meanwhile is lost."""
    await at_dc1(scenario)
    async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as meter:
        await asyncio.sleep(0.3)
        carried = await carried_until(scenario, "dc2", text)
        killed = time.monotonic()
        await scenario.end(daemon, kill=True)
        await asyncio.sleep(DEAD_S)
        await scenario.start(daemon)
        with contextlib.suppress(MigrationError):
            await carried
        await scenario.controller.ready(READY_S)
        where = await at_rest(scenario)
        await scenario.controller.wait_for_place(MACHINE, where, 5.0)
        away_s = time.monotonic() - killed
        await asyncio.sleep(1.5)
    assert (await scenario.site_status(daemon))["problems"] == {}
    lost = [ping.sequence for ping in meter.pings if ping.rtt_s is None]
    stall_ms = meter.tcp.longest_stall_s * 1e3
    print(f"{daemon}, {text}: at {where}; {len(lost)} of {len(meter.pings)} lost, away {away_s:.1f} s, "
          f"stall {stall_ms:.0f} ms")  # fmt: skip
    assert meter.tcp.intact
    assert meter.tcp.alive
    assert len(lost) * 0.005 <= (away_s if paused else 0.0)
    other = "dc1" if where == "dc2" else "dc2"
    await scenario.controller.carry(MACHINE, other)
    assert await at_rest(scenario) == other
    await scenario.controller.wait_for_place(MACHINE, other, 5.0)


async def test_a_migration_needs_no_controller_once_it_is_ordered(scenario: LispScenario) -> None:
    await at_dc1(scenario)
    async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as meter:
        await asyncio.sleep(0.3)
        carried = await carried_until(scenario, "dc2", "MB sent")
        await scenario.controller.close()
        with contextlib.suppress(MigrationError):
            await carried
        await asyncio.sleep(6.0)
        scenario.controller = LispController(scenario.config, make_socket=scenario._tcp_socket)
        scenario.use_policy("never", {})
        scenario.controller.watchers.add(scenario.happenings.append)
        await scenario.controller.start(sock=scenario._udp_socket())
        scenario._exit.push_async_callback(scenario.controller.close)
        await scenario.controller.ready(READY_S)
        await scenario.controller.wait_for_place(MACHINE, "dc2", 5.0)
    assert await at_rest(scenario) == "dc2"
    assert [ping.sequence for ping in meter.pings if ping.rtt_s is None] == []
    assert meter.tcp.alive
