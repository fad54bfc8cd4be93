"""One domain of bench/federation_mappings.py as its own process: commands come in as lines of JSON, and answers go
out."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from bench.fill_mappings import NETWORKS, card, open_bucket, registry_of
from followme.continuity.binding import Binding
from followme.continuity.ledger import Ledger
from followme.continuity.manipulator import node_rules
from followme.domain import Node, Placement
from followme.federation.engine import Engine
from followme.federation.federate import Federate
from followme.federation.messages import Refused
from followme.federation.outputs import Effect
from followme.federation.signing import Ed25519Signer
from followme.store import ReplicatedStore

LEDGER_USERS = 5000


class Switches:
    """An ``EdgeNetwork`` that has nothing to do, and remembers when it first heard that a node is where it is."""

    def __init__(self, own: str) -> None:
        self.own = own
        self.engine: Engine | None = None
        self.heard: dict[tuple[IPv4Address, str], asyncio.Future[float]] = {}
        self.busy: set[IPv4Address] = set()
        """With old places."""

    def when(self, identifier: IPv4Address, where: str) -> asyncio.Future[float]:
        key = identifier, where
        if key not in self.heard:
            self.heard[key] = asyncio.get_running_loop().create_future()
        return self.heard[key]

    async def apply(self, identifiers: Collection[IPv4Address]) -> Mapping[IPv4Address, Refused]:
        engine = self.engine
        if engine is None:
            raise RuntimeError("not active yet")
        for identifier in identifiers:
            view = engine.federate.view(identifier)
            mapping = None if view is None else view.mapping
            if mapping is None:
                continue
            future = self.when(identifier, mapping.here.network)
            if not future.done():
                future.set_result(time.monotonic())
            for place in mapping.old:
                if place.network == self.own:
                    engine.quiet(identifier, place)
            if mapping.old:
                self.busy.add(identifier)
            else:
                self.busy.discard(identifier)
        return {}

    async def still_here(self, identifier: IPv4Address) -> bool:
        return False

    def effect(self, effect: Effect) -> None:
        """Nobody waits for one."""


def memory() -> dict[str, float]:
    """MiB: resident now, and the most so far."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    found = {line[0]: int(line[1]) / 1024 for line in lines if line and line[0] in ("VmRSS:", "VmHWM:")}
    return {"now": found["VmRSS:"], "most": found["VmHWM:"]}


class Served:
    """One domain: first a standby, then active by itself."""

    def __init__(self, name: str, words: dict[str, Any]) -> None:
        self.name, self._words = name, words
        self._switches = Switches(NETWORKS[name].name)
        self._store = ReplicatedStore()
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("not active yet")
        return self._engine

    async def restore(self) -> dict[str, Any]:
        """All that is in the bucket into the store: a standby."""
        self._bus, kv = await open_bucket(self._words, self.name)
        before, begin = memory(), time.monotonic()
        await self._store.restore(kv)
        return {"seconds": time.monotonic() - begin, "before": before, "after": memory()}

    async def lead(self) -> dict[str, Any]:
        begin = time.monotonic()
        await self._store.lead(2)
        led = time.monotonic()
        public = {domain: bytes.fromhex(key) for domain, key in self._words["public"].items()}
        signer = Ed25519Signer(bytes.fromhex(self._words["keys"][self.name]), public)
        registry = registry_of(self.name, public)
        federate = Federate(registry, signer, self._store.facts(), self._store.fact)
        made = time.monotonic()
        self._switches.engine = self._engine = Engine(federate, self._bus, self._store, self._switches, 2)
        await self._engine.start()
        count = sum(1 for _ in federate.mappings())
        return {"lead": led - begin, "federate": made - led, "mappings": count, "memory": memory()}

    async def attach(self, number: int) -> float:
        """The user is in our network: when that was."""
        one = card(number)
        at = time.monotonic()
        self.engine.attach(one.identifier, one.mac, self._switches.own)
        return at

    async def heard(self, number: int, where: str) -> float:
        """When our switches were right for a user who is in ``where``."""
        return await self._switches.when(card(number).identifier, where)

    async def settled(self, number: int) -> bool:
        """Return when the user has no old place any more."""
        while card(number).identifier in self._switches.busy:
            await asyncio.sleep(0.001)
        return True

    async def held(self, numbers: list[int]) -> list[list[Any] | None]:
        """Network and locator of each."""
        views = [self.engine.federate.view(card(number).identifier) for number in numbers]
        here = [None if view is None or view.mapping is None else view.mapping.here for view in views]
        return [None if place is None else [place.network, str(place.locator)] for place in here]

    async def ledger(self) -> dict[str, float]:
        """What the rules of one away take in a ledger of ours, in octets, and how many they are."""
        ledger, networks = Ledger(1), {one.name: one for one in NETWORKS.values()}
        gc.collect()
        before, kept = memory()["now"], []
        for number in range(LEDGER_USERS):
            binding = _binding(number)
            ledger.set(binding.node.name, _own(node_rules(binding, networks), NETWORKS[self.name].datapath))
            kept.append(binding)
        octets = (memory()["now"] - before) * (1 << 20) / len(kept)
        return {"octets": octets, "rules": len(ledger.rules(NETWORKS[self.name].datapath)) / len(kept)}

    async def report(self) -> dict[str, Any]:
        return {"memory": memory(), "refused": self.engine.federate.refusals, **self.engine.counted}


def _own(rules: Mapping[int, list[Any]], datapath: int) -> dict[int, list[Any]]:
    return {one: some for one, some in rules.items() if one == datapath}


def _binding(number: int) -> Binding:
    one = card(number)
    node = Node(one.name, one.kind, one.mac, one.identifier, one.address, one.home)
    here = Placement(one.name, "n2", 0, NETWORKS["beta"].locators[number], 4)
    return Binding(node, here, told=frozenset(("n1", "n3", "n4")))


async def serve(name: str, words: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    served = Served(name, words)
    print(json.dumps("ready"), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, arguments = json.loads(line)
        print(json.dumps(await getattr(served, command)(*arguments)), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], json.loads(sys.stdin.readline())))
