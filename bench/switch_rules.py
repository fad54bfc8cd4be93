"""100 000 rewrite rules into a real Open vSwitch: by the controller, and by ``ovs-ofctl add-flows`` of the same.

Ours is the whole way from bindings to confirmed rules: the packet manipulator makes each node's rules, the ledger
notes them under the node's name, the southbound packs and sends them, and a barrier comes back. The peer reads the
same rules, with their cookies, from a file that was dumped from the switch after our first round, and sends them to
another bridge of the same switch process (the papers' measure: 2.7 s for 100 000 rules). Rounds take turns; each
begins with empty tables.

    python -m bench switch_rules
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import resource
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.figures import Figure, Say, Skipped
from followme.continuity.binding import Binding
from followme.continuity.ledger import Ledger
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import Handlers, Southbound
from followme.domain import NO_DATAPATH, Network, NetworkKind, Node, NodeKind, Placement
from followme.lab.ovs import OpenVSwitch
from followme.lab.rundir import Run
from followme.store import Store
from followme.system import needs
from followme.system.netns import socket_in
from followme.system.process import run

RULES = 100_000
QUICK_RULES = 20_000
PER_NODE = 2
"""In a correspondent's switch: identifier -> locator, and locator -> identifier."""
TARGET = 2.0
PAPER_S = 2.7
BRIDGES = ("ours", "theirs")
PORT = 6653
WAIT_S = 120.0
TURN = 256
"""Nodes whose rules are made in one turn of the loop."""
NEEDS = (needs.Need.ROOT, needs.Need.NETWORKS, needs.Need.OPENVSWITCH)


def network(name: str, number: int, datapath: int) -> Network:
    prefix = IPv4Network((f"{number}.0.0.0", 8))
    return Network(name, NetworkKind.ACCESS, datapath, 1, bytes((2, 0, 0, 0, 0, number)), prefix, prefix, prefix[1],
                   IPv4Network((f"{number}.128.0.0", 9)))  # fmt: skip


NETWORKS = {one.name: one for one in (network("home", 20, NO_DATAPATH), network("foreign", 30, NO_DATAPATH),
                                      network("ours", 40, 0xA1))}  # fmt: skip


def binding(number: int) -> Binding:
    """A machine of ``home`` in ``foreign``; ``ours`` has been told."""
    home, foreign = NETWORKS["home"], NETWORKS["foreign"]
    identifier = home.prefix[256 + number]
    mac = b"\x52\x54" + number.to_bytes(4, "big")
    node = Node(f"vm{number}", NodeKind.MACHINE, mac, identifier, identifier, home.name)
    here = Placement(node.name, foreign.name, 0, foreign.locators[256 + number], 2)
    return Binding(node, here, told=frozenset(("ours",)))


@dataclass(slots=True)
class Round:
    """Seconds of one push, and the controller's own CPU time in it."""

    whole_s: float
    cpu_s: float = 0.0


@dataclass(slots=True)
class Bench:
    """The switch with both bridges, and a controller that is connected to ``ours``."""

    switch: OpenVSwitch
    southbound: Southbound
    redirect: Redirect
    bindings: list[Binding]
    file: Path
    ours: list[Round] = field(default_factory=list)
    theirs: list[Round] = field(default_factory=list)

    async def push(self) -> Round:
        before, cpu = perf_counter(), _cpu_s()
        for number, one in enumerate(self.bindings):
            self.redirect.become(one)
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)  # what has been made is written: a controller hears of nodes turn by turn
        await self.southbound.barrier([NETWORKS["ours"].datapath], WAIT_S)
        return Round(perf_counter() - before, _cpu_s() - cpu)

    async def clear(self) -> None:
        for number, one in enumerate(self.bindings):
            self.redirect.forget(one.node.name)
            if number % TURN == TURN - 1:
                await asyncio.sleep(0)
        await self.southbound.barrier([NETWORKS["ours"].datapath], WAIT_S)
        await self.switch.ofctl("del-flows", "theirs")
        gc.collect()

    async def ofctl(self) -> Round:
        socket_of_theirs = f"unix:{self.switch.directory / 'theirs'}.mgmt"
        before = perf_counter()
        await run(["ovs-ofctl", "-O", "OpenFlow13", "add-flows", socket_of_theirs, self.file], timeout=WAIT_S)
        return Round(perf_counter() - before)

    async def dump(self, bridge: str) -> list[str]:
        text = await self.switch.ofctl("dump-flows", bridge, "--no-stats", "--no-names")
        return [line.strip() for line in text.splitlines() if "actions=" in line]

    async def same(self) -> bool:
        """Whether both bridges have the same rules, whatever their cookies (each round's nodes get new numbers)."""
        ours, theirs = [{re.sub(r"cookie=\w+, ", "", line) for line in await self.dump(name)} for name in BRIDGES]
        return ours == theirs and len(ours) == PER_NODE * len(self.bindings)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextlib.asynccontextmanager
