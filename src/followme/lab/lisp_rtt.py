"""The LISP paper's figure 5: the round trip between a user and its machine before, while and after the machine
moves to it (lisp-based-implementation, IV; when-cloud-services-follow-mobile-users, 7.3.2, figure 15).

The user leaves the near data centre's network, the machine follows it, and both go back; then once more in the
papers' order, so that both orders are in one picture. Round trips are the paper's: near 12 ms, far 250 ms, then
3 ms; 10 ms between the data centres; controller to the routers 1 and 10 ms; 100 Mbit/s links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from followme.lab.latency import TAIL_S, MoveRun, Windows, watch_move
from followme.lab.lisp_document import LispScenarioConfig
from followme.lab.lisp_plan import LispLabConfig
from followme.lab.lisp_scenario import LispScenario
from followme.lab.lisp_watch import EARLY_S, stops, tap_watch
from followme.lab.outage import Outage, outage
from followme.lab.reporting import Say, Tick, ms
from followme.lab.tapwatch import FirstAnswer, first_answer

LINK_BIT_S = 100_000_000
BETWEEN_S, SOURCE_S, TARGET_S = 0.010, 0.001, 0.010
NEAR_S, FAR_S, AFTER_S = 0.012, 0.250, 0.003
MODES: tuple[Literal["live", "paper"], ...] = ("live", "paper")
PAPER_DOWNTIME_S = 0.0075
FULL, QUICK = Windows(20.0, 15.0, 15.0), Windows(3.0, 3.0, 4.0)


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """One watched move for each of ``MODES``, and the machine's first answer at its new tap."""

    runs: Sequence[tuple[str, MoveRun]]
    answers: Sequence[FirstAnswer]
    accel: str
    delay_kind: str

    def figures(self, run: MoveRun, answer: FirstAnswer) -> dict[str, Any]:
        """One move's numbers, units in the keys."""
        if run.migration is None or run.result is None:
            raise RuntimeError("the machine did not follow: " + "; ".join(one.text for one in run.happenings[-4:]))
        begin, end = run.migration
        seen = unreached(run)
        return {
            "rtt_before_ms": ms(run.before_s),
            "rtt_while_carried_ms": ms(carried_rtt(run)),
            "rtt_after_ms": ms(run.after_s),
            "migration_begins_s": round(begin - run.moved_at, 3),
            "migration_ends_s": round(end - run.moved_at, 3),
            "near_again_after_s": None if run.back_near_s is None else round(run.back_near_s, 3),
            "migration_s": round(run.result.total_s, 3),
            "migrated_bytes": run.result.bytes,
            "machine_pause_ms": ms(run.result.pause_s),
            "guest_cold_ms": ms(answer.cold_s),
            "downtime_ms": ms(seen.downtime_s),
            "pings_sent": seen.sent,
            "pings_lost": seen.lost,
            "tcp_session_survived": run.tcp.alive and run.tcp.intact,
            "longest_stall_ms": ms(run.migration_stall_s),
        }

    def _figures(self) -> list[dict[str, Any]]:
        return [self.figures(run, answer) for (_, run), answer in zip(self.runs, self.answers, strict=True)]

    def as_json(self) -> dict[str, Any]:
        return {
            "rtt_between_data_centres_ms": ms(BETWEEN_S), "rtt_controller_source_ms": ms(SOURCE_S),
            "rtt_controller_target_ms": ms(TARGET_S), "link_bit_s": LINK_BIT_S,
            "paper": {
                "rtt_before_ms": ms(NEAR_S), "rtt_while_carried_ms": ms(FAR_S), "rtt_after_ms": ms(AFTER_S),
                "downtime_ms": ms(PAPER_DOWNTIME_S),
            },
            **dict(zip((mode for mode, _ in self.runs), self._figures(), strict=True)),
            "delay_line": self.delay_kind, "acceleration": self.accel,
            "pings": {
                mode: [[round(ping.sent_s - run.moved_at, 4), None if ping.rtt_s is None else ms(ping.rtt_s)]
                       for ping in run.pings]
                for mode, run in self.runs
            },
        }  # fmt: skip

    def rows(self) -> Iterator[tuple[str, ...]]:
        """For a table: a figure, then its value for each mode."""
        found = self._figures()
        for key in found[0]:
            yield (key, *(str(one[key]) for one in found))


def unreached(run: MoveRun) -> Outage:
    """How long the user could not reach the machine while it was carried.

    An answer is due after the far round trip; as the near one brings it sooner, this is what the user sees, and
    may be less than the machine's own pause.
    """
    if run.migration is None or run.result is None:
        raise ValueError("nothing was carried")
    begin, end = run.migration[0], run.migration[1] + TAIL_S
    usual = carried_rtt(run)
    # A far round trip's answers to what was sent before the machine stops are under way until then.
    around = outage(run.pings, stops(run.result) - EARLY_S - usual, end, usual)
    whole = outage(run.pings, begin, end, usual)
    return Outage(around.downtime_s, whole.sent, whole.lost)


def carried_rtt(run: MoveRun) -> float:
    """The median round trip while the machine was carried, in seconds."""
    if run.migration is None:
        raise ValueError("nothing was carried")
    begin, end = run.migration
    return median(run.rtts(begin, end - (end - begin) / 4))


def setting() -> LispScenarioConfig:
    """The paper's delays. The user's way to the other data centre leads through its own network's."""
    lab = LispLabConfig(
        between_sites_rtt_s=BETWEEN_S, uplink_rate_bit_s=LINK_BIT_S,
        round_trips={
            frozenset({"wlan1", "dc1"}): NEAR_S, frozenset({"wlan2", "dc1"}): FAR_S,
            frozenset({"wlan2", "dc2"}): AFTER_S, frozenset({"wlan1", "dc2"}): NEAR_S + BETWEEN_S,
            frozenset({"ctl", "dc1"}): SOURCE_S, frozenset({"ctl", "dc2"}): TARGET_S,
        },
    )  # fmt: skip
    return LispScenarioConfig(lab=lab, policy="always")


async def measure(scenario: LispScenario, windows: Windows, say: Say, tick: Tick | None = None) -> RoundTrips:
    """Both moves. ``RuntimeError`` if the machine did not follow."""
    runs: list[tuple[str, MoveRun]] = []
    answers: list[FirstAnswer] = []
    for mode in MODES:
        scenario.controller.mode = "live"
        say("the user is at wlan1, its machine at dc1")
        await scenario.move_client("wlan1")
        await scenario.idle()
        scenario.controller.mode = mode
        say(f"--- order: {'ours' if mode == 'live' else 'the papers'}")
        async with tap_watch(scenario, "dc2") as came:
            run = await watch_move(scenario, "wlan2", windows, tick)
        if not run.followed or run.result is None:
            raise RuntimeError("the machine did not follow: " + "; ".join(one.text for one in run.happenings[-4:]))
        runs.append((mode, run))
        answers.append(first_answer(came.frames, run.result.resumed_at))
    return RoundTrips(runs, answers, scenario.accel, scenario.delay_kind)
