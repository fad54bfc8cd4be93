"""Cards of other domains' nodes: what speaks against one here, whatever its home says of it.

A MAC address is one node's. Our own nodes come first, then who was known first: a card that has the address of one
of them would have that node's packets taken for another's, and shut it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from followme.continuity.refusals import SwitchError
from followme.domain import Network, mac_text
from followme.federation.nouns import Card
from followme.mobility.locations import LocationManager
from followme.system.seldom import Refusals

_MULTICAST = 1


class Clash(SwitchError):
    """The node cannot be served here for good; names it and says why."""


class Strangers:
    """``locations`` has who is known here; ``refusals`` counts, and logs now and then."""

    def __init__(
        self, networks: Mapping[str, Network], locations: LocationManager, refusals: Refusals,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._networks, self._locations, self._refusals, self._clock = networks, locations, refusals, clock
        self._routers = {network.router_mac: network.name for network in networks.values() if network.ours}

    def objection(self, card: Card) -> str:
        """Why the card cannot be believed, in few words that name nobody; nothing if it can."""
        home = self._networks.get(card.home)
        if home is None or home.ours:
            return ""
        holder = self._locations.node(card.mac)
        if holder is not None and holder.identifier != card.identifier:
            return self._refuse(card, "the MAC address is another node's", f"{holder.name} ({holder.identifier})")
        if card.mac in self._routers:
            return self._refuse(card, "the MAC address is a router's", self._routers[card.mac])
        if card.mac[0] & _MULTICAST or not any(card.mac):
            return self._refuse(card, "the MAC address is no host's", "a group's, or none")
        return ""

    def _refuse(self, card: Card, why: str, whose: str) -> str:
        detail = f"{mac_text(card.mac)} of {card.name} ({card.identifier}), at home in {card.home}: {whose}"
        self._refusals.refuse(why, str(card.identifier), self._clock(), detail)
        return why