async def bench(rules: int) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as exit_:
        lab = Run.open()
        exit_.push_async_callback(lab.close)
        namespace = await lab.add_namespace("switch")
        switch = OpenVSwitch(namespace, lab.directory / "ovs")
        exit_.push_async_callback(switch.stop)
        await switch.start()
        store = Store(lab.directory / "bench.db")
        exit_.callback(store.close)
        ledger = Ledger(1)
        southbound = Southbound([NETWORKS["ours"]], ledger, Handlers(packet_in=lambda network, message: None))
        redirect = Redirect(NETWORKS, ledger, southbound, store)
        listening = socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
        listening.bind(("127.0.0.1", PORT))
        listening.listen(1)
        await southbound.listen("", 0, sock=listening)
        exit_.push_async_callback(southbound.close)
        await switch.add_bridge("ours", NETWORKS["ours"].datapath, f"tcp:127.0.0.1:{PORT}")
        await switch.add_bridge("theirs", 0xB1)
        await southbound.wait_connected([NETWORKS["ours"].datapath], WAIT_S)
        bindings = [binding(number) for number in range(rules // PER_NODE)]
        yield Bench(switch, southbound, redirect, bindings, lab.directory / "rules.txt")


def figures(quick: bool, say: Say) -> list[Figure]:
    problems = needs.check(NEEDS)
    if problems:
        raise Skipped("; ".join(problems))
    return asyncio.run(_figures(quick, say))


async def _figures(quick: bool, say: Say) -> list[Figure]:
    rules, rounds = (QUICK_RULES, 2) if quick else (RULES, 5)
    async with bench(rules) as one:
        await one.push()
        lines = await one.dump("ours")
        if len(lines) != rules:
            raise RuntimeError(f"the switch has {len(lines)} rules, not {rules}")
        one.file.write_text("\n".join(lines) + "\n")
        await one.clear()
        for number in range(rounds):
            # The first of a round has the switch's memory to itself: so they begin in turn.
            if number % 2:
                one.theirs.append(await one.ofctl())
            one.ours.append(await one.push())
            if not number % 2:
                one.theirs.append(await one.ofctl())
            if not await one.same():
                raise RuntimeError("the two bridges do not have the same rules")
            await one.clear()
        ours, theirs = (median(round_.whole_s for round_ in rounds_) for rounds_ in (one.ours, one.theirs))
        say(f"{rules:,} rules, {rounds} rounds in turn: ours {_span(one.ours)} s with "
            f"{median(round_.cpu_s for round_ in one.ours):.2f} s of CPU; ovs-ofctl {_span(one.theirs)} s; "
            f"the papers' ovs-ofctl: {PAPER_S} s for 100,000")  # fmt: skip
    return [Figure(
        f"{rules:,} rewrite rules in Open vSwitch, confirmed", "s", ours, theirs, "ovs-ofctl add-flows",
        ours / theirs, f"<= {TARGET:g} x ovs-ofctl", ours / theirs <= TARGET,
    )]  # fmt: skip


def _span(rounds: list[Round]) -> str:
    seconds = [one.whole_s for one in rounds]
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
