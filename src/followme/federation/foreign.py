"""Foreign: gives locators of own networks, and tells the networks that a node here wants to speak to.

Whom it has told goes home with each answer to an Update; while the node is on its way from or to here also by
itself (Told). It is written down before it is told.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final

from .desk import Desk
from .held import FULL, MAX_TOLD, Holdings
from .messages import Answer, Held, Refused, Reserve, Reserved, Told, Update
from .outputs import CannotPass, Changed, Passes
from .records import HeldRecord

TRIES: Final = 3
"""So often a network is told that does not answer; then the next packet begins again."""


class Foreign:
    def __init__(self, desk: Desk, held: Holdings) -> None:
        self._desk, self._held, self._registry = desk, held, desk.registry
        self._telling: dict[int, set[str]] = {}

    def reserve(self, sender: str, order: Reserve) -> Answer:
        """A locator; the same one for a second copy of the order."""
        key = int(order.identifier)
        if self._registry.home_of(order.identifier) != sender:
            return self._desk.refuse("sender is not the node's home")
        if not self._registry.mine(order.network):
            return self._desk.refuse("not a network of this domain")
        network = self._registry.network_of(order.identifier)
        if network is None or network.name != order.card.home:
            return self._desk.refuse("the identifier is not of the home network")
        record = self._held.records.get(key) or HeldRecord()
        for locator, (where, version) in record.given.items():
            if (where, version) == (order.network, order.version):
                return Reserved(IPv4Address(locator))
        newest = max([version for _, version in record.given.values()], default=0)
        held = record.mapping.version if record.mapping is not None else 0
        newest = max(newest, held, self._held.tomb(key)[0])
        if order.version <= newest:
            self._desk.refusals["out of date"] += 1
            return Held(newest)
        if why := self._desk.objection(order.card):
            return self._desk.refuse(why)
        if self._held.full(key):
            return self._desk.refuse(FULL)
        # One that it has had, and that others may still know as its own, is given to it again.
        before = [(version, one) for one, (where, version) in record.given.items() if where == order.network]
        if before:
            _, locator = max(before)
            record.given[locator] = order.network, order.version
            self._held.keep(key, record, None)
            return Reserved(IPv4Address(locator))
        if self._held.share_used(key, order.network):
            return self._desk.refuse("the node's home has its share of the network's locators")
        given = self._held.give(key, record, order.network, order.version)
        if given is None:
            return self._desk.refuse("no locator is free in the network")
        self._held.keep(key, record, None)
        return Reserved(IPv4Address(given))

    def speaks(self, identifier: IPv4Address, network: str) -> None:
        """A node here speaks to ``network``: it may, or it is told first."""
        key = int(identifier)
        record = self._held.records.get(key)
        owner = self._registry.owner_of_network(network)
        if record is None or record.mapping is None or not record.places():
            self._desk.effect(CannotPass(identifier, network, "the node is not here"))
        elif owner is None:
            self._desk.effect(CannotPass(identifier, network, "no such network"))
        elif self.confirmed(record, network):
            self._desk.effect(Passes(identifier, network))
        elif network not in record.told and len(record.told) >= MAX_TOLD:
            self._desk.effect(CannotPass(identifier, network, "the node's correspondents are too many"))
        elif network not in (telling := self._telling.setdefault(key, set())):
            telling.add(network)
            if network not in record.told:
                record.told[network] = 0
                self._held.records.put(key, record)
                if not self._settled_here(record):
                    self._report(key, record)
            self._tell(key, record, owner)

    def confirmed(self, record: HeldRecord, network: str) -> bool:
        """Whether ``network`` has confirmed a mapping that lists where the node is here."""
        places = record.places()
        return bool(places) and record.told.get(network, 0) > record.given[int(places[0].locator)][1]

    def adopted(self, key: int, record: HeldRecord) -> None:
        """A newer mapping: what is being told is told anew, or given up if the node has gone on."""
        identifier = IPv4Address(key)
        for network in sorted(self._telling.get(key, ())):
            owner = self._registry.owner_of_network(network) or ""
            if not record.places():
                self._desk.cancel(("u", owner, key))
                self._give_up(key, network, "the node has gone on")
            elif self.confirmed(record, network):
                self._telling[key].discard(network)
                self._desk.effect(Passes(identifier, network))
            else:
                self._tell(key, record, owner)
        if not record.given:
            self._telling.pop(key, None)

    def told_answered(self, to: str, order: Update, answer: Answer | None) -> None:
        """A correspondent's domain has answered."""
        key, repeat_key = int(order.identifier), ("u", to, int(order.identifier))
        if isinstance(answer, Held):
            self._desk.settle(repeat_key, order)
            record = self._held.records.get(key)
            if record is None or record.mapping is None:
                return
            for network in order.networks:
                if network in record.told:
                    record.told[network] = max(record.told[network], order.mapping.version)
            self._held.records.put(key, record)
            self._desk.effect(Changed(order.identifier))
            for network in order.networks:
                if network in self._telling.get(key, ()) and self.confirmed(record, network):
                    self._telling[key].discard(network)
                    self._desk.effect(Passes(order.identifier, network))
        elif isinstance(answer, Refused) and not answer.again:
            self._desk.settle(repeat_key, order)
            for network in order.networks:
                self._give_up(key, network, answer.reason)
        elif self._desk.again(repeat_key, order) >= TRIES:
            self._desk.cancel(repeat_key)
            for network in order.networks:
                self._give_up(key, network, f"domain {to} does not answer")

    def reported(self, to: str, order: Told, answer: Answer | None) -> None:
        key = ("told", int(order.identifier))
        if answer is None or (isinstance(answer, Refused) and answer.again):
            self._desk.again(key, order)
        else:
            self._desk.settle(key, order)

    def _tell(self, key: int, record: HeldRecord, owner: str) -> None:
        if record.mapping is None:
            return
        networks = tuple(sorted(network for network in self._telling.get(key, ())
                                if self._registry.owns(owner, network)))  # fmt: skip
        tag = (record.mapping.version, networks)
        if self._desk.waits(("u", owner, key)) != tag:
            self._desk.send(("u", owner, key), owner, Update(record.mapping, networks), tag)

    def _report(self, key: int, record: HeldRecord) -> None:
        home = self._registry.home_of(IPv4Address(key))
        if home is not None:
            told = dict(record.told)
            self._desk.send(("told", key), home, Told(IPv4Address(key), told), tuple(told))

    def _settled_here(self, record: HeldRecord) -> bool:
        mapping = record.mapping
        return (mapping is not None and self._registry.mine(mapping.here.network)
                and mapping.arriving is None and mapping.leaving is None)  # fmt: skip

    def _give_up(self, key: int, network: str, reason: str) -> None:
        telling = self._telling.get(key, set())
        if network in telling:
            telling.discard(network)
            self._desk.effect(CannotPass(IPv4Address(key), network, reason))
