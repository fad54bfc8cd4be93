"""What the map server tells its caller: facts, each with the time (seconds, by the caller's clock)."""

from __future__ import annotations

from dataclasses import dataclass

from followme.lisp import Address, EidPrefix


@dataclass(frozen=True, slots=True)
class Registered:
    """An EID-prefix that was not registered is now, or its mapping changed without a move."""

    eid: EidPrefix
    rlocs: tuple[Address, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Moved:
    """Another router has the EID now; before, it was there by itself or by the prefix that covers it."""

    eid: EidPrefix
    from_rlocs: tuple[Address, ...]
    to_rlocs: tuple[Address, ...]
    from_site: str
    to_site: str
    at: float

    def __str__(self) -> str:
        rlocs = ", ".join(map(str, self.to_rlocs)) or "nobody"
        return f"{self.eid} has moved from {self.from_site} to {self.to_site}, behind {rlocs}"


@dataclass(frozen=True, slots=True)
class Gone:
    """A registration ended: ``withdrawn`` or ``expired``."""

    eid: EidPrefix
    why: str
    at: float


@dataclass(frozen=True, slots=True)
class Damped:
    """The EID changed hands too often: it stays at ``site`` for a while."""

    eid: EidPrefix
    site: str
    at: float

    def __str__(self) -> str:
        return f"{self.eid} changes hands too often, and stays at {self.site} for a while"


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscriber has confirmed, by the site's key, that it wants to hear of ``prefix``."""

    prefix: EidPrefix
    site: str
    host: str
    at: float


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """A subscription ended: ``asked`` for, or ``silent``: publications were not acknowledged."""

    prefix: EidPrefix
    site: str
    host: str
    why: str
    at: float


Event = Registered | Moved | Gone | Damped | Subscribed | Unsubscribed
