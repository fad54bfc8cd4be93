"""The ETR: what is ours is registered, answered for, and solicited when it has gone (RFC 9301, 5.3 to 5.7)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from itertools import islice

from followme.lisp import (
    CONTROL_PORT,
    EidPrefix,
    EidRecord,
    MapNotify,
    MapNotifyAck,
    MappingRecord,
    MapReply,
    MapRequest,
    sign,
)
from followme.system.seldom import Refusals

from .buckets import Bucket, Gate
from .correspondents import Correspondents
from .mapcache import MapCache
from .outputs import Datagram, Encap, IPAddress, Output, Registered
from .registration import Registrar
from .requests import Nonces
from .site import MapServer, Site

ANSWERS_PER_S, ANSWERS_BURST = 2000.0, 2000.0
"""For what our map servers send on, and as many again for all who ask us without them."""
FEW_PER_S, FEW_BURST = 500.0, 500.0
"""For RLOC-probes, and for whom we know: a flood of a stranger, who forges his addresses, is in another bucket."""
SOURCE_PER_S, SOURCE_BURST = 100.0, 200.0
"""For each of these."""
PEER_PROBES_PER_S, PEER_PROBES_BURST = 2000.0, 2000.0
"""For the RLOC-probes of each whom we send to, and twice as many of all: the answer is cheap, and whoever probes us
much in a peer's name makes it think that we are dead only beyond this."""
MAX_RECORDS = 16
SMR_EVERY_S = 0.5
MAX_SMRS = 256
"""Correspondents that are solicited for one EID at one time."""
MAX_REMEMBERED = 4096
MAX_DEPARTED = 16384
"""EIDs that were said to be elsewhere: of one that is forgotten a recorded word would count again."""


class Standing(Enum):
    """Who asks, as far as we know: an RLOC that we send to, as the map system says; one that has asked for an EID
    of ours; another."""

    PEER = auto()
    CORRESPONDENT = auto()
    STRANGER = auto()


