"""One domain of bench/federation_mappings.py as its own process: commands come in as lines of JSON, answers go out.

Home's bucket is filled beforehand (``fill``) with what real moves leave in it: a few users are moved by four
``Federate`` in memory, and the facts of all others are theirs with another card, place and signature, each of which
home has signed. That they are the same as real ones, byte for byte, is checked with the few.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from followme.continuity.binding import Binding
from followme.continuity.ledger import Ledger
from followme.continuity.manipulator import node_rules
from followme.domain import Network, NetworkKind, Node, NodeKind, Placement
from followme.federation import records
from followme.federation.engine import Engine
from followme.federation.federate import Federate
from followme.federation.nats import NatsBus
from followme.federation.nats_accounts import bucket_of
from followme.federation.nats_connection import NatsAccess
from followme.federation.nats_kv import JetStreamKeyValue
from followme.federation.nouns import Card, Place
from followme.federation.outputs import Effect
from followme.federation.records import HeldRecord, HomeRecord
from followme.federation.registry import Domain, Registry
from followme.federation.signing import Ed25519Signer, Signer
from followme.store import ReplicatedStore
from followme.store.replica import key_of

DOMAINS = ("alpha", "beta", "gamma", "delta")
"""Home, where the users are, where some go, and a correspondent; gamma's users speak to them, too."""
REAL = 3
AHEAD = 4096
"""Puts that wait for their acknowledgement while a bucket is filled."""
LEDGER_USERS = 5000

Facts = dict[str, dict[str, bytes]]


def network(number: int) -> Network:
    prefix, locators = IPv4Network(f"{10 * number}.0.0.0/8"), IPv4Network(f"{10 * number}.128.0.0/9")
    return Network(f"n{number}", NetworkKind.ACCESS, number, 1, bytes(6), prefix, prefix, prefix[1], locators)


NETWORKS = {domain: network(number) for number, domain in enumerate(DOMAINS, 1)}


def card(number: int) -> Card:
    """A user at home in alpha's n1."""
    address = NETWORKS["alpha"].prefix[256 + number]
    return Card(f"user{number}", NodeKind.USER, b"\x02\0" + number.to_bytes(4, "big"), address, address, "n1")


def registry_of(domain: str, public: Mapping[str, bytes]) -> Registry:
    return Registry(domain, {name: Domain(name, (NETWORKS[name],), public[name]) for name in DOMAINS})


# --- what real moves leave --------------------------------------------------------------------------------


def real_moves(users: int, private: Mapping[str, bytes], public: Mapping[str, bytes]) -> Facts:
    """The facts of all four when each has moved to n2, n3 and n4 have been told, and all is settled."""
    facts: Facts = {name: {} for name in DOMAINS}
    domains = {name: Federate(registry_of(name, public), Ed25519Signer(private[name], public)) for name in DOMAINS}

    def settle() -> None:
        waiting: deque[Callable[[], None]] = deque()

        def take(name: str) -> None:
            out = domains[name].take()
            facts[name] |= {key: fact for key, fact in out.writes.items() if fact is not None}
            for key in [key for key, fact in out.writes.items() if fact is None]:
                facts[name].pop(key, None)
            for to, order in out.orders:
                waiting.append(lambda to=to, order=order: deliver(name, to, order))  # type: ignore[misc]

        def deliver(name: str, to: str, order: Any) -> None:
            answer = domains[to].receive(name, order, 1.0)
            take(to)
            domains[name].answered(to, order, answer, 1.0)
            take(name)

        for name in DOMAINS:
            take(name)
        while waiting:
            waiting.popleft()()

    for number in range(users):
        one = card(number)
        domains["alpha"].know(one)
        domains["beta"].attach(one.identifier, one.mac, "n2")
        settle()
        for peer in ("n3", "n4"):
            domains["alpha"].unaware(one.identifier, peer)
        settle()
        domains["alpha"].quiet(one.identifier, Place("n1", one.identifier))
        settle()
    return facts


def first_of(domain: str, real: Facts) -> HomeRecord | HeldRecord:
    """What ``domain`` has of user 0."""
    identifier = int(card(0).identifier)
    if domain == "alpha":
        return records.home_record(real[domain][f"n/{identifier}"])
    return records.held_record(real[domain][f"h/{identifier}"])


