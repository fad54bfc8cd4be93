"""One million mappings in a home's controller: what they take of its memory, how long a standby needs to have them,
and how soon three other controllers have a move among them.

Four processes (home, where the users are, where some go, a correspondent) and a NATS server; all that they write is
kept in JetStream before it is acted upon. A move is over when the last of the three others has it in its switches
(which confirm at once here).

    python -m bench federation_mappings
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import Figure, Say, Skipped
from bench.fill_mappings import DOMAINS
from bench.ports import free_port
from followme.federation.nats_accounts import MIB, Member, generate_logins
from followme.federation.nats_server import program, start_servers
from followme.federation.signing import generate_key
from followme.system.process import Child

USERS, QUICK_USERS = 1_000_000, 50_000
MOVES, WARM = 200, 20
MEMORY_MIB, MOVE_MS = 1e9 / MIB, 20.0
BUCKET_BYTES = 1536 * MIB
TOLD = DOMAINS[1:]
PAUSE_S = 0.02
WAIT_S = 600.0


def figures(quick: bool, say: Say) -> list[Figure]:
    if program() is None:
        raise Skipped("nats-server is not installed (Debian: nats-server)")
    return asyncio.run(_measure(QUICK_USERS if quick else USERS, say))


@dataclass(slots=True)
class _Bench:
    words: dict[str, Any]
    opened: AsyncExitStack

    async def start(self, module: str, name: str, **more: object) -> Child:
        argv = [sys.executable, "-m", f"bench.{module}", name]
        child = await Child.start(argv, name=name, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                                  limit=1 << 22)  # fmt: skip
        self.opened.push_async_callback(child.stop)
        _write(child, {**self.words, **more})
        return child


def _write(child: Child, value: object) -> None:
    if child.stdin is not None:
        child.stdin.write(json.dumps(value).encode() + b"\n")


async def _read(child: Child) -> Any:
    async with asyncio.timeout(WAIT_S):
        line = b"" if child.stdout is None else await child.stdout.readline()
    if not line:
        await child.wait()
        raise child.failure()
    return json.loads(line)


async def _ask(child: Child, command: str, *arguments: object) -> Any:
    _write(child, [command, arguments])
    return await _read(child)


async def _measure(users: int, say: Say) -> list[Figure]:
    some = [number * users // (MOVES + WARM) for number in range(MOVES + WARM)]
    async with _bench() as bench:
        filling = await bench.start("fill_mappings", "fill", count=users, some=some)
        filled = await _read(filling)
        await filling.stop()
        say(f"{users:,} users are away, in {filled['seconds']:.0f} s into home's bucket: {filled['octets']:.0f} "
            "octets each, as their moves leave them")  # fmt: skip
        children = {}
        for name in DOMAINS:
            children[name] = await bench.start("serve_mappings", name)
            await _read(children[name])
        restored = {name: await _ask(child, "restore") for name, child in children.items()}["alpha"]
        led = {name: await _ask(child, "lead") for name, child in children.items()}["alpha"]
        if led["mappings"] != users:
            raise RuntimeError(f"home has {led['mappings']} mappings, not {users}")
        base, store = restored["before"]["now"], restored["after"]["now"]
        say(f"home's process, resident: {base:.0f} MiB before; {store:.0f} MiB as a standby (SQLite in memory: "
            f"{store - base:.0f}); {led['memory']['now']:.0f} MiB active (names and identifiers: "
            f"{led['memory']['now'] - store:.0f})")  # fmt: skip
        say(f"taking over, once the lease is had: {led['lead']:.2f} s until the bucket is its own, "
            f"{led['federate']:.1f} s until it knows all nodes")  # fmt: skip
        moves = await _moves(children, some[WARM:], some[:WARM], say)
        last = await _ask(children["alpha"], "report")
        memory = last["memory"]
        say(f"after {len(some)} moves: {memory['now']:.0f} MiB, at most {memory['most']:.0f} MiB at any time")
        rules = await _ask(children["delta"], "ledger")
        home = await _ask(children["alpha"], "ledger")
        say("not in this: the rules in the ledger of a controller with switches. A user away has "
            f"{home['rules']:.0f} at home ({home['octets']:,.0f} octets) and {rules['rules']:.0f} at a "
            f"correspondent ({rules['octets']:,.0f}); for all users at home "
            f"{home['octets'] * users / MIB:,.0f} MiB")  # fmt: skip
    memory_target = f"<= {MEMORY_MIB:.0f} MiB" if users == USERS else ""
    fits = {what: octets <= MEMORY_MIB if memory_target else None for what, octets in memory.items()}
    middle, most = median(moves) * 1e3, sorted(moves)[len(moves) * 99 // 100] * 1e3
    return [
        Figure(f"home's process with {users:,} users away, resident", "MiB", memory["now"], None, "", None,
               memory_target, fits["now"]),
        Figure("the same, the most at any time", "MiB", memory["most"], None, "", None,
               memory_target, fits["most"]),
        Figure(f"a standby has {users:,} mappings", "s", restored["seconds"]),
        Figure("a move among them told to 3 controllers, median", "ms", middle, None, "", None,
               f"<= {MOVE_MS:g} ms", middle <= MOVE_MS),
        Figure("the same, 99 %", "ms", most),
    ]  # fmt: skip


async def _moves(children: dict[str, Child], measured: list[int], warm: list[int], say: Say) -> list[float]:
    """Seconds from a user's showing up in gamma to the moment when the last of the three others has it."""
    seconds: list[float] = []
    by_domain: dict[str, list[float]] = {name: [] for name in TOLD}
    for number in [*warm, *measured]:
        for name in ("beta", "delta"):
            _write(children[name], ["heard", (number, "n3")])
        at = await _ask(children["gamma"], "attach", number)
        heard = {name: await _read(children[name]) for name in ("beta", "delta")}
        heard["gamma"] = await _ask(children["gamma"], "heard", number, "n3")
        if number in measured:
            seconds.append(max(heard.values()) - at)
            for name in TOLD:
                by_domain[name].append(heard[name] - at)
        await _ask(children["alpha"], "settled", number)
        await asyncio.sleep(PAUSE_S)
    held = {name: await _ask(child, "held", measured) for name, child in children.items() if name != "beta"}
    if any(one != held["alpha"] for one in held.values()) or any(place[0] != "n3" for place in held["alpha"]):
        raise RuntimeError("the controllers do not hold the same mappings")
    each = ", ".join(f"{name} {median(found) * 1e3:.1f} ms" for name, found in by_domain.items())
    say(f"{len(seconds)} moves one after the other: the median of each controller is {each}; "
        f"{min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f} ms in all")  # fmt: skip
    return seconds


@asynccontextmanager
async def _bench() -> AsyncIterator[_Bench]:
    logins = generate_logins(dict.fromkeys(DOMAINS, ()))
    keys = {name: generate_key() for name in DOMAINS}
    async with AsyncExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        member = Member("bench", f"127.0.0.1:{free_port()}")
        (server,) = await start_servers([member], directory, logins, domain_bytes=BUCKET_BYTES)
        opened.push_async_callback(server.stop)
        yield _Bench({
            "server": server.url, "max_bytes": BUCKET_BYTES,
            "passwords": {name: logins[name].controller.password for name in DOMAINS},
            "keys": {name: key[0].hex() for name, key in keys.items()},
            "public": {name: key[1].hex() for name, key in keys.items()},
        }, opened)  # fmt: skip
