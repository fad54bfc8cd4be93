"""One domain of bench/federation_moves.py as its own process: commands come in as lines of JSON, answers go out.

Its switches confirm at once and no packet ever uses an old place: what is measured is who tells whom what, and
that all of it is kept before it is acted upon.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from followme.domain import Network, NetworkKind, NodeKind
from followme.federation.engine import Engine
from followme.federation.federate import Federate
from followme.federation.messages import Refused
from followme.federation.nats import NatsBus
from followme.federation.nats_accounts import bucket_of
from followme.federation.nats_connection import NatsAccess
from followme.federation.nats_kv import JetStreamKeyValue
from followme.federation.nouns import Card
from followme.federation.outputs import Attached, Effect, NotAttached
from followme.federation.registry import Domain, Registry
from followme.federation.signing import Ed25519Signer
from followme.store.replicated import ReplicatedStore

DOMAINS = ("alpha", "beta", "gamma", "delta")
FIRST = int(IPv4Address("10.1.0.10"))


def network(number: int) -> Network:
    prefix, locators = IPv4Network(f"10.{number}.0.0/16"), IPv4Network(f"10.{number}.128.0/17")
    return Network(f"n{number}", NetworkKind.ACCESS, 0, 1, bytes(6), prefix, prefix, prefix[1], locators)


def card(number: int) -> Card:
    """A user at home in alpha's n1."""
    address = IPv4Address(FIRST + number)
    return Card(f"user{number}", NodeKind.USER, b"\x02\0" + number.to_bytes(4, "big"), address, address, "n1")


class Switches:
    """An ``EdgeNetwork`` that has nothing to do."""

    def __init__(self, own: str) -> None:
        self.own = own
        self.engine: Engine | None = None
        self.places: dict[IPv4Address, str] = {}
        self.moves: Counter[int] = Counter()
        """How often a node was seen in another place than before, by the second in which that was."""
        self.waiting: dict[IPv4Address, asyncio.Future[None]] = {}

    async def apply(self, identifiers: Collection[IPv4Address]) -> Mapping[IPv4Address, Refused]:
        assert self.engine is not None
        second = int(time.monotonic())
        for identifier in identifiers:
            view = self.engine.federate.view(identifier)
            mapping = None if view is None else view.mapping
            if mapping is None:
                continue
            if self.places.get(identifier) != mapping.here.network:
                self.places[identifier] = mapping.here.network
                self.moves[second] += 1
            for place in mapping.old:
                if place.network == self.own:
                    self.engine.quiet(identifier, place)
        return {}

    async def still_here(self, identifier: IPv4Address) -> bool:
        return False

    def effect(self, effect: Effect) -> None:
        if isinstance(effect, Attached | NotAttached):
            future = self.waiting.pop(effect.identifier, None)
            if future is not None and not future.done():
                if isinstance(effect, NotAttached):
                    future.set_exception(RuntimeError(effect.reason))
                else:
                    future.set_result(None)


class Served:
    """One domain, active by itself."""

    def __init__(self, engine: Engine, switches: Switches) -> None:
        self.engine = engine
        self.switches = switches

    async def know(self, count: int) -> None:
        for number in range(count):
            self.engine.know(card(number))

    async def unaware(self, count: int, peer: str) -> None:
        for number in range(count):
            self.engine.unaware(card(number).identifier, peer)

    async def attach(self, first: int, last: int, window: int) -> None:
        """Nodes show up here one after the other, ``window`` of them at a time."""
        room = asyncio.Semaphore(window)
        loop = asyncio.get_running_loop()

        def done(_: object) -> None:
            room.release()

        futures = []
        for number in range(first, last):
            await room.acquire()
            each = card(number)
            future: asyncio.Future[None] = loop.create_future()
            future.add_done_callback(done)
            futures.append(future)
            self.switches.waiting[each.identifier] = future
            self.engine.attach(each.identifier, each.mac, self.switches.own)
        await asyncio.gather(*futures)

    async def held(self, count: int) -> list[list[object] | None]:
        """Version, network and locator, and whether it is settled, of each node."""
        found: list[list[object] | None] = []
        for number in range(count):
            view = self.engine.federate.view(card(number).identifier)
            mapping = None if view is None else view.mapping
            if mapping is None:
                found.append(None)
                continue
            moving = bool(mapping.arriving or mapping.leaving or mapping.old)
            found.append([mapping.version, mapping.here.network, str(mapping.here.locator), moving])
        return found

    async def report(self) -> dict[str, object]:
        """Seconds of CPU, what was counted, and moves seen by second."""
        return {"cpu": time.process_time(), "moves": self.switches.moves, **self.engine.counted}


async def serve(name: str, words: dict[str, Any]) -> None:
    number = DOMAINS.index(name) + 1
    public = {domain: bytes.fromhex(key) for domain, key in words["public"].items()}
    registry = Registry(name, {one: Domain(one, (network(at),), public[one]) for at, one in enumerate(DOMAINS, 1)})
    bus = await NatsBus.open(NatsAccess((words["server"],), name, words["password"]), name, "1")
    kv = await JetStreamKeyValue.open(bus.connection, bucket_of(name), max_bytes=words["max_bytes"])
    store = ReplicatedStore()
    await store.restore(kv)
    await store.lead(1)
    switches = Switches(f"n{number}")
    federate = Federate(registry, Ed25519Signer(bytes.fromhex(words["private"]), public), store.facts())
    switches.engine = engine = Engine(federate, bus, store, switches)
    await engine.start()
    served = Served(engine, switches)
    failed = asyncio.ensure_future(engine.wait())
    loop = asyncio.get_running_loop()
    print(json.dumps("ready"), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, arguments = json.loads(line)
        task = asyncio.ensure_future(getattr(served, command)(*arguments))
        await asyncio.wait([task, failed], return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
        print(json.dumps(task.result()), flush=True)
    failed.cancel()
    await engine.close()
    store.close()
    await kv.close()
    await bus.close()


if __name__ == "__main__":
    # As a controller's instance does: records are no cycles.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    asyncio.run(serve(sys.argv[1], json.loads(sys.stdin.readline())))
