"""Home: when a node moves. A machine moves in phases (prepare, flip, release or abort), a user is just there.

One move at a time. A second migration is refused while one is under way; for users the newest place wins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from followme.domain import NodeKind

from . import records
from .desk import Desk
from .home import ATTACH, Home
from .messages import (
    Aborted,
    Accepted,
    Answer,
    Attach,
    Flipped,
    Held,
    Prepare,
    Ready,
    Refused,
    Released,
    Reserve,
    Reserved,
)
from .nouns import MAX_OLD, Card, Place
from .records import HomeRecord, Move
from .steps import TAKEN_BACK, Steps

MAX_CLAIMS: Final = 8
MAX_DENIALS: Final = 16
"""Refused migrations of a node that one domain has not taken note of."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The domain that has a node."""

    domain: str
    kind: NodeKind


class Moves:
    """Orders about moves, on ``home``'s records."""

    def __init__(self, desk: Desk, home: Home) -> None:
        self._desk, self._home, self._registry = desk, home, desk.registry
        self._steps = Steps(desk, home)

    def know(self, card: Card) -> None:
        """A node that is at home here, wherever it is."""
        if (record := self._home.know(card)) is not None:
            self._steps.without_the_gone(int(card.identifier), record)

    def prepare(self, sender: str, order: Prepare) -> Answer:
        key, registry = int(order.identifier), self._registry
        record = self._home.records.get(key)
        if record is None or not record.known:
            return self._desk.refuse("nobody of that identifier is at home here")
        if order.migration in (record.done.removeprefix(TAKEN_BACK), *[denial[1] for denial in record.denials]):
            return Accepted(record.mapping.version)  # a late copy
        if record.move is not None:
            if record.move.migration != order.migration or not record.move.prepared:
                return self._desk.refuse(f"the node is being moved by {record.move.by}")
            return Accepted(record.move.version)
        mapping = record.mapping
        if mapping.card.kind is not NodeKind.MACHINE:
            return self._desk.refuse("only machines are carried")
        if not registry.owns(sender, mapping.here.network):
            return self._desk.refuse("the node is not in the sender's networks")
        if order.version < record.moved:
            return self._desk.refuse("out of date: the node has moved since")
        if registry.owner_of_network(order.network) is None:
            return self._desk.refuse("no such network")
        if order.network == mapping.here.network:
            return self._desk.refuse("the node is there already")
        if len([denial for denial in record.denials if denial[0] == sender]) >= MAX_DENIALS:
            return self._desk.refuse("too much of earlier moves is under way")
        back = self._steps.known(record, order.network) is not None  # to a place that it has still
        home = order.network == mapping.card.home  # there it goes by its identifier, and leaves that place, too
        if len(mapping.old) + 2 > MAX_OLD - (not back) and (home or not back):
            self._home.advance(key, record)  # next time there may be room
            return self._desk.refuse("too much of earlier moves is under way")
        self._steps.begin(key, record, Move(order.migration, sender, order.network, 0))
        return Accepted(record.counter)

    def attach(self, sender: str, order: Attach) -> Answer:
        key = int(order.identifier)
        record = self._home.records.get(key)
        if record is None:
            return self._desk.refuse("nobody of that identifier is at home here")
        objection = self._objection(record, sender, order)
        if objection is not None:
            if objection.again:
                self._home.advance(key, record)  # next time there may be room
            return self._desk.refuse(objection.reason, objection.again)
        move = record.move
        if order.claim <= record.claims.get(sender, -1):
            return self._attached_before(record, order, sender)
        record.claims.pop(sender, None)
        record.claims[sender] = order.claim
        self._home.undeny(record, sender)
        if len(record.claims) > MAX_CLAIMS:
            del record.claims[next(iter(record.claims))]
        self._home.records.put(key, record)
        if move is not None and move.prepared and _arrives(record, order):
            if move.state != records.FLIPPED:
                self._steps.flip(record, move)
            self._steps.release(record, move)
            self._steps.save(order.identifier, record)
            return Accepted(record.mapping.version)
        if move is not None and move.prepared:
            self._steps.take_back(key, record, "the machine runs elsewhere")
        elif move is not None and move.network == order.network:
            move.claim, move.migration = order.claim, _attach_id(order.claim)
            return Accepted(move.version)
        elif move is not None:
            self._steps.abandon(key, record)
        mapping = record.mapping
        if mapping.here.network == order.network:
            self._home.advance(key, record)
        elif order.network == mapping.card.home:
            self._steps.there(record, Place(order.network, mapping.identifier))
            self._home.advance(key, record)
        else:
            move = Move(_attach_id(order.claim), sender, order.network, 0, claim=order.claim)
            self._steps.begin(key, record, move)
            self._home.advance(key, record)
            return Accepted(record.counter)
        return Accepted(record.mapping.version)

    def doubted(self, sender: str, order: Attach) -> tuple[Whereabouts, ...]:
        """Who is to be asked before ``attach`` whether it has the node: nobody if the sender has it, or the order
        is a copy, or is refused in any case. A machine that is said to be neither where it was nor where it is
        carried is asked for at both."""
        record = self._home.records.get(int(order.identifier))
        if record is None or self._objection(record, sender, order) or order.claim <= record.claims.get(sender, -1):
            return ()
        mapping = record.mapping
        places: tuple[Place | None, ...] = (mapping.leaving or mapping.here,)
        if record.move is not None and record.move.prepared and not _arrives(record, order):
            places = mapping.here, mapping.arriving, mapping.leaving
        machine = mapping.card.kind is NodeKind.MACHINE
        networks = [place.network for place in places if place is not None and place.network != order.network]
        owners = dict.fromkeys(map(self._registry.owner_of_network, networks))
        # A user who goes from network to network of one domain is seen there; machines do not go by themselves.
        return tuple([Whereabouts(owner, mapping.card.kind) for owner in owners
                      if owner is not None and (machine or owner != sender)])  # fmt: skip

    def _objection(self, record: HomeRecord, sender: str, order: Attach) -> Refused | None:
        """What speaks against it, wherever the node may be."""
        if not record.known:
            return Refused("nobody of that identifier is at home here")
        if not self._registry.owns(sender, order.network):
            return Refused("sender does not own the network")
        if order.mac != record.mapping.card.mac:
            return Refused("another MAC address than the node's")
        if order.claim <= record.claims.get(sender, -1):
            return None  # a copy
        if order.network in (record.mapping.card.home, record.mapping.here.network):
            return None
        if len(record.mapping.old) + 1 >= MAX_OLD and self._steps.known(record, order.network) is None:
            return Refused("too much of earlier moves is under way", again=True)
        return None

    def _attached_before(self, record: HomeRecord, order: Attach, sender: str) -> Answer:
        move = record.move
        if order.claim == record.claims.get(sender):
            if move is not None and move.by == sender and move.claim == order.claim:
                return Accepted(move.version)
            if record.mapping.here.network == order.network:
                return Accepted(record.mapping.version)
        return self._desk.refuse("out of date: the node has gone on")

    def flipped(self, sender: str, order: Flipped) -> Answer:
        record, refused = self._moving(sender, order)
        if refused is not None or record is None or record.move is None:
            return refused or Accepted()
        if record.move.state != records.FLIPPED:
            self._steps.flip(record, record.move)
            self._steps.save(order.identifier, record)
        return Accepted(record.mapping.version)

    def released(self, sender: str, order: Released) -> Answer:
        record, refused = self._moving(sender, order)
        if refused is not None or record is None or record.move is None:
            return refused or Accepted()
        if record.move.state != records.FLIPPED:
            self._steps.flip(record, record.move)  # its own order is late
        self._steps.release(record, record.move)
        self._steps.save(order.identifier, record)
        return Accepted(record.mapping.version)

    def aborted(self, sender: str, order: Aborted) -> Answer:
        record = self._home.records.get(int(order.identifier))
        if record is not None and (record.move is None or record.move.migration != order.migration):
            return Accepted()  # nothing is under way; should its Prepare come later, its Ready is refused
        record, refused = self._moving(sender, order, READY_OR_NOT)
        if refused is not None or record is None or record.move is None:
            return refused or Accepted()
        self._steps.roll_back(int(order.identifier), record)
        return Accepted(record.mapping.version)

    def reserving(self, order: Reserve) -> bool:
        """Whether this order of ours is still wanted."""
        record = self._home.records.get(int(order.identifier))
        move = None if record is None else record.move
        return move is not None and move.state == records.RESERVING and move.version == order.version

    def reserve_answered(self, to: str, order: Reserve, answer: Answer | None) -> None:
        key = int(order.identifier)
        record = self._home.records.get(key)
        move = None if record is None else record.move
        if (isinstance(answer, Refused) and not answer.again) or isinstance(answer, Reserved | Held):
            self._desk.settle(("reserve", key), order)
        else:
            self._desk.again(("reserve", key), order)
            return
        if record is None or move is None or move.state != records.RESERVING or move.version != order.version:
            return  # it is known as given up: the domain will hear of a newer version
        if isinstance(answer, Reserved):
            place = Place(order.network, answer.locator)
            if not self._registry.in_pool(order.network, answer.locator):
                self._desk.refusals["a locator outside the pool"] += 1
                self._steps.deny(key, record, "the target's domain gave a locator outside its pool")
            elif record.mapping.lists(order.network, answer.locator):
                self._desk.refusals["a locator that is in use"] += 1
                self._steps.deny(key, record, "the target's domain gave a locator that is in use")
            elif record.mapping.version > order.version:
                self._steps.deny(key, record, "the node has changed meanwhile")
            elif move.prepared:
                move.state = records.PREPARED
                self._home.change(record, replace(record.mapping, arriving=place))
                self._steps.save(order.identifier, record)
            else:
                record.move = None
                self._steps.there(record, place)
                self._steps.save(order.identifier, record)
        elif isinstance(answer, Held) and self._home.lost(key, record, answer.version):
            self._steps.reserve(key, record, move)
        elif isinstance(answer, Refused | Held):
            reason = answer.reason if isinstance(answer, Refused) else "out of date"
            self._steps.over(record, move)
            self._home.deny(record, move.by, move.migration, reason)
            self._steps.save(order.identifier, record)

    def ready_answered(self, to: str, order: Ready, answer: Answer | None) -> None:
        key = int(order.identifier)
        repeat_key = ("ready", key, order.migration)
        if answer is None or (isinstance(answer, Refused) and answer.again):
            self._desk.again(repeat_key, order)
            return
        self._desk.settle(repeat_key, order)
        record = self._home.records.get(key)
        if not isinstance(answer, Refused) or record is None or record.move is None:
            return
        if record.move.state == records.READY and record.move.migration == order.migration:
            self._steps.roll_back(key, record)  # the other side has given it up

    def resume(self, key: int) -> None:
        """After a restart."""
        record = self._home.records.get(key)
        if record is not None and record.move is not None:
            if record.move.state == records.RESERVING:
                self._steps.send_reserve(key, record, record.move)
            if record.move.prepared and record.move.state in (records.RESERVING, records.PREPARED):
                self._steps.expect(key, record.move)

    def _moving(
        self, sender: str, order: Flipped | Released | Aborted,
        states: tuple[str, ...] = (records.READY, records.FLIPPED),
    ) -> tuple[HomeRecord | None, Refused | None]:
        """The record if its move is the order's; ``None`` twice if that move is over."""
        record = self._home.records.get(int(order.identifier))
        if record is None:
            return None, self._desk.refuse("nobody of that identifier is at home here")
        if order.migration == record.done:
            return None, None
        move = record.move
        if move is None or move.migration != order.migration or move.state not in states or not move.prepared:
            return None, self._desk.refuse("that migration is not prepared")
        if move.by != sender:
            return None, self._desk.refuse("another domain has prepared that migration")
        return record, None


READY_OR_NOT: Final = (records.RESERVING, records.PREPARED, records.READY, records.FLIPPED)


def _arrives(record: HomeRecord, order: Attach) -> bool:
    """Whether it is said to be where a migration carries it, which its source has not lived to say."""
    move = record.move
    return move is not None and move.network == order.network and (
        move.state == records.FLIPPED or record.mapping.arriving is not None
    )


def _attach_id(claim: int) -> str:
    return f"{ATTACH}{claim}"
