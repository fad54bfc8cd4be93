"""LISP sites as the map server knows them: keys, prefixes, and what is let in from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from followme.lisp import EidPrefix, MappingRecord, is_rloc
from followme.lisp.prefixtable import PrefixTable


class Reply(Enum):
    """Who answers Map-Requests for a site's EIDs (RFC 9301, 8.3)."""

    ASKED = "asked"
    """The map server, if the ETR set the P-bit in its Map-Register; else the ETR."""
    PROXY = "proxy"
    FORWARD = "forward"


@dataclass(frozen=True, slots=True)
class SitePrefix:
    """An EID-prefix of a site, and whether more specific ones of it may be registered."""

    eid: EidPrefix
    more_specifics: bool = True


@dataclass(frozen=True, slots=True)
class Site:
    """A LISP site. ``keys`` goes from key id to shared secret and is never shown; towards those that have
    never registered, the first key and the best of ``algorithms`` are used.

    ``visitors`` are prefixes of other sites; single EIDs of them may be registered here while they visit.
    ``rlocs`` bounds the locators (empty: any). ``site_id`` is needed to subscribe and for visitors.
    """

    name: str
    keys: dict[int, bytes] = field(repr=False)
    site_id: int = 0
    prefixes: tuple[SitePrefix, ...] = ()
    visitors: tuple[EidPrefix, ...] = ()
    rlocs: tuple[IPv4Network | IPv6Network, ...] = ()
    reply: Reply = Reply.ASKED
    algorithms: tuple[int, ...] = (1, 2)
    replay_protection: bool = True
    max_registrations: int = 20_000


class Sites:
    """All sites: which one a message is of, and what it may register."""

    def __init__(self, sites: tuple[Site, ...]) -> None:
        self.by_name = {site.name: site for site in sites}
        self.by_id = {site.site_id: site for site in sites if site.site_id}
        self.prefixes: PrefixTable[tuple[Site, SitePrefix]] = PrefixTable()
        for site in sites:
            for prefix in site.prefixes:
                self.prefixes.put(prefix.eid, (site, prefix))

    def of(self, site_id: int, eid: EidPrefix | None) -> Site | None:
        """The site with the Site-ID, else the one whose prefix is the longest match of ``eid``."""
        site = self.by_id.get(site_id) if site_id else None
        if site is None and eid is not None and (match := self.prefixes.longest(eid)) is not None:
            site = match[1][0]
        return site

    def refusal(self, site: Site, record: MappingRecord) -> str:
        """Why ``site`` may not register the record ("" if it may): the reason's name."""
        eid = record.eid
        if not isinstance(eid, EidPrefix):
            return "unsupported-eid"
        if not self._own(site, eid) and not (eid.host and any(one.covers(eid) for one in site.visitors)):
            return "outside-prefixes"
        for locator in record.locators:
            address = locator.address
            if isinstance(address, IPv4Address | IPv6Address) and not is_rloc(address):
                return "rloc"
            if site.rlocs and not (is_rloc(address) and any(address in prefix for prefix in site.rlocs)):
                return "rloc"
        return ""

    def _own(self, site: Site, eid: EidPrefix) -> bool:
        match = self.prefixes.longest(eid)
        if match is None:
            return False
        prefix, (holder, found) = match
        return holder is site and (eid == prefix or found.more_specifics)
