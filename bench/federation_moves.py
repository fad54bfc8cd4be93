"""Moves a second through four domains over NATS: users go to and fro between two foreign networks, and a third one
that speaks with all of them is told of each move.

Four processes (home, two foreign, correspondent) and the server, all that they write kept in JetStream before it is
acted upon. Each foreign domain lets a window of users show up at a time, so what is measured is the limit. In the
end all mappings must be the same everywhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bench.figures import Figure, Say, Skipped
from bench.ports import free_port
from bench.serve_domain import DOMAINS
from followme.federation.nats_accounts import MIB, Member, generate_logins
from followme.federation.nats_server import NatsServer, program, start_servers
from followme.federation.signing import generate_key
from followme.system.process import Child

TARGET = 1000
USERS = 4000
WINDOW = 200
SETTLE_S = 20.0
_HALF = USERS // 2


def figures(quick: bool, say: Say) -> list[Figure]:
    if program() is None:
        raise Skipped("nats-server is not installed (Debian: nats-server)")
    return asyncio.run(_measure(8.0 if quick else 60.0, say))


class _Domain:
    """One domain's process."""

    def __init__(self, child: Child) -> None:
        self.child = child

    async def ask(self, command: str, *arguments: object) -> Any:
        if self.child.stdin is None:
            raise RuntimeError("no pipe")
        self.child.stdin.write(json.dumps([command, arguments]).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> Any:
        line = b"" if self.child.stdout is None else await self.child.stdout.readline()
        if not line:
            await self.child.wait()
            raise self.child.failure()
        return json.loads(line)


async def _measure(seconds: float, say: Say) -> list[Figure]:
    async with _federation() as (server, domains):
        home, one, two = (domains[name] for name in DOMAINS[:3])
        await home.ask("know", USERS)
        begin = time.monotonic()
        await _move(one, two, 0)
        await home.ask("unaware", USERS, "n4")
        _, differ = await _until_same(domains, 0)
        if differ:
            raise RuntimeError(f"{differ} of {USERS} users have not left home for all domains")
        say(f"{USERS:,} users have left home and the correspondent knows it: {time.monotonic() - begin:.1f} s")
        before = {name: await domain.ask("report") for name, domain in domains.items()}
        server_before, machine_before = _cpu(server), _machine()
        begin, rounds = time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            rounds += 1
            await _move(one, two, rounds)
        took = time.monotonic() - begin
        after = {name: await domain.ask("report") for name, domain in domains.items()}
        cpu = {name: (after[name]["cpu"] - before[name]["cpu"]) / took for name in DOMAINS}
        cpu["nats-server"] = (_cpu(server) - server_before) / took
        busy = (_machine() - machine_before) / took
        lag, differ = await _until_same(domains, rounds)
        last = {name: await domain.ask("report") for name, domain in domains.items()}
        moves = rounds * USERS
        seen = sum(last["delta"]["moves"].values()) - sum(before["delta"]["moves"].values())
        say(f"{moves:,} moves were confirmed where they went, the correspondent has seen {seen:,} of them; "
            f"{differ} of {USERS:,} users' mappings differ at the end")  # fmt: skip
        lost = abs(moves - seen) + differ
        return _figures(moves / took, moves, took, lag, cpu, busy, before, last, after, say, int(begin), lost)


def _figures(
    rate: float, moves: int, took: float, lag: float, cpu: dict[str, float], busy: float,
    before: dict[str, Any], last: dict[str, Any], after: dict[str, Any], say: Say, begin: int,
    lost: int,
) -> list[Figure]:  # fmt: skip
    shares = ", ".join(f"{name} {share:.0%}" for name, share in cpu.items())
    cores = len(os.sched_getaffinity(0))
    busiest = max(cpu, key=lambda name: cpu[name])
    ours = sum(cpu.values())
    others = max(0.0, busy - ours)
    say(f"CPU, of one core each: {shares}; together {ours:.2f} of {cores} cores, others {others:.2f}")
    if busy > 0.9 * cores:
        alone = rate * cores / ours
        say(f"the limit is the machine's CPU, no core is idle; most of ours goes to {busiest}. "
            f"With nothing else running it would be about {min(alone, rate / cpu[busiest]):,.0f} moves a second")
    elif cpu[busiest] > 0.85:
        say(f"the limit is {busiest}: it is one thread, and its core is busy")
    else:
        say("the limit is waiting: neither a process nor the machine is busy all the time (the window of users)")
    frames = sum(after[name].get("frames out", 0) - before[name].get("frames out", 0) for name in DOMAINS)
    orders = sum(after[name].get("orders out", 0) - before[name].get("orders out", 0) for name in DOMAINS)
    say(f"a move takes {orders / moves:.1f} orders between domains, in {frames / moves:.2f} frames, and "
        f"{1e6 * sum(cpu.values()) / rate:.0f} us of CPU: "
        + ", ".join(f"{name} {1e6 * share / rate:.0f}" for name, share in cpu.items()))  # fmt: skip
    seconds = Counter({int(at) - begin: count for at, count in last["delta"]["moves"].items()})
    five = [sum(seconds[at + each] for each in range(5)) / 5 for at in range(1, int(took) - 5)]
    slowest = min(five, default=rate)
    say(f"{moves:,} moves in {took:.1f} s; {lag:.2f} s after the last one all roles held the same mappings")
    return [
        Figure("moves a second through home, foreign and correspondent", "/s", rate, None, "", None,
               f">= {TARGET:,} /s", rate >= TARGET),
        Figure("the same, in the slowest five seconds, as the correspondent saw it", "/s", slowest, None, "", None,
               f">= {TARGET:,} /s", slowest >= TARGET),
        Figure("moves lost, or mappings that differ at the end", "", lost, None, "", None, "0", lost == 0),
    ]  # fmt: skip


async def _move(one: _Domain, two: _Domain, round: int) -> None:
    """Each half of the users shows up where the other half was."""
    first, second = ((0, _HALF), (_HALF, USERS)) if round % 2 == 0 else ((_HALF, USERS), (0, _HALF))
    await asyncio.gather(one.ask("attach", *first, WINDOW), two.ask("attach", *second, WINDOW))


async def _until_same(domains: dict[str, _Domain], round: int) -> tuple[float, int]:
    """Seconds until home, the foreign network and the correspondent hold the same mapping of each user, and of how
    many users they do not after ``SETTLE_S``."""
    begin = time.monotonic()
    while True:
        held = {name: await domain.ask("held", USERS) for name, domain in domains.items()}
        wrong = [number for number in range(USERS) if not _same(held, number, round)]
        if not wrong or time.monotonic() > begin + SETTLE_S:
            return time.monotonic() - begin, len(wrong)
        await asyncio.sleep(0.1)


def _same(held: dict[str, Any], number: int, round: int) -> bool:
    foreign = "beta" if (number < _HALF) == (round % 2 == 0) else "gamma"
    mapping = held["alpha"][number]
    known = mapping is not None and mapping == held[foreign][number]
    if not known or mapping[3] or mapping[1] != ("n2" if foreign == "beta" else "n3"):
        return False
    return bool(mapping == held["delta"][number])


@asynccontextmanager
async def _federation() -> AsyncIterator[tuple[NatsServer, dict[str, _Domain]]]:
    logins = generate_logins(dict.fromkeys(DOMAINS, ()))
    keys = {name: generate_key() for name in DOMAINS}
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (server,) = await start_servers([Member("bench", f"127.0.0.1:{free_port()}")], directory, logins)
        stack.push_async_callback(server.stop)
        domains = {}
        for name in DOMAINS:
            argv = [sys.executable, "-m", "bench.serve_domain", name]
            child = await Child.start(argv, name=name, stdin=asyncio.subprocess.PIPE,
                                      stdout=asyncio.subprocess.PIPE, limit=1 << 22)  # fmt: skip
            stack.push_async_callback(child.stop)
            domain = domains[name] = _Domain(child)
            words = {
                "server": server.url, "password": logins[name].controller.password, "max_bytes": 200 * MIB,
                "private": keys[name][0].hex(), "public": {one: key[1].hex() for one, key in keys.items()},
            }  # fmt: skip
            if child.stdin is not None:
                child.stdin.write(json.dumps(words).encode() + b"\n")
            await domain.answer()
        yield server, domains


def _cpu(server: NatsServer) -> float:
    """Seconds of CPU that the server has used so far."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _machine() -> float:
    """Seconds of CPU that all programs of this machine have used so far."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
