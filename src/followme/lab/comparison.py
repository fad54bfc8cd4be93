"""With following against without: runs both in one lab and says what was measured, as numbers and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from followme.lab.document import MACHINE, USER
from followme.lab.latency import TAIL_S, FirstPacket, MoveRun, Windows, first_packet, told_on_demand, watch_move
from followme.lab.reporting import Say, Tick, draw_pings, ms
from followme.lab.stage import Stage
from followme.migration.mover import Result
from followme.system.picture import picture


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both runs, and what the network's devices and the first packet showed."""

    plane: str
    without: MoveRun
    following: MoveRun
    first: FirstPacket
    on_demand: tuple[float, float]
    rules: dict[str, int]
    delay_kind: str
    accel: str

    @property
    def result(self) -> Result:
        assert self.following.result is not None
        return self.following.result

    def figures(self) -> dict[str, Any]:
        """The JSON object: SI units in the key names."""
        run, result = self.following, self.result
        assert run.migration is not None
        begin, end = run.migration[0], run.migration[1] + TAIL_S
        sent, lost = run.sent_and_lost(begin, end)
        every = run.sent_and_lost(run.started_at, run.pings[-1].sent_s + 1.0)
        back = run.back_near_s
        return {
            "plane": self.plane,
            "rtt_before_ms": ms(run.before_s),
            "rtt_after_ms": ms(run.after_s),
            "rtt_without_following_ms": ms(self.without.after_s),
            "near_again_after_s": None if back is None else round(back, 3),
            "pings_sent": sent,
            "pings_lost": lost,
            "pings_sent_whole_run": every[0],
            "pings_lost_whole_run": every[1],
            "pings_twice": run.duplicates,
            "tcp_session_survived": run.tcp.alive and run.tcp.intact,
            "tcp_bytes_echoed": run.tcp.received_bytes,
            "longest_stall_ms": ms(run.migration_stall_s),
            "handover_stall_ms": ms(run.handover_stall_s),
            "machine_pause_ms": ms(result.pause_s),
            "migration_s": round(result.total_s, 3),
            "migrated_bytes": result.bytes,
            "migration_mode": result.mode,
            "first_packet_ms": ms(self.first.median_s),
            "first_packet_over_path_ms": ms(self.first.over_path_s),
            "first_packet_ever_ms": ms(self.first.ever_s),
            "first_packet_of_untold_peer_ms": ms(self.on_demand[0]),
            "first_packet_of_untold_peer_over_path_ms": ms(self.on_demand[0] - self.on_demand[1]),
            **self.rules,
            "delay_line": self.delay_kind,
            "acceleration": self.accel,
        }


async def compare(scenario: Stage, windows: Windows, say: Say, tick: Tick | None = None) -> Comparison:
    """The user moves wlan1 -> wlan2 twice: first nobody follows, then the machine does (the lab's policy)."""
    policy = scenario.policy
    say(f"{USER} joins wlan1")
    await scenario.move_client("wlan1")
    first = await first_packet(scenario)
    say(f"first packet of a new flow: {ms(first.median_s)} ms, the path itself {ms(first.path_s)} ms")
    say("--- without following (policy never)")
    scenario.use_policy("never", {})
    without = await watch_move(scenario, "wlan2", windows, tick)
    say(f"{USER} goes back to wlan1")
    await scenario.move_client("wlan1")
    await scenario.idle()
    say(f"--- with following (policy {policy[0]})")
    scenario.use_policy(*policy)
    following = await watch_move(scenario, "wlan2", windows, tick)
    if not following.followed:
        raise RuntimeError(
            f"{MACHINE} did not follow: " + "; ".join(
                one.text for one in following.happenings if one.step in ("placement", "migration"))
        )  # fmt: skip
    rules = await scenario.count_entries()
    say("a peer that nobody knew joins wlan1 and talks to the machine, wherever that is")
    on_demand = await told_on_demand(scenario)
    return Comparison(
        scenario.plane, without, following, first, on_demand, rules, scenario.delay_kind, scenario.accel
    )


def plot(comparison: Comparison, path: Path) -> None:
    """Ping latency over time from the move, for both cases, on a logarithmic scale."""
    with picture(path, (9, 4.5)) as (axes,):
        for run, label, colour in (
            (comparison.without, "without following", "tab:red"),
            (comparison.following, "with following", "tab:blue"),
        ):
            draw_pings(axes, run.pings, run.moved_at, 200.0, label, colour)
        migration = comparison.following.migration
        if migration:
            begin, end = (at - comparison.following.moved_at for at in migration)
            axes.axvspan(begin, end, color="tab:blue", alpha=0.12, label="the machine is carried")
        axes.axvline(0.0, color="black", linewidth=0.8, linestyle="--")
        axes.annotate("the user moves", (0.0, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -12),
                      textcoords="offset points", fontsize=8)  # fmt: skip
        axes.set_yscale("log")
        axes.set_ylim(0.5, 300.0)
        axes.set_xlabel("seconds after the user's move")
        axes.set_ylabel("round trip of a ping, ms")
        axes.set_title("Ping latency between a mobile user and its machine")
        axes.grid(True, which="both", alpha=0.25)
        axes.legend(loc="upper left", fontsize=8, markerscale=2)
