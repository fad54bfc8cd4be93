"""What one call of the map server leaves to do: datagrams, events, rows to store, changes of the table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from followme.lisp import EidPrefix

from .answers import Entry
from .events import Event
from .registry import RouterId


class Datagram(NamedTuple):
    """UDP payload for ``host`` (an address as text) and ``port``; ``local`` is the address of ours that it must
    come from, "" if any will do."""

    data: bytes
    host: str
    port: int
    local: str = ""


class Outcome(NamedTuple):
    """To be sent after what is ``Unsaved`` was stored; and what happened."""

    datagrams: list[Datagram]
    events: list[Event]


@dataclass(slots=True)
class Unsaved:
    """Keys of what differs from the store."""

    registrations: set[EidPrefix] = field(default_factory=set)
    routers: set[RouterId] = field(default_factory=set)
    subscriptions: set[tuple[EidPrefix, bytes]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.registrations or self.routers or self.subscriptions)


@dataclass(slots=True)
class Outbox:
    """Filled while a datagram or a timer is handled. ``local`` is our address that the datagram came to."""

    datagrams: list[Datagram] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    unsaved: Unsaved = field(default_factory=Unsaved)
    changes: dict[EidPrefix, Entry | None] = field(default_factory=dict)
    local: str = ""

    def take(self) -> Outcome:
        outcome = Outcome(self.datagrams, self.events)
        self.datagrams, self.events = [], []
        return outcome
