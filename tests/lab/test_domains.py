"""Several domains with a controller each: a machine goes from one to another, whatever fails on the way."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from followme.lab import domains_plan
from followme.lab.domains_demo import Pace, plot, travel
from followme.lab.domains_document import DomainsConfig
from followme.lab.domains_plan import DomainsLabConfig
from followme.lab.domains_scenario import DomainsScenario, missing
from followme.lab.domains_sessions import Peers
from followme.migration.host import MigrationError

_missing = missing()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_missing), reason="; ".join(_missing))]

GIVEN_BACK_S = 60.0
AWAY_S, ACTIVE_AGAIN_S = 5.0, 6.0
STRAY = 5
"""Pings of thousands that may be lost in a lab that its machine can hardly bear."""
TAKEOVER_S = 5.0
"""Two cores for a lab of eleven daemons and an emulated machine."""


@asynccontextmanager
async def talking(scenario: DomainsScenario) -> AsyncIterator[Peers]:
    """A host in each network with pings and two sessions; at the end all of them must have survived."""
    peers = Peers(scenario.machine_identifier, lambda one: domains_plan.is_locator(scenario.settings.lab, one))
    try:
        for domain in scenario.lab.domains:
            network = domain.network.name
            host = await scenario.lab.add_host(network, network, domains_plan.PEER_NUMBER)
            await peers.add(network, host, domain.host(domains_plan.PEER_NUMBER).ip)
            await peers.ping(network)
            await peers.open(network, "peer", "dc1")
            await peers.open(network, "machine", "dc1")
        yield peers
    finally:
        await peers.close()
    reports = {session.name: session.report() for session in peers.sessions}
    assert [(name, one.error) for name, one in reports.items() if not (one.alive and one.intact)] == []
    assert peers.locators_seen() == {}


def lost(peers: Peers) -> dict[str, int]:
    return {network: len(pinger.lost) for network, pinger in peers.pingers.items() if pinger.lost}


async def until_given_back(scenario: DomainsScenario) -> None:
    async with asyncio.timeout(GIVEN_BACK_S):
        while await scenario.locators():
            await asyncio.sleep(0.2)


async def under_way(scenario: DomainsScenario, domain: str, count: int = 1) -> None:
    """Until the machine's migration has been prepared, as the domain's controllers have logged."""
    names = [name for name in scenario.daemons if name.startswith(f"{domain}/")]
    async with asyncio.timeout(30):
        while sum(scenario.said(name).count(": prepare ") for name in names) < count:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)


async def test_a_machine_goes_around_and_everybody_keeps_his_sessions(tmp_path: Path) -> None:
    settings = DomainsConfig(lab=DomainsLabConfig(correspondents=3))
    async with DomainsScenario(settings) as scenario:
        journey = await travel(scenario, Pace(2.0, 3.0), lambda text: None)
    plot(journey, tmp_path / "journey.png")
    assert (tmp_path / "journey.png").stat().st_size > 10_000
    figures = journey.figures()
    assert figures["domains"] == 6
    assert [(move["from"], move["to"]) for move in figures["moves"]] == [
        ("dc1", "dc2"), ("dc2", "dc3"), ("dc3", "dc1")]  # fmt: skip
    assert figures["tcp_sessions_survived"] == figures["tcp_sessions"] == 10
    assert figures["locators_seen_by_peers"] == {}
    assert figures["pings_lost_whole_run"] <= figures["pings_sent_whole_run"] / 1000
    assert figures["rules_at_the_end"] == figures["rules_at_first"]
    for move in figures["moves"]:
        assert move["machine_pause_ms"] < 300
        assert 0 < move["bus_frames_between_domains"] < 120
    away = figures["moves"][0]["rules"]
    assert away["far1"] == away["far2"] == away["far3"] == 2, "a correspondent's rules: there and back"


async def test_moves_that_follow_each_other_at_once() -> None:
    async with DomainsScenario() as scenario:
        async with talking(scenario) as peers:
            await asyncio.sleep(1)
            for network in ("dc2", "dc3", "dc2", "dc1"):
                await scenario.carry(network)
            await until_given_back(scenario)
        assert lost(peers) == {}


@pytest.mark.parametrize(("domain", "how"), [("alpha", "dies"), ("beta", "dies"), ("alpha", "freezes")])
async def test_a_controller_goes_in_the_middle_and_another_goes_on(domain: str, how: str) -> None:
    """The home's, which is the source's too, and the target's. No session ends; what the machine says to networks
    that do not know of it waits for the new one."""
    settings = DomainsConfig(lab=DomainsLabConfig(instances=2))
    async with DomainsScenario(settings) as scenario:
        async with talking(scenario) as peers:
            await asyncio.sleep(1)
            carrying = asyncio.create_task(scenario.carry("dc2"))
            await under_way(scenario, "alpha")
            old = await scenario.active(domain)
            if how == "dies":
                await scenario.end(old, kill=True)
            else:
                scenario.freeze(old)
            gone = time.monotonic()
            new = await scenario.active(domain, besides=old)
            took = time.monotonic() - gone
            await carrying
            if how == "dies":
                await scenario.start(old)
            else:
                scenario.freeze(old, on=False)
            await asyncio.sleep(2)
            await scenario.carry("dc1")
            await until_given_back(scenario)
            assert await scenario.active(domain) == new
        assert took <= TAKEOVER_S
        assert all(count <= 100 * TAKEOVER_S for count in lost(peers).values()), (took, lost(peers))


async def test_the_bus_is_away_in_the_middle() -> None:
    async with DomainsScenario() as scenario:
        async with talking(scenario) as peers:
            await asyncio.sleep(1)
            carrying = asyncio.create_task(scenario.carry("dc2"))
            await under_way(scenario, "alpha")
            scenario.bus.send_signal(signal.SIGSTOP)
            gone = time.monotonic()
            await asyncio.sleep(AWAY_S)
            scenario.bus.send_signal(signal.SIGCONT)
            back = time.monotonic()
            await carrying
            await scenario.carry("dc1")
            await until_given_back(scenario)
        # Whom nobody can tell waits for the bus, and controllers must have their leases again.
        unanswered = [ping.sent_s for pinger in peers.pingers.values() for ping in pinger.lost]
        others = [round(at - back, 2) for at in unanswered if not gone <= at <= back + ACTIVE_AGAIN_S]
        assert len(others) <= STRAY, f"lost so long after the bus was back: {others}"


async def ordered(scenario: DomainsScenario, network: str) -> None:
    """As an operator does it: again, until the agent that has just been started takes machines."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(MigrationError):
                await scenario.carry(network)
                return
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("network", ["dc1", "dc2"])
async def test_an_agent_dies_in_the_middle_and_the_order_is_carried_out(network: str) -> None:
    """The source's, and the target's. The order is repeated, and the machine runs once, where it was ordered."""
    async with DomainsScenario() as scenario:
        async with talking(scenario) as peers:
            await asyncio.sleep(1)
            carrying = asyncio.create_task(scenario.carry("dc2"))
            await under_way(scenario, "alpha")
            await scenario.end(network, kill=True)
            await scenario.start(network)
            try:
                await carrying
            except MigrationError:  # it was taken back, and stays until it is ordered again
                await ordered(scenario, "dc2")
            await scenario.carry("dc1")
            await until_given_back(scenario)
            assert await scenario.rules() == {"dc1": 3, "dc2": 0, "dc3": 0, "far1": 0}
        assert all(pinger.duplicates == 0 for pinger in peers.pingers.values()), "two machines have answered"


async def test_who_may_order_a_machine_away() -> None:
    async with DomainsScenario() as scenario:
        identifier = str(scenario.machine_identifier)
        with pytest.raises(MigrationError, match="no machine vm1 is at home in gamma"):
            await scenario.carry("dc3", domain="gamma")
        with pytest.raises(MigrationError, match="neither in gamma nor at home there"):
            await scenario.carry("dc3", domain="gamma", machine=identifier)
        with pytest.raises(MigrationError, match="far1 is no data centre"):
            await scenario.carry("far1")
        await scenario.carry("dc3")
        await scenario.carry("dc2", domain="gamma", machine=identifier)
        await scenario.carry("dc1")
        await until_given_back(scenario)
