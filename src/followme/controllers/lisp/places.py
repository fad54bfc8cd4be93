"""Where users and machines are, as the map system says: a node is at the site whose RLOCs its mapping has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from followme.config.lisp import SiteSection
from followme.domain import Node
from followme.lisp import EidPrefix, MappingRecord


@dataclass(frozen=True, slots=True)
class Moved:
    """A node is at another site than it was believed to be."""

    node: Node
    left: str
    site: str


class Places:
    """``moves`` counts the changes, for those who keep what they made of the places."""

    def __init__(self, sites: Iterable[SiteSection], nodes: Iterable[Node], instance_id: int) -> None:
        self._site_of: dict[IPv4Address | IPv6Address, str] = {}
        for site in sites:
            self._site_of |= dict.fromkeys(site.rlocs, site.name)
        self._nodes = {EidPrefix.of(node.identifier, instance_id): node for node in nodes}
        self._here = {node.name: node.home for node in self._nodes.values()}
        self.moves = 0
        self.unknown = 0
        """Mappings whose locators are no site's of ours."""

    @property
    def all(self) -> Mapping[str, str]:
        """Site by node."""
        return self._here

    def site_of(self, record: MappingRecord) -> str | None:
        """The site that a mapping's best locator belongs to; ``None`` if it has none, or a stranger's."""
        usable = [one for one in record.locators if one.reachable and one.priority < 255]
        for locator in sorted(usable, key=lambda one: one.priority):
            if isinstance(locator.address, (IPv4Address, IPv6Address)) and locator.address in self._site_of:
                return self._site_of[locator.address]
        return None

    def changed(self, record: MappingRecord) -> Moved | None:
        """What a mapping means: its EID's node is there. One that is gone says that the node is at home, whose
        prefix covers it again. Prefixes of sites are no news: nobody's own mapping."""
        node = self._nodes.get(record.eid) if isinstance(record.eid, EidPrefix) else None
        if node is None:
            return None
        site = self.site_of(record) if record.locators else node.home
        if site is None:
            self.unknown += 1
            return None
        left = self._here[node.name]
        if site == left:
            return None
        self._here[node.name] = site
        self.moves += 1
        return Moved(node, left, site)
