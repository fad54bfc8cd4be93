"""A machine follows over LISP, in the real lab: what a user misses meanwhile, in our order and the papers'.

The paper's delays: 10 ms between the data centres, 1 and 10 ms from the controller to their routers, links of
100 Mbit/s; the user is equally far from both, so that what it sees is as long as it is. Migrations go to and fro,
both orders in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median

from bench.figures import Figure, Say, Skipped
from followme.lab import lisp_downtime
from followme.lab.lisp_downtime import DIRECTIONS, MODES, QUICK, SHORT, USER_S, Downtimes, network, setting
from followme.lab.lisp_scenario import LispScenario
from followme.lab.lisp_watch import PROBE_EVERY_S, Watched, watched
from followme.lab.outage import Line
from followme.system import needs

SOURCE_S, TARGET_S = 0.001, 0.010
PINGS_EVERY_S = 0.005
PAPER_DOWNTIME_S = 0.0075
PATH_S = USER_S / 2


@dataclass(slots=True)
class Seen:
    """Migrations in one order: those watched by probes each ms, and the pings lost of one each 5 ms."""

    fine: list[Watched] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def median(self, part: Callable[[Watched], float]) -> float:
        return median(map(part, self.fine))


def figures(quick: bool, say: Say) -> list[Figure]:
    problems = needs.check(needs.LISP_LAB)
    if problems:
        raise Skipped("; ".join(problems))
    return asyncio.run(_figures(quick, say))


async def _figures(quick: bool, say: Say) -> list[Figure]:
    seen = await _to_and_fro(1 if quick else 4, say)
    found = [*_downtime(seen), *_lost(seen)]
    downtimes = await lisp_downtime.measure(QUICK if quick else SHORT, say, lambda: None)
    return found + _slopes(downtimes, say)


async def _to_and_fro(rounds: int, say: Say) -> dict[str, Seen]:
    seen = {mode: Seen() for mode in MODES}
    async with LispScenario(setting(SOURCE_S, TARGET_S)) as scenario:
        say(f"lab with {scenario.accel}, delays by {scenario.delay_kind}")
        await scenario.move_client("wlan1")
        for _ in range(rounds):
            for every_s in (PINGS_EVERY_S, PROBE_EVERY_S):
                for mode in MODES:
                    for _, goal in DIRECTIONS.values():
                        await _once(scenario, goal, mode, every_s, seen[mode], say)
    return seen


async def _once(
    scenario: LispScenario, goal: str, mode: str, every_s: float, seen: Seen, say: Say
) -> None:
    one = await watched(scenario, goal, mode, every_s=every_s)
    if every_s == PINGS_EVERY_S:
        seen.lost.append(one.seen.lost)
    else:
        seen.fine.append(one)
    say(f"{mode} to {goal}: pings every {every_s * 1e3:g} ms, {one.seen.lost} of {one.seen.sent} lost, not reached "
        f"for {one.seen.downtime_s * 1e3:.1f} ms: machine paused for {one.result.pause_s * 1e3:.1f}, its own first "
        f"answer {one.shares.cold_s * 1e3:.1f}, the rest {one.shares.network_s * 1e3:.1f}")  # fmt: skip


def _downtime(seen: dict[str, Seen]) -> list[Figure]:
    ours, theirs = seen["live"], seen["paper"]

    def figure(what: str, part: Callable[[Watched], float], limit_s: float | None = None) -> Figure:
        value, other = ours.median(part), theirs.median(part)
        made = Figure(what, "ms", value * 1e3, other * 1e3, "papers' order", other / max(value, 1e-4))
        if limit_s is None:
            return made
        return replace(made, target=f"<= {limit_s * 1e3:g} ms, a path's delay", met=value <= limit_s)

    down = ours.median(lambda one: one.seen.downtime_s)
    return [
        figure("downtime at 1/10 ms to the xTRs, less the machine's pause and its own first answer",
               lambda one: one.shares.network_s, PATH_S),
        figure("the same, less the machine's pause only", lambda one: one.added_s, PATH_S),
        figure("downtime at 1/10 ms to the xTRs, median", lambda one: one.seen.downtime_s),
        Figure("downtime, against the paper's own figure", "ms", down * 1e3, PAPER_DOWNTIME_S * 1e3,
               "paper, KVM on its hardware", PAPER_DOWNTIME_S / down),
        figure("pause of the machine, median", lambda one: one.result.pause_s),
        figure("first answer of the machine that runs again, at its own tap", lambda one: one.shares.cold_s),
    ]


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
        ours = found.line(case.name, "live", "target", network)
        theirs = found.line(case.name, "paper", "target", network)
        figures.append(Figure(
            f"slope of the downtime less the machine's own share, {case.name} (± {ours.slope_error:.3f})", "ms/ms",
            ours.slope, theirs.slope, "papers' order", None, "0, known to 0.25", _flat(ours),
        ))  # fmt: skip
    return figures
