"""The ITR: misses, Map-Replies, solicitations and publications (RFC 9301, 5.3 to 5.5 and 6.1; RFC 9437).

A miss is asked for without the N-bit, so that the answer is quick and leaves no state at the map server for an
address that may not exist. The EID-prefix of the answer is then subscribed to, once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from itertools import chain

from followme.lisp import (
    CONTROL_PORT,
    Action,
    Address,
    EidPrefix,
    EidRecord,
    MapNotify,
    MappingRecord,
    MapReply,
    MapRequest,
)
from followme.system.seldom import Refusals

from .asking import itr_rlocs, question
from .hearsay import Hearsay
from .mapcache import Entry, MapCache, addresses
from .outputs import (
    Answered,
    Datagram,
    Encap,
    IPAddress,
    LocatorState,
    Native,
    Output,
    Redirected,
    Release,
    SetRoute,
    Way,
)
from .paced import Paced
from .probing import Prober
from .requests import Ask, Nonces, Requests
from .site import Site, ends_of, host

UNANSWERED_MINUTES = 0
ROUTE_AGAIN_S = 1.0
MAX_MISSED = 512
"""Packets of a mapping that are given back to the kernel after its route was set: as many as the punt's queue has.
Without a bound those of a route that cannot be set would go round until their TTL ends."""
MAX_SUBSCRIBED_HOLES = 256
"""Negative mappings that we subscribe to: each is an entry at the map server."""
PUBLICATION_WINDOW = 1 << 16
"""By how much a publication's nonce may exceed the last: it grows by one each (RFC 9437, 6)."""


