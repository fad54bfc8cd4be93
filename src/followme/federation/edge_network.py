"""What the engine asks of its domain's own network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import IPv4Address
from typing import Protocol

from .messages import Refused
from .outputs import Effect


class NotKnown(Exception):
    """It cannot be found out now; the text says why, for people."""


class EdgeNetwork(Protocol):
    """The domain's own switches."""

    async def apply(self, identifiers: Collection[IPv4Address]) -> Mapping[IPv4Address, Refused]:
        """Make the switches right for these nodes, by ``Federate.view``; returns when they have confirmed, with
        what is to be answered for those where that went wrong. It must read the views before it first waits: they
        are kept then."""
        ...

    async def still_here(self, identifier: IPv4Address) -> bool | None:
        """Whether the node is in an own network, so that it cannot have shown up elsewhere; ``None``, or
        ``NotKnown``: that cannot be found out now."""
        ...

    def effect(self, effect: Effect) -> None:
        """All effects but ``Changed``, each after the rules that it came with."""
        ...
