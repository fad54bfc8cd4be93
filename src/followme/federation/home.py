"""Home: the authority over the mappings of its nodes. It alone raises versions, and tells all who hold one.

Every change is a new signed version; each holder's domain gets an Update until it has confirmed the newest. An old
place leaves the mapping when its owner says that it is quiet and all holders know it as old; its locator is free
when all have confirmed a version without it. ``moves.py`` says when a node moves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from . import records
from .desk import Desk
from .held import MAX_TOLD
from .holders import Holders
from .messages import Accepted, Answer, Denied, Held, Holds, Quiet, Ready, Refused, Told, Update
from .nouns import Card, Place, signed
from .nouns import Mapping as NodeMapping
from .outputs import Changed, Passes
from .records import HomeRecord
from .table import MAX_LIVE, Load, Table

ATTACH: Final = "attach "
"""What begins the ids of moves of which there was no word before; no host's begins so."""
RAISE_S: Final = 1.0
"""A node's versions are raised above what others say no more often."""
MAX_RAISE: Final = 1 << 24
"""And by no more: a liar cannot use the numbers up."""


class Home:
    """``records`` by identifier (as a number)."""

    def __init__(self, desk: Desk, load: Load | None) -> None:
        self.records: Table[HomeRecord] = Table("n", HomeRecord.encode, records.home_record, load)
        self.holders = Holders(desk)
        self._desk = desk
        self._registry = desk.registry
        self._me = desk.me
        self._raised: dict[int, float] = {}

    def know(self, card: Card) -> HomeRecord | None:
        """A node that is at home here. It need not be away. What was known of it before."""
        key = int(card.identifier)
        record = self.records.get(key)
        if record is None:
            mapping = NodeMapping(card, 1, Place(card.home, card.identifier))
            self.records.put(key, HomeRecord(mapping, 1, moved=1), write=False)
        elif record.mapping.card != card or not record.known:
            record.known = True
            if record.mapping.card != card:
                self.change(record, record.mapping, card=card)
            self.records.put(key, record)
            self.advance(key, record)
        return record

    def forget(self, identifier: IPv4Address) -> None:
        """The node is no more: all who hold it are told that it is nowhere but home. Its version stays known."""
        key = int(identifier)
        record = self.records.get(key)
        if record is None or not record.known:
            return
        record.known = False
        if (move := record.move) is not None:
            record.done, record.move = move.migration, None
            if (owner := self._registry.owner_of_network(move.network)) is not None:
                record.holders.setdefault(owner, 0)  # it may have given a locator
                record.owed[owner] = record.counter + 1
            self._desk.cancel(("reserve", key))
            self._desk.cancel(("ready", key, move.migration))
        if record.holders:
            card = record.mapping.card
            self.change(record, replace(record.mapping, here=Place(card.home, card.identifier), arriving=None,
                                        leaving=None, old=()))  # fmt: skip
        self.records.put(key, record)
        self.advance(key, record)

    # What holds a mapping

    def change(self, record: HomeRecord, after: NodeMapping, card: Card | None = None) -> None:
        """The next version. The caller puts the record and advances. Places in networks that are not configured any
        more are left out: nobody can be asked about them."""
        before = record.mapping
        if any(map(self.nowhere, after.old)):
            after = replace(after, old=tuple([place for place in after.old if not self.nowhere(place)]))
        record.counter += 1
        version = record.counter
        record.mapping = mapping = signed(card or after.card, version, after, self._desk.signer.sign)
        places = {int(place.locator): place.network for place in mapping.places}
        ignorant: set[str] = set()
        record.last.clear()
        for place in before.places:
            locator = int(place.locator)
            owner = self._registry.owner_of_network(place.network)
            if locator not in places and place.locator != mapping.identifier and owner is not None:
                record.owed[owner] = version
                known = record.aged.get(locator, version) <= record.holders.get(owner, 0)
                (record.last if known else ignorant).add(owner)
        record.last -= ignorant
        record.listed = {locator: record.listed.get(locator, version) for locator in places}
        record.aged = {int(old.locator): record.aged.get(int(old.locator), version) for old in mapping.old}
        record.quiet.intersection_update(record.aged)
        if before.here != mapping.here:
            record.moved = version
        if not record.holders:
            record.began = before.version
        record.holders.setdefault(self._me, 0)
        for network in places.values():
            self.holders.hold(record, network)

    def nowhere(self, place: Place | None) -> bool:
        """Whether its network is not configured (any more)."""
        return place is not None and self._registry.owner_of_network(place.network) is None

    def tell(self, identifier: IPv4Address, network: str) -> bool:
        """Somebody in ``network`` speaks to the node, and does not know where it is; whether it is being told."""
        key = int(identifier)
        record = self.records.get(key)
        if record is None or not record.holders or self._registry.owner_of_network(network) is None:
            return False
        if network == record.mapping.card.home or network in record.told:
            return True
        if len(record.told) >= MAX_TOLD:
            self._desk.refusals["a node's correspondents are too many"] += 1
            return False
        record.told.add(network)
        record.holders[self._registry.owner_of_network(network) or ""] = 0
        self.records.put(key, record)
        self.advance(key, record)
        return True

    def advance(self, key: int, record: HomeRecord) -> None:
        """What can be done now is done: drop quiet places, let a prepared move go, tell who does not know."""
        move = record.move
        for domain in [one for one in record.holders if one not in self._registry.domains]:
            del record.holders[domain]  # not configured any more: nobody waits for it
            self.holders.answers(key, domain)
            record.owed.pop(domain, None)
            record.last.discard(domain)
        settled = min(record.holders.values(), default=0)
        if (record.quiet or self.holders.crowded(record)) and (move is None or move.state != records.RESERVING):
            # Not while a locator is being reserved: its owner would take the new version for one without it.
            gone = [old for old in record.mapping.old
                    if int(old.locator) in record.quiet and record.aged[int(old.locator)] <= settled]  # fmt: skip
            gone += self.holders.in_the_way(key, record, gone)
            if gone:
                self.change(record, replace(record.mapping, old=_without(record.mapping.old, gone)))
                self.records.put(key, record)
                settled = min(record.holders.values(), default=0)
        if move is not None and move.state == records.PREPARED and (
            settled >= record.mapping.version or self.holders.heard(key, record) >= record.mapping.version
        ):
            move.state = records.READY
            if (target := self._registry.owner_of_network(move.network)) is not None:
                record.owed[target] = record.mapping.version  # it learns at once who knows the new place
            self.records.put(key, record)
            self.send_ready(record)
        for domain in self.holders.done(record, settled):
            del record.holders[domain]
            self.holders.answers(key, domain)
            self._confirmed(key, record)
            self._desk.cancel(("u", domain, key))
        if set(record.holders) <= {self._me} and record.mapping.settled_home and move is None \
                and not record.told and not record.owed and settled >= record.mapping.version:  # fmt: skip
            record.holders.clear()
            record.listed.clear()
            self.records.put(key, record)
        for domain in record.holders:
            self.holders.push(key, record, domain, settled)

    def _confirmed(self, key: int, record: HomeRecord) -> None:
        """What others have confirmed is written when nothing is open any more, or when something is made of it:
        after a restart they are asked again."""
        if record.unfinished():
            self.records.note(key, record)
        else:
            self.records.put(key, record)

    def send_ready(self, record: HomeRecord) -> None:
        move, identifier = record.move, record.mapping.identifier
        if move is not None:
            order = Ready(identifier, move.migration, record.mapping.version)
            self._desk.send(("ready", int(identifier), move.migration), move.by, order, True)

    def deny(self, record: HomeRecord, by: str, migration: str, reason: str) -> None:
        """Told until it is accepted, or the node shows up there again. The caller puts the record."""
        record.denials.append((by, migration, reason))
        identifier = record.mapping.identifier
        self._desk.send(("denied", by, int(identifier), migration), by, Denied(identifier, migration, reason), True)

    def undeny(self, record: HomeRecord, domain: str) -> None:
        """The node has shown up there again: what was answered before is of no use. The caller puts the record."""
        for denial in [one for one in record.denials if one[0] == domain and one[1].startswith(ATTACH)]:
            record.denials.remove(denial)
            self._desk.cancel(("denied", domain, int(record.mapping.identifier), denial[1]))

    # What others say

    def told(self, sender: str, order: Told) -> Answer:
        record = self.records.get(int(order.identifier))
        if record is None or not record.holders:
            return Accepted()  # at home again: what they were told then, they will drop
        if not self.holders.may_tell(record, sender):
            return self._desk.refuse("the node is not with the sender")
        if self.holders.merge(record, order.told):
            self.records.put(int(order.identifier), record)
            self.advance(int(order.identifier), record)
        return Accepted(record.mapping.version)

    def holds(self, sender: str, order: Holds) -> Answer:
        """Another has told networks of the sender: it is a holder, and hears what is true now. Of a node that is at
        home nobody need hold anything."""
        key = int(order.identifier)
        record = self.records.get(key)
        if record is None:
            return self._desk.refuse("nobody of that identifier is at home here")
        if any(not self._registry.owns(sender, network) for network in order.held):
            return self._desk.refuse("sender does not own the network")
        theirs, made = order.mapping, record.mapping
        if not self._made_here(theirs):
            return self._desk.refuse("bad signature")
        # All that we know of having made is older, or the same: then our records were lost, and began anew.
        overtaken = theirs.version > made.version or (
            theirs.version == made.version and theirs.canonical() != made.canonical()
        )
        if overtaken and not self._raise(key, record, theirs.version):
            return self._desk.refuse("versions are raised too often", again=True)
        if record.mapping.settled_home and not record.holders and record.move is None:
            if overtaken:
                self.records.put(key, record)
            return self._desk.refuse("the node is at home")
        if not overtaken and theirs.version <= (record.began if record.holders else made.version):
            return self._desk.refuse("out of date: the node has been at home since")
        known = not overtaken and sender in record.holders
        news = {network: version for network, version in order.held.items()
                if not known or network not in record.told}  # fmt: skip
        if len(record.told | news.keys()) > MAX_TOLD:
            return self._desk.refuse("a node's correspondents are too many")
        if news:
            if not record.holders:
                record.began = made.version
            least = min(min(news.values()), theirs.version)
            record.holders[sender] = 0 if overtaken else min(record.holders.get(sender, least), least)
            record.told.update(news)
        if overtaken:
            self.change(record, made)
        if news or overtaken:
            self.records.put(key, record)
            self.advance(key, record)
        return Accepted(record.mapping.version)

    def lost(self, key: int, record: HomeRecord, version: int) -> bool | None:
        """Whether somebody holds a version that we have not made: our records are lost, and the counter is above it
        now. The caller makes the next version of it. ``None``: not now."""
        if version <= record.counter:
            return False
        return True if self._raise(key, record, version) else None

    def _raise(self, key: int, record: HomeRecord, version: int) -> bool:
        """Whether the counter is at ``version`` or above now; not, if that was done a moment ago."""
        now = self._desk.now
        if now - self._raised.get(key, -RAISE_S) < RAISE_S:
            return False
        if len(self._raised) >= MAX_LIVE:
            self._raised.clear()
        self._raised[key] = now
        self._desk.refusals["a version that home has not made"] += 1
        record.counter = max(record.counter, min(version, record.counter + MAX_RAISE))
        return True

    def quiet(self, sender: str, order: Quiet) -> Answer:
        key = int(order.identifier)
        record = self.records.get(key)
        if not self._registry.owns(sender, order.place.network):
            return self._desk.refuse("sender does not own the network")
        locator = int(order.place.locator)
        if record is not None and order.place in record.mapping.old and locator not in record.quiet:
            record.quiet.add(locator)
            self.records.put(key, record)
            self.advance(key, record)
        return Accepted()

    def update(self, sender: str, order: Update) -> Answer:
        """Our own order (the switches must confirm), or a foreign domain tells networks of ours."""
        key = int(order.identifier)
        record = self.records.get(key)
        if record is None:
            return self._desk.refuse("nobody of that identifier is at home here")
        if sender not in record.holders and record.holders:
            return self._desk.refuse("sender is no holder")
        if any(not self._registry.mine(network) for network in order.networks):
            return self._desk.refuse("not a network of this domain")
        news = set(order.networks) - record.told - {record.mapping.card.home}
        if sender != self._me and record.holders and news:
            if not self._made_here(order.mapping):
                return self._desk.refuse("bad signature")
            # This answer says that they know it: no order of our own is needed.
            if self.holders.merge(record, dict.fromkeys(sorted(news), order.mapping.version)):
                self.records.put(key, record)
                self.advance(key, record)
        self._desk.effect(Changed(order.identifier))
        return Held(record.mapping.version)

    def _made_here(self, mapping: NodeMapping) -> bool:
        return self._desk.signer.verify(self._me, mapping.canonical(), mapping.signature)

    def update_answered(self, to: str, order: Update, answer: Answer | None) -> None:
        key = int(order.identifier)
        repeat_key = ("u", to, key)
        record = self.records.get(key)
        if not isinstance(answer, Held) or record is None:
            if self._desk.again(repeat_key, order):  # else a newer one took its place, and may be answered already
                self.holders.unheard(key, to)
            return
        self.holders.answers(key, to)
        if to in record.holders and answer.version > record.mapping.version:  # which nobody has from us
            if self._raise(key, record, answer.version):
                self._desk.settle(repeat_key, order)
                self.change(record, record.mapping)
                self.records.put(key, record)
                self.advance(key, record)
            else:
                self._desk.again(repeat_key, order)
            return
        self._desk.settle(repeat_key, order)
        if to not in record.holders:
            return
        before = self._speaks_to(record)
        settled, ahead = self.holders.settled(record)
        news = False
        if answer.told and self.holders.may_tell(record, to) and self.holders.merge(record, answer.told):
            self.records.put(key, record)
            news = True
        if set(self.holders.networks_of(record, to)) <= set(order.networks):
            # A newer one that it has from elsewhere may be another than ours: that is told it, too, and answered.
            if answer.version <= order.mapping.version:
                record.holders[to] = max(record.holders[to], order.mapping.version)
        else:
            news = True  # networks have come meanwhile
        if order.settled and order.mapping.version == record.mapping.version:
            record.owed.pop(to, None)
            news = True
        self._confirmed(key, record)
        if news or record.move is not None or self.holders.settled(record) != (settled, ahead):
            self.advance(key, record)  # only the last answer lets anything go on
        now = self._speaks_to(record) - before
        if now:
            self._desk.effect(Changed(record.mapping.identifier))
        for network in sorted(now):
            self._desk.effect(Passes(record.mapping.identifier, network))

    def _speaks_to(self, record: HomeRecord) -> set[str]:
        """Where the node is in an own network: the networks that it may speak to."""
        here, home = record.mapping.here.network, record.mapping.card.home
        if here == home or not self._registry.mine(here):
            return set()
        return {network for network in (home, *record.told) if self.holders.confirmed(record, network)}

    def denied_answered(self, to: str, order: Denied, answer: Answer | None) -> None:
        key = ("denied", to, int(order.identifier), order.migration)
        if answer is None or (isinstance(answer, Refused) and answer.again):
            self._desk.again(key, order)
            return
        self._desk.settle(key, order)
        record = self.records.get(int(order.identifier))
        if record is not None and (to, order.migration, order.reason) in record.denials:
            record.denials.remove((to, order.migration, order.reason))
            self.records.put(int(order.identifier), record)

    def restore(self, key: int, fact: bytes) -> bool:
        """After a restart: whether there is something to do (``resume``)."""
        self.records.restore(key, fact)
        return records.home_head(fact)

    def resume(self, key: int) -> None:
        """What was not answered is sent again."""
        record = self.records.get(key)
        if record is None:
            return
        identifier = record.mapping.identifier
        for by, migration, reason in record.denials:
            self._desk.send(("denied", by, key, migration), by, Denied(identifier, migration, reason), True)
        if record.move is not None and record.move.state == records.READY:
            self.send_ready(record)
        self.advance(key, record)


def _without(old: tuple[Place, ...], gone: Iterable[Place]) -> tuple[Place, ...]:
    leaving = set(gone)
    return tuple([place for place in old if place not in leaving])
