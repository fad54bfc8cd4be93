"""A machine follows its user, in the real lab: what a session notices, and how long it takes.

Migrations run with a TCP session and pings every 10 ms from a client at wlan2, in our order (make before
break) and in the papers' (the network learns of the machine when it shows up), in turn. The limits are those
of the papers' measurements and of the lab's own links.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.figures import Figure, Say, Skipped
from followme.lab.latency import PING_EVERY_S, TAIL_S, MoveRun, Windows, first_packet, watch_move
from followme.lab.pinger import Pinger
from followme.lab.scenario import MACHINE, Scenario, ScenarioConfig
from followme.lab.tcpmeter import TcpMeter
from followme.lab.topology import LabConfig
from followme.migration.convergence import BRAKE_TIME
from followme.migration.mover import Result
from followme.system import needs
from followme.system.netns import socket_in

IN_A_ROW = 10
STALL_S = 0.150
FOLLOW_S, PAPER_FOLLOW_S = 10.0, 32.0
FIRST_PACKET_S, PAPER_FIRST_PACKET_S = 0.005, 0.150
PAPER_RULES = {"home": ("dc1", 3, "3 + H, H = 0"), "foreign": ("dc2", 6, "6 + F, F = 0"),
               "correspondent": ("wlan2", 4, "3 + C, C = 1")}  # fmt: skip
"""Their equations 2 to 4 for this lab: nobody but the one user at wlan2 talks to the machine."""
LIMITED_BIT_S = 200_000_000
PLAIN_S = 2.0
PLAIN_PORT = 5001
_HELD = (
    f"each transfer holds twice for {2 * BRAKE_TIME:.2f} s and goes by small quanta near a pass's end, so that "
    "QEMU leaves the moment of the pause to us (migration/convergence.py)"
)
BACK_S = 10.0
"""How long a machine may be unreachable after a migration in the papers' order."""


@dataclass(slots=True)
class Row:
    """Migrations in a row under one session: a stall for each, and the whole row's pings."""

    mode: str
    stalls: list[float] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    alive: bool = False
    intact: bool = False
    sent: int = 0
    lost: int = 0
    twice: int = 0


def figures(quick: bool, say: Say) -> list[Figure]:
    problems = needs.check(needs.MACHINE_LAB)
    if problems:
        raise Skipped("; ".join(problems))
    return asyncio.run(_figures(quick, say))


async def _figures(quick: bool, say: Say) -> list[Figure]:
    async with Scenario(ScenarioConfig(policy="always")) as scenario:
        say(f"lab with {scenario.accel}, delays by {scenario.lab.delay.kind}")
        found = [await _first_packet(scenario, 5 if quick else 15, say)]
        found += await _following(scenario, 2 if quick else 6, say)
        found += await _rules(scenario)
        found += await _rows(scenario, quick, say)
        found.append(await _throughput(scenario, 2 if quick else 6, say))
    async with Scenario(ScenarioConfig(policy="never", lab=LabConfig(management_rate_bit_s=LIMITED_BIT_S))) as slow:
        found.append(await _limited(slow, 2 if quick else 4, say))
    return found


async def _first_packet(scenario: Scenario, rounds: int, say: Say) -> Figure:
    await scenario.lab.move_client("wlan1")
    await scenario.controller.deciding.idle()
    first = await first_packet(scenario, rounds)
    say(f"first packet: median of {rounds} rounds {_ms(first.median_s)}, the path itself {_ms(first.path_s)}, "
        f"the guest's first packet ever {_ms(first.ever_s)}")  # fmt: skip
    over = first.over_path_s
    return Figure("first packet of a new flow, over the path's own delay", "ms", over * 1e3,
                  PAPER_FIRST_PACKET_S * 1e3, "paper", PAPER_FIRST_PACKET_S / max(over, 1e-6), "<= 5 ms",
                  over <= FIRST_PACKET_S)  # fmt: skip


async def _following(scenario: Scenario, rounds: int, say: Say) -> list[Figure]:
    """The user goes to and fro between the WLANs and its machine follows each time; it ends at wlan2."""
    windows = Windows(before_s=2.5, after_s=3.0, settled_s=2.5)
    moves: list[MoveRun] = []
    for number in range(rounds + (rounds + 1) % 2):
        moves.append(await watch_move(scenario, ("wlan2", "wlan1")[number % 2], windows))
        await scenario.controller.machines.retired()
    times = [move.back_near_s if move.followed else None for move in moves]
    say("near again after " + ", ".join("never" if one is None else f"{one:.2f} s" for one in times)
        + " (from the user's move, its own handover included)")  # fmt: skip
    took = median([float("inf") if one is None else one for one in times])
    return [Figure("from the user's move to a near round trip again", "s", took, PAPER_FOLLOW_S, "paper",
                   PAPER_FOLLOW_S / took, "< 10 s", took < FOLLOW_S)]  # fmt: skip


