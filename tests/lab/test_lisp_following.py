"""The LISP plane as a whole: the machine follows its user from site to site, and the sessions go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from followme.lab.lisp_document import LispScenarioConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.meter import Meter
from followme.system import needs

_missing = needs.check((*needs.MACHINE_LAB, needs.Need.VXLAN_GPE))
pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(bool(_missing), reason="; ".join(_missing)),
    pytest.mark.asyncio(loop_scope="module"),
]

AFTER_S = 1.0
"""How long after a migration's last event its traces in the pings may still be seen."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scenario() -> AsyncIterator[LispScenario]:
    async with LispScenario(LispScenarioConfig(policy="always")) as scenario:
        yield scenario


async def follow(scenario: LispScenario, access: str, centre: str) -> None:
    """The user moves; the machine follows, and no ping is lost while it does; the session lives."""
    address, first = scenario.machine_identifier, len(scenario.happenings)
    async with Meter(scenario.client.namespace, address, interval_s=0.005) as meter:
        await asyncio.sleep(0.3)
        await scenario.move_client(access)
        await scenario.idle()
        await asyncio.sleep(AFTER_S)
    # From the agent's first word: when it is ordered, the user's own move is still under way.
    events = [one for one in scenario.happenings[first:] if one.step in ("migration", "continuity")][1:]
    assert events, "there was no migration"
    assert scenario.machine_network == centre
    begin, end = events[0].at, events[-1].at + AFTER_S
    during = [ping for ping in meter.pings if begin <= ping.sent_s < end]
    assert len(during) > 100
    assert [ping.sequence for ping in during if ping.rtt_s is None] == []
    assert meter.duplicates == 0
    assert meter.tcp.intact
    assert meter.tcp.alive


async def refused(scenario: LispScenario) -> dict[str, dict[str, int]]:
    """What the routers have refused, by site and reason."""
    return {site.name: (await scenario.site_status(site.name))["router"]["refused"] for site in scenario.lab.sites}


async def home(scenario: LispScenario) -> None:
    scenario.use_policy("always", {})
    await scenario.move_client("wlan1")
    await scenario.idle()
    assert scenario.machine_network == "dc1"


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
