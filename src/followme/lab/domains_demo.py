"""A machine goes from domain to domain and home again, while hosts of all of them have sessions with it.

Nobody is told before it is needed: of those who have sessions from the beginning the controllers hear when the
machine has left, of two others when they begin to speak while it is away, one from each end.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from followme.lab import domains_plan
from followme.lab.domains_scenario import BusRequests, DomainsScenario
from followme.lab.domains_sessions import Peers, Session
from followme.lab.outage import outage
from followme.lab.reporting import Say, draw_pings, ms
from followme.system.picture import picture

GIVEN_BACK_S = 60.0
"""How long old ways may be in use, and with them the last locators."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds before the first move, and between the end of a move and the next."""

    before_s: float = 3.0
    between_s: float = 6.0


@dataclass(slots=True)
class Move:
    """One carry, from the order to its end (``time.monotonic()``), and what was measured until the next."""

    source: str
    target: str
    begin: float
    end: float
    figures: dict[str, Any]
    requests: BusRequests
    rules: dict[str, int]
    sent: int = 0
    lost: int = 0
    outages: dict[str, float] = field(default_factory=dict)
    stall_s: float = 0.0


@dataclass(slots=True)
class Journey:
    """All moves, and what came of the sessions."""

    moves: list[Move]
    peers: Peers
    machine: str
    given_back_s: float
    """From the end of the last move until no switch named a locator any more."""
    left_over: dict[str, int]
    rules_at_first: dict[str, int]
    delay_kind: str
    accel: str

    def figures(self) -> dict[str, Any]:
        """The JSON object: SI units in the key names."""
        reports = {session.name: (session, session.report()) for session in self.peers.sessions}
        pings = [ping for pinger in self.peers.pingers.values() for ping in pinger.pings]
        return {
            "domains": len({*self.peers.hosts}),
            "moves": [_move(move) for move in self.moves],
            "pings_sent_whole_run": len(pings),
            "pings_lost_whole_run": sum(ping.rtt_s is None for ping in pings),
            "pings_twice": sum(pinger.duplicates for pinger in self.peers.pingers.values()),
            "tcp_sessions": len(reports),
            "tcp_sessions_survived": sum(one.alive and one.intact for _, one in reports.values()),
            "tcp_bytes_echoed": sum(one.received_bytes for _, one in reports.values()),
            "sessions": {
                name: {
                    "alive": one.alive, "intact": one.intact, "opened_ms": ms(session.opened_s),
                    "longest_stall_ms": ms(one.longest_stall_s), "error": one.error,
                }
                for name, (session, one) in reports.items()
            },
            "locators_seen_by_peers": self.peers.locators_seen(),
            "locators_given_back_s": round(self.given_back_s, 3),
            "rules_at_first": self.rules_at_first,
            "rules_at_the_end": self.left_over,
            "delay_line": self.delay_kind,
            "acceleration": self.accel,
        }  # fmt: skip


def _move(move: Move) -> dict[str, Any]:
    return {
        "from": move.source,
        "to": move.target,
        "seconds": round(move.end - move.begin, 3),
        "machine_pause_ms": ms(float(move.figures.get("pause_s", 0.0))),
        "held_ms": ms(float(move.figures.get("held_s", 0.0))),
        "migrated_bytes": move.figures.get("bytes"),
        "pings_sent": move.sent,
        "pings_lost": move.lost,
        "downtime_ms": {network: ms(seconds) for network, seconds in move.outages.items()},
        "longest_stall_ms": ms(move.stall_s),
        "bus_frames_between_domains": move.requests.between_domains,
        "bus_requests_of_hosts": move.requests.hosts,
        "rules": move.rules,
    }  # fmt: skip


async def travel(scenario: DomainsScenario, pace: Pace, say: Say) -> Journey:
    """Home, through all other data centres, and home again. The lab has three domains of correspondents."""
    lab, machine = scenario.lab, scenario.machine_identifier
    peers = Peers(machine, lambda address: domains_plan.is_locator(scenario.settings.lab, address))
    try:
        return await _travel(scenario, peers, pace, say)
    finally:
        await peers.close()
        lab.delay.check()