async def _rules(scenario: Scenario) -> list[Figure]:
    """As the switches count them: the machine is at dc2, the user at wlan2."""
    found = []
    for role, (network, limit, equation) in PAPER_RULES.items():
        flows = await scenario.controller.southbound.flows(scenario.network(network).datapath, MACHINE)
        found.append(Figure(
            f"rules of a moved machine in the {role} switch", "", len(flows), limit, f"paper: {equation}",
            limit / len(flows), f"<= {limit}", len(flows) <= limit,
        ))  # fmt: skip
    return found


async def _rows(scenario: Scenario, quick: bool, say: Say) -> list[Figure]:
    """Ours and theirs in turn, without the policy's interference."""
    scenario.controller.deciding.use_policy("never", {})
    plan = [("paper", 2), ("live", 4 if quick else IN_A_ROW), ("paper", 2)]
    if not quick:
        plan += [("live", IN_A_ROW), ("paper", 2)]
    rows = []
    for mode, count in plan:
        row = await _row(scenario, mode, count)
        stalls = ", ".join(f"{one * 1e3:.0f}" for one in row.stalls)
        say(f"{mode}: {count} migrations in a row, session {'alive' if row.alive else 'DEAD'}, bytes "
            f"{'intact' if row.intact else 'DAMAGED'}, stalls {stalls} ms, "
            f"{row.lost} of {row.sent} pings lost, {row.twice} twice")  # fmt: skip
        rows.append(row)
    ours = [row for row in rows if row.mode == "live"]
    theirs = [row for row in rows if row.mode == "paper"]
    return [*_stalls(ours, theirs), *_costs(ours, theirs)]


async def _row(scenario: Scenario, mode: str, count: int) -> Row:
    controller, row = scenario.controller, Row(mode)
    client, address = scenario.lab.client.namespace, scenario.machine_identifier
    async with (
        Pinger(client, address, interval_s=PING_EVERY_S) as pinger,
        TcpMeter(client, address, interval_s=PING_EVERY_S) as meter,
    ):
        await asyncio.sleep(TAIL_S)
        for _ in range(count):
            meter.check.longest_stall_s = 0.0
            row.results.append(await controller.machines.carry(MACHINE, _other(scenario), mode))
            await asyncio.sleep(TAIL_S)
            await _answers(pinger)
            meter.check.pause(time.monotonic())
            row.stalls.append(meter.check.longest_stall_s)
            await controller.machines.retired()
    report = meter.report()
    row.alive, row.intact = report.alive, report.intact
    row.sent, row.lost, row.twice = len(pinger.pings), len(pinger.lost), pinger.duplicates
    return row


def _other(scenario: Scenario) -> str:
    """The data centre where the machine is not."""
    return "dc2" if scenario.controller.redirect.bindings[MACHINE].here.network == "dc1" else "dc1"


async def _answers(pinger: Pinger) -> None:
    """Wait until the machine is reached again: in the papers' order that may take a while."""
    deadline = time.monotonic() + BACK_S
    while time.monotonic() < deadline and all(ping.rtt_s is None for ping in pinger.pings[-20:]):
        await asyncio.sleep(0.05)


def _stalls(ours: Sequence[Row], theirs: Sequence[Row]) -> list[Figure]:
    our_stalls = [stall for row in ours for stall in row.stalls]
    their_stalls = [stall for row in theirs for stall in row.stalls]
    longest, sound = max(our_stalls), all(row.alive and row.intact for row in ours)
    lost, their_lost = sum(row.lost for row in ours), sum(row.lost for row in theirs)
    rate, their_rate = lost / len(our_stalls), their_lost / len(their_stalls)
    return [
        Figure("TCP sessions alive and intact after a row of migrations", "",
               sum(row.alive and row.intact for row in ours), len(ours), "all", None, "all", sound),
        Figure("longest stall of a TCP session, of all migrations", "ms", longest * 1e3, max(their_stalls) * 1e3,
               "papers' order", max(their_stalls) / longest, "<= 150 ms", longest <= STALL_S),
        Figure("stall of a TCP session, median", "ms", median(our_stalls) * 1e3, median(their_stalls) * 1e3,
               "papers' order", median(their_stalls) / median(our_stalls)),
        Figure("pings lost for each migration", "", rate, their_rate, "papers' order",
               None if not rate else their_rate / rate, "0", lost == 0),
        Figure("pings answered twice", "", sum(row.twice for row in ours), sum(row.twice for row in theirs),
               "papers' order", None, "0", not any(row.twice for row in ours)),
    ]  # fmt: skip


