"""The LISP plane as a whole: the machine follows its user from site to site, and the sessions go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from tests.lab.following import AFTER_S, MARKS, follow, home, refused
from tests.lab.lisp_headers import PLAIN, captured

from followme.lab.lisp_document import LispScenarioConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.meter import Meter

pytestmark = MARKS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario() -> AsyncIterator[LispScenario]:
    async with LispScenario(LispScenarioConfig(policy="always")) as scenario:
        yield scenario


async def test_a_machine_follows_its_user_there_and_back(scenario: LispScenario) -> None:
    await home(scenario)
    await follow(scenario, "wlan2", "dc2")
    result = scenario.result
    assert result is not None
    assert result.mode == "live"
    await follow(scenario, "wlan1", "dc1")
    for site, reasons in (await refused(scenario)).items():
        assert "SMR from a stranger" not in reasons, site


async def test_five_moves_in_a_row(scenario: LispScenario) -> None:
    await home(scenario)
    address = scenario.machine_identifier
    async with Meter(scenario.client.namespace, address, interval_s=0.005) as meter:
        await asyncio.sleep(0.3)
        for access, centre in [("wlan2", "dc2"), ("wlan1", "dc1")] * 2 + [("wlan2", "dc2")]:
            await scenario.move_client(access)
            await scenario.idle()
            assert scenario.machine_network == centre
        await asyncio.sleep(AFTER_S)
    assert meter.tcp.intact
    assert meter.tcp.alive
    assert meter.pings[-1].rtt_s is not None
    for site, reasons in (await refused(scenario)).items():
        # The target's router has asked before where the machine's users are.
        assert "queue of misses" not in reasons, site
    status = await scenario.site_status("dc1")
    assert status["problems"] == {}


async def test_a_policy_that_never_moves_leaves_it_where_it_is(scenario: LispScenario) -> None:
    await home(scenario)
    scenario.use_policy("never", {})
    before = len(scenario.happenings)
    await scenario.move_client("wlan2")
    await scenario.idle()
    assert scenario.machine_network == "dc1"
    assert [one.text for one in scenario.happenings[before:] if one.step == "migration"] == []


async def test_with_plain_headers() -> None:
    async with LispScenario(LispScenarioConfig(policy="always", header="rfc9300")) as scenario:
        await home(scenario)
        await follow(scenario, "wlan2", "dc2")
        with captured(scenario.lab, "dc2") as core:
            async with Meter(scenario.client.namespace, scenario.machine_identifier, interval_s=0.01):
                await asyncio.sleep(0.3)
            assert core.both_ways() == ({PLAIN}, {PLAIN})
