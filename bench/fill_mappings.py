"""Fills the buckets of bench/federation_mappings.py with what real moves leave in them.

A few users are moved by four ``Federate`` in memory, and the facts of all others are theirs with another card,
place and signature, each of which home has signed. That they are the same as real ones, byte for byte, is checked
with the few.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

from followme.domain import Network, NetworkKind, NodeKind
from followme.federation import records
from followme.federation.federate import Federate
from followme.federation.nats import NatsBus
from followme.federation.nats_accounts import bucket_of
from followme.federation.nats_connection import NatsAccess
from followme.federation.nats_kv import JetStreamKeyValue
from followme.federation.nouns import Card, Place
from followme.federation.records import HeldRecord, HomeRecord
from followme.federation.registry import Domain, Registry
from followme.federation.signing import Ed25519Signer, Signer
from followme.store.replica import key_of

DOMAINS = ("alpha", "beta", "gamma", "delta")
"""Home, where the users are, where some go, and a correspondent; gamma's users speak to them, too."""
REAL = 3
AHEAD = 4096
"""Puts that wait for their acknowledgement while a bucket is filled."""

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
    private = {name: bytes.fromhex(key) for name, key in words["keys"].items()}
    public = {name: bytes.fromhex(key) for name, key in words["public"].items()}
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
        bus, kv = await open_bucket(words, name)
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


async def open_bucket(words: dict[str, Any], name: str) -> tuple[NatsBus, JetStreamKeyValue]:
    bus = await NatsBus.open(NatsAccess((words["server"],), name, words["passwords"][name]), name, "1")
    return bus, await JetStreamKeyValue.open(bus.connection, bucket_of(name), max_bytes=words["max_bytes"])


if __name__ == "__main__":
    told = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(fill(told, told["count"], told["some"]))), flush=True)
