"""What a step of a move does to home's record: reserve, go there, flip, roll back, deny."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from . import records
from .desk import Desk
from .home import Home
from .messages import Reserve
from .nouns import Place
from .records import HomeRecord, Move

TAKEN_BACK: Final = "!"
"""Before the id of the last migration: it is over, and its conductor's word about it comes too late."""
PREPARE_WAIT_S: Final = 5.0
"""A move that is not ready by then is denied: a holder cannot be reached, or the target's domain."""


class Steps:
    """Works on the records that it is given, and puts them where it says so."""

    def __init__(self, desk: Desk, home: Home) -> None:
        self._desk, self._home, self._registry = desk, home, desk.registry

    def begin(self, key: int, record: HomeRecord, move: Move) -> None:
        """Go to ``move.network``: to the place that the node still has there, or one is reserved."""
        place = self.known(record, move.network)
        if place is None:
            self.reserve(key, record, move)
        elif move.prepared:
            record.move, move.state = move, records.PREPARED
            old = tuple(one for one in record.mapping.old if one != place)
            self._home.change(record, replace(record.mapping, arriving=place, old=old))
            move.version = record.mapping.version
            self.save(record.mapping.identifier, record)
            self.expect(key, move)
        else:
            self.there(record, place)
            self.save(record.mapping.identifier, record)

    def known(self, record: HomeRecord, network: str) -> Place | None:
        """An old place in the network that the mapping still lists: who goes to and fro while somebody has not
        heard of it takes no further locators. At home its identifier is none."""
        identifier = record.mapping.identifier
        for place in reversed(record.mapping.old):
            if place.network == network and place.locator != identifier:
                return place
        return None

    def reserve(self, key: int, record: HomeRecord, move: Move) -> None:
        record.counter += 1
        move.version = record.counter
        record.move = move
        self._home.records.put(key, record)
        self.send_reserve(key, record, move)
        if move.prepared:
            self.expect(key, move)

    def send_reserve(self, key: int, record: HomeRecord, move: Move) -> None:
        owner = self._registry.owner_of_network(move.network) or ""
        self._desk.send(("reserve", key), owner, Reserve(record.mapping.card, move.network, move.version), True)

    def expect(self, key: int, move: Move) -> None:
        version = move.version

        def late() -> None:
            record = self._home.records.get(key)
            if record is None or record.move is None or record.move.version != version:
                return
            if record.move.prepared and record.move.state in (records.RESERVING, records.PREPARED):
                self.deny(key, record, "not all domains that know the node have confirmed in time")

        # `now` may be 0 after a restart: then the first timer is the start.
        self._desk.alarm_in(PREPARE_WAIT_S, late)

    def deny(self, key: int, record: HomeRecord, reason: str) -> None:
        move = record.move
        if move is not None:
            self._home.deny(record, move.by, move.migration, reason)
            self.roll_back(key, record)

    def take_back(self, key: int, record: HomeRecord, reason: str) -> None:
        """A migration that has ended otherwise. Its conductor hears so if it may not know yet that it is ready,
        else with its next phase."""
        move = record.move
        if move is None:
            return
        if move.state == records.FLIPPED:
            self.roll_back(key, record)
        else:
            self.deny(key, record, reason)
        record.done = TAKEN_BACK + move.migration
        self._home.records.put(key, record)

    def roll_back(self, key: int, record: HomeRecord) -> None:
        """Back to (or still at) the source. What was sent to the target's locator may be under way."""
        move, mapping = record.move, record.mapping
        if move is None:
            return
        self._desk.cancel(("ready", key, move.migration))
        if mapping.leaving is not None:
            after = replace(mapping, here=mapping.leaving, leaving=None, old=with_place(mapping.old, mapping.here))
        elif mapping.arriving is not None:
            after = replace(mapping, arriving=None, old=with_place(mapping.old, mapping.arriving))
        else:
            self.abandon(key, record)
            after = None
        self.over(record, move)
        if after is not None:
            self._home.change(record, after)
        self._home.records.put(key, record)
        self._home.advance(key, record)

    def abandon(self, key: int, record: HomeRecord) -> None:
        """A reservation is not wanted any more: its domain gets a version without it."""
        move = record.move
        if move is None:
            return
        self._desk.cancel(("reserve", key))
        owner = self._registry.owner_of_network(move.network) or ""
        record.move = None
        self._home.change(record, record.mapping)
        record.holders.setdefault(owner, 0)
        record.owed[owner] = record.mapping.version

    def over(self, record: HomeRecord, move: Move) -> None:
        record.move = None
        if move.prepared:
            record.done = move.migration

    def flip(self, record: HomeRecord, move: Move) -> None:
        mapping = record.mapping
        if mapping.arriving is not None:
            self._desk.cancel(("ready", int(mapping.identifier), move.migration))
            move.state = records.FLIPPED
            self._home.change(record, replace(mapping, here=mapping.arriving, arriving=None, leaving=mapping.here))

    def release(self, record: HomeRecord, move: Move) -> None:
        """The source has nothing more to send on."""
        mapping = record.mapping
        old = with_place(mapping.old, mapping.leaving) if mapping.leaving else mapping.old
        here = mapping.here
        if here.network == mapping.card.home and here.locator != mapping.identifier:
            # At home the node goes by its identifier alone again; the locator has only led packets in.
            old, here = with_place(old, here), Place(here.network, mapping.identifier)
        self.over(record, move)
        self._home.change(record, replace(mapping, here=here, leaving=None, old=old))

    def there(self, record: HomeRecord, here: Place) -> None:
        """The node is there: nothing could be prepared."""
        mapping = record.mapping
        old = tuple(place for place in with_place(mapping.old, mapping.here) if place.locator != here.locator)
        self._home.change(record, replace(mapping, here=here, arriving=None, leaving=None, old=old))

    def without_the_gone(self, key: int, record: HomeRecord) -> None:
        """After a restart: networks, or domains, that the record names may not be configured any more. What waits
        for them is over, and a node that was there is at home until it shows up elsewhere."""
        domains, nowhere = self._registry.domains, self._home.nowhere
        told = {network for network in record.told if self._registry.owner_of_network(network) is not None}
        changed = told != record.told
        record.told = told
        for denial in [denial for denial in record.denials if denial[0] not in domains]:
            changed = True
            record.denials.remove(denial)
            self._desk.cancel(("denied", denial[0], key, denial[1]))
        move = record.move
        if move is not None and (move.by not in domains or self._registry.owner_of_network(move.network) is None):
            changed = True
            if move.state == records.FLIPPED and not nowhere(record.mapping.here):
                self.release(record, move)  # nobody else will say so
            elif move.by in domains and move.state in (records.RESERVING, records.PREPARED):
                self.deny(key, record, "no such network")
            else:
                self.roll_back(key, record)
        mapping = record.mapping
        if nowhere(mapping.here):
            self.there(record, Place(mapping.card.home, mapping.identifier))
        elif nowhere(mapping.leaving):
            self._home.change(record, replace(mapping, leaving=None))
        elif any(map(nowhere, mapping.old)):
            self._home.change(record, mapping)
        elif not changed:
            return
        self._home.records.put(key, record)
        self._home.advance(key, record)

    def save(self, identifier: IPv4Address, record: HomeRecord) -> None:
        self._home.records.put(int(identifier), record)
        self._home.advance(int(identifier), record)


def with_place(old: tuple[Place, ...], place: Place) -> tuple[Place, ...]:
    return (*(other for other in old if other.locator != place.locator), place)
