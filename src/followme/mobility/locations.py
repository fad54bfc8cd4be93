"""The papers' Location Manager: who is who, and whether a packet comes from where its sender belongs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from enum import Enum
from ipaddress import IPv4Address

from followme.continuity.binding import Binding
from followme.domain import Mac, Network, Node, NodeKind

NO_ADDRESS = bytes(4)


class Sighting(Enum):
    """What a packet's source says about its sender."""

    HERE = "at its place"
    ARRIVING = "at the place that is prepared for it"
    ELSEWHERE = "at another place than where it is known"
    NEW_ADDRESS = "with an address that is not its own"
    CLAIMS_ADDRESS = "with somebody else's address"
    STRANGER = "unknown"


def usable(network: Network, address: IPv4Address) -> bool:
    """Whether a host may have ``address`` (as configured) at home in ``network``: nobody's but a host's."""
    inside = network.inside
    if address not in inside or address in (network.gateway, inside[0], inside[-1]):
        return False
    outer = network.outer(address)
    return outer != network.router and outer not in network.locators


class LocationManager:
    """Indexes of the known nodes; places are those of the redirect's bindings (one truth)."""

    def __init__(self, networks: Mapping[str, Network], bindings: Mapping[str, Binding]) -> None:
        self.networks = networks
        self._bindings = bindings
        # Prefixes do not overlap: the one that may hold an address begins at or before it.
        self._prefixes = sorted((int(one.prefix[0]), int(one.prefix[-1]), name) for name, one in networks.items())
        self._first = [first for first, _, _ in self._prefixes]
        self._by_name: dict[str, Node] = {}
        self._by_mac: dict[Mac, Node] = {}
        self._by_home: dict[tuple[str, bytes], Node] = {}

    def add(self, node: Node) -> None:
        self.remove(node.name)
        self._by_name[node.name] = node
        self._by_mac[node.mac] = node
        self._by_home[node.home, node.address.packed] = node

    def remove(self, name: str) -> None:
        node = self._by_name.pop(name, None)
        if node is None:
            return
        if self._by_mac.get(node.mac) is node:
            del self._by_mac[node.mac]
        if self._by_home.get((node.home, node.address.packed)) is node:
            del self._by_home[node.home, node.address.packed]

    def node(self, mac: Mac) -> Node | None:
        return self._by_mac.get(mac)

    def holder(self, home: str, address: IPv4Address) -> Node | None:
        """Who has ``address`` (as configured) at home in network ``home``."""
        return self._by_home.get((home, address.packed))

    def users(self) -> list[Node]:
        return [node for node in self._by_mac.values() if node.kind is NodeKind.USER]

    def sight(self, network: str, port: int, mac: Mac, address: bytes) -> tuple[Sighting, Node | None]:
        """Classify a sender; ``address`` is four bytes, all zero or empty if the packet shows none."""
        node = self._by_mac.get(mac)
        if node is None:
            claimed = (network, address) in self._by_home
            return (Sighting.CLAIMS_ADDRESS if claimed else Sighting.STRANGER), None
        if address and address != NO_ADDRESS and address != node.address.packed:
            other = self._by_home.get((network, address)) or self._by_home.get((node.home, address))
            return (Sighting.CLAIMS_ADDRESS if other else Sighting.NEW_ADDRESS), node
        binding = self._bindings[node.name]
        here = binding.here
        if here.network == network and here.port == port:
            return Sighting.HERE, node
        arriving = binding.arriving
        if arriving is not None and arriving.network == network and arriving.port == port:
            return Sighting.ARRIVING, node
        return Sighting.ELSEWHERE, node

    def network_of(self, address: IPv4Address) -> str | None:
        """The network that the core routes ``address`` to."""
        number = int(address)
        index = bisect_right(self._first, number) - 1
        if index < 0 or number > self._prefixes[index][1]:
            return None
        return self._prefixes[index][2]