async def _travel(scenario: DomainsScenario, peers: Peers, pace: Pace, say: Say) -> Journey:
    lab = scenario.lab
    centres = [domain.network.name for domain in lab.domains if domain.has_centre]
    early, caller, called = (domain.network.name for domain in lab.domains if not domain.has_centre)
    at_first = await scenario.rules()
    for domain in lab.domains:
        network = domain.network.name
        host = await lab.add_host(network, network, domains_plan.PEER_NUMBER)
        await peers.add(network, host, domain.host(domains_plan.PEER_NUMBER).ip)
    for network in (*centres, early):
        await peers.ping(network)
        say(_opened(await peers.open(network, "peer", centres[0])))
        say(_opened(await peers.open(network, "machine", centres[0])))
    await asyncio.sleep(pace.before_s)
    moves: list[Move] = []
    here = centres[0]
    for target in (*centres[1:], centres[0]):
        moves.append(await _go(scenario, here, target, say))
        here = target
        if len(moves) == 1:
            say(f"a host of {caller}, where nobody knows of the move, calls the machine at {here}")
            say(_opened(await peers.open(caller, "peer", here)))
            say(f"the machine at {here} calls a host of {called}, where nobody knows of the move")
            say(_opened(await peers.open(called, "machine", here, via=centres[0])))
        await asyncio.sleep(pace.between_s)
        await _after(scenario, moves[-1])
    begin = moves[-1].end
    say("waiting until nothing of the way is left")
    try:
        async with asyncio.timeout(GIVEN_BACK_S):
            while await scenario.locators():
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise RuntimeError(f"locators are in use still: {await scenario.locators()}") from None
    given_back_s = time.monotonic() - begin
    await peers.close()
    for index, move in enumerate(moves):
        end = moves[index + 1].begin if index + 1 < len(moves) else begin + given_back_s
        _measure(move, peers, end)
        say(_told(move))
    return Journey(moves, peers, str(peers.machine), given_back_s, await scenario.rules(), at_first, lab.delay.kind,
                   scenario.accel)  # fmt: skip


async def _go(scenario: DomainsScenario, source: str, target: str, say: Say) -> Move:
    say(f"--- {source} -> {target}")
    before = await scenario.bus_requests()
    begin = time.monotonic()
    figures = await scenario.carry(target)
    end = time.monotonic()
    pause = ms(float(figures.get("pause_s", 0.0)))
    say(f"the machine is at {target}; it stood still for {pause} ms")
    return Move(source, target, begin, end, figures, before, {})


async def _after(scenario: DomainsScenario, move: Move) -> None:
    """What the move has come to, now that all who speak to the machine have been told."""
    move.requests = await scenario.bus_requests() - move.requests
    move.rules = await scenario.rules()


def _measure(move: Move, peers: Peers, until: float) -> None:
    for network, pinger in peers.pingers.items():
        found = outage(pinger.pings, move.begin, until)
        move.sent += found.sent
        move.lost += found.lost
        move.outages[network] = found.downtime_s
    reports = [session.report() for session in peers.sessions]
    move.stall_s = max((one.longest_between(move.begin, until) for one in reports), default=0.0)


def _opened(session: Session) -> str:
    return f"session: {session.name}, in {ms(session.opened_s)} ms"


def _told(move: Move) -> str:
    rules = ", ".join(f"{network} {count}" for network, count in move.rules.items())
    return (f"{move.source} -> {move.target}: {move.lost} of {move.sent} pings lost, longest stall "
            f"{ms(move.stall_s)} ms; bus: {move.requests.between_domains} frames between domains, "
            f"{move.requests.hosts} requests of hosts; rules: {rules}")  # fmt: skip


def plot(journey: Journey, path: Path) -> None:
    """Each network's round trip over time, and when the machine was carried."""
    with picture(path, (9, 4.5)) as (axes,):
        start = journey.moves[0].begin
        for network, pinger in journey.peers.pingers.items():
            draw_pings(axes, pinger.pings, start, 500.0, f"from {network}")
        for move in journey.moves:
            axes.axvspan(move.begin - start, move.end - start, color="tab:blue", alpha=0.12)
            label, at = f"{move.source} -> {move.target}", (move.begin - start, 1.0)
            axes.annotate(label, at, xycoords=("data", "axes fraction"), xytext=(2, -12),
                          textcoords="offset points", fontsize=8)  # fmt: skip
        axes.set_yscale("log")
        axes.set_xlabel("seconds after the first order")
        axes.set_ylabel("round trip of a ping, ms")
        axes.set_title("A machine that is carried from domain to domain, seen from each of them")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend(loc="lower right", fontsize=8, markerscale=2)
