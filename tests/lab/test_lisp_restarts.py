"""A LISP set-up that runs survives the restart of any one of our daemons, and loses no packet of what flows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.lab.following import MARKS, follow, home

from followme.controllers.lisp.controller import LispController
from followme.lab.document import MACHINE, USER
from followme.lab.lisp_document import LispScenarioConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.meter import Meter

pytestmark = MARKS
READY_S = 15.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario() -> AsyncIterator[LispScenario]:
    async with LispScenario(LispScenarioConfig(policy="always")) as scenario:
        yield scenario


@pytest.mark.parametrize(
    ("daemon", "kill"),
    [("mapserver", True), ("dc1", False), ("dc1", True), ("dc2", True), ("wlan1", True), ("wlan2", False)],
)
async def test_a_daemon_is_started_again(scenario: LispScenario, daemon: str, kill: bool) -> None:
    """Nothing is lost while it is down and comes up, and the machine follows the next move."""
    await home(scenario)
    if kill:  # the user and the machine are away from home: their entries are dynamic ones
        await follow(scenario, "wlan2", "dc2")
    async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as meter:
        await asyncio.sleep(0.3)
        await scenario.restart(daemon, kill=kill)
        await scenario.controller.ready(READY_S)
        await asyncio.sleep(1.5)
    assert [ping.sequence for ping in meter.pings if ping.rtt_s is None] == []
    assert meter.tcp.intact
    assert meter.tcp.alive
    if daemon != "mapserver":
        assert (await scenario.site_status(daemon))["problems"] == {}
    await follow(scenario, *(("wlan1", "dc1") if kill else ("wlan2", "dc2")))


async def test_a_new_controller_learns_where_all_are(scenario: LispScenario) -> None:
    await home(scenario)
    await follow(scenario, "wlan2", "dc2")
    await scenario.controller.close()
    first = len(scenario.happenings)
    # It is not told that the user moves meanwhile.
    await scenario.lab.move_client("wlan1")
    async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.005) as meter:
        await asyncio.sleep(0.3)
        scenario.controller = LispController(scenario.config, make_socket=scenario._tcp_socket)
        scenario.controller.watchers.add(scenario.happenings.append)
        await scenario.controller.start(sock=scenario._udp_socket())
        scenario._exit.push_async_callback(scenario.controller.close)
        await scenario.controller.ready(READY_S)
        await scenario.controller.wait_for_place(USER, "wlan1", 5.0)
        await scenario.controller.wait_for_place(MACHINE, "dc2", 5.0)
        for _ in range(100):
            if scenario.machine_network == "dc1":
                break
            await asyncio.sleep(0.1)
        await scenario.idle()
        await asyncio.sleep(1.0)
    told = [one.text for one in scenario.happenings[first:]]
    assert scenario.machine_network == "dc1", f"the machine follows the move that was missed: {told}"
    assert [ping.sequence for ping in meter.pings if ping.rtt_s is None] == []
    assert meter.tcp.alive
    await follow(scenario, "wlan2", "dc2")
