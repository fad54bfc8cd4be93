"""What a domain remembers of a node: as its home, and as one that has, had or speaks to it.

In the store a record is two lines of JSON. The first has what a restart must know of each, so that of a million
records, most of which rest, only few are read wholly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

import orjson

from .nouns import Mapping, Place, mapping_of, mapping_text

RESERVING, PREPARED, READY, FLIPPED = "reserving", "prepared", "ready", "flipped"
_NONE: Final = -1


@dataclass(slots=True)
class Move:
    """A move under way, as home sees it. ``claim`` is that of an Attach, or -1; ``version``: of the reservation."""

    migration: str
    by: str
    network: str
    version: int
    state: str = RESERVING
    claim: int = _NONE

    @property
    def prepared(self) -> bool:
        """Conducted in phases; else the node was just there (Attach)."""
        return self.claim == _NONE


@dataclass(slots=True)
class HomeRecord:
    """A node whose home is here. Versions by locator are keyed by the locator as a number."""

    mapping: Mapping
    counter: int
    """The highest version that was used, reservations included."""
    known: bool = True
    told: set[str] = field(default_factory=set)
    """Networks that hold the mapping as correspondents."""
    holders: dict[str, int] = field(default_factory=dict)
    """Domain -> version that it has confirmed."""
    owed: dict[str, int] = field(default_factory=dict)
    """Domain -> version; when all have confirmed it, the domain is to hear that."""
    listed: dict[int, int] = field(default_factory=dict)
    """Since which version the mapping lists a locator."""
    aged: dict[int, int] = field(default_factory=dict)
    """Since which version a locator is among the old ones."""
    quiet: set[int] = field(default_factory=set)
    moved: int = 0
    """The version with which the node came to where it is."""
    began: int = 0
    """The version before it went away: what was told up to then is forgotten."""
    move: Move | None = None
    done: str = ""
    """The last migration that is over, with a mark before it if it was taken back."""
    claims: dict[str, int] = field(default_factory=dict)
    denials: list[tuple[str, str, str]] = field(default_factory=list)
    """Domain, migration, reason: not yet accepted."""
    last: set[str] = field(default_factory=set)
    """Domains of which the newest version took nothing but old places, and which know where the node is: they hear
    of it when all others have confirmed it."""

    def encode(self) -> bytes:
        move = self.move
        head = [self.mapping.card.name if self.known else "", int(self.unfinished())]
        return _dump(head, self.mapping, [
            self.counter, int(self.known), sorted(self.told), self.holders, self.owed,
            _pairs(self.listed), _pairs(self.aged), sorted(self.quiet), self.moved, self.began,
            move and [move.migration, move.by, move.network, move.version, move.state, move.claim],
            self.done, self.claims, self.denials, sorted(self.last),
        ])  # fmt: skip

    def unfinished(self) -> bool:
        """Whether there is something to be sent."""
        return bool(self.move or self.denials or self.owed or self.quiet) or (
            min(self.holders.values(), default=self.mapping.version) < self.mapping.version
        )


def home_head(fact: bytes) -> bool:
    """Whether there is something to be sent."""
    return bool(orjson.loads(fact[: fact.index(b"\n")])[1])


def home_record(fact: bytes) -> HomeRecord:
    (mapping, counter, known, told, holders, owed, listed, aged, quiet, moved, began, move, done, claims,
     denials, last) = orjson.loads(fact[fact.index(b"\n") + 1 :])  # fmt: skip
    return HomeRecord(
        mapping_of(mapping), counter, bool(known), set(told), holders, owed, _dict(listed), _dict(aged), set(quiet),
        moved, began, Move(*move) if move else None, done, claims, [tuple(denial) for denial in denials],
        set(last),
    )  # fmt: skip


@dataclass(slots=True)
class HeldRecord:
    """A node of another domain; of an own one only what was ``given``."""

    mapping: Mapping | None = None
    networks: set[str] = field(default_factory=set)
    """Own networks that hold it as correspondents."""
    given: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Locator -> own network, version of the reservation."""
    told: dict[str, int] = field(default_factory=dict)
    """Networks that were told from here -> version that they confirmed, or 0."""
    unsure: set[str] = field(default_factory=set)
    """Own networks of which home has not said that it knows them as holders; those not in ``networks`` have waited
    too long, and do not hold it any more."""

    def encode(self) -> bytes:
        given: list[Any] = []
        for locator, (network, version) in self.given.items():
            given += (locator, network, version)
        head = [self.mapping.card.name if self.mapping else "", given]
        if self.unsure:
            head.append(sorted(self.unsure))
        return _dump(head, self.mapping, [sorted(self.networks), self.told])

    def places(self) -> tuple[Place, ...]:
        """Own places that the node is or will be at: here, arriving, leaving, in this order."""
        if self.mapping is None:
            return ()
        some = (self.mapping.here, self.mapping.arriving, self.mapping.leaving)
        return tuple([place for place in some if place is not None and int(place.locator) in self.given])


def held_head(fact: bytes) -> tuple[dict[int, tuple[str, int]], list[str]]:
    """The locators given, and the networks in doubt."""
    _, given, *unsure = orjson.loads(fact[: fact.index(b"\n")])
    places = {given[at]: (given[at + 1], given[at + 2]) for at in range(0, len(given), 3)}
    return places, unsure[0] if unsure else []


def held_record(fact: bytes) -> HeldRecord:
    mapping, networks, told = orjson.loads(fact[fact.index(b"\n") + 1 :])
    given, unsure = held_head(fact)
    return HeldRecord(mapping_of(mapping) if mapping else None, set(networks), given, told, set(unsure))


def _dump(head: list[Any], mapping: Mapping | None, rest: list[Any]) -> bytes:
    """The head's line, and one list, the mapping first."""
    text = mapping_text(mapping) if mapping else b"null"
    return b"%b\n[%b,%b" % (orjson.dumps(head), text, orjson.dumps(rest)[1:])


def _pairs(versions: dict[int, int]) -> list[int]:
    return list(chain.from_iterable(versions.items()))


def _dict(pairs: list[int]) -> dict[int, int]:
    return dict(zip(pairs[::2], pairs[1::2], strict=True))