def fact_of(number: int, first: HomeRecord | HeldRecord, signer: Signer) -> tuple[str, bytes]:
    """Key and fact of user ``number``, made of the record of user 0."""
    one, locator = card(number), NETWORKS["beta"].locators[number]
    if first.mapping is None:
        raise RuntimeError("no mapping of user 0 is held")
    mapping = replace(first.mapping, card=one, here=Place("n2", locator), signature=b"")
    mapping = replace(mapping, signature=signer.sign(mapping.canonical()))
    if isinstance(first, HomeRecord):
        (listed,) = first.listed.values()
        home = replace(first, mapping=mapping, listed={int(locator): listed}, claims={"beta": number + 1})
        return f"n/{int(one.identifier)}", home.encode()
    given = {int(locator): given for given in first.given.values()}
    return f"h/{int(one.identifier)}", replace(first, mapping=mapping, given=given).encode()


async def fill(words: dict[str, Any], count: int, some: list[int]) -> dict[str, float]:
    """``count`` users in home's bucket, and ``some`` of them in those of the others."""
    private, public = ({name: bytes.fromhex(key) for name, key in words[keys].items()} for keys in ("keys", "public"))
    signer = Ed25519Signer(private["alpha"], public)
    real = real_moves(REAL, private, public)
    firsts = {name: first_of(name, real) for name in DOMAINS}
    for name, first in firsts.items():
        for number in range(REAL):
            key, fact = fact_of(number, first, signer)
            if real[name].get(key) != fact:
                raise RuntimeError(f"{name}: {fact!r} is not what a move leaves: {real[name].get(key)!r}")
    begin, octets = time.monotonic(), 0
    for name, first in firsts.items():
        bus, kv = await _open(words, name)
        await kv.take_over(1)
        flying: deque[asyncio.Future[int]] = deque()
        for number in range(count) if name == "alpha" else some:
            key, fact = fact_of(number, first, signer)
            octets += len(fact) if name == "alpha" else 0
            flying.append(kv.submit(key_of("fact", (key,)), b"0" + fact))
            if len(flying) > AHEAD:
                await flying.popleft()
        if name == "beta":
            await kv.submit(key_of("fact", ("claim",)), b"0%d" % count)
        await asyncio.gather(*flying)
        await kv.close()
        await bus.close()
    return {"seconds": time.monotonic() - begin, "octets": octets / count}


# --- a domain ---------------------------------------------------------------------------------------------


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

    async def apply(self, identifiers: Collection[IPv4Address]) -> Mapping[IPv4Address, str]:
        engine = self.engine
        for identifier in identifiers if engine is not None else ():
            view = engine.federate.view(identifier) if engine is not None else None
            mapping = None if view is None else view.mapping
            if mapping is None or engine is None:
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
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.partition(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return {"now": found["VmRSS"], "most": found["VmHWM"]}


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
        self._bus, kv = await _open(self._words, self.name)
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
        """Version, network and locator of each."""
        views = [self.engine.federate.view(card(number).identifier) for number in numbers]
        mappings = [None if view is None else view.mapping for view in views]
        return [one and [one.version, one.here.network, str(one.here.locator)] for one in mappings]

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


async def _open(words: dict[str, Any], name: str) -> tuple[NatsBus, JetStreamKeyValue]:
    bus = await NatsBus.open(NatsAccess((words["server"],), name, words["passwords"][name]), name, "1")
    return bus, await JetStreamKeyValue.open(bus.connection, bucket_of(name), max_bytes=words["max_bytes"])


async def serve(name: str, words: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    served = Served(name, words)
    print(json.dumps("ready"), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, arguments = json.loads(line)
        print(json.dumps(await getattr(served, command)(*arguments)), flush=True)


def main() -> None:
    words = json.loads(sys.stdin.readline())
    if sys.argv[1] == "fill":
        print(json.dumps(asyncio.run(fill(words, words["count"], words["some"]))), flush=True)
    else:
        asyncio.run(serve(sys.argv[1], words))


if __name__ == "__main__":
    main()
