"""A machine follows over LISP, in the real lab: what a user misses meanwhile, in our order and the papers'.

The paper's delays: 10 ms between the data centres, 1 and 10 ms from the controller to their routers, links of
100 Mbit/s; the user is equally far from both, so that what it sees is as long as it is. Migrations go to and fro,
both orders in turn.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from statistics import median

from bench.figures import Figure, Say, Skipped
from followme.lab import lisp_downtime
from followme.lab.lisp_downtime import DIRECTIONS, MODES, USER_S, Downtimes, setting, watched
from followme.lab.lisp_scenario import LispScenario
from followme.lab.outage import Line
from followme.migration.mover import Result
from followme.system import needs

SOURCE_S, TARGET_S = 0.001, 0.010
PINGS_EVERY_S = 0.005
PAPER_DOWNTIME_S = 0.0075
PATH_S = USER_S / 2


@dataclass(slots=True)
class Seen:
    """Migrations in one order: results, downtimes at 1 ms probes, pings lost at 5 ms."""

    results: list[Result] = field(default_factory=list)
    downtimes: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)


def figures(quick: bool, say: Say) -> list[Figure]:
    problems = needs.check(needs.LISP_LAB)
    if problems:
        raise Skipped("; ".join(problems))
    return asyncio.run(_figures(quick, say))


async def _figures(quick: bool, say: Say) -> list[Figure]:
    seen = await _to_and_fro(1 if quick else 4, say)
    found = [*_downtime(seen), *_lost(seen)]
    downtimes = await lisp_downtime.measure(quick, say, lambda: None)
    return found + _slopes(downtimes, say)


async def _to_and_fro(rounds: int, say: Say) -> dict[str, Seen]:
    seen = {mode: Seen() for mode in MODES}
    async with LispScenario(setting(SOURCE_S, TARGET_S)) as scenario:
        say(f"lab with {scenario.accel}, delays by {scenario.delay_kind}")
        await scenario.move_client("wlan1")
        for _ in range(rounds):
            for every_s in (PINGS_EVERY_S, lisp_downtime.PROBE_EVERY_S):
                for mode in MODES:
                    for _, goal in DIRECTIONS.values():
                        await _once(scenario, goal, mode, every_s, seen[mode], say)
    return seen


async def _once(
    scenario: LispScenario, goal: str, mode: str, every_s: float, seen: Seen, say: Say
) -> None:
    outage, _ = await watched(scenario, goal, mode, every_s=every_s)
    result = scenario.result
    if result is None:
        raise RuntimeError("a migration without a result")
    seen.results.append(result)
    if every_s == PINGS_EVERY_S:
        seen.lost.append(outage.lost)
    else:
        seen.downtimes.append(outage.downtime_s)
        seen.added.append(outage.downtime_s - result.pause_s)
    say(f"{mode} to {goal}: pings every {every_s * 1e3:g} ms, {outage.lost} of {outage.sent} lost, not reached for "
        f"{outage.downtime_s * 1e3:.1f} ms, machine paused for {result.pause_s * 1e3:.1f} ms")  # fmt: skip


def _downtime(seen: dict[str, Seen]) -> list[Figure]:
    ours, theirs = seen["live"], seen["paper"]
    added, their_added = median(ours.added), median(theirs.added)
    down, their_down = median(ours.downtimes), median(theirs.downtimes)
    pause = median(one.pause_s for one in ours.results)
    their_pause = median(one.pause_s for one in theirs.results)
    return [
        Figure("downtime at 1/10 ms to the xTRs, less the machine's pause", "ms", added * 1e3, their_added * 1e3,
               "papers' order", their_added / max(added, 1e-4), f"<= {PATH_S * 1e3:g} ms, a path's delay",
               added <= PATH_S),
        Figure("downtime at 1/10 ms to the xTRs, median", "ms", down * 1e3, their_down * 1e3, "papers' order",
               their_down / down),
        Figure("downtime, against the paper's own figure", "ms", down * 1e3, PAPER_DOWNTIME_S * 1e3,
               "paper, KVM on its hardware", PAPER_DOWNTIME_S / down),
        Figure("pause of the machine, median", "ms", pause * 1e3, their_pause * 1e3, "papers' order",
               their_pause / pause),
    ]  # fmt: skip


def _lost(seen: dict[str, Seen]) -> list[Figure]:
    ours, theirs = seen["live"].lost, seen["paper"].lost
    rate, their_rate = sum(ours) / len(ours), sum(theirs) / len(theirs)
    return [Figure("pings lost for each migration (every 5 ms)", "", rate, their_rate, "papers' order",
                   None if not rate else their_rate / rate, "0", not any(ours))]  # fmt: skip


def _flat(line: Line) -> bool | None:
    """None where there are too few migrations to tell."""
    return line.flat if line.doubt < lisp_downtime.TELLING or not line.flat else None


def _slopes(found: Downtimes, say: Say) -> list[Figure]:
    for sentence in found.sentences():
        say(sentence)
    figures = []
    for case in found.cases:
        ours = found.line(case.name, "live", "target", less_pause=True)
        theirs = found.line(case.name, "paper", "target", less_pause=True)
        figures.append(Figure(
            f"slope of the downtime less the pause, {case.name} (± {ours.slope_error:.3f})", "ms/ms", ours.slope,
            theirs.slope, "papers' order", None, "0, known to 0.25", _flat(ours),
        ))  # fmt: skip
    return figures
