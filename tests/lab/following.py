"""A user, its machine and their session over the LISP plane, for the tests in which the machine follows."""

from __future__ import annotations

import asyncio

import pytest

from followme.lab.lisp_scenario import LispScenario
from followme.lab.meter import Meter
from followme.system import needs

_missing = needs.check((*needs.MACHINE_LAB, needs.Need.VXLAN_GPE))
MARKS = [
    pytest.mark.lab,
    pytest.mark.skipif(bool(_missing), reason="; ".join(_missing)),
    pytest.mark.asyncio(loop_scope="module"),
]
AFTER_S = 1.0
"""How long after a migration's last event its traces in the pings may still be seen."""


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
    lost = [(ping.sequence, round(1e3 * (ping.sent_s - begin))) for ping in during if ping.rtt_s is None]
    said = [(round(1e3 * (one.at - begin)), one.text) for one in events]
    assert lost == [], f"lost (number, ms): {lost}; what happened: {said}"
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
