"""What ``Federate`` gives to its shell: writes, orders and effects; and what switches must know of a node."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from followme.domain import Mac

from .messages import Order
from .nouns import Mapping, Place


@dataclass(frozen=True, slots=True)
class Changed:
    """Make the switches right, by ``Federate.view``. It also comes when nothing is new: that the last try has
    succeeded is not known here."""

    identifier: IPv4Address


@dataclass(frozen=True, slots=True)
class Passes:
    """``network`` knows the node: what it sends there, and what has waited, may go."""

    identifier: IPv4Address
    network: str


@dataclass(frozen=True, slots=True)
class CannotPass:
    """``network`` cannot be told now; the next packet asks again."""

    identifier: IPv4Address
    network: str
    reason: str


@dataclass(frozen=True, slots=True)
class IsReady:
    """The machine may be carried over: all who know it know both its places."""

    identifier: IPv4Address
    migration: str


@dataclass(frozen=True, slots=True)
class IsDenied:
    """It stays where it is."""

    identifier: IPv4Address
    migration: str
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """Home has accepted ``phase`` (flipped, released or aborted), or refused it for good: ``reason`` says why."""

    identifier: IPv4Address
    migration: str
    phase: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Attached:
    """The mapping says now that the node is in ``network``."""

    identifier: IPv4Address
    mac: Mac
    network: str


@dataclass(frozen=True, slots=True)
class NotAttached:
    """The node that showed up in ``network`` gets no locator there; or who had its identifier was not the node."""

    identifier: IPv4Address
    mac: Mac
    network: str
    reason: str


Effect = Changed | Passes | CannotPass | IsReady | IsDenied | Done | Attached | NotAttached


@dataclass(frozen=True, slots=True)
class View:
    """What the own switches must know of a node that is, was or will be away from home.

    ``told`` are the networks that hold the mapping as correspondents as far as this domain knows, ``telling``
    those of them that have not confirmed: the node may not speak to them so far. ``reserved`` are the places
    that were given in own networks, whether the mapping lists them or not.
    """

    mapping: Mapping | None
    told: frozenset[str] = frozenset()
    telling: frozenset[str] = frozenset()
    reserved: tuple[Place, ...] = ()


@dataclass(slots=True)
class Outputs:
    """``writes`` are stored (``None``: deleted) before any of ``orders`` leaves and ``effects`` are acted upon."""

    writes: dict[str, bytes | None] = field(default_factory=dict)
    orders: list[tuple[str, Order]] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
