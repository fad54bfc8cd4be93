"""One migration in the LISP lab, watched: by the user's pings, and at the machine's taps."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median

from followme.lab.document import MACHINE
from followme.lab.lisp_scenario import LispScenario
from followme.lab.outage import Outage, outage
from followme.lab.pinger import Pinger
from followme.lab.tapwatch import FirstAnswer, TapWatch, first_answer, last_answer
from followme.migration.host import Host
from followme.migration.mover import Result

PROBE_EVERY_S = 0.001
BEFORE_S, AFTER_S, BACK_S = 1.2, 1.0, 10.0
EARLY_S = 0.2


@dataclass(frozen=True, slots=True)
class Shares:
    """What the user's longest wait was made of, in seconds: ``pause_s``, the machine was stopped; ``cold_s``, it
    ran, a request lay at its own tap, and it had not answered; ``network_s``, the rest."""

    pause_s: float
    cold_s: float
    network_s: float


@dataclass(frozen=True, slots=True)
class Watched:
    """One migration as the user saw it, and as the machine's taps did. ``silent_s``: from its last answer at the
    source to its stop."""

    seen: Outage
    result: Result
    shares: Shares
    silent_s: float

    @property
    def added_s(self) -> float:
        """What the user waited longer than the machine stood still; below 0 where the new path is shorter."""
        return self.seen.downtime_s - self.result.pause_s


def shares(begin: float, end: float, stopped_at: float, answer: FirstAnswer) -> Shares:
    """Of the wait from ``begin`` to ``end``, at the machine's side of the path (Unix clock, as all here)."""
    pause = _common(begin, end, stopped_at, answer.runs_at)
    cold = _common(begin, end, max(answer.runs_at, answer.asked_at), answer.answered_at)
    return Shares(pause, cold, end - begin - pause - cold)


def _common(begin: float, end: float, other_begin: float, other_end: float) -> float:
    return max(0.0, min(end, other_end) - max(begin, other_begin))


async def watched(scenario: LispScenario, target: str, mode: str, *, every_s: float = PROBE_EVERY_S) -> Watched:
    """Carry the machine while the user pings it. ``RuntimeError`` if the machine is not reached again.

    Pings lost are counted from the order until a second after the end. The downtime is that around the switch: from
    ``EARLY_S`` before the machine stops. What is slow before is the lab's one host, on which a QEMU starts.
    """
    source = scenario.machine_network
    async with AsyncExitStack() as stack:
        left, came = [await stack.enter_async_context(tap_watch(scenario, name)) for name in (source, target)]
        pinger = await stack.enter_async_context(
            Pinger(scenario.client.namespace, scenario.machine_identifier, interval_s=every_s)
        )
        await asyncio.sleep(BEFORE_S)
        begin = time.monotonic()
        result = await scenario.controller.carry(MACHINE, target, mode)
        await asyncio.sleep(AFTER_S)
        deadline = time.monotonic() + BACK_S
        while all(ping.rtt_s is None for ping in pinger.pings[-round(0.1 / every_s) :]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{MACHINE} was not reached within {BACK_S:g} s after its migration to {target}")
            await asyncio.sleep(0.05)
        end = time.monotonic()
        await asyncio.sleep(0.2)
    # Before the order: while QEMUs start and fill, a busy computer's slow answers must not be what is usual.
    usual = median(ping.rtt_s for ping in pinger.pings if ping.rtt_s is not None and ping.sent_s < begin)
    seen, whole = (outage(pinger.pings, at, end, usual) for at in (stops(result) - EARLY_S, begin))
    stopped = result.resumed_at - result.pause_s
    last = last_answer(left.frames, stopped)
    if last is None:
        raise RuntimeError(f"{MACHINE} answered nothing at {source} before it stopped")
    parts = Shares(0.0, 0.0, 0.0)
    if seen.first is not None:
        answer = first_answer(came.frames, result.resumed_at, pinger.key(seen.first))
        # When it should have been answered, had the path been as before.
        due = seen.first.sent_s + usual / 2 + _unix()
        parts = shares(due, due + seen.downtime_s, stopped, answer)
    return Watched(Outage(seen.downtime_s, whole.sent, whole.lost), result, parts, stopped - last)


def tap_watch(scenario: LispScenario, site: str) -> TapWatch:
    """Of the machine's tap at a data centre."""
    at = scenario.lab.hosts[site]
    host = Host(site, at.namespace, at.bridge, at.uplink, at.management_address, at.run_dir)
    return TapWatch(at.namespace, host.tap_name(MACHINE))


def stops(result: Result) -> float:
    """When the machine stopped or its traffic turned, whichever was first (``time.monotonic()``)."""
    return result.resumed_at - max(result.pause_s, result.held_s) - _unix()


def _unix() -> float:
    """What the Unix clock is ahead of ``time.monotonic()``."""
    return time.time() - time.monotonic()
