"""Which domain owns what: the networks of all domains, their prefixes and pools, and their public keys.

It comes from the configuration and does not change; what a message claims is checked against it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address

from followme.domain import Network


class RegistryError(Exception):
    """The domains contradict each other; the text says where."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A controller's realm. ``public_key``: Ed25519, 32 octets. Networks of other domains have datapath 0."""

    name: str
    networks: tuple[Network, ...]
    public_key: bytes


class Registry:
    """All domains, as seen by ``domain``. ``RegistryError`` if prefixes overlap, or a name is there twice."""

    def __init__(self, domain: str, domains: Mapping[str, Domain]) -> None:
        if domain not in domains:
            raise RegistryError(f"domain {domain} is not among the domains")
        self.domain = domain
        self.domains = dict(domains)
        self.networks: dict[str, Network] = {}
        self._owners: dict[str, str] = {}
        for name, one in domains.items():
            for network in one.networks:
                if network.name in self.networks:
                    raise RegistryError(f"network {network.name} is there twice")
                if not network.locators.subnet_of(network.prefix):
                    raise RegistryError(f"network {network.name}: its locators are not in its prefix")
                self.networks[network.name] = network
                self._owners[network.name] = name
        self._sorted = sorted(self.networks.values(), key=lambda network: int(network.prefix.network_address))
        self._starts = [int(network.prefix.network_address) for network in self._sorted]
        for before, after in zip(self._sorted, self._sorted[1:], strict=False):
            if before.prefix.overlaps(after.prefix):
                raise RegistryError(f"networks {before.name} and {after.name} overlap")
        self._pools = {network.name: pool_bounds(network) for network in self._sorted}
        self.own_networks = self.domains[domain].networks
        self._find = lru_cache(maxsize=4096)(self._search)

    def owner_of_network(self, name: str) -> str | None:
        return self._owners.get(name)

    def network_of(self, address: IPv4Address) -> Network | None:
        """Whose prefix holds the address."""
        return self._find(int(address))

    def home_of(self, identifier: IPv4Address) -> str | None:
        """The domain that is home to the identifier."""
        network = self._find(int(identifier))
        return None if network is None else self._owners[network.name]

    def owns(self, domain: str, network: str) -> bool:
        return self._owners.get(network) == domain

    def mine(self, network: str) -> bool:
        return self._owners.get(network) == self.domain

    def in_pool(self, network: str, locator: IPv4Address) -> bool:
        """Whether the network may give this locator to a node."""
        bounds = self._pools.get(network)
        return bounds is not None and bounds[0] <= int(locator) < bounds[1]

    def public_key(self, domain: str) -> bytes | None:
        one = self.domains.get(domain)
        return None if one is None else one.public_key

    def _search(self, address: int) -> Network | None:
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address > int(self._sorted[at].prefix.broadcast_address):
            return None
        return self._sorted[at]


def pool_bounds(network: Network) -> tuple[int, int]:
    """First locator that may be given, and the one after the last (as ``continuity.redirect`` gives them)."""
    return int(network.locators.network_address), int(network.probe_address)
