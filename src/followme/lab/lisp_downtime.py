"""The LISP paper's figure 6: how long the machine cannot be reached when it is carried, against the controller's
distance from the target (lisp-based-implementation, IV; when-cloud-services-follow-mobile-users, 7.3.2, figure 16).

The papers' order and ours are measured in turn on the same lab. A data centre's agent runs on its router here, so
the controller's round trip to the data centre and to its router are one: it is what varies, and that of the other
data centre is the case's. The machine goes there and comes back: on its way back the same round trip is that of the
source, so that both ends' share is seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from followme.controllers.events import Happening
from followme.domain import Migration, MigrationState
from followme.lab.document import MACHINE
from followme.lab.lisp_document import LispScenarioConfig
from followme.lab.lisp_plan import LispLabConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.outage import Line, Outage, fit, outage
from followme.lab.pinger import Pinger
from followme.migration.mover import Result

Say = Callable[[str], None]
Step = Callable[[], None]

MODES = ("paper", "live")
DIRECTIONS = {"target": ("dc1", "dc2"), "source": ("dc2", "dc1")}
"""Whose round trip to the controller varies (always dc2's), and from where to where the machine is carried then."""
LINK_BIT_S = 100_000_000
BETWEEN_S = 0.010
"""Round trip between the data centres."""
USER_S = 0.012
"""Round trip from the user to either data centre: the same, so that an outage is seen as long as it is."""
PROBE_EVERY_S = 0.001
BEFORE_S, AFTER_S, BACK_S = 1.2, 1.0, 10.0
EARLY_S = 0.2
TELLING = 0.25
"""A slope that is known no better than to half of what the papers' order must have is not known."""
MEMORY_MIB = 96
FULL_X_S, QUICK_X_S = (0.001, 0.025, 0.050, 0.075, 0.100), (0.001, 0.050, 0.100)


@dataclass(frozen=True, slots=True)
class Case:
    """Round trips, in seconds, from the controller to dc1's router and, in the paper, to dc2's."""

    name: str
    dc1_s: float
    paper_dc2_s: float


CASES = (Case("case 1", 0.100, 0.010), Case("case 2", 0.050, 0.050))


@dataclass(frozen=True, slots=True)
class Sample:
    """One migration: what a user saw, the machine's own pause, and the whole, in seconds. ``varied`` is the end
    whose round trip to the controller is ``varied_s``; that of the other end is ``fixed_s``."""

    case: str
    mode: str
    varied: str
    varied_s: float
    fixed_s: float
    downtime_s: float
    pause_s: float
    migration_s: float
    bytes: int
    probes: int
    lost: int


@dataclass(frozen=True, slots=True)
class Downtimes:
    """All samples, with the lines through them."""

    samples: Sequence[Sample]
    accel: str = ""
    delay_kind: str = ""
    cases: Sequence[Case] = field(default=CASES)

    def of(self, case: str, mode: str, varied: str) -> list[Sample]:
        return [one for one in self.samples if (one.case, one.mode, one.varied) == (case, mode, varied)]

    def points(self, case: str, mode: str, varied: str) -> Iterator[tuple[float, list[Sample]]]:
        """(round trip controller - data centre, its samples), by the round trip."""
        mine = self.of(case, mode, varied)
        for x in sorted({one.varied_s for one in mine}):
            yield x, [one for one in mine if one.varied_s == x]

    def line(self, case: str, mode: str, varied: str, *, less_pause: bool = False) -> Line:
        """Downtime against the round trip; ``less_pause``: only what it adds to the machine's own pause."""
        mine = self.of(case, mode, varied)
        return fit([one.varied_s for one in mine], [added(one) if less_pause else one.downtime_s for one in mine])

    def series(self) -> Iterator[tuple[Case, str, str]]:
        """(case, mode, varied) of all lines."""
        return ((case, mode, varied) for varied in DIRECTIONS for case in self.cases for mode in MODES)

    def as_json(self) -> dict[str, Any]:
        return {
            "link_bit_s": LINK_BIT_S, "rtt_between_data_centres_ms": _ms(BETWEEN_S), "rtt_user_ms": _ms(USER_S),
            "probe_every_ms": _ms(PROBE_EVERY_S), "memory_mib": MEMORY_MIB,
            "delay_line": self.delay_kind, "acceleration": self.accel,
            "cases": [
                {"case": one.name, "rtt_controller_fixed_ms": _ms(one.dc1_s),
                 "paper_rtt_controller_target_ms": _ms(one.paper_dc2_s)}
                for one in self.cases
            ],
            "samples": [
                {"case": one.case, "mode": one.mode, "varied": one.varied,
                 "rtt_controller_varied_ms": _ms(one.varied_s), "rtt_controller_fixed_ms": _ms(one.fixed_s),
                 "downtime_ms": _ms(one.downtime_s), "machine_pause_ms": _ms(one.pause_s),
                 "migration_s": round(one.migration_s, 3), "migrated_bytes": one.bytes,
                 "probes_sent": one.probes, "probes_lost": one.lost}
                for one in self.samples
            ],
            "lines": [
                {"case": case.name, "mode": mode, "varied": varied, "of": of, "slope": round(line.slope, 4),
                 "slope_error": round(line.slope_error, 4), "slope_doubt": round(line.doubt, 4),
                 "intercept_ms": _ms(line.intercept), "points": line.points, "flat": line.flat}
                for case, mode, varied in self.series()
                for of, line in (
                    ("downtime", self.line(case.name, mode, varied)),
                    ("downtime_less_pause", self.line(case.name, mode, varied, less_pause=True)),
                )
            ],
        }  # fmt: skip

    def rows(self) -> Iterator[tuple[str, ...]]:
        """For a table: varied end, case, mode, round trip, downtime (median; least and most), pause, what is added
        to it, probes lost, migrations; times in ms."""
        for case, mode, varied in self.series():
            for x, mine in self.points(case.name, mode, varied):
                times = sorted(one.downtime_s * 1e3 for one in mine)
                yield (
                    varied, case.name, mode, f"{x * 1e3:g}", f"{median(times):.1f}",
                    f"{times[0]:.1f} - {times[-1]:.1f}", f"{median(one.pause_s for one in mine) * 1e3:.1f}",
                    f"{median(map(added, mine)) * 1e3:.1f}", f"{sum(one.lost for one in mine) / len(mine):.1f}",
                    str(len(mine)),
                )  # fmt: skip

    def sentences(self) -> Iterator[str]:
        """The slopes."""
        for case, mode, varied in self.series():
            whole = self.line(case.name, mode, varied)
            less = self.line(case.name, mode, varied, less_pause=True)
            verdict = "rises" if less.slope > 0 else "falls"
            if less.flat:
                verdict = "flat" if less.doubt < TELLING else "too few migrations to tell"
            yield (
                f"{case.name}, {mode}, round trip controller - {varied}: slope {_slope(whole)} of the downtime, "
                f"{_slope(less)} without the machine's own pause: {verdict}"
            )


def added(one: Sample) -> float:
    """What the network adds to the machine's own pause, in seconds."""
    return one.downtime_s - one.pause_s


def setting(dc1_s: float, dc2_s: float) -> LispScenarioConfig:
    """The lab for one point, by the controller's round trips: nobody follows by itself, links of 100 Mbit/s."""
    lab = LispLabConfig(
        between_sites_rtt_s=BETWEEN_S, uplink_rate_bit_s=LINK_BIT_S,
        round_trips={
            frozenset({"wlan1", "dc1"}): USER_S, frozenset({"wlan1", "dc2"}): USER_S,
            frozenset({"ctl", "dc1"}): dc1_s, frozenset({"ctl", "dc2"}): dc2_s,
        },
    )  # fmt: skip
    return LispScenarioConfig(lab=lab, policy="never", memory_mib=MEMORY_MIB)


async def watched(
    scenario: LispScenario, target: str, mode: str, *, every_s: float = PROBE_EVERY_S
) -> tuple[Outage, float]:
    """Carry the machine while the user pings it: what the user saw, and the seconds from the order to the end.
    ``RuntimeError`` if the machine is not reached again.

    Pings lost are counted from the order until a second after the end. The downtime is that around the switch: from
    ``EARLY_S`` before the machine stops. What is slow before is the lab's one host, on which a QEMU starts.
    """
    first = len(scenario.happenings)
    async with Pinger(scenario.client.namespace, scenario.machine_identifier, interval_s=every_s) as pinger:
        await asyncio.sleep(BEFORE_S)
        begin = time.monotonic()
        await scenario.controller.carry(MACHINE, target, mode)
        took = time.monotonic() - begin
        await asyncio.sleep(AFTER_S)
        deadline = time.monotonic() + BACK_S
        while all(ping.rtt_s is None for ping in pinger.pings[-round(0.1 / every_s) :]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{MACHINE} was not reached within {BACK_S:g} s after its migration to {target}")
            await asyncio.sleep(0.05)
        end = time.monotonic()
        await asyncio.sleep(0.2)
    result = scenario.result
    if result is None:
        raise RuntimeError(f"{MACHINE} was carried without a result")
    switched = stops(scenario.happenings[first:], result) - EARLY_S
    seen, whole = outage(pinger.pings, switched, end), outage(pinger.pings, begin, end)
    return Outage(seen.downtime_s, whole.sent, whole.lost), took


def stops(happenings: Sequence[Happening], result: Result) -> float:
    """When the machine stops or its traffic turns, whichever is first, at the latest (``time.monotonic()``): from
    the first that the controller hears of the redirect once memory flows."""
    flows = min(one.at for one in happenings
                if isinstance(one.fact, Migration) and one.fact.state is MigrationState.TRANSFERRING)  # fmt: skip
    heard = min(one.at for one in happenings if one.step == "continuity" and one.at > flows)
    return heard - result.pause_s - result.held_s


async def samples(scenario: LispScenario, case: Case, dc2_s: float, rounds: int, step: Step) -> list[Sample]:
    """``rounds`` times there and back in each order, in turn."""
    found = []
    for number in range(rounds):
        for mode in MODES if number % 2 else MODES[::-1]:
            for varied, (_, goal) in DIRECTIONS.items():
                seen, _ = await watched(scenario, goal, mode)
                result = scenario.result
                if result is None:
                    raise RuntimeError(f"{MACHINE} was carried without a result")
                found.append(Sample(
                    case.name, mode, varied, dc2_s, case.dc1_s, seen.downtime_s, result.pause_s, result.total_s,
                    result.bytes, seen.sent, seen.lost,
                ))  # fmt: skip
                step()
    return found


def visits(quick: bool) -> list[tuple[Case, float]]:
    """Which labs are built, in which order: up and down, so that a drift of this machine is no slope."""
    plan = []
    for number, xs in enumerate([QUICK_X_S] if quick else [FULL_X_S, FULL_X_S[::-1]]):
        for case in CASES if number % 2 == 0 else CASES[::-1]:
            plan += [(case, dc2_s) for dc2_s in xs]
    return plan


def total(quick: bool) -> int:
    """How many watched migrations there are."""
    return len(visits(quick)) * len(MODES) * len(DIRECTIONS) * rounds_of(quick)


def rounds_of(quick: bool) -> int:
    return 1 if quick else 2


async def measure(quick: bool, say: Say, step: Step) -> Downtimes:
    """All points; ``step`` is called after each watched migration."""
    found: list[Sample] = []
    accel = delays = ""
    for case, dc2_s in visits(quick):
        async with LispScenario(setting(case.dc1_s, dc2_s)) as scenario:
            accel, delays = scenario.accel, scenario.delay_kind
            await scenario.move_client("wlan1")
            mine = await samples(scenario, case, dc2_s, rounds_of(quick), step)
        found += mine
        for one in mine:
            say(f"{one.case}, controller - {one.varied} {one.varied_s * 1e3:g} ms, {one.mode}: not reached for "
                f"{one.downtime_s * 1e3:.1f} ms, machine paused for {one.pause_s * 1e3:.1f} ms, "
                f"{one.lost} of {one.probes} probes lost")  # fmt: skip
    return Downtimes(found, accel, delays)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _slope(line: Line) -> str:
    return f"{line.slope:+.3f} ± {line.slope_error:.3f}"
