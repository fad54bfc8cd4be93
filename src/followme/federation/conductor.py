"""The machines' migrations that are conducted here, and the nodes that have shown up here: what home is asked.

A migration is asked for (prepare), then home says whether it is ready; what happens then is told home until it
has accepted it, whatever dies meanwhile. A record goes with the answer to the last phase.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

import orjson

from followme.domain import Mac

from .desk import Desk
from .messages import (
    Aborted,
    Accepted,
    Answer,
    Attach,
    Denied,
    Flipped,
    Prepare,
    Ready,
    Refused,
    Released,
)
from .nouns import Mapping
from .outputs import Attached, Done, IsDenied, IsReady, NotAttached

ASKED, READY = "asked", "ready"
MAX_PASSING: Final = 256
"""Migrations that are not known here, of which home is asked at a time."""
CLAIM_BITS: Final = 24
MAX_EPOCH: Final = (1 << 53 - CLAIM_BITS) - 2
_PHASES: Final[dict[str, type[Flipped] | type[Released] | type[Aborted]]] = {
    "flipped": Flipped, "released": Released, "aborted": Aborted,
}  # fmt: skip


@dataclass(slots=True)
class _Migration:
    """``phases`` are those that home has not accepted yet; only the last is sent, it implies the others."""

    network: str
    state: str = ASKED
    phases: list[str] = field(default_factory=list)
    passing: bool = False
    """It was not prepared here, or is over: home is asked, and nothing is written."""


@dataclass(slots=True)
class _Shown:
    """``accepted``: the version that home has named; ``None`` while it has not answered. ``why`` it cannot yet."""

    mac: Mac
    network: str
    claim: int
    accepted: int | None = None
    why: str = ""


class Conductor:
    """``mapping_of`` gives the mapping of an identifier as it is known here, ``gone`` the version with which that
    went, or 0."""

    def __init__(
        self, desk: Desk, mapping_of: Callable[[int], Mapping | None], gone: Callable[[int], int]
    ) -> None:
        self._desk, self._mapping_of, self._gone, self._registry = desk, mapping_of, gone, desk.registry
        self._migrations: dict[tuple[int, str], _Migration] = {}
        self._shown: dict[int, dict[Mac, _Shown]] = {}
        self._claim = 0
        self._passing = 0

    def claim_above(self, epoch: int) -> None:
        """Claims begin above those of all epochs before, should the last claim be lost."""
        self._claim = max(self._claim, min(epoch, MAX_EPOCH) << CLAIM_BITS)

    def prepare(self, identifier: IPv4Address, network: str, migration: str) -> None:
        key = int(identifier), migration
        known = self._migrations.get(key)
        if known is not None:
            if known.state == READY and not known.phases:
                self._desk.effect(IsReady(identifier, migration))
            return
        if self._registry.home_of(identifier) is None or self._mapping_of(key[0]) is None:
            self._desk.effect(IsDenied(identifier, migration, "the node is not known here"))
            return
        self._migrations[key] = _Migration(network)
        self._save(key)
        self._send_prepare(key)

    def phase(self, identifier: IPv4Address, migration: str, phase: str) -> None:
        """``flipped``, ``released`` or ``aborted``: told home until it has accepted it."""
        key = int(identifier), migration
        known = self._migrations.get(key)
        if known is None:
            reason = self._not_to_be_passed(key[0])
            if reason:
                self._desk.effect(Done(identifier, migration, phase, reason))
                return
            known = self._migrations[key] = _Migration("", READY, passing=True)
            self._passing += 1
        if phase not in known.phases and not (known.phases and known.phases[-1] != "flipped"):
            known.phases.append(phase)
            known.state = READY
        self._desk.cancel(("prepare", *key))
        self._save(key)
        self._send_phase(key)

    def _not_to_be_passed(self, key: int) -> str:
        """Why home is not asked about a migration that is not known here, or nothing: it may be over, and the host
        has not heard that."""
        if self._registry.home_of(IPv4Address(key)) is None or (
            self._mapping_of(key) is None and not self._gone(key)
        ):
            return "the node is not known here"
        return "too many migrations that are not known here" if self._passing >= MAX_PASSING else ""

    def attach(self, identifier: IPv4Address, mac: Mac, network: str) -> None:
        """A node has shown up in an own network."""
        if self._registry.home_of(identifier) is None or not self._registry.mine(network):
            self._desk.effect(NotAttached(identifier, mac, network, "nobody's identifier, or not our network"))
            return
        self._claim += 1
        self._desk.out.writes["claim"] = str(self._claim).encode()
        key = int(identifier)
        shown = self._shown.setdefault(key, {})[mac] = _Shown(mac, network, self._claim)
        self._save_shown(key, shown)
        self._send_attach(key, shown)

    def detached(self, identifier: IPv4Address, mac: Mac, network: str) -> None:
        """It has gone before home has answered."""
        shown = self._find_shown(int(identifier), mac)
        if shown is not None and shown.network == network:
            self._forget_shown(int(identifier), shown)

    def waits_for(self, identifier: IPv4Address, mac: Mac) -> str:
        """Why home does not accept yet that the node has shown up, if it has said so."""
        shown = self._find_shown(int(identifier), mac)
        return "" if shown is None else shown.why

    def changed(self, key: int, mapping: Mapping) -> None:
        """A newer mapping is known: has it what was asked for?"""
        shown = self._find_shown(key, mapping.card.mac)
        if shown is None or shown.accepted is None or mapping.version < shown.accepted:
            return
        self._forget_shown(key, shown)
        if mapping.here.network == shown.network:
            self._desk.effect(Attached(mapping.identifier, shown.mac, shown.network))
        else:
            self._not_attached(key, shown, "the node has gone on")

    # Orders from home

    def ready(self, sender: str, order: Ready) -> Answer:
        if sender != self._registry.home_of(order.identifier):
            return self._desk.refuse("sender is not the node's home")
        key = int(order.identifier), order.migration
        known = self._migrations.get(key)
        if known is None:
            return self._desk.refuse("that migration is not prepared")
        if known.state == ASKED:
            known.state = READY
            self._save(key)
            self._desk.cancel(("prepare", *key))
            self._desk.effect(IsReady(order.identifier, order.migration))
        return Accepted()

    def denied(self, sender: str, order: Denied) -> Answer:
        if sender != self._registry.home_of(order.identifier):
            return self._desk.refuse("sender is not the node's home")
        key = int(order.identifier), order.migration
        known = self._migrations.get(key)
        if known is not None and known.state == ASKED:
            self._end(key)
            self._desk.effect(IsDenied(order.identifier, order.migration, order.reason))
        for shown in list(self._shown.get(key[0], {}).values()):
            if order.migration == f"attach {shown.claim}":
                self._forget_shown(key[0], shown)
                self._not_attached(key[0], shown, order.reason)
        return Accepted()

    # Home's answers

    def prepare_answered(self, order: Prepare, answer: Answer | None) -> None:
        key = int(order.identifier), order.migration
        if isinstance(answer, Refused) and not answer.again:
            self._desk.settle(("prepare", *key), order)
            known = self._migrations.get(key)
            if known is not None and known.state == ASKED:
                self._end(key)
                self._desk.effect(IsDenied(order.identifier, order.migration, answer.reason))
        elif isinstance(answer, Accepted):
            self._desk.settle(("prepare", *key), order)
        else:
            self._desk.again(("prepare", *key), order)

    def phase_answered(self, order: Flipped | Released | Aborted, answer: Answer | None) -> None:
        key = int(order.identifier), order.migration
        if not isinstance(answer, Accepted) and not (isinstance(answer, Refused) and not answer.again):
            self._desk.again(("phase", *key), order)
            return
        self._desk.settle(("phase", *key), order)
        known = self._migrations.get(key)
        sent = type(order).__name__.lower()
        if known is None or sent not in known.phases:
            return
        reason = answer.reason if isinstance(answer, Refused) else ""
        upto = known.phases.index(sent) + 1
        done, known.phases = known.phases[:upto], known.phases[upto:]
        if reason or (sent != "flipped" and not known.phases):
            self._end(key)
        else:
            self._save(key)
        for phase in done:
            self._desk.effect(Done(order.identifier, order.migration, phase, reason))

    def attach_answered(self, order: Attach, answer: Answer | None) -> None:
        key = int(order.identifier)
        repeat_key = "attach", key, order.mac
        shown = self._find_shown(key, order.mac)
        if not isinstance(answer, Accepted) and not (isinstance(answer, Refused) and not answer.again):
            if isinstance(answer, Refused) and shown is not None:
                shown.why = answer.reason
            self._desk.again(repeat_key, order)
            return
        self._desk.settle(repeat_key, order)
        if shown is None or shown.claim != order.claim:
            return
        if isinstance(answer, Refused):
            self._forget_shown(key, shown)
            self._not_attached(key, shown, answer.reason)
            return
        shown.accepted = answer.version  # not written: after a restart it is asked again, and answered the same
        self._look(key, shown)

    def _look(self, key: int, shown: _Shown) -> None:
        """Home has accepted it: is what it has made of it here before its answer?"""
        mapping = self._mapping_of(key)
        if mapping is not None:
            self.changed(key, mapping)
        elif shown.accepted is not None and self._gone(key) >= shown.accepted:
            self._forget_shown(key, shown)
            self._not_attached(key, shown, "the node has gone on")

    def _not_attached(self, key: int, shown: _Shown, reason: str) -> None:
        self._desk.effect(NotAttached(IPv4Address(key), shown.mac, shown.network, reason))

    def _find_shown(self, key: int, mac: Mac) -> _Shown | None:
        """One that says it is the node; who else says so has another MAC address, and an answer of its own."""
        return self._shown.get(key, {}).get(mac)

    # Facts

    def restore(self, key: str, fact: bytes) -> None:
        kind, _, rest = key.partition("/")
        if kind == "claim":
            self._claim = max(self._claim, int(fact))
        elif kind == "m":
            identifier, _, migration = rest.partition("/")
            self._migrations[int(identifier), migration] = _Migration(*orjson.loads(fact))
        elif kind == "a":
            identifier, _, mac_hex = rest.partition("/")
            mac, (network, claim, accepted) = bytes.fromhex(mac_hex), orjson.loads(fact)
            self._shown.setdefault(int(identifier), {})[mac] = _Shown(mac, network, claim, accepted)

    def resume(self) -> None:
        """After a restart: what was not answered is sent again."""
        for key, known in self._migrations.items():
            if known.phases:
                self._send_phase(key)
            elif known.state == ASKED:
                self._send_prepare(key)
        for identifier, shown in [(one, shown) for one, many in self._shown.items() for shown in many.values()]:
            if shown.accepted is None:
                self._send_attach(identifier, shown)
            else:
                self._look(identifier, shown)

    def _send_prepare(self, key: tuple[int, str]) -> None:
        mapping = self._mapping_of(key[0])
        identifier = IPv4Address(key[0])
        order = Prepare(identifier, self._migrations[key].network, key[1], mapping.version if mapping else 0)
        self._desk.send(("prepare", *key), self._registry.home_of(identifier) or "", order, True)

    def _send_phase(self, key: tuple[int, str]) -> None:
        identifier, phase = IPv4Address(key[0]), self._migrations[key].phases[-1:]
        if phase and self._desk.waits(("phase", *key)) != phase[0]:
            order = _PHASES[phase[0]](identifier, key[1])
            self._desk.send(("phase", *key), self._registry.home_of(identifier) or "", order, phase[0])

    def _send_attach(self, key: int, shown: _Shown) -> None:
        identifier = IPv4Address(key)
        order = Attach(identifier, shown.mac, shown.network, shown.claim)
        self._desk.send(("attach", key, shown.mac), self._registry.home_of(identifier) or "", order, shown.claim)

    def _save(self, key: tuple[int, str]) -> None:
        known = self._migrations[key]
        if known.passing:
            return
        fact = orjson.dumps([known.network, known.state, known.phases])
        self._desk.out.writes[f"m/{key[0]}/{key[1]}"] = fact

    def _end(self, key: tuple[int, str]) -> None:
        known = self._migrations.pop(key)
        self._desk.cancel(("prepare", *key))
        if known.passing:
            self._passing -= 1
        else:
            self._desk.out.writes[f"m/{key[0]}/{key[1]}"] = None

    def _save_shown(self, key: int, shown: _Shown) -> None:
        fact = orjson.dumps([shown.network, shown.claim, shown.accepted])
        self._desk.out.writes[f"a/{key}/{shown.mac.hex()}"] = fact

    def _forget_shown(self, key: int, shown: _Shown) -> None:
        many = self._shown[key]
        if many.get(shown.mac) is shown:
            del many[shown.mac]
            self._desk.cancel(("attach", key, shown.mac))
            self._desk.out.writes[f"a/{key}/{shown.mac.hex()}"] = None
        if not many:
            del self._shown[key]
