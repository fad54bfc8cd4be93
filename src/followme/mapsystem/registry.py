"""Registrations: who may claim an EID, for how long, and who wins when two claim it.

The rule for two routers that claim one EID:

1. The latest claim wins. The router that had the EID (by itself, or by the prefix that covered it) is told by a
   Map-Notify, and until it acknowledges that, its Map-Registers for the EID are refused (``lost``) and it is
   told again: what it sends may be a refresh by one that does not know yet. Its next one is a new claim.
2. The same locators, registered by another router of the same site, are no claim against anybody. Nor is what a
   site's routers without xTR-ID register of each other's: it may be one router, at another address now.
3. An EID that has changed hands ``changes`` times within ``within_s`` stays for ``within_s`` where it is then
   (``damped``), unless its holder withdraws it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from followme.lisp import EidPrefix, MappingRecord
from followme.lisp.prefixtable import PrefixTable

from .sites import Reply, Site

MAX_LOSERS: Final = 8
"""Routers remembered for each EID that lost it and have not acknowledged that."""
MAX_ROUTERS: Final = 256
"""Routers of a site that are remembered."""
MAX_LIFETIME_S: Final = 7 * 86400.0
INTERVALS: Final = 3
"""A registration ends after so many registration intervals (RFC 9301, 5.6)."""


NO_XTR_ID: Final = b"without xTR-ID @"
"""Longer with any address than an xTR-ID is."""


class RouterId(NamedTuple):
    """A router: its site, and its xTR-ID (16 octets) or, if it sends none, ``NO_XTR_ID`` and its address."""

    site: str
    xtr: bytes


@dataclass(slots=True)
class Router:
    """What is known of a router: the last nonce, the source of its last message, its key's id, the address of ours
    that it registers at, and how many registrations it holds."""

    id: RouterId
    site: Site
    host: str
    port: int
    nonce: int = -1
    key_id: int = 0
    algorithm_id: int = 2
    local: str = ""
    held: int = 0

    @property
    def xtr_id(self) -> bytes | None:
        """``None`` if it sends none."""
        return self.id.xtr if len(self.id.xtr) == 16 else None

    def is_(self, other: Router) -> bool:
        """Whether they may be one: of a site's routers without xTR-ID an address that changes tells nothing."""
        return self is other or (self.site is other.site and self.xtr_id is None and other.xtr_id is None)


@dataclass(slots=True)
class Registration:
    """A registered mapping, and its holder. ``expires`` is by the caller's clock."""

    record: MappingRecord
    eid: EidPrefix
    holder: Router
    expires: float
    proxy: bool
    losers: dict[RouterId, None] = field(default_factory=dict)
    changes: list[float] = field(default_factory=list)
    held_until: float = 0.0

    @property
    def forward(self) -> bool:
        """Whether Map-Requests go on to the ETR."""
        reply = self.holder.site.reply
        return reply is Reply.FORWARD or (reply is Reply.ASKED and not self.proxy)


@dataclass(frozen=True, slots=True)
class Damping:
    """More changes than a user who walks to and fro, or a machine that follows, makes: who is damped is cut off."""

    changes: int = 20
    within_s: float = 60.0


class Claim(NamedTuple):
    """What became of a record of a Map-Register.

    ``refused`` is the reason ("": accepted), ``changed`` says that the mapping is new or another, or gone.
    ``previous`` is the mapping that a move took the EID from; ``damped`` is set when the EID begins to stay.
    """

    refused: str = ""
    changed: bool = False
    previous: MappingRecord | None = None
    loser: Router | None = None
    damped: bool = False


