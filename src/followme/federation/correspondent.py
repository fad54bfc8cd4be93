"""Correspondent and foreign: which mappings of other domains' nodes are held, and which Updates are refused.

Only home's domain, or the one where the node is, arrives or leaves, may say; only what home has signed counts;
the newest version wins, and an older one changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from .desk import Desk
from .doubts import Doubts
from .held import FULL, MAX_TOLD, Holdings
from .messages import Answer, Held, Refused, Update
from .nouns import Mapping, mapping_text
from .outputs import Changed
from .records import HeldRecord


class Correspondent:
    """``adopted(identifier, record)`` is called when a newer mapping is held."""

    def __init__(
        self, desk: Desk, held: Holdings, doubts: Doubts, adopted: Callable[[int, HeldRecord], None]
    ) -> None:
        self._desk, self._held, self._doubts, self._adopted = desk, held, doubts, adopted
        self._registry = desk.registry

    def update(self, sender: str, order: Update) -> Answer:
        """Answers ``Held`` with what is held now, be it newer; to home also with whom we have told."""
        mapping = order.mapping
        key = int(mapping.card.identifier)
        home = self._registry.home_of(mapping.card.identifier)
        record = self._held.records.get(key)
        current = record.mapping if record is not None else None
        networks = set(order.networks) - record.networks if record is not None else set(order.networks)
        newer = current is None or mapping.version > current.version
        if newer or networks:
            refused = self._refuse(sender, home, mapping, networks, current, key)
            if refused is not None:
                return refused
        if not newer and current is not None and mapping.version == current.version \
                and mapping.canonical() != current.canonical():  # fmt: skip
            refused = self._refuse(sender, home, mapping, networks, current, key)
            if refused is None and record is not None:
                self._doubts.contradicted(key, record)
            return refused or self._desk.refuse("another mapping of that version is held", again=True)
        if sender != home and record is not None and networks & record.unsure:
            return self._desk.refuse("home has not confirmed it", again=True)
        if record is None:
            version, at_home = self._held.tomb(key)
            if mapping.version < version and not at_home and networks and sender != home:
                return self._desk.refuse("out of date", again=True)  # home hears which version: it goes above it
            if mapping.version < version or (mapping.version == version and at_home and mapping.settled_home):
                return Held(version)
            record = HeldRecord()
        if newer and sender == home and not self._held.take(key, record, mapping):
            return self._desk.refuse("a locator that was not given")
        if newer:
            record.mapping = current = mapping
            if mapping.settled_home:
                record.networks.clear()
                self._doubts.end(key, record, tuple(record.unsure))
        if current is not None and not current.settled_home:
            record.networks |= networks
            if networks and sender not in (home, self._desk.me):
                self._doubts.begin(key, record, networks)
        sure = record.unsure.intersection(order.networks) if sender == home else set()
        if sender == home:
            self._doubts.end(key, record, sure)
            self._from_home(key, record, order)
        answer = Held(current.version if current else mapping.version, dict(record.told) if sender == home else {})
        if newer or networks or sure or order.settled or order.told:
            self._held.keep(key, record, record.mapping)
        if newer:
            self._adopted(key, record)
        self._desk.effect(Changed(mapping.card.identifier))
        return answer

    def _from_home(self, key: int, record: HeldRecord, order: Update) -> None:
        mapping = record.mapping
        if mapping is None or mapping.version != order.mapping.version:
            return
        if order.settled:
            self._held.drop(key, record, mapping)
        if not record.given:
            record.told.clear()  # home has the list, and nobody speaks from here any more
            return
        for network in order.told:
            if self._held.swollen(key):
                return  # they are told again when somebody here speaks to them
            if self._registry.owner_of_network(network) is not None and len(record.told) < MAX_TOLD:
                record.told[network] = mapping.version

    def _refuse(
        self, sender: str, home: str | None, mapping: Mapping, networks: set[str], held: Mapping | None, key: int
    ) -> Refused | None:
        registry = self._registry
        if home is None:
            return self._desk.refuse("nobody's identifier")
        if any(not registry.mine(network) for network in networks):
            return self._desk.refuse("not a network of this domain")
        if sender != home and not any(
            place is not None and registry.owns(sender, place.network)
            for place in (mapping.here, mapping.arriving, mapping.leaving)
        ):
            return self._desk.refuse("sender is neither the node's home nor where it is")
        if mapping is held:
            return None  # our own foreign role tells our own networks
        if mapping.card != (held.card if held else None) and (refused := self._refuse_card(mapping)):
            return refused
        record = self._held.records.get(key)
        for place in mapping.places:
            if not registry.in_pool(place.network, place.locator) and not (
                place.locator == mapping.card.identifier and place.network == mapping.card.home
            ):
                return self._desk.refuse("a locator outside the pool")
            if sender != home and registry.mine(place.network) \
                    and (record is None or int(place.locator) not in record.given) \
                    and (held is None or mapping.version > held.version) \
                    and mapping.version > self._held.tomb(key)[0]:  # fmt: skip
                return self._desk.refuse("a locator that was not given")
        # From home itself the bus vouches for it, as for all that home says; what is handed on must prove itself.
        if sender != home and not self._desk.signer.verify(home, mapping.canonical(), mapping.signature):
            return self._desk.refuse("bad signature")
        longer = held is not None and _longer(mapping, held, networks)
        if self._held.full(key) or (longer and self._held.swollen(key)):
            return self._desk.refuse(FULL, again=held is not None)
        return None

    def _refuse_card(self, mapping: Mapping) -> Refused | None:
        card = mapping.card
        network = self._registry.network_of(card.identifier)
        if network is None or network.name != card.home:
            return self._desk.refuse("the identifier is not of the home network")
        if network.outer(card.address) != card.identifier if card.address in network.inside else True:
            return self._desk.refuse("the address does not belong to the identifier")
        if why := self._desk.objection(card):
            return self._desk.refuse(why)
        return None


def _longer(mapping: Mapping, held: Mapping, networks: set[str]) -> bool:
    """Whether its record will be: a node that is home for good has none."""
    return not mapping.settled_home and (bool(networks) or len(mapping_text(mapping)) > len(mapping_text(held)))
