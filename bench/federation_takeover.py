"""How soon a domain is served again after its active controller was killed, with sessions open and machines moving.

The lab of several domains, two controllers each: one is killed with SIGKILL, in turn at home and where the machine
goes to, every other time in the middle of a migration. The time is from the signal until the other has the lease,
the bucket, the switches and the bus, by its own log (both read one clock here).
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bench.figures import Figure, Say, Skipped
from followme.lab import domains_plan
from followme.lab.domains_document import DomainsConfig
from followme.lab.domains_plan import DomainsLabConfig
from followme.lab.domains_scenario import DomainsScenario, missing
from followme.lab.domains_sessions import Peers

TARGET_S = 3.0
TIMES, QUICK_TIMES = 20, 4
HOME, AWAY = "dc1", "dc2"
DOMAINS = {HOME: "alpha", AWAY: "beta"}
GIVEN_BACK_S = 60.0
_SERVES = "is served, epoch"
_STANDS_BY = "stands by"


@dataclass
class _Run:
    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Rules of the machine that were in a switch before a takeover and not after it."""


def figures(quick: bool, say: Say) -> list[Figure]:
    if problems := missing():
        raise Skipped("; ".join(problems))
    return asyncio.run(_figures(QUICK_TIMES if quick else TIMES, say))


async def _figures(times: int, say: Say) -> list[Figure]:
    made = _Run()
    settings = DomainsConfig(lab=DomainsLabConfig(instances=2))
    async with DomainsScenario(settings) as scenario:
        peers = Peers(scenario.machine_identifier, lambda one: domains_plan.is_locator(scenario.settings.lab, one))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(peers.close)
            await _talk(scenario, peers)
            at_first = await scenario.rules()
            await _kill_and_carry(scenario, made, times, say)
            async with asyncio.timeout(GIVEN_BACK_S):
                while await scenario.locators():
                    await asyncio.sleep(0.2)
            at_last = await scenario.rules()
        made.lost += [f"{name}: {at_first[name]} rules at first, {at_last[name]} at last"
                      for name in at_first if at_last[name] != at_first[name]]  # fmt: skip
    reports = {session.name: session.report() for session in peers.sessions}
    broken = [f"{name}: {one.error}" for name, one in reports.items() if not (one.alive and one.intact)]
    for text in (*made.lost, *broken):
        say(text)
    pings = [ping for pinger in peers.pingers.values() for ping in pinger.pings]
    gone = sum(ping.rtt_s is None for ping in pings)
    stall = max(one.longest_stall_s for one in reports.values())
    say(f"{len(reports)} sessions, the longest stall of one was {stall:.2f} s; {gone} of {len(pings)} pings lost")
    worst = max(made.seconds)
    return [
        Figure(f"takeover after kill -9 of the active controller, median of {times}", "s",
               statistics.median(made.seconds)),
        Figure("the same, worst", "s", worst, None, "", None, f"<= {TARGET_S:g} s", worst <= TARGET_S),
        Figure("sessions broken", "", len(broken), None, "", None, "0", not broken),
        Figure("mappings lost", "", len(made.lost), None, "", None, "0", not made.lost),
    ]  # fmt: skip


async def _talk(scenario: DomainsScenario, peers: Peers) -> None:
    """A host of each network with pings and a session from either end."""
    for domain in scenario.lab.domains:
        network = domain.network.name
        host = await scenario.lab.add_host(network, network, domains_plan.PEER_NUMBER)
        await peers.add(network, host, domain.host(domains_plan.PEER_NUMBER).ip)
        await peers.ping(network)
        await peers.open(network, "peer", HOME)
        await peers.open(network, "machine", HOME)


async def _kill_and_carry(scenario: DomainsScenario, made: _Run, times: int, say: Say) -> None:
    active = {domain: await scenario.active(domain) for domain in DOMAINS.values()}
    chance = random.Random(1)
    here = HOME
    for number in range(times):
        domain = DOMAINS[HOME] if number % 4 < 2 else DOMAINS[AWAY]
        before = await scenario.rules()
        carrying = None
        if moves := number % 2 == 1:
            here = AWAY if here == HOME else HOME
            carrying = asyncio.ensure_future(scenario.carry(here))
            await _begun(scenario, carrying)
        await asyncio.sleep(chance.uniform(0.0, 0.5))
        dead = active[domain]
        active[domain] = f"{domain}/{3 - int(dead[-1])}"
        made.seconds.append(await _take_over(scenario, dead, active[domain]))
        say(f"{dead} killed{' in the middle of a move' if moves else ''}: {made.seconds[-1]:.2f} s")
        if carrying is not None:
            await carrying
        after = await scenario.rules()
        if carrying is None:
            made.lost += [f"{dead} killed: {name} had {before[name]} rules, and {after[name]} then"
                          for name in before if after[name] < before[name]]  # fmt: skip
        await scenario.start(dead)
        await _said_again(scenario, dead, _STANDS_BY, scenario.said(dead).count(_STANDS_BY))
        await asyncio.sleep(0.5)
    if here != HOME:
        await scenario.carry(HOME)


async def _begun(scenario: DomainsScenario, carrying: asyncio.Future[Any]) -> None:
    """Until a controller has been asked to prepare the move."""
    names = [f"{domain}/{one}" for domain in DOMAINS.values() for one in (1, 2)]
    count = sum(scenario.said(name).count(": prepare ") for name in names)
    while not carrying.done() and sum(scenario.said(name).count(": prepare ") for name in names) == count:
        await asyncio.sleep(0.02)


async def _take_over(scenario: DomainsScenario, dead: str, other: str) -> float:
    """Kill one; seconds until the other serves."""
    count = scenario.said(other).count(_SERVES)
    killed = time.time()
    await scenario.end(dead, kill=True)
    await _said_again(scenario, other, _SERVES, count)
    line = [line for line in scenario.said(other).splitlines() if _SERVES in line][-1]
    (stamp,) = re.findall(r"^\S+ \S+", line)
    return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S,%f").timestamp() - killed


async def _said_again(scenario: DomainsScenario, name: str, text: str, count: int) -> None:
    async with asyncio.timeout(60):
        while scenario.said(name).count(text) <= count:
            await asyncio.sleep(0.02)