class Registry:
    """All registrations. ``interval_s`` is how often routers register."""

    def __init__(self, interval_s: float = 60.0, damping: Damping | None = None, limit: int = 200_000) -> None:
        self.table: PrefixTable[Registration] = PrefixTable()
        self.routers: dict[RouterId, Router] = {}
        """Who was heard last comes last."""
        self.forgotten: set[RouterId] = set()
        """For the store."""
        self.lifetime_s = interval_s * INTERVALS
        self._damping = damping or Damping()
        self._limit = limit
        self._of_site: dict[str, int] = {}
        self._routers_of: dict[str, int] = {}
        self._expiry: list[tuple[float, EidPrefix]] = []

    def router(self, id: RouterId, site: Site, host: str, port: int) -> Router | None:
        """The router, known from now on; ``None`` if its site has too many."""
        router = self.routers.pop(id, None)
        if router is None:
            if self._routers_of.get(site.name, 0) >= MAX_ROUTERS and not self._forget(site):
                return None
            router = Router(id, site, host, port)
            self._routers_of[site.name] = self._routers_of.get(site.name, 0) + 1
        self.routers[id] = router
        return router

    def _forget(self, site: Site) -> bool:
        """Make room for a router: the one that was silent for longest goes, of those that hold nothing and send no
        xTR-ID (their nonces are shared: the next one's is above); else, where nonces are not looked at, of all."""
        idle = [id for id, router in self.routers.items() if router.site is site and not router.held]
        anonymous = [id for id in idle if self.routers[id].xtr_id is None]
        for id in anonymous or ([] if site.replay_protection else idle):
            del self.routers[id]
            self._routers_of[site.name] -= 1
            self.forgotten.add(id)
            return True
        return False

    def last_nonce(self, id: RouterId) -> int:
        """What the next Map-Register's nonce must be greater than; -1 for any.

        A source address can be forged: so routers that send no xTR-ID share their site's nonces.
        """
        if len(id.xtr) == 16:
            router = self.routers.get(id)
            return -1 if router is None else router.nonce
        return max((one.nonce for one in self.routers.values() if one.id.site == id.site and one.xtr_id is None),
                   default=-1)  # fmt: skip

    def claim(
        self, router: Router, record: MappingRecord, proxy: bool, use_ttl: bool, now: float
    ) -> Claim:
        """``router``, authenticated, registers ``record``, which its site may; see the rule above."""
        eid = record.eid
        if not isinstance(eid, EidPrefix):
            return Claim("unsupported-eid")
        held = self.table.get(eid)
        if record.ttl == 0:
            if held is None:
                return Claim()
            return self._withdraw(held, router)
        lifetime = min(record.ttl * 60.0, MAX_LIFETIME_S) if use_ttl else self.lifetime_s
        if held is None:
            return self._first(router, record, eid, proxy, now + lifetime)
        return self._again(held, router, record, proxy, now, now + lifetime)

    def _withdraw(self, held: Registration, router: Router) -> Claim:
        if not held.holder.is_(router):
            return Claim("not-holder")
        self.remove(held)
        return Claim(changed=True)

    def _first(self, router: Router, record: MappingRecord, eid: EidPrefix, proxy: bool, expires: float) -> Claim:
        of_site = self._of_site.get(router.site.name, 0)
        if len(self.table) >= self._limit or of_site >= router.site.max_registrations:
            return Claim("full")
        match = self.table.longest(eid)
        cover = None if match is None else match[1]
        registration = Registration(record, eid, router, expires, proxy)
        self.add(registration)
        if cover is None or cover.holder.is_(router) or _same_way(cover.record, record):
            return Claim(changed=True)
        registration.losers[cover.holder.id] = None
        return Claim("", True, cover.record, cover.holder)

    def _again(
        self, held: Registration, router: Router, record: MappingRecord, proxy: bool, now: float, expires: float
    ) -> Claim:
        previous, loser = held.record, held.holder
        if loser.is_(router) or (loser.site is router.site and _same_way(previous, record)):
            changed = previous != record or held.proxy != proxy
            if loser.is_(router):
                self._hold(held, router)
                held.losers.pop(router.id, None)
            held.record, held.proxy, held.expires = record, proxy, expires
            self._expect(expires, held.eid)
            return Claim(changed=changed)
        if router.id in held.losers:
            return Claim("lost")
        if now < held.held_until:
            return Claim("damped")
        held.changes = [at for at in held.changes if at > now - self._damping.within_s]
        if len(held.changes) >= self._damping.changes:
            held.held_until = now + self._damping.within_s
            return Claim("damped", damped=True)
        held.changes.append(now)
        held.losers.pop(router.id, None)
        held.losers[loser.id] = None
        while len(held.losers) > MAX_LOSERS:
            del held.losers[next(iter(held.losers))]
        self._hold(held, router)
        held.record, held.proxy, held.expires = record, proxy, expires
        self._expect(expires, held.eid)
        return Claim("", True, previous, loser)

    def add(self, registration: Registration) -> None:
        """A new one, or one from the store."""
        self.table.put(registration.eid, registration)
        self._count(registration.holder, 1)
        self._expect(registration.expires, registration.eid)

    def remove(self, registration: Registration) -> None:
        self.table.pop(registration.eid)
        self._count(registration.holder, -1)

    def acknowledged(self, eid: EidPrefix, router: RouterId) -> bool:
        """``router`` knows that it has lost ``eid``; whether that was news."""
        held = self.table.get(eid)
        if held is None or router not in held.losers:
            return False
        del held.losers[router]
        return True

    def expiry(self) -> float | None:
        """When the next registration may end."""
        return self._expiry[0][0] if self._expiry else None

    def expired(self, now: float) -> Iterator[Registration]:
        """Those that have ended by ``now``, taken out."""
        while self._expiry and self._expiry[0][0] <= now:
            _, eid = heapq.heappop(self._expiry)
            held = self.table.get(eid)
            if held is not None and held.expires <= now:
                self.remove(held)
                yield held

    def _expect(self, expires: float, eid: EidPrefix) -> None:
        heapq.heappush(self._expiry, (expires, eid))
        if len(self._expiry) > 4 * len(self.table) + 1024:
            self._expiry = [(held.expires, eid) for eid, held in self.table.items()]
            heapq.heapify(self._expiry)

    def _hold(self, held: Registration, router: Router) -> None:
        self._count(held.holder, -1)
        self._count(router, 1)
        held.holder = router

    def _count(self, router: Router, by: int) -> None:
        router.held += by
        self._of_site[router.site.name] = self._of_site.get(router.site.name, 0) + by


def _same_way(one: MappingRecord, other: MappingRecord) -> bool:
    """Whether packets go to the same places."""
    return {locator.address for locator in one.locators} == {locator.address for locator in other.locators}
