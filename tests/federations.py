"""Domains for tests: small pools, a quick signer, and a bus that loses, doubles, delays and reorders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from followme.domain import Network, NetworkKind, NodeKind, mac_bytes
from followme.federation.codec import decode_answers, decode_orders, encode_answers, encode_orders
from followme.federation.federate import Federate
from followme.federation.messages import Answer, Order
from followme.federation.nouns import Card
from followme.federation.outputs import Effect
from followme.federation.registry import Domain, Registry
from followme.federation.table import Load

NETWORKS = {"alpha": ("a1", "a2"), "beta": ("b1",), "gamma": ("g1", "g2"), "delta": ("d1",), "epsilon": ("e1",)}
POOL_LENGTH = {"b1": 30}
MOST_LETTERS = 20_000
"""Of locators; 29 (six of them) where not named, and two in a 30."""


def network(number: int, name: str, pool_length: int | None = None) -> Network:
    prefix = IPv4Network(f"10.{number}.0.0/24")
    length = pool_length or POOL_LENGTH.get(name, 29)
    return Network(
        name, NetworkKind.ACCESS, 0, 1, mac_bytes("52:54:00:00:00:01"), prefix, prefix, prefix[1],
        IPv4Network(f"10.{number}.0.{256 - 2 ** (32 - length)}/{length}"),
    )  # fmt: skip


def domains(pool_length: int | None = None) -> dict[str, Domain]:
    number, found = 0, {}
    for name, networks in NETWORKS.items():
        own = []
        for one in networks:
            number += 1
            own.append(network(number, one, pool_length))
        found[name] = Domain(name, tuple(own), name.encode().ljust(32))
    return found


class QuickSigner:
    """Signatures as good as real ones for whoever does not read the code."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    def sign(self, data: bytes) -> bytes:
        return _digest(self._domain, data)

    def verify(self, domain: str, data: bytes, signature: bytes) -> bool:
        return signature == _digest(domain, data)


def _digest(domain: str, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=domain.encode()).digest()


def federate(
    domain: str, facts: Iterable[tuple[str, bytes]] = (), pool_length: int | None = None, load: Load | None = None
) -> Federate:
    return Federate(Registry(domain, domains(pool_length)), QuickSigner(domain), facts, load)


def card(name: str, home: str, host: int, kind: NodeKind = NodeKind.USER) -> Card:
    number = [one for networks in NETWORKS.values() for one in networks].index(home) + 1
    identifier = IPv4Address(f"10.{number}.0.{host}")
    return Card(name, kind, bytes((2, 0, 0, 0, number, host)), identifier, identifier, home)


@dataclass(eq=False)
class Letter:
    """An order under way, or its answer (``None``: nobody will answer)."""

    sender: str
    to: str
    order: Order
    back: bool = False
    answer: Answer | None = None


class World:
    """All domains, what they have written, and what is under way between them."""

    def __init__(self, cards: Iterable[Card] = (), pool_length: int | None = None) -> None:
        self.cards = list(cards)
        self.pool_length = pool_length
        self.now = 1.0
        self.facts: dict[str, dict[str, bytes]] = {name: {} for name in NETWORKS}
        self.feds: dict[str, Federate] = {}
        self.letters: list[Letter] = []
        self.effects: list[tuple[str, Effect]] = []
        self.dying: set[str] = set()
        for name in NETWORKS:
            self.start(name)

    def start(self, domain: str) -> None:
        """(Re)start from what was written: all else is lost, answers to it too."""
        facts = self.facts[domain]
        self.feds[domain] = federate(domain, list(facts.items()), self.pool_length, facts.get)
        self.letters = [letter for letter in self.letters if not (letter.back and letter.to == domain)]
        for one in self.cards:
            if one.home in NETWORKS[domain]:
                self.feds[domain].know(one)
        self.pump(domain)

    def owner(self, network: str) -> str:
        return next(name for name, networks in NETWORKS.items() if network in networks)

    def pump(self, domain: str) -> bool:
        """Write and send; whether the domain has lived through it."""
        out = self.feds[domain].take()
        for key, fact in out.writes.items():
            if fact is None:
                self.facts[domain].pop(key, None)
            else:
                self.facts[domain][key] = fact
        if domain in self.dying:
            self.dying.discard(domain)
            self.start(domain)
            return False
        self.letters += [Letter(domain, to, order) for to, order in out.orders]
        self.effects += [(domain, effect) for effect in out.effects]
        return True

    def deliver(self, letter: Letter) -> Answer | None:
        """Take it out of the bus and to its receiver; returns what an order is answered."""
        self.letters.remove(letter)
        if letter.back:
            answer = letter.answer
            if answer is not None:
                ((answer,)) = decode_answers(encode_answers(1, [answer]))[1]
            self.feds[letter.to].answered(letter.sender, letter.order, answer, self.now)
            self.pump(letter.to)
            return None
        (order,) = decode_orders(encode_orders(1, [letter.order]))[1]
        answer = self.feds[letter.to].receive(letter.sender, order, self.now)
        if self.pump(letter.to):
            self.letters.append(Letter(letter.to, letter.sender, letter.order, True, answer))
        else:
            self.letters.append(Letter(letter.to, letter.sender, letter.order, True))
        return answer

    def lose(self, letter: Letter) -> None:
        self.letters.remove(letter)
        sender, to = (letter.sender, letter.to) if letter.back else (letter.to, letter.sender)
        self.letters.append(Letter(sender, to, letter.order, True))

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for name, fed in list(self.feds.items()):
            fed.timer(self.now)
            self.pump(name)

    def settle(self, rounds: int = 400) -> None:
        """Deliver all, ring all timers that are near, and let old places fall quiet, until nothing happens."""
        for _ in range(rounds):
            for _ in range(MOST_LETTERS):
                if not self.letters:
                    break
                self.deliver(self.letters[0])
            else:
                raise AssertionError(f"they write to each other for ever: {self.letters[0]}")
            for name, fed in self.feds.items():
                for one in self.cards:
                    view = fed.view(one.identifier)
                    for place in view.mapping.old if view is not None and view.mapping is not None else ():
                        if self.owner(place.network) == name:
                            fed.quiet(one.identifier, place)
                self.pump(name)
            times = [fed.next_timer() for fed in self.feds.values()]
            near = [time for time in times if time is not None and time < self.now + 60]
            if not near and not self.letters:
                return
            if near:
                self.tick(max(min(near) - self.now, 0.0) + 0.001)
        raise AssertionError("it never ends")


def away(user: Card) -> World:
    """The user, at home in alpha, is in beta, and delta knows it."""
    world = World([user])
    world.feds["beta"].attach(user.identifier, user.mac, "b1")
    world.pump("beta")
    world.settle()
    world.feds["alpha"].unaware(user.identifier, "d1")
    world.pump("alpha")
    world.settle()
    return world
