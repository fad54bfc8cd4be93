"""The LISP paper's figure 6: how long the machine cannot be reached when it is carried, against the controller's
distance from the target (lisp-based-implementation, IV; when-cloud-services-follow-mobile-users, 7.3.2, figure 16).

The papers' order and ours are measured in turn on the same lab. A data centre's agent runs on its router here, so
the controller's round trip to the data centre and to its router are one: it is what varies, and that of the other
data centre is the case's. The machine goes there and comes back: on its way back the same round trip is that of the
source, so that both ends' share is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from followme.lab.lisp_document import LispScenarioConfig
from followme.lab.lisp_plan import LispLabConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.lisp_watch import PROBE_EVERY_S, watched
from followme.lab.outage import Line, fit
from followme.lab.reporting import Say, Step, ms

MODES = ("paper", "live")
DIRECTIONS = {"target": ("dc1", "dc2"), "source": ("dc2", "dc1")}
"""Whose round trip to the controller varies (always dc2's), and from where to where the machine is carried then."""
LINK_BIT_S = 100_000_000
BETWEEN_S = 0.010
"""Round trip between the data centres."""
USER_S = 0.012
"""Round trip from the user to either data centre: the same, so that an outage is seen as long as it is."""
TELLING = 0.25
"""A slope that is known no better than to half of what the papers' order must have is not known."""
MEMORY_MIB = 96
FIVE_X_S, THREE_X_S = (0.001, 0.025, 0.050, 0.075, 0.100), (0.001, 0.050, 0.100)


@dataclass(frozen=True, slots=True)
class Case:
    """Round trips, in seconds, from the controller to dc1's router and, in the paper, to dc2's."""

    name: str
    dc1_s: float
    paper_dc2_s: float


CASES = (Case("case 1", 0.100, 0.010), Case("case 2", 0.050, 0.050))


@dataclass(frozen=True, slots=True)
class Sweep:
    """Which round trips are measured, in each pass in that order, and how often there and back in each lab."""

    passes: Sequence[Sequence[float]]
    rounds: int

    def visits(self) -> list[tuple[Case, float]]:
        """Which labs are built, in which order."""
        plan = []
        for number, xs in enumerate(self.passes):
            for case in CASES if number % 2 == 0 else CASES[::-1]:
                plan += [(case, dc2_s) for dc2_s in xs]
        return plan

    @property
    def total(self) -> int:
        """How many watched migrations there are."""
        return len(self.visits()) * len(MODES) * len(DIRECTIONS) * self.rounds


# Up and down, so that a drift of this machine is no slope.
FULL, SHORT = Sweep((FIVE_X_S, FIVE_X_S[::-1]), 2), Sweep((THREE_X_S, THREE_X_S[::-1]), 2)
QUICK = Sweep((THREE_X_S,), 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """One migration: what a user saw, the machine's own pause, how long it then took for its first answer, and the
    whole, in seconds. ``varied`` is the end whose round trip to the controller is ``varied_s``; that of the other
    end is ``fixed_s``. ``silent_s``: from the machine's last answer at the source to its stop."""

    case: str
    mode: str
    varied: str
    varied_s: float
    fixed_s: float
    downtime_s: float
    pause_s: float
    guest_cold_s: float
    network_s: float
    silent_s: float
    migration_s: float
    bytes: int
    probes: int
    lost: int


def downtime(one: Sample) -> float:
    """All of it, in seconds."""
    return one.downtime_s


def added(one: Sample) -> float:
    """What is added to the machine's own pause, in seconds."""
    return one.downtime_s - one.pause_s


def network(one: Sample) -> float:
    """What is neither the machine's own pause nor its own way to the answer, in seconds (``lisp_watch.Shares``)."""
    return one.network_s


Part = Callable[[Sample], float]
PARTS: dict[str, Part] = {"downtime": downtime, "downtime_less_pause": added, "network": network}


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

    def line(self, case: str, mode: str, varied: str, part: Part = downtime) -> Line:
        """A part of the downtime against the round trip."""
        mine = self.of(case, mode, varied)
        return fit([one.varied_s for one in mine], [part(one) for one in mine])

    def series(self) -> Iterator[tuple[Case, str, str]]:
        """(case, mode, varied) of all lines."""
        return ((case, mode, varied) for varied in DIRECTIONS for case in self.cases for mode in MODES)

    def as_json(self) -> dict[str, Any]:
        return {
            "link_bit_s": LINK_BIT_S, "rtt_between_data_centres_ms": ms(BETWEEN_S), "rtt_user_ms": ms(USER_S),
            "probe_every_ms": ms(PROBE_EVERY_S), "memory_mib": MEMORY_MIB,
            "delay_line": self.delay_kind, "acceleration": self.accel,
            "cases": [
                {"case": one.name, "rtt_controller_fixed_ms": ms(one.dc1_s),
                 "paper_rtt_controller_target_ms": ms(one.paper_dc2_s)}
                for one in self.cases
            ],
            "samples": [
                {"case": one.case, "mode": one.mode, "varied": one.varied,
                 "rtt_controller_varied_ms": ms(one.varied_s), "rtt_controller_fixed_ms": ms(one.fixed_s),
                 "downtime_ms": ms(one.downtime_s), "machine_pause_ms": ms(one.pause_s),
                 "guest_cold_ms": ms(one.guest_cold_s), "network_ms": ms(network(one)),
                 "last_answer_before_stop_ms": ms(one.silent_s),
                 "migration_s": round(one.migration_s, 3), "migrated_bytes": one.bytes,
                 "probes_sent": one.probes, "probes_lost": one.lost}
                for one in self.samples
            ],
            "lines": [
                {"case": case.name, "mode": mode, "varied": varied, "of": of, "slope": round(line.slope, 4),
                 "slope_error": round(line.slope_error, 4), "slope_doubt": round(line.doubt, 4),
                 "intercept_ms": ms(line.intercept), "points": line.points, "flat": line.flat}
                for case, mode, varied in self.series()
                for of, part in PARTS.items()
                for line in [self.line(case.name, mode, varied, part)]
            ],
        }  # fmt: skip

    def rows(self) -> Iterator[tuple[str, ...]]:
        """For a table: varied end, case, mode, round trip, downtime (median; least and most), pause, the guest's
        way to its first answer, what the network adds to both, probes lost, migrations; times in ms."""
        for case, mode, varied in self.series():
            for x, mine in self.points(case.name, mode, varied):
                times = sorted(one.downtime_s * 1e3 for one in mine)
                yield (
                    varied, case.name, mode, f"{x * 1e3:g}", f"{median(times):.1f}",
                    f"{times[0]:.1f} - {times[-1]:.1f}", f"{median(one.pause_s for one in mine) * 1e3:.1f}",
                    f"{median(one.guest_cold_s for one in mine) * 1e3:.1f}",
                    f"{median(map(network, mine)) * 1e3:.1f}", f"{sum(one.lost for one in mine) / len(mine):.1f}",
                    str(len(mine)),
                )  # fmt: skip

    def sentences(self) -> Iterator[str]:
        """The slopes."""
        for case, mode, varied in self.series():
            whole, less, rest = (self.line(case.name, mode, varied, part) for part in PARTS.values())
            verdict = "rises" if rest.slope > 0 else "falls"
            if rest.flat:
                verdict = "flat" if rest.doubt < TELLING else "too few migrations to tell"
            yield (
                f"{case.name}, {mode}, round trip controller - {varied}: slope {_slope(whole)} of the downtime, "
                f"{_slope(less)} without the machine's own pause, {_slope(rest)} without its own first answer too: "
                f"{verdict}"
            )


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


async def samples(scenario: LispScenario, case: Case, dc2_s: float, rounds: int, step: Step) -> list[Sample]:
    """``rounds`` times there and back in each order, in turn."""
    found = []
    for number in range(rounds):
        for mode in MODES if number % 2 else MODES[::-1]:
            for varied, (_, goal) in DIRECTIONS.items():
                one = await watched(scenario, goal, mode)
                seen, result = one.seen, one.result
                found.append(Sample(
                    case.name, mode, varied, dc2_s, case.dc1_s, seen.downtime_s, result.pause_s, one.shares.cold_s,
                    one.shares.network_s, one.silent_s, result.total_s, result.bytes, seen.sent, seen.lost,
                ))  # fmt: skip
                step()
    return found


async def measure(sweep: Sweep, say: Say, step: Step) -> Downtimes:
    """All points; ``step`` is called after each watched migration."""
    found: list[Sample] = []
    accel = delays = ""
    for case, dc2_s in sweep.visits():
        async with LispScenario(setting(case.dc1_s, dc2_s)) as scenario:
            accel, delays = scenario.accel, scenario.delay_kind
            await scenario.move_client("wlan1")
            mine = await samples(scenario, case, dc2_s, sweep.rounds, step)
        found += mine
        for one in mine:
            say(f"{one.case}, controller - {one.varied} {one.varied_s * 1e3:g} ms, {one.mode}: not reached for "
                f"{one.downtime_s * 1e3:.1f} ms, machine paused for {one.pause_s * 1e3:.1f} ms, its own first "
                f"answer {one.guest_cold_s * 1e3:.1f} ms, the rest {network(one) * 1e3:.1f} ms, "
                f"{one.lost} of {one.probes} probes lost")  # fmt: skip
    return Downtimes(found, accel, delays)


def _slope(line: Line) -> str:
    return f"{line.slope:+.3f} ± {line.slope_error:.3f}"
