"""Table misses answered in a second, against os-ken: PACKET_IN in, FLOW_MOD and PACKET_OUT out.

Both controllers run as processes of their own, each with 16 switches on loopback TCP that send first packets
of 200 users in turn (bench/load.py). Ours is the whole controller with its store in a file; os-ken runs its
own example, a learning switch. Rounds take turns.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

from bench.figures import Figure, Say, Skipped
from bench.load import Fleet, User
from bench.ports import free_port
from followme.continuity.pipeline import Table
from followme.openflow import FlowMod, GotoTable, Match, Output, PacketOut
from followme.openflow.constants import OFPFC_ADD, OFPP_TABLE

WINDOW = 128
"""Packets that each switch has outstanding at any time."""
TARGET = 10.0
STARTS_S = 10.0
HUBS = ("native", "eventlet")
"""os-ken's two ways of doing many things at a time; the quicker one counts."""


class Server:
    """A controller's process, and the CPU time that it has used."""

    def __init__(self, module: str, *arguments: str, ends_with_input: bool, **environment: str) -> None:
        self._ends_with_input = ends_with_input
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, **environment}, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            self.close()
            raise Skipped(f"{module} does not start")
        self.address = ("127.0.0.1", int(line))

    def cpu_s(self) -> float:
        with open(f"/proc/{self.process.pid}/stat") as stream:
            fields = stream.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        if not self._ends_with_input:
            self.process.terminate()
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Contender:
    """A controller under load, and what its rounds gave."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.server = server
        self.fleet = _connected(server)
        self.rates: list[float] = []
        self.cpu_us: list[float] = []

    def round(self, seconds: float) -> None:
        before, pairs = self.server.cpu_s(), sum(switch.pairs for switch in self.fleet.switches)
        self.rates.append(self.fleet.run(seconds))
        pairs = sum(switch.pairs for switch in self.fleet.switches) - pairs
        self.cpu_us.append((self.server.cpu_s() - before) / pairs * 1e6)


def _connected(server: Server) -> Fleet:
    deadline = time.monotonic() + STARTS_S
    while True:
        try:
            fleet = Fleet(server.address, WINDOW)
        except ConnectionRefusedError:  # os-ken says its port before it listens
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            fleet.connect()
            return fleet


def _ours_is_right(user: User, mod: FlowMod, out: PacketOut) -> bool:
    """The user's own packets may in at its port, by MAC and address; the packet goes through the tables."""
    own = Match(in_port=user.port, eth_src=user.mac, eth_type=0x0800, ipv4_src=user.address)
    return (
        mod.command == OFPFC_ADD
        and mod.table_id == Table.INGRESS
        and mod.match == own
        and mod.instructions == (GotoTable(Table.FORWARD),)
        and out.actions == (Output(OFPP_TABLE),)
    )


def _theirs_is_right(user: User, mod: FlowMod, out: PacketOut) -> bool:
    match = mod.match
    return (match.in_port, match.eth_src, match.eth_dst) == (user.port, user.mac, user.frame[:6])


@contextlib.contextmanager
def _contenders() -> Iterator[tuple[Contender, list[Contender]]]:
    with contextlib.ExitStack() as fleets, contextlib.ExitStack() as servers:  # a server ends before its fleet

        def contender(name: str, server: Server) -> Contender:
            servers.callback(server.close)
            made = Contender(name, server)
            fleets.callback(made.fleet.close)
            return made

        ours = contender("ours", Server("bench.serve_followme", ends_with_input=True))
        yield ours, [contender(f"os-ken ({hub})", _osken(hub)) for hub in HUBS]


def _osken(hub: str) -> Server:
    return Server("bench.serve_osken", str(free_port()), ends_with_input=False,
                  OSKEN_HUB_TYPE=hub, PYTHONWARNINGS="ignore")  # fmt: skip


def figures(quick: bool, say: Say) -> list[Figure]:
    try:
        import os_ken  # noqa: F401
    except ImportError:
        raise Skipped("os-ken is not installed (it is among the dev dependencies)") from None
    rounds, seconds = (3, 1.0) if quick else (7, 2.0)
    with _contenders() as (ours, theirs):
        for _ in range(rounds):
            for contender in (ours, *theirs):
                contender.round(seconds)
        checked = ours.fleet.check(_ours_is_right)
        for contender in theirs:
            checked += contender.fleet.check(_theirs_is_right)
        say(f"{rounds} rounds of {seconds:g} s each in turn; {checked} answers read in full, all right")
        for contender in (ours, *theirs):
            say(f"{contender.name}: median {median(contender.rates):,.0f} /s of "
                f"{min(contender.rates):,.0f} to {max(contender.rates):,.0f}, "
                f"{median(contender.cpu_us):.1f} µs of CPU for each PACKET_IN")  # fmt: skip
    rate = median(ours.rates)
    best = max(theirs, key=lambda contender: median(contender.rates))
    peer = median(best.rates)
    return [Figure(
        "PACKET_IN answered by FLOW_MOD and PACKET_OUT, 16 switches", "/s", rate, peer, best.name,
        rate / peer, f">= {TARGET:g} x os-ken", rate / peer >= TARGET,
    )]  # fmt: skip