def _costs(ours: Sequence[Row], theirs: Sequence[Row]) -> list[Figure]:
    mine = [result for row in ours for result in row.results]
    other = [result for row in theirs for result in row.results]

    def compared(what: str, unit: str, values: list[float], peers: list[float]) -> Figure:
        return Figure(what, unit, median(values), median(peers), "papers' order", median(peers) / median(values))

    pauses = [result.pause_s * 1e3 for result in mine]
    their_pauses = [result.pause_s * 1e3 for result in other]
    return [
        compared("pause of the machine, median", "ms", pauses, their_pauses),
        Figure("pause of the machine, longest", "ms", max(pauses), max(their_pauses), "papers' order",
               max(their_pauses) / max(pauses)),
        compared("a migration, median", "s", [one.total_s for one in mine], [one.total_s for one in other]),
        compared("bytes of a migration, median", "MB",
                 [one.bytes / 1e6 for one in mine], [one.bytes / 1e6 for one in other]),
    ]  # fmt: skip


async def _throughput(scenario: Scenario, rounds: int, say: Say) -> Figure:
    ours, plain = await _rates(scenario, rounds)
    unheld = []
    for _ in range(rounds):
        result = await scenario.controller.machines.carry(MACHINE, _other(scenario), "paper")
        unheld.append(result.bytes / result.total_s)
        await asyncio.sleep(TAIL_S)
        await scenario.controller.machines.retired()
    say(f"a transfer carries {_list(ours)} MB/s, plain TCP over the same link {_list(plain)} MB/s; {_HELD}")
    say(f"in the papers' order, never held, {_list(unheld)} MB/s, the start of the target's QEMU included")
    return Figure("a migration's transfer, link without a limit", "MB/s", median(ours) / 1e6, median(plain) / 1e6,
                  "plain TCP there", median(ours) / median(plain))  # fmt: skip


async def _limited(scenario: Scenario, rounds: int, say: Say) -> Figure:
    await scenario.lab.move_client("wlan1")
    ours, plain = await _rates(scenario, rounds)
    rate = LIMITED_BIT_S / 8
    say(f"at 200 Mbit/s a transfer carries {_list(ours)} MB/s, plain TCP {_list(plain)} MB/s; {_HELD}")
    return Figure("a migration's transfer, link of 200 Mbit/s", "MB/s", median(ours) / 1e6, rate / 1e6,
                  "the link's rate", median(ours) / rate)  # fmt: skip


async def _rates(scenario: Scenario, rounds: int) -> tuple[list[float], list[float]]:
    """Bytes a second of whole transfers (from "prepared" to "switched") and of plain TCP, in turn."""
    controller = scenario.controller
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(rounds):
        plain.append(await _plain_tcp(scenario))
        begin = len(scenario.happenings)
        result = await controller.machines.carry(MACHINE, _other(scenario))
        prepared, switched = (one.at for one in scenario.happenings[begin:] if one.step == "continuity")
        ours.append(result.bytes / (switched - prepared))
        await controller.machines.retired()
    return ours, plain


async def _plain_tcp(scenario: Scenario) -> float:
    """Bytes a second from one hypervisor to the other, as many as go through in a while."""
    source, target = scenario.lab.hosts["dc1"], scenario.lab.hosts["dc2"]
    listening = socket_in(target.namespace, socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((target.management_address, PLAIN_PORT))
    listening.listen(1)
    sending = socket_in(source.namespace, socket.AF_INET, socket.SOCK_STREAM)
    return await asyncio.to_thread(_pour, listening, sending, target.management_address)


def _pour(listening: socket.socket, sending: socket.socket, address: str) -> float:
    def send() -> None:
        data = bytes(1 << 20)
        with contextlib.suppress(OSError):
            while True:
                sending.sendall(data)

    with listening, sending:
        sending.connect((address, PLAIN_PORT))
        receiving, _ = listening.accept()
        thread = threading.Thread(target=send)
        thread.start()
        buffer, received, begin = bytearray(1 << 20), 0, time.perf_counter()
        with receiving:
            while (now := time.perf_counter()) < begin + PLAIN_S:
                received += receiving.recv_into(buffer)
        thread.join()
    return received / (now - begin)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


def _list(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate / 1e6:.0f}" for rate in rates)