class Itr:
    """Remote mappings: asked for, kept, changed. Outputs go to ``out``. ``local`` says whether an EID is behind us,
    ``router_has`` whether it is an address of this router itself."""

    def __init__(
        self, site: Site, out: list[Output], refusals: Refusals, nonces: Nonces, local: Callable[[EidPrefix], bool],
        router_has: Callable[[EidPrefix], bool],
    ) -> None:  # fmt: skip
        self._site, self._out, self._refusals, self._local = site, out, refusals, local
        self._router_has = router_has
        self.prober = Prober(site.probe_interval_s, nonces)
        self.watched: dict[IPAddress, EidPrefix] = {}
        """RLOCs to be probed also while no packet goes there."""
        self.cache = MapCache(out, site.max_entries, self.prober.down, site.own)
        self.requests = Requests(nonces, self._displaced)
        self._paced = Paced()
        self.hearsay = Hearsay(
            site, self.cache, refusals, self.ask, router_has, lambda eid: self._paced.put([eid], patient=True)
        )
        self._hints = self.hearsay.hints

    def miss(self, packet: bytes, now: float) -> tuple[EidPrefix, EidPrefix] | None:
        """An IP packet to an EID without a route; returned are its source and its destination, if it is IP."""
        ends = ends_of(packet)
        if ends is None:
            self._refusals.counts["not an IP packet"] += 1
            return None
        if ip_address(ends[1]).is_multicast:
            self._refusals.counts["packet to a group"] += 1  # the kernel's own, as a rule: nothing to log
            return None
        source, eid = (host(self._site.iid, address) for address in ends)
        if not self._site.in_space(eid) or self._local(eid):
            self._refusals.refuse("miss for an EID of ours or of nobody", source, now, eid)
            return None
        found = self.cache.find(eid)
        if found is not None and isinstance(found[1].way, Encap | Native):
            self._missed(*found, now)
            if found[1].missed <= MAX_MISSED:
                self._out.append(Release(eid, (packet,)))  # it was under way when the route was set
            return source, eid
        if found is not None:
            self._missed(*found, now)
        reason = self.requests.miss(eid, packet, source.address, now)
        if reason:
            self._refusals.refuse(reason, source.network, now, eid)
        self.send_due(now)
        return source, eid

    def _missed(self, eid: EidPrefix, entry: Entry, now: float) -> None:
        """A packet missed though its mapping is known: long after its route was set the kernel has lost that."""
        if now - entry.routed >= ROUTE_AGAIN_S:
            entry.routed, entry.missed = now, 0
            self._refusals.refuse("route that the kernel has lost", eid, now)
            self._out.append(SetRoute(eid, entry.way))
        entry.missed += 1

    def ask(self, eid: EidPrefix, now: float, *, subscribe: bool = True, smr: bool = False) -> None:
        """Ask the map system for ``eid``.

        What has left our own subnet is not subscribed to: of that the map server tells us of its own accord, by
        nonces that are not those of a subscription, and it is asked for all the time.
        """
        self._begin(eid, now, subscribe=subscribe, smr=smr)
        self.send_due(now)

    def _begin(self, eid: EidPrefix, now: float, *, subscribe: bool = True, smr: bool = False) -> None:
        self.requests.begin(eid, now, subscribe=subscribe and not self._site.own(eid), smr=smr)

    def _displaced(self, ask: Ask, now: float) -> None:
        """There are too many asks, and this one has made room for another."""
        self._refusals.refuse("too many Map-Requests under way", ask.smr_invoked, now, ask.eid)
        self._out.append(Answered(ask.eid, None))

    def reply(self, message: MapReply, source: IPAddress, now: float) -> None:
        """A Map-Reply: the nonce must be one of ours, the source one that may answer (RFC 9301, 5.4)."""
        if message.probe:
            self._probed(message.nonce, source, now)
            return
        ask = self.requests.asked(message.nonce)
        if ask is None:
            late = self.requests.recently(message.nonce) is not None
            self._refusals.refuse("late Map-Reply" if late else "Map-Reply with a wrong nonce", source, now)
            return
        system = self._map_system(source)
        records = self._records(message.records, ask.eid, whole=system)
        home = system and self._home(message.records, ask.eid)
        if not records and not home:
            self._refusals.refuse("Map-Reply for another EID", source, now, ask.eid)
            return
        if not system and not any(loc.address == source for _, record in records for loc in record.locators):
            self._refusals.refuse("Map-Reply from a stranger", source, now, ask.eid)
            return
        if records:
            self._answer(ask, records, now, None)
        if home:
            self.returned(ask)

    def returned(self, ask: Ask) -> None:
        """An EID of our subnet is nowhere else any more, says the map system: it counts as at home again."""
        if ask.eid in self.cache.away:
            self.cache.remove(ask.eid)
            self.requests_done(ask.eid)

    def confirmed(self, message: MapNotify, now: float) -> bool:
        """Whether an authenticated Map-Notify confirms a subscription of ours; if so it is done. One without
        records asks only whether it was us who subscribed: the mappings come after our acknowledgement."""
        ask = self.requests.asked(message.nonce)
        if ask is None:
            eid = self.requests.recently(message.nonce)
            found = None if eid is None else self.cache.find(eid)
            if found is not None:
                found[1].nonce = max(message.nonce, found[1].nonce or 0)
            return eid is not None
        records = self._records(message.records, ask.eid)
        if records:
            self._answer(ask, records, now, message.nonce)
        return True

    def published(self, message: MapNotify, now: float) -> bool:
        """An authenticated publication (RFC 9437, 6); ``False`` if no subscription of ours bears its nonce, or if
        it may be the end of one, which we never ask for: whoever has, an acknowledgement would end it."""
        records = [
            (record.eid, record)
            for record in message.records
            if isinstance(record.eid, EidPrefix) and record.eid.iid == self._site.iid
        ]
        entries = [found for eid, _ in records if (found := self._subscription(eid, message.nonce)) is not None]
        if not entries or any(record.ttl == 0 and self._subscribed(eid) for eid, record in records):
            return False
        if all(entry.nonce == message.nonce for entry in entries):
            return True  # sent again, as our acknowledgement was lost
        for entry in entries:
            entry.nonce = message.nonce
        for eid, record in records:
            if self._local(eid) or eid in self._site.prefixes or not self._site.in_space(eid):
                continue
            if record.ttl == 0:
                self._gone(eid, now)  # and what covers it counts again
            else:
                self.place(record, eid, now)
            self.requests_done(eid)
        return True

    def replayed(self, message: MapNotify) -> bool:
        """Whether it is a publication that was overtaken by a later one of its subscription."""
        entries = (
            entry for record in message.records if isinstance(record.eid, EidPrefix)
            for _, entry in self.cache.table.covering(record.eid)
        )  # fmt: skip
        return any(one.nonce is not None and 0 < one.nonce - message.nonce < PUBLICATION_WINDOW for one in entries)

    def place(self, record: MappingRecord, eid: EidPrefix, now: float, nonce: int | None = None) -> None:
        """Put a mapping that is believed in the map-cache, and tell. What is to be asked for with each packet
        (ACT 2; RFC 9301, 5.4) has no entry: its packets miss. An address of this router itself never has one."""
        if self._router_has(eid):
            self._refusals.refuse("mapping of an address of our own", eid, now)
            return
        if not record.locators and record.action == Action.SEND_MAP_REQUEST:
            self._gone(eid, now)
            return
        ours = set(self._site.rlocs)
        locators = tuple(loc for loc in record.locators if loc.address not in ours)
        if any(self._inside(loc.address) for loc in locators):
            self._refusals.refuse("RLOC in the EID space", eid, now)
            locators = tuple(loc for loc in locators if not self._inside(loc.address))
            record = replace(record, locators=locators, action=record.action if locators else Action.DROP)
        if record.locators and not locators:
            # The map system sends us its packets, and we do not have it: a loop, if we believed it.
            self._refusals.refuse("mapping to ourselves", eid, now)
            known = self.cache.find(eid)
            if known is not None and known[0] == eid and isinstance(known[1].way, Encap):
                # It was carried away a moment ago, and the map system has not heard of it: the way that we know
                # is the newer one. It expires as any other.
                return
            record = replace(record, action=Action.DROP, ttl=0)
        before = self.cache.find(eid)
        left = frozenset() if before is None else frozenset(addresses(before[1]))
        entry = self.cache.put(replace(record, locators=locators), eid, now, nonce)
        self._hints.left(eid, left - addresses(entry), now)
        self.prober.use(addresses(entry), now)
        if isinstance(entry.way, Encap) and (before is None or before[1].way != entry.way):
            self._out.append(Redirected(eid, tuple(rloc for rloc, _ in entry.way.paths)))

    def _inside(self, address: Address) -> bool:
        """Whether packets to an RLOC would need a mapping themselves."""
        return isinstance(address, IPAddress) and self._site.in_space(host(self._site.iid, address.packed))

    def _gone(self, eid: EidPrefix, now: float) -> None:
        entry = self.cache.remove(eid)
        self._hints.left(eid, frozenset() if entry is None else frozenset(addresses(entry)), now)

    def adopt(self, eid: EidPrefix, way: Way, now: float, seconds: float) -> None:
        """A route that an earlier run left in the kernel: it stays, and the map system is asked about it."""
        self.cache.adopt(eid, way, now, seconds)
        self._paced.put([eid])
        if isinstance(way, Encap):
            self.prober.use((rloc for rloc, _ in way.paths), now)

    def requests_done(self, eid: EidPrefix) -> None:
        """An ask for ``eid`` needs no answer any more: its packets go the way that is being set."""
        ask = self.requests.pending.get(eid)
        if ask is not None and (packets := self.requests.drop(ask)):
            self._out.append(Release(eid, tuple(packets)))

    def timer(self, now: float) -> None:
        self._paced.put(self.cache.timer(now))
        for eid in self._paced.due(now, self.cache.table):
            self._begin(eid, now)
        for eid in self._hints.due(now):
            self._begin(eid, now, subscribe=False, smr=True)
        self.send_due(now)
        probes, gone = self.prober.due({**self.watched, **self.cache.rlocs()}, now)
        for rloc, eid, nonce in probes:
            request = MapRequest(nonce, itr_rlocs(self._site, rloc), (EidRecord(eid),), probe=True)
            self._out.append(Datagram(request.encode(), rloc, CONTROL_PORT))
        for rloc in gone:
            self._out.append(LocatorState(rloc, False))
            self.cache.changed(rloc)
        self._choose_again()

    def _choose_again(self) -> None:
        """Routes after a change of an RLOC. Where no locator is up the map system is asked; about those that are
        subscribed to last, as of those the map server tells, once it knows."""
        eids, table = self.cache.choose_again(), self.cache.table
        patient = {eid for eid in eids if (entry := table.get(eid)) is not None and entry.nonce is not None}
        self._paced.put(eid for eid in eids if eid not in patient)
        self._paced.put(patient, patient=True)

    def next_timer(self) -> float | None:
        parts = (self.cache, self._hints, self._paced, self.requests, self.prober)
        times = [part.next_timer() for part in parts]
        return min((time for time in times if time is not None), default=None)

    def send_due(self, now: float) -> None:
        """Send the Map-Requests that are due, and give up those that were not answered."""
        send, given_up = self.requests.due(now)
        for ask, nonce in send:
            if (datagram := question(self._site, ask, nonce)) is not None:
                self._out.append(datagram)
        for ask in given_up:
            self._refusals.refuse("no answer of the map system", ask.eid, now)
            self._out.append(Answered(ask.eid, None))
            if ask.eid.host and ask.source is not None and self.cache.table.get(ask.eid) is None:
                # Nothing known, and nobody to ask: its packets are not asked about for a second.
                self.cache.put(MappingRecord(ask.eid, (), UNANSWERED_MINUTES, Action.DROP), ask.eid, now)

    def _records(
        self, records: tuple[MappingRecord, ...], asked: EidPrefix, *, whole: bool = True
    ) -> list[tuple[EidPrefix, MappingRecord]]:
        """What of an answer concerns what was asked: the mapping that covers it, and more-specifics in that.

        A prefix wider than the EID space is taken for its part in it only; what is ours is not taken. Without
        ``whole`` an ETR speaks for itself: it is the one for what was asked, says the map system, and for what
        else it says is known of nobody; its mapping is taken for what was asked alone.
        """
        if not whole:
            covering = [r for r in records if isinstance(r.eid, EidPrefix) and r.eid.covers(asked)]
            best = max(covering, key=lambda r: r.eid.length, default=None)
            records = () if best is None else (replace(best, eid=asked),)
        taken = []
        widest = next(
            (r.eid for r in records if isinstance(r.eid, EidPrefix) and r.eid.covers(asked)), None
        )
        if widest is None:
            return []
        for record in records:
            eid = record.eid
            if not isinstance(eid, EidPrefix) or not widest.covers(eid):
                continue
            if not self._site.in_space(eid):
                space = next((prefix for prefix in self._site.space if eid.covers(prefix)), None)
                if space is None or not space.covers(asked):
                    continue
                eid = space
            # What has left our subnet does not cease to be somewhere because our registration has.
            nowhere = self._site.own(eid) and not record.locators
            if eid not in self._site.prefixes and not self._local(eid) and not nowhere:
                taken.append((eid, record))
        return taken

    def _home(self, records: tuple[MappingRecord, ...], asked: EidPrefix) -> bool:
        """Whether an answer says that what had left our subnet is in our own prefix, and nowhere else."""
        covering = [r.eid for r in records if isinstance(r.eid, EidPrefix) and r.eid.covers(asked)]
        best = max(covering, key=lambda eid: eid.length, default=None)
        return asked in self.cache.away and best in self._site.prefixes

    def _map_system(self, source: IPAddress) -> bool:
        """Whether an answer comes from the map system; else it must come from a locator of the mapping itself."""
        servers = (server.address for server in self._site.servers)
        return any(source == address for address, _ in self._site.resolvers) or source in servers

    def _answer(
        self, ask: Ask, records: list[tuple[EidPrefix, MappingRecord]], now: float, nonce: int | None
    ) -> None:
        packets = self.requests.drop(ask)
        for eid, record in records:
            self.place(record, eid, now, nonce if eid.covers(ask.eid) else None)
        if (nonce is not None or self._subscribed(ask.eid)) and all(eid != ask.eid for eid, _ in records):
            self._gone(ask.eid, now)  # it is a part of a larger mapping now
        if packets and self.cache.find(ask.eid) is None:
            self._refusals.counts["no mapping yet"] += 1
        elif packets:
            self._out.append(Release(ask.eid, tuple(packets)))
        best = max(records, key=lambda pair: pair[0].length if pair[0].covers(ask.eid) else -1)
        self._out.append(Answered(ask.eid, best[1]))
        subscribed = any(entry.nonce is not None for _, entry in self.cache.table.covering(best[0]))
        room = bool(best[1].locators) or (
            self.cache.negatives <= MAX_SUBSCRIBED_HOLES and best[0] in self.cache.table
        )
        if not ask.subscribe and not subscribed and room and not self._site.own(best[0]):
            self.ask(best[0], now)

    def _probed(self, nonce: int, source: IPAddress, now: float) -> None:
        risen = self.prober.answered(source, nonce, now)
        if risen is None:
            self._refusals.refuse("probe's answer that nobody waits for", source, now)
        elif risen:
            self._out.append(LocatorState(source, True))
            self.cache.changed(source)
            self._choose_again()

    def _subscribed(self, eid: EidPrefix) -> bool:
        """Whether this very prefix is subscribed to."""
        entry = self.cache.table.get(eid)
        return entry is not None and entry.nonce is not None

    def _subscription(self, eid: EidPrefix, nonce: int) -> Entry | None:
        """The subscribed entry that a publication about ``eid`` with this nonce belongs to."""
        for _, entry in chain(self.cache.table.covering(eid), self.cache.table.within(eid)):
            if entry.nonce is not None and 0 <= nonce - entry.nonce < PUBLICATION_WINDOW:
                return entry
        return None
