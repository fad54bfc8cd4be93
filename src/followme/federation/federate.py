"""All roles of one domain as one object without I/O: orders and events in; writes, orders and effects out.

After each call ``take`` gives what is to be done: the writes are stored first. Orders to the own domain come out
like all others, and are to be given to ``receive``; so the own switches confirm as everybody's do.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address
from typing import Final

from followme.domain import Mac
from followme.system.seldom import MAX_LINES

from .conductor import Conductor
from .correspondent import Correspondent
from .desk import Desk
from .doubts import Doubts
from .foreign import Foreign
from .held import Holdings
from .home import Home
from .messages import (
    Aborted,
    Answer,
    Attach,
    Denied,
    Flipped,
    Holds,
    Left,
    Order,
    Prepare,
    Quiet,
    Ready,
    Refused,
    Released,
    Reserve,
    Told,
    Update,
)
from .moves import Moves, Whereabouts
from .nouns import Card, Mapping, Place
from .outputs import CannotPass, Outputs, Passes, View
from .records import HeldRecord, HomeRecord
from .registry import Registry
from .signing import Signer
from .table import Load

log = logging.getLogger(__name__)

ASIDE: Final = "a record that cannot be used"
MAX_KEY: Final = 100


class Federate:
    """Restored from ``facts``: keys and values as ``Outputs.writes`` had them.

    ``load`` gives one of them as it is now, so that those that rest are not kept here, too: then what ``take``
    returns must be there before anything else is called. ``room`` is how many octets all facts may have.
    """

    def __init__(
        self, registry: Registry, signer: Signer, facts: Iterable[tuple[str, bytes]] = (), load: Load | None = None,
        room: int | None = None,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._desk = Desk(registry, signer)
        self._home = Home(self._desk, load)
        self._moves = Moves(self._desk, self._home)
        self._held = Holdings(self._desk, load, room)
        self._foreign = Foreign(self._desk, self._held)
        self._doubts = Doubts(self._desk, self._held)
        self._correspondent = Correspondent(self._desk, self._held, self._doubts, self._adopted)
        self._conductor = Conductor(self._desk, self._mapping, lambda key: self._held.tomb(key)[0])
        self._unfinished: list[int] = []
        self._doubtful: list[int] = []
        self.restore(facts)
        self.resume()

    def restore(self, facts: Iterable[tuple[str, bytes]]) -> None:
        """Some of the facts, if they are too many to be read at one go; then ``resume``, before anything else."""
        for key, fact in facts:
            try:
                self._unfinished += self._restore(key, fact)
            except Exception as error:
                self._set_aside(key, f"{type(error).__name__}: {error}")

    def _set_aside(self, key: str, why: str) -> None:
        """One fact that cannot be used must not take all others with it. It stays in the store."""
        self._desk.refusals[ASIDE] += 1
        if self._desk.refusals[ASIDE] <= MAX_LINES:
            log.error("fact %r is set aside: %s", key[:MAX_KEY], why)

    def resume(self) -> None:
        """All facts have been read: what was under way goes on."""
        self._held.restored()
        for identifier in self._unfinished:
            self._resume(self._home.resume, "n", identifier)
            self._resume(self._moves.resume, "n", identifier)
        self._unfinished.clear()
        for identifier in self._doubtful:
            self._resume(self._doubts.resume, "h", identifier)
        self._doubtful.clear()
        self._conductor.resume()

    def _resume(self, what: Callable[[int], None], kind: str, identifier: int) -> None:
        try:
            what(identifier)
        except Exception as error:
            self._set_aside(f"{kind}/{identifier}", f"{type(error).__name__}: {error}")

    def judge_cards(self, objection: Callable[[Card], str]) -> None:
        """``objection`` says why a card of another domain's node is refused, in few words that name nobody; nothing
        if it is not."""
        self._desk.objection = objection

    @property
    def refusals(self) -> Counter[str]:
        """How often was refused, by reason."""
        return self._desk.refusals

    # Events

    def begin(self, epoch: int) -> None:
        """The lease's number, which only rises: if our records are lost, others may know more of us than we do."""
        self._conductor.claim_above(epoch)
        self._held.pools.begin_at(epoch)

    def know(self, card: Card) -> None:
        """A node that is at home in an own network, wherever it is. Idempotent."""
        self._moves.know(card)

    def forget(self, identifier: IPv4Address) -> None:
        """It is no more."""
        self._home.forget(identifier)

    def prepare(self, identifier: IPv4Address, network: str, migration: str) -> None:
        """A machine here shall go to ``network``; ends in ``IsReady`` or ``IsDenied``."""
        self._conductor.prepare(identifier, network, migration)

    def flipped(self, identifier: IPv4Address, migration: str) -> None:
        """It stops here: ends in ``Done``, as ``released`` and ``aborted`` do."""
        self._conductor.phase(identifier, migration, "flipped")

    def released(self, identifier: IPv4Address, migration: str) -> None:
        """Nothing more is to be sent on from here."""
        self._conductor.phase(identifier, migration, "released")

    def aborted(self, identifier: IPv4Address, migration: str) -> None:
        """It stays here, or is back."""
        self._conductor.phase(identifier, migration, "aborted")

    def attach(self, identifier: IPv4Address, mac: Mac, network: str) -> None:
        """A node is in an own network by itself; ends in ``Attached`` or ``NotAttached``, or in a newer call."""
        self._conductor.attach(identifier, mac, network)

    def detached(self, identifier: IPv4Address, mac: Mac, network: str) -> None:
        """It has gone before ``attach`` has ended."""
        self._conductor.detached(identifier, mac, network)

    def waits_for(self, identifier: IPv4Address, mac: Mac) -> str:
        """Why ``attach`` has not ended yet, if its home has said so."""
        return self._conductor.waits_for(identifier, mac)

    def unaware(self, identifier: IPv4Address, network: str) -> None:
        """Home: somebody in ``network`` has sent to the node by way of us."""
        self._home.tell(identifier, network)

    def speaks(self, identifier: IPv4Address, network: str) -> None:
        """Where the node is: it speaks to ``network``; ends in ``Passes`` or ``CannotPass``."""
        if self._registry.home_of(identifier) != self._desk.me:
            self._foreign.speaks(identifier, network)
            return
        record = self._home.records.get(int(identifier))
        if record is None or not self._home.tell(identifier, network):
            self._desk.effect(CannotPass(identifier, network, "the node is not away, or no such network"))
        elif self._home.holders.confirmed(record, network):
            self._desk.effect(Passes(identifier, network))

    def quiet(self, identifier: IPv4Address, place: Place) -> None:
        """No packet uses this old place in an own network any more."""
        home = self._registry.home_of(identifier)
        key = ("quiet", int(identifier), int(place.locator))
        if home is not None and self._desk.waits(key) is None:
            self._desk.send(key, home, Quiet(identifier, place), True)

    # The bus

    def receive(self, sender: str, order: Order, now: float) -> Answer:
        """``sender`` is the domain that the bus vouches for. The answer leaves after ``take``'s writes."""
        self._desk.now = max(self._desk.now, now)
        if sender not in self._registry.domains:
            return self._desk.refuse("unknown operator")
        if isinstance(order, Ready):
            return self._conductor.ready(sender, order)
        if isinstance(order, Denied):
            return self._conductor.denied(sender, order)
        if isinstance(order, Reserve):
            if sender == self._desk.me and not self._moves.reserving(order):
                return self._desk.refuse("out of date")
            return self._foreign.reserve(sender, order)
        if self._registry.home_of(order.identifier) == self._desk.me:
            return self._receive_home(sender, order)
        if isinstance(order, Update):
            return self._correspondent.update(sender, order)
        return self._desk.refuse("nobody of that identifier is at home here")

    def doubted(self, sender: str, order: Attach) -> tuple[Whereabouts, ...]:
        """Who is to be asked whether it has the node, before this order is received."""
        if sender not in self._registry.domains or self._registry.home_of(order.identifier) != self._desk.me:
            return ()
        return self._moves.doubted(sender, order)

    def may_ask(self, sender: str, order: Left) -> Refused | None:
        """Only home is told whether a node is here."""
        if sender in self._registry.domains and self._registry.home_of(order.identifier) == sender:
            return None
        return self._desk.refuse("sender is not the node's home")

    def answered(self, to: str, order: Order, answer: Answer | None, now: float) -> None:
        """``None``: it was not answered."""
        self._desk.now = max(self._desk.now, now)
        if isinstance(order, Update):
            if self._registry.home_of(order.identifier) == self._desk.me:
                self._home.update_answered(to, order, answer)
            else:
                self._foreign.told_answered(to, order, answer)
        elif isinstance(order, Reserve):
            self._moves.reserve_answered(to, order, answer)
        elif isinstance(order, Ready):
            self._moves.ready_answered(to, order, answer)
        elif isinstance(order, Denied):
            self._home.denied_answered(to, order, answer)
        elif isinstance(order, Prepare):
            self._conductor.prepare_answered(order, answer)
        elif isinstance(order, Attach):
            self._conductor.attach_answered(order, answer)
        elif isinstance(order, Told):
            self._foreign.reported(to, order, answer)
        elif isinstance(order, Holds):
            self._doubts.answered(order, answer)
        elif isinstance(order, Quiet):
            key = ("quiet", int(order.identifier), int(order.place.locator))
            if answer is None or (isinstance(answer, Refused) and answer.again):
                self._desk.again(key, order)
            else:
                self._desk.settle(key, order)
        elif isinstance(order, Flipped | Released | Aborted):
            self._conductor.phase_answered(order, answer)

    def timer(self, now: float) -> None:
        self._desk.timer(now)

    def next_timer(self) -> float | None:
        """When ``timer`` is due; ``None``: nothing waits."""
        return self._desk.next_timer()

    def take(self) -> Outputs:
        """All since the last call."""
        out, self._desk.out = self._desk.out, Outputs()
        self._home.records.flush(out.writes)
        self._held.records.flush(out.writes)
        return out

    # What is known

    def view(self, identifier: IPv4Address) -> View | None:
        """``None``: nothing but the rules that every node at home has."""
        key = int(identifier)
        held = self._held.records.peek(key)
        reserved = _places(held) if held is not None else ()
        if self._registry.home_of(identifier) == self._desk.me:
            record = self._home.records.peek(key)
            if record is None or (not record.holders and not reserved):
                return None
            return self._home_view(record, reserved)
        if held is None:
            return None
        told = frozenset(held.networks) | frozenset(held.told)
        telling = frozenset(network for network in held.told
                            if network not in held.networks and not self._foreign.confirmed(held, network))
        return View(held.mapping, told, telling, reserved)

    def mappings(self) -> Iterator[IPv4Address]:
        """Identifiers of all nodes of which there may be a view."""
        for key in list(self._home.records):
            yield IPv4Address(key)
        for key in list(self._held.records):
            if key not in self._home.records:
                yield IPv4Address(key)

    def _home_view(self, record: HomeRecord, reserved: tuple[Place, ...]) -> View:
        told = frozenset(record.told)
        if record.mapping.here.network != record.mapping.card.home:
            told |= {record.mapping.card.home}
        telling = frozenset(network for network in told if not self._home.holders.confirmed(record, network))
        return View(record.mapping, told, telling, reserved)

    def _mapping(self, key: int) -> Mapping | None:
        if self._registry.home_of(IPv4Address(key)) == self._desk.me:
            record = self._home.records.get(key)
            return None if record is None else record.mapping
        held = self._held.records.get(key)
        return None if held is None else held.mapping

    def _receive_home(self, sender: str, order: Order) -> Answer:
        if isinstance(order, Update):
            return self._update_home(sender, order)
        if isinstance(order, Prepare):
            return self._moves.prepare(sender, order)
        if isinstance(order, Attach):
            return self._moves.attach(sender, order)
        if isinstance(order, Flipped):
            return self._moves.flipped(sender, order)
        if isinstance(order, Released):
            return self._moves.released(sender, order)
        if isinstance(order, Aborted):
            return self._moves.aborted(sender, order)
        if isinstance(order, Told):
            return self._home.told(sender, order)
        if isinstance(order, Holds):
            return self._home.holds(sender, order)
        if isinstance(order, Quiet):
            return self._home.quiet(sender, order)
        return self._desk.refuse("not an order for home")

    def _update_home(self, sender: str, order: Update) -> Answer:
        answer = self._home.update(sender, order)
        key = int(order.identifier)
        record = self._home.records.get(key)
        if sender == self._desk.me and record is not None and not isinstance(answer, Refused):
            self._conductor.changed(key, record.mapping)
            held = self._held.records.get(key)
            if held is not None and order.settled and order.mapping.version == record.mapping.version:
                self._held.drop(key, held, record.mapping)
                self._held.keep(key, held, None)
        return answer

    def _adopted(self, key: int, record: HeldRecord) -> None:
        self._foreign.adopted(key, record)
        for place in record.places():  # an old place may be in use again: it is not quiet
            self._desk.cancel(("quiet", key, int(place.locator)))
        if record.mapping is not None:
            self._conductor.changed(key, record.mapping)

    def _restore(self, key: str, fact: bytes) -> tuple[int, ...]:
        """The node at home here for which there is something to do, if the fact is about one."""
        kind, _, rest = key.partition("/")
        if kind in ("n", "h", "m", "a"):
            identifier = int(rest.partition("/")[0])
            home = self._registry.home_of(IPv4Address(identifier))
            if home is None or (kind == "n" and home != self._desk.me):
                if kind == "h":  # somebody may still send to them, and they may be configured again
                    self._held.give_again(fact)
                self._set_aside(key, f"no network of {self._desk.me if kind == 'n' else 'any domain'} that is "
                                     f"configured has {IPv4Address(identifier)}")  # fmt: skip
                return ()
        if kind == "n":
            return (identifier,) if self._home.restore(identifier, fact) else ()
        if kind == "h":
            if self._held.restore(identifier, fact):
                self._doubtful.append(identifier)
        elif kind == "t":
            self._held.restore_tomb(int(rest), fact)
        else:
            self._conductor.restore(key, fact)
        return ()


def _places(held: HeldRecord) -> tuple[Place, ...]:
    return tuple([Place(network, IPv4Address(locator)) for locator, (network, _) in held.given.items()])