class Etr:
    """Our own mappings. ``local(eid)`` says whether an EID is behind us now."""

    def __init__(
        self,
        site: Site,
        out: list[Output],
        refusals: Refusals,
        nonces: Nonces,
        cache: MapCache,
        local: Callable[[EidPrefix], bool],
        register_nonce: Callable[[], int],
    ) -> None:
        self._site, self._out, self._refusals, self._nonces = site, out, refusals, nonces
        self._cache, self._local = cache, local
        self.registrar = Registrar(site, out, register_nonce)
        self.correspondents = Correspondents(cache.uses)
        self._forwarded = Bucket(ANSWERS_PER_S, ANSWERS_BURST)
        self._gates = {
            (standing, probe): Gate(FEW_PER_S, FEW_BURST, SOURCE_PER_S, SOURCE_BURST)
            for standing in Standing for probe in (False, True)
        }  # fmt: skip
        self._gates[Standing.PEER, True] = Gate(
            2 * PEER_PROBES_PER_S, 2 * PEER_PROBES_BURST, PEER_PROBES_PER_S, PEER_PROBES_BURST
        )
        self._gates[Standing.STRANGER, False] = Gate(ANSWERS_PER_S, ANSWERS_BURST, SOURCE_PER_S, SOURCE_BURST)
        self._smrs_due: OrderedDict[tuple[EidPrefix, IPAddress], float] = OrderedDict()
        self._smrs: OrderedDict[tuple[EidPrefix, IPAddress], float] = OrderedDict()
        self._notified: OrderedDict[EidPrefix, int] = OrderedDict()
        self.departed: tuple[tuple[EidPrefix, int], ...] = ()
        """EIDs that a map server has said to be elsewhere, each with the nonce that it was last believed with: a
        stranger may have recorded what was said, so a restart must not forget it."""

    def request(self, message: MapRequest, source: IPAddress, port: int, now: float, *, forwarded: bool) -> None:
        """Answer a Map-Request: from our map server (``forwarded`` in an ECM), from an ITR, or a probe.

        The answer goes to an ITR-RLOC only if the map server vouches for it or the request came from there:
        we flood nobody on a stranger's word.
        """
        if forwarded:
            room = self._forwarded.take(now)
        else:
            room = self._gates[self._standing(source), message.probe].take(source, now)
        if not room:
            self._refusals.refuse("rate of Map-Requests", source, now)
            return
        if message.probe:
            self._answer_probe(message, source, port)
            return
        target = source
        if forwarded:
            families = {rloc.version for rloc in self._site.rlocs}
            usable = (rloc for rloc in message.itr_rlocs if isinstance(rloc, IPAddress))
            target = next((rloc for rloc in usable if rloc.version in families), source)
        elif source not in message.itr_rlocs:
            self._refusals.refuse("Map-Request for another's answer", source, now)
            return
        answers: dict[EidPrefix, None] = {}
        for asked in message.records[:MAX_RECORDS]:
            eid = asked.eid
            if not isinstance(eid, EidPrefix) or eid.iid != self._site.iid:
                continue
            ours = self._ours(eid)
            if ours is None:
                continue
            answers[ours] = None
            self.correspondents.heard(eid, target, now)
        records: list[MappingRecord] = []
        for ours in answers:
            records.append(self._site.record(ours))
            records += islice(self._gone_from(ours), max(MAX_RECORDS - len(records), 0))
        if not records:
            self._refusals.refuse("Map-Request for an EID that is not ours", source, now)
            return
        self._out.append(Datagram(MapReply(message.nonce, tuple(records)).encode(), target, port))

    def _standing(self, source: IPAddress) -> Standing:
        if self._cache.uses(source):
            return Standing.PEER
        return Standing.CORRESPONDENT if self.correspondents.knows(source) else Standing.STRANGER

    def notified(self, message: MapNotify, server: MapServer, now: float) -> bool:
        """Whether an authenticated Map-Notify confirms a registration of ours; if so it is done."""
        named = {record.eid for record in message.records if isinstance(record.eid, EidPrefix)}
        eids = self.registrar.confirmed(server, message.nonce, named, now)
        if eids:
            self._out.append(Registered(eids, server.address))
        return eids is not None

    def elsewhere(self, message: MapNotify) -> list[MappingRecord]:
        """The records of an authenticated Map-Notify that say that an EID of ours is behind another router
        (RFC 9301, 5.7), with a nonce above the last one that said so of this EID."""
        ours = set(self._site.rlocs)
        news = []
        for record in message.records:
            eid = record.eid
            if (
                isinstance(eid, EidPrefix)
                and record.locators
                and eid not in self._site.prefixes
                and (eid in self.registrar.eids or self._site.own(eid))
                and not any(loc.address in ours for loc in record.locators)
                and message.nonce > self._notified.get(eid, -1)
            ):
                news.append(record)
        return news

    def repeats(self, message: MapNotify) -> bool:
        """Whether it is an ``elsewhere`` that was acted on, sent again as our acknowledgement was lost."""
        return any(
            isinstance(record.eid, EidPrefix) and self._notified.get(record.eid) == message.nonce
            for record in message.records
        )

    def denied(self, message: MapNotify, disputed: Callable[[EidPrefix], bool]) -> bool:
        """Whether it says that what is still ours is behind other routers, but for what is claimed again."""
        ours = set(self._site.rlocs)
        return any(
            isinstance(record.eid, EidPrefix) and bool(record.locators)
            and (record.eid in self.registrar.eids or self._local(record.eid))
            and not any(loc.address in ours for loc in record.locators)
            and not disputed(record.eid)
            for record in message.records
        )  # fmt: skip

    def believed(self, eid: EidPrefix, nonce: int) -> None:
        """An ``elsewhere`` was acted on: older ones are replays from now on."""
        self._notified[eid] = nonce
        self._notified.move_to_end(eid)
        while len(self._notified) > MAX_DEPARTED:
            self._notified.popitem(last=False)
        self.departed = tuple(self._notified.items())

    def recall(self, departed: Iterable[tuple[EidPrefix, int]]) -> None:
        """What was ``believed`` before a restart."""
        self._notified.update(departed)
        self.departed = tuple(self._notified.items())

    def acknowledge(self, message: MapNotify, server: MapServer) -> None:
        """Map-Notify-Ack (RFC 9301, 5.7)."""
        ack = MapNotifyAck(message.nonce, message.records, message.xtr_id, message.site_id)
        data = sign(ack, server.key, server.algorithm_id, key_id=server.key_id).encode()
        self._out.append(Datagram(data, server.address, server.port))

    def targets(self, eid: EidPrefix, now: float) -> tuple[IPAddress, ...]:
        """Whom to solicit when ``eid`` moves: who asked for it, and where our site sends packets to."""
        ours = set(self._site.rlocs)
        asked = [rloc for rloc in self.correspondents.of(eid, now) if rloc not in ours]
        spoken = [rloc for rloc in self._cache.rlocs() if rloc not in ours and rloc not in asked]
        return tuple((asked + spoken)[:MAX_SMRS])

    def solicit(self, eid: EidPrefix, now: float) -> int:
        """SMR to the correspondents of ``eid`` (RFC 9301, 6.1); how many were sent.

        The EID that moved is both the Source-EID and the record: implementations differ in which they read.
        """
        sent = 0
        skip = self._holders(eid)
        for rloc in self.targets(eid, now):
            if rloc in skip:
                continue
            last = self._smrs.get((eid, rloc))
            if last is not None and now - last < SMR_EVERY_S:
                # What the first one made it ask may have been answered before this move.
                if len(self._smrs_due) < MAX_REMEMBERED:
                    self._smrs_due.setdefault((eid, rloc), now + SMR_EVERY_S)
                continue
            self._send_smr(eid, rloc, now)
            sent += 1
        return sent

    def timer(self, now: float) -> None:
        """Registrations, and solicitations that came too soon after the last."""
        self.registrar.timer(now)
        while self._smrs_due and next(iter(self._smrs_due.values())) <= now:
            (eid, rloc), _ = self._smrs_due.popitem(last=False)
            if rloc not in self._holders(eid):
                self._send_smr(eid, rloc, now)

    def next_timer(self) -> float | None:
        times = (self.registrar.next_timer(), next(iter(self._smrs_due.values()), None))
        return min((time for time in times if time is not None), default=None)

    def _holders(self, eid: EidPrefix) -> set[IPAddress]:
        """The RLOCs that ``eid`` is behind, as far as we know: nothing new to them."""
        found = self._cache.find(eid)
        way = found[1].way if found else None
        return {rloc for rloc, _ in way.paths} if isinstance(way, Encap) else set()

    def _send_smr(self, eid: EidPrefix, rloc: IPAddress, now: float) -> None:
        self._smrs_due.pop((eid, rloc), None)
        self._smrs[eid, rloc] = now
        self._smrs.move_to_end((eid, rloc))
        while len(self._smrs) > MAX_REMEMBERED:
            self._smrs.popitem(last=False)
        ours = sorted(self._site.rlocs, key=lambda own: own.version != rloc.version)
        request = MapRequest(
            self._nonces.next(now),
            tuple(ours),
            (EidRecord(eid),),
            source_eid=eid if eid.host else None,
            smr=True,
        )
        self._out.append(Datagram(request.encode(), rloc, CONTROL_PORT))

    def _answer_probe(self, message: MapRequest, source: IPAddress, port: int) -> None:
        """An RLOC-probe asks whether we are alive: we answer with a mapping of ours, the one asked for if
        that is here, in any case with one."""
        asked = message.records[0].eid
        eid = self._ours(asked) if isinstance(asked, EidPrefix) else None
        if eid is None:
            eid = next(iter(self._site.prefixes), None)
        records = () if eid is None else (self._site.record(eid),)
        reply = MapReply(message.nonce, records, probe=True)
        self._out.append(Datagram(reply.encode(), source, port))

    def _ours(self, eid: EidPrefix) -> EidPrefix | None:
        """The prefix of ours that ``eid`` is answered with."""
        if eid in self.registrar.eids:
            return eid
        covering = self.registrar.eids.longest(eid)
        if covering is None or (eid.host and not self._local(eid)):
            return None
        return covering[0]

    def _gone_from(self, prefix: EidPrefix) -> Iterator[MappingRecord]:
        """More-specifics of a prefix of ours that are elsewhere: an answer that covers them must name them
        (RFC 9301, 5.5)."""
        if prefix.host:
            return
        for eid in self._cache.away:
            entry = self._cache.table.get(eid)
            if prefix.covers(eid) and entry is not None and entry.record is not None and entry.record.locators:
                yield MappingRecord(eid, entry.record.locators, entry.record.ttl)
