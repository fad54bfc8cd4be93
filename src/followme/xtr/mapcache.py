"""The map-cache: remote mappings and the routes that they become (RFC 9301, 5.4 and 5.5; RFC 9300, 5.2).

A positive mapping goes to its best locators that are up. A negative one becomes a native or a discarding
route until its TTL ends. A mapping that is used is asked for again before its TTL ends: towards the end its
packets are watched for, as the kernel's routes do not say whether they are used.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from followme.lisp import TTL_UNLIMITED, UNUSABLE, Action, EidPrefix, Locator, MappingRecord, is_rloc
from followme.lisp.prefixtable import PrefixTable

from .outputs import Drop, Encap, IPAddress, Native, Output, RemoveRoute, SetRoute, Way
from .watched import Watched

MAX_TTL_S = 86_400.0
WATCH_S = 30.0
"""How long before the end of its TTL the packets of a mapping are watched for (a quarter of a short TTL)."""
EXTENSION_S = 30.0
MAX_EXTENSIONS = 20
"""A mapping in use outlives its TTL by 10 minutes at the most where the map system is silent."""
AWAY_S = 300.0
"""How often the map system is asked where an EID of our own subnet is that has left: used or not, as without its
entry the EID would count as ours, and nothing would ask for it ever again."""

TURN = 512
"""Routes that are chosen again in one turn of the event loop when an RLOC goes up or down."""


@dataclass(slots=True)
class Entry:
    """``record`` is ``None`` for a route found in the kernel at the start. ``nonce`` is the last nonce of its
    subscription (RFC 9437, 6), ``None`` without one."""

    record: MappingRecord | None
    way: Way
    expires: float
    watch_from: float
    watched: bool = False
    used: bool = False
    extensions: int = 0
    nonce: int | None = None
    routed: float = 0.0
    missed: int = 0
    """Packets that came as misses since its route was set, at ``routed``."""


def choose(locators: Iterable[Locator], down: Callable[[IPAddress], bool]) -> tuple[tuple[IPAddress, int], ...]:
    """The best-priority locators among those usable, with weights; those that are down only if all are."""
    usable = [
        (loc.priority, loc.address, loc.weight)
        for loc in locators
        if loc.priority != UNUSABLE and loc.reachable and is_rloc(loc.address)
    ]
    alive = [entry for entry in usable if not down(entry[1])] or usable
    if not alive:
        return ()
    best = min(priority for priority, _, _ in alive)
    paths = [(address, weight) for priority, address, weight in alive if priority == best]
    weighted = [path for path in paths if path[1] > 0]
    return tuple(weighted or [(address, 1) for address, _ in paths])


def addresses(entry: Entry) -> set[IPAddress]:
    """All RLOCs of an entry, used now or not."""
    if entry.record is not None:
        return _rlocs(entry.record)
    return {rloc for rloc, _ in entry.way.paths} if isinstance(entry.way, Encap) else set()


def agrees(entry: Entry, record: MappingRecord) -> bool:
    """Whether an entry says the same as ``record``. Of a route from an earlier run only the locators in use are
    known."""
    theirs = _rlocs(record)
    known = addresses(entry)
    return known == theirs or (entry.record is None and bool(known) and known < theirs)


def _rlocs(record: MappingRecord) -> set[IPAddress]:
    return {loc.address for loc in record.locators if is_rloc(loc.address)}


class MapCache:
    """Entries by EID-prefix, at most ``max_entries``; each change puts route outputs into ``out``."""

    def __init__(
        self,
        out: list[Output],
        max_entries: int,
        down: Callable[[IPAddress], bool],
        own: Callable[[EidPrefix], bool],
    ) -> None:
        self._out, self._max, self._down, self._own = out, max_entries, down, own
        self.table: PrefixTable[Entry] = PrefixTable()
        self._negative: OrderedDict[EidPrefix, None] = OrderedDict()
        self._by_rloc: dict[IPAddress, set[EidPrefix]] = {}
        self._due: list[tuple[float, EidPrefix]] = []
        self._doubtful: dict[EidPrefix, None] = {}
        self.watched = Watched()
        self.away: set[EidPrefix] = set()
        """More-specifics of our own prefixes that are behind other routers."""
        self.evicted = 0

    def put(self, record: MappingRecord, eid: EidPrefix, now: float, nonce: int | None = None) -> Entry:
        """Install ``record`` for ``eid`` (its own prefix, or a part of it); its route is set at once."""
        paths = choose(record.locators, self._down)
        way: Way
        if paths:
            way = Encap(paths)
        elif not record.locators and record.action == Action.NATIVELY_FORWARD:
            way = Native()
        else:
            way = Drop()
        seconds = MAX_TTL_S if record.ttl == TTL_UNLIMITED else min(record.ttl * 60.0, MAX_TTL_S)
        before = self.table.get(eid)
        if nonce is None and before is not None:
            nonce = before.nonce
        entry = self._enter(eid, record, way, max(seconds, 1.0), now, nonce)
        if before is None or before.way != way:
            self._out.append(SetRoute(eid, way))
        return entry

    def adopt(self, eid: EidPrefix, way: Way, now: float, seconds: float) -> None:
        """A route that is in the kernel already: kept for ``seconds``, in which it should be asked for."""
        self._enter(eid, None, way, seconds, now, None)

    def remove(self, eid: EidPrefix) -> Entry | None:
        entry = self._forget(eid)
        if entry is not None:
            self._out.append(RemoveRoute(eid))
        return entry

    def give_up(self, eid: EidPrefix) -> None:
        """Forget the entry but leave its route, which somebody else sets otherwise in the same turn."""
        self._forget(eid)

    def find(self, eid: EidPrefix) -> tuple[EidPrefix, Entry] | None:
        return self.table.longest(eid)

    def saw(self, eid: EidPrefix) -> EidPrefix | None:
        """A packet to ``eid`` was seen: the mapping that it uses, if that was being watched for."""
        found = self.table.longest(eid)
        if found is None or not found[1].watched:
            return None
        found[1].used, found[1].watched = True, False
        self.watched.pop(found[0], None)
        return found[0]

    def uses(self, rloc: IPAddress) -> bool:
        """Whether an entry has this RLOC."""
        return rloc in self._by_rloc

    def rlocs(self) -> dict[IPAddress, EidPrefix]:
        """Each RLOC in use, with an EID-prefix that is mapped to it."""
        return {rloc: next(iter(eids)) for rloc, eids in self._by_rloc.items() if eids}

    def changed(self, rloc: IPAddress) -> None:
        """An RLOC went up or down: ``choose_again`` is due."""
        self._doubtful.update((eid, None) for eid in self._by_rloc.get(rloc, ()))

    def choose_again(self) -> list[EidPrefix]:
        """Choose again the next routes that an RLOC's change concerns; returned are the EIDs with no locator up."""
        lost = []
        for _ in range(min(TURN, len(self._doubtful))):
            eid, _ = self._doubtful.popitem()
            entry = self.table.get(eid)
            if entry is None or entry.record is None or not isinstance(entry.way, Encap):
                continue
            if all(self._down(address) for address in addresses(entry)):
                lost.append(eid)
            way = Encap(choose(entry.record.locators, self._down))
            if way != entry.way:
                entry.way = way
                self._out.append(SetRoute(eid, way))
        return lost

    def timer(self, now: float) -> list[EidPrefix]:
        """Expire; returned are the entries in use that the map system should be asked for again now."""
        ask = []
        self.watched.timer(now)
        while self._due and self._due[0][0] <= now:
            _, eid = heapq.heappop(self._due)
            entry = self.table.get(eid)
            if entry is None:
                continue
            if now >= entry.expires:
                if eid in self.away or (entry.used and entry.extensions < MAX_EXTENSIONS):
                    entry.extensions += 1
                    entry.expires = now + EXTENSION_S
                    heapq.heappush(self._due, (entry.expires, eid))
                    ask.append(eid)
                else:
                    self.remove(eid)
            elif now >= entry.watch_from and isinstance(entry.way, Encap):
                if eid in self.away:
                    ask.append(eid)
                elif not entry.used and not entry.watched:
                    entry.watched = True
                    self.watched[eid] = None
                heapq.heappush(self._due, (entry.expires, eid))
        return ask

    @property
    def negatives(self) -> int:
        """How many entries encapsulate nothing."""
        return len(self._negative)

    def next_timer(self) -> float | None:
        if self._doubtful:
            return 0.0
        turn = self.watched.next_timer()
        if self._due and (turn is None or self._due[0][0] < turn):
            return self._due[0][0]
        return turn

    def _enter(
        self, eid: EidPrefix, record: MappingRecord | None, way: Way, seconds: float, now: float, nonce: int | None
    ) -> Entry:
        self._forget(eid)
        self._make_room()
        if isinstance(way, Encap) and self._own(eid):
            seconds = min(seconds, AWAY_S)
        expires = now + seconds
        entry = Entry(record, way, expires, expires - min(WATCH_S, seconds / 4), nonce=nonce, routed=now)
        self.table.put(eid, entry)
        if isinstance(way, Encap):
            for rloc in addresses(entry):
                self._by_rloc.setdefault(rloc, set()).add(eid)
            if self._own(eid):
                self.away.add(eid)
        else:
            self._negative[eid] = None
        heapq.heappush(self._due, (entry.watch_from if isinstance(way, Encap) else expires, eid))
        if len(self._due) > 4 * len(self.table) + 64:  # of entries that were replaced
            self._due = [(e.watch_from if e.watch_from > now else e.expires, k) for k, e in self.table.items()]
            heapq.heapify(self._due)
        return entry

    def _make_room(self) -> None:
        while len(self.table) >= self._max:
            self.evicted += 1
            victim = next(iter(self._negative), None)
            if victim is None:
                victim = next((eid for eid in self.table if eid not in self.away), next(iter(self.table)))
            self.remove(victim)

    def _forget(self, eid: EidPrefix) -> Entry | None:
        entry = self.table.pop(eid)
        if entry is not None:
            self._negative.pop(eid, None)
            self.watched.pop(eid, None)
            self.away.discard(eid)
            for rloc in addresses(entry):
                eids = self._by_rloc.get(rloc)
                if eids is not None:
                    eids.discard(eid)
                    if not eids:
                        del self._by_rloc[rloc]
        return entry
