"""The papers' figure 5: what a user's pings and an open TCP session see while it moves, with and without
following (openflow-based-implementation, IV.C; when-cloud-services-follow-mobile-users, 7.3.1)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from followme.controllers.events import Happening
from followme.lab.meter import Meter
from followme.lab.pinger import Ping, Pinger
from followme.lab.reporting import Tick
from followme.lab.stage import Stage
from followme.lab.tcpmeter import TcpReport
from followme.migration.mover import Result
from followme.system import netns

PING_EVERY_S = 0.010
TAIL_S = 1.0
"""Pings and stalls count as the migration's until this long after it."""
WINDOW = 50
"""Pings of half a second."""
NEAR_S = 0.0015
"""A ping is back at the near path's round trip when it is within this of it."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Seconds to watch before the user moves, after the move, and after the machine has followed."""

    before_s: float = 3.0
    after_s: float = 5.0
    settled_s: float = 3.0


@dataclass(frozen=True, slots=True)
class MoveRun:
    """One move of the user, watched. All times are ``time.monotonic()``."""

    followed: bool
    pings: Sequence[Ping]
    duplicates: int
    started_at: float
    moved_at: float
    attached_at: float
    migration: tuple[float, float] | None
    result: Result | None
    tcp: TcpReport
    happenings: Sequence[Happening] = field(default_factory=tuple)

    def rtts(self, begin: float, end: float) -> list[float]:
        """Round trips, in seconds, of the pings sent in between that were answered."""
        return [ping.rtt_s for ping in self.pings if ping.rtt_s is not None and begin <= ping.sent_s < end]

    @property
    def handover_stall_s(self) -> float:
        """The session's longest stall while the user itself changes networks."""
        until = self.migration[0] if self.migration else self.attached_at + TAIL_S
        return self.tcp.longest_between(self.moved_at, until)

    @property
    def migration_stall_s(self) -> float:
        """The session's longest stall while the machine is carried."""
        return self.tcp.longest_between(self.migration[0], self.migration[1] + TAIL_S) if self.migration else 0.0

    @property
    def before_s(self) -> float:
        """The median round trip before the user moves."""
        return median(self.rtts(self.started_at + 0.5, self.moved_at))

    @property
    def after_s(self) -> float:
        """The median round trip of the last seconds."""
        end = self.pings[-1].sent_s
        return median(self.rtts(end - 2.0, end + 1.0))

    def sent_and_lost(self, begin: float, end: float) -> tuple[int, int]:
        """How many pings were sent in between, and how many of these nothing came back of."""
        window = [ping for ping in self.pings if begin <= ping.sent_s < end]
        return len(window), sum(ping.rtt_s is None for ping in window)

    @property
    def back_near_s(self) -> float | None:
        """Seconds from the move until the median ping of each half second is within 1.5 ms of the near path's,
        and stays so; ``None`` if it never is. The median, for single late pings are this machine's noise."""
        near = self.before_s + NEAR_S
        after = [ping for ping in self.pings if ping.sent_s >= self.attached_at]
        back: float | None = None
        for index in range(len(after) - WINDOW):
            window = [one.rtt_s for one in after[index : index + WINDOW] if one.rtt_s is not None]
            if len(window) < WINDOW // 2 or median(window) > near:
                back = None
            elif back is None:
                back = after[index].sent_s - self.moved_at
        return back


@dataclass(frozen=True, slots=True)
class FirstPacket:
    """Round trips in seconds: of a new flow's first packet (median of the rounds), of those that follow, and
    of the very first packet that the guest has ever seen (an emulated guest's own code is cold then)."""

    median_s: float
    path_s: float
    ever_s: float

    @property
    def over_path_s(self) -> float:
        """What a flow's first packet takes longer than the next."""
        return self.median_s - self.path_s


async def first_packet(scenario: Stage, rounds: int = 5) -> FirstPacket:
    """Start new flows of which nothing is known: before each round the client's ARP cache and the network's
    flow caches are emptied (rules and mappings stay)."""
    client = scenario.client
    firsts: list[float] = []
    others: list[float] = []
    for _ in range(rounds + 1):
        await netns.ip(client.namespace, [f"neighbour flush dev {client.interface}"])
        await scenario.forget_flows()
        async with Pinger(client.namespace, scenario.machine_identifier, interval_s=PING_EVERY_S) as pinger:
            await asyncio.sleep(0.4)
        first = pinger.pings[0].rtt_s
        if first is None:
            raise RuntimeError(
                f"the first ping to {scenario.machine_identifier} was not answered; "
                f"{len(pinger.lost)} of {len(pinger.pings)} were lost"
            )
        firsts.append(first)
        others += [ping.rtt_s for ping in pinger.pings[5:] if ping.rtt_s is not None]
    return FirstPacket(median(firsts[1:]), median(others), firsts[0])


async def told_on_demand(scenario: Stage) -> tuple[float, float]:
    """(round trip of a new peer's first packet, median of the next) in seconds, where nothing is prepared.

    The peer joins wlan1, where nobody knows where the machine has gone. By OpenFlow its first packet goes by way
    of home, the controller hears of it, and the machine's answer waits until the peer's switch is told; by LISP
    it waits for the map server's answer, unless the router knows the mapping from another flow.
    """
    peer = await scenario.add_peer()
    async with Pinger(peer, scenario.machine_identifier, interval_s=PING_EVERY_S) as pinger:
        await asyncio.sleep(1.0)
    first = pinger.pings[0].rtt_s
    if first is None:
        raise RuntimeError(f"the first ping of a new peer to {scenario.machine_identifier} was not answered")
    return first, median(ping.rtt_s for ping in pinger.pings[20:] if ping.rtt_s is not None)


async def watch_move(scenario: Stage, target: str, windows: Windows, tick: Tick | None = None) -> MoveRun:
    """Watch the user go to access network ``target``; its machine follows if the policy says so.

    ``tick`` gets the last round trip (seconds or None) ten times a second.
    """
    seen_before = len(scenario.happenings)
    home = scenario.machine_network
    async with Meter(
        scenario.client.namespace, scenario.machine_identifier, interval_s=PING_EVERY_S, tick=tick
    ) as meter:
        started = time.monotonic()
        await asyncio.sleep(windows.before_s)
        moved = time.monotonic()
        await scenario.move_client(target)
        attached = time.monotonic()
        await scenario.idle()
        await asyncio.sleep(max(0.0, windows.after_s - (time.monotonic() - attached)))
        followed = scenario.machine_network != home
        if followed:
            await asyncio.sleep(windows.settled_s)
    happenings = scenario.happenings[seen_before:]
    steps = [happening.at for happening in happenings if happening.step == "migration"]
    return MoveRun(
        followed=followed, pings=meter.pings, duplicates=meter.duplicates, started_at=started, moved_at=moved,
        attached_at=attached, migration=(steps[0], steps[-1]) if steps else None,
        result=scenario.result, tcp=meter.tcp, happenings=happenings,
    )  # fmt: skip
