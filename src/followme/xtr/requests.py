"""Map-Requests under way, and the packets that wait for them.

A miss waits in a bounded queue. No source can have more than its share: each has its own rate and its own
number of EIDs under way, and where all places are taken the source with the most of them loses its oldest. A
flood for addresses that do not exist hits its own bounds, and then the negative entries that its answers are.
"""

from __future__ import annotations

import heapq
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from followme.lisp import EidPrefix

from .buckets import Bucket, SourceBuckets

MAX_PENDING = 1024
MAX_PER_SOURCE = 64
MAX_PACKETS = 64
"""Packets that wait for one EID."""
MAX_WAITING_BYTES = 4 << 20
SOURCE_RATE, SOURCE_BURST = 50.0, 64.0
TOTAL_RATE, TOTAL_BURST = 1000.0, 500.0
RETRY_S = (0.5, 1.0, 2.0, 4.0)
"""How long each attempt waits for its answer; after the last the EID is given up."""
RECENT = 2048
"""Answered nonces that are remembered, as an answer may come twice."""

_EPOCH = 1_704_067_200
_UNIT_S = 8
_RANDOM_BITS = 36


class Nonces:
    """Nonces that grow, as RFC 9437 wants of a subscriber, and are secret, as RFC 9301 wants of an ITR.

    The upper 28 bits are units of 8 seconds, until 2092, so that they grow over a restart too; the lower 36 are
    random. ``wall`` is the time of day at monotonic time ``now``, in seconds. All are above ``last``, which an
    earlier run may have used, whatever the clock says now.
    """

    def __init__(self, wall: float, now: float, last: int = 0) -> None:
        self._offset = wall - now - _EPOCH
        self.last = last

    def next(self, now: float) -> int:
        units = max(int(now + self._offset), 0) // _UNIT_S & 0xFFFFFFF
        nonce = units << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        if nonce <= self.last:
            nonce = self.last + 1 + secrets.randbits(_RANDOM_BITS - 4)
        self.last = nonce & (1 << 64) - 1
        return self.last


@dataclass(slots=True)
class Ask:
    """One EID that is being asked for. ``nonces`` are those of all its attempts: a late answer counts too."""

    eid: EidPrefix
    source: bytes | None
    subscribe: bool
    smr_invoked: bool
    nonces: list[int] = field(default_factory=list)
    attempt: int = 0
    packets: list[bytes] = field(default_factory=list)

    @property
    def holder(self) -> bytes | bool:
        """Whose place it takes: that of a packet's source, of who solicits us (``True``), or our own."""
        return self.smr_invoked if self.source is None else self.source


class Requests:
    """The asks under way. ``displaced`` is told of one that is given up for another, and when."""

    def __init__(self, nonces: Nonces, displaced: Callable[[Ask, float], None]) -> None:
        self._nonces, self._displaced = nonces, displaced
        self.pending: OrderedDict[EidPrefix, Ask] = OrderedDict()
        self._by_nonce: dict[int, Ask] = {}
        self._recent: OrderedDict[int, EidPrefix] = OrderedDict()
        self._sources = SourceBuckets(SOURCE_RATE, SOURCE_BURST)
        self._held: Counter[bytes | bool] = Counter()
        self._total = Bucket(TOTAL_RATE, TOTAL_BURST)
        self.waiting_bytes = 0
        self._due: list[tuple[float, int, Ask]] = []
        """A heap of when which ask is due; a number keeps their order. Some are not under way any more."""
        self._number = count()

    def miss(self, eid: EidPrefix, packet: bytes, source: bytes, now: float) -> str:
        """Queue a packet of ``source`` for ``eid``; "" or the reason why it is dropped."""
        ask = self.pending.get(eid)
        if ask is None:
            if self._held[source] >= MAX_PER_SOURCE:
                return "misses of one source"
            if not self._sources.take(source, now) or not self._total.take(now):
                return "rate of misses"
            ask = self.begin(eid, now, source=source, subscribe=False)
        if len(ask.packets) >= MAX_PACKETS or self.waiting_bytes + len(packet) > MAX_WAITING_BYTES:
            return "queue of misses"
        ask.packets.append(packet)
        self.waiting_bytes += len(packet)
        return ""

    def begin(
        self, eid: EidPrefix, now: float, *, source: bytes | None = None, subscribe: bool = True, smr: bool = False
    ) -> Ask:
        """Ask for ``eid`` at the next ``due`` call (at once); an ask that is under way is left as it is."""
        ask = self.pending.get(eid)
        if ask is None:
            if len(self.pending) >= MAX_PENDING:
                greedy = max(self._held, key=self._held.__getitem__)
                victim = next(a for a in self.pending.values() if a.holder == greedy)
                self.drop(victim)
                self._displaced(victim, now)
            ask = self.pending[eid] = Ask(eid, source, subscribe, smr)
            self._held[ask.holder] += 1
            heapq.heappush(self._due, (now, next(self._number), ask))
        return ask

    def due(self, now: float) -> tuple[list[tuple[Ask, int]], list[Ask]]:
        """Asks to send now, each with its new nonce, and asks that are given up."""
        send: list[tuple[Ask, int]] = []
        given_up: list[Ask] = []
        while self._due and self._due[0][0] <= now:
            _, _, ask = heapq.heappop(self._due)
            if self.pending.get(ask.eid) is not ask:
                continue
            if ask.attempt >= len(RETRY_S):
                self.drop(ask)
                given_up.append(ask)
                continue
            nonce = self._nonces.next(now)
            ask.nonces.append(nonce)
            self._by_nonce[nonce] = ask
            heapq.heappush(self._due, (now + RETRY_S[ask.attempt], next(self._number), ask))
            ask.attempt += 1
            send.append((ask, nonce))
        return send, given_up

    def asked(self, nonce: int) -> Ask | None:
        """The ask that a Map-Request of this nonce was sent for, if it is under way."""
        return self._by_nonce.get(nonce)

    def recently(self, nonce: int) -> EidPrefix | None:
        """The EID whose Map-Request had this nonce, if it was answered a while ago."""
        return self._recent.get(nonce)

    def drop(self, ask: Ask) -> list[bytes]:
        """It is answered or given up; its packets."""
        if self.pending.get(ask.eid) is ask:
            del self.pending[ask.eid]
            self._held[ask.holder] -= 1
            if self._held[ask.holder] <= 0:
                del self._held[ask.holder]
        for nonce in ask.nonces:
            self._by_nonce.pop(nonce, None)
            self._recent[nonce] = ask.eid
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        packets, ask.packets = ask.packets, []
        self.waiting_bytes -= sum(map(len, packets))
        return packets

    def next_timer(self) -> float | None:
        return self._due[0][0] if self._due else None
