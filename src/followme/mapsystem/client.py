"""The map system as one who sends no packets sees it: ask for mappings, and be told when they change. Sans-IO.

The controller is such a one. It subscribes (RFC 9437) to the prefixes of the access networks, so it hears from
the map server that a user has moved, and asks (RFC 9301, 5.2) which tunnel routers serve a data centre. What
comes is believed under the key that both share: a Map-Notify by its HMAC, a Map-Reply by its secret nonce and
its sender, which is all that RFC 9301 has for it.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Container
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from followme.lisp import (
    HMAC_SHA_1_96,
    HMAC_SHA_256_128,
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    LispError,
    MapNotify,
    MapNotifyAck,
    MappingRecord,
    MapReply,
    MapRequest,
    decode,
    sign,
    verify,
)

IPAddress = IPv4Address | IPv6Address
Address = tuple[str, int]

RETRY_S: Final = (0.5, 1.0, 2.0, 4.0)
"""How long each attempt waits for its answer; a question is given up after the last, a subscription is not."""
SILENT_AFTER: Final = len(RETRY_S)
"""Attempts at a subscription, after which a map server that has not confirmed it is called silent."""
REFRESH_S: Final = 60.0
"""A subscription is asked for again that often: a map server that has lost its memory learns of it so."""
WINDOW: Final = 1 << 16
"""By how much a publication's nonce may exceed the last: what is further away was not published for us, but has the
nonce of a Map-Request that somebody else has sent in our name."""
MAX_ASKS: Final = 256
MAX_KNOWN: Final = 1 << 16
"""EIDs of a subscription whose end would be noticed even if its publication was lost."""
WHOLE_RECORDS: Final = 253
WHOLE_OCTETS: Final = 16_000
"""A confirmation no larger than this has all mappings of the prefix: one that had no room for more is larger."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The map server says that this is the mapping now. No locators: it is gone (TTL 0), or a negative one."""

    record: MappingRecord
    at: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to ``ask`` number ``number``; ``None`` if there was none."""

    number: int
    record: MappingRecord | None


@dataclass(slots=True)
class _Subscription:
    prefix: EidPrefix
    due: float
    attempt: int = 0
    asked: int | None = None  # the nonce of the Map-Request under way
    asked_at: float = 0.0
    newest: int = 0  # of the Map-Notifies that were believed
    confirmed: bool = False
    known: dict[EidPrefix, float] = field(default_factory=dict)  # EIDs in the prefix, and when they were told


@dataclass(slots=True)
class _Ask:
    eid: EidPrefix
    due: float
    attempt: int = 0
    nonces: list[int] = field(default_factory=list)


class MapClient:
    """``address`` (with ``port``) is where answers and publications are sent to; ``site_id`` is how the map
    server knows whose ``key`` it is. ``algorithm_id`` is the weakest that is believed; acknowledgements have the
    one of the Map-Notify. ``wall_s`` is the time of day: nonces must grow over a restart."""

    def __init__(
        self, address: IPAddress, port: int, server: Address, key: bytes, *, key_id: int = 0, algorithm_id: int = 2,
        site_id: int, xtr_id: bytes, wall_s: float,
    ) -> None:  # fmt: skip
        self.address, self.port, self.server = address, port, server
        self.refused: Counter[str] = Counter()
        self.datagrams: deque[tuple[bytes, Address]] = deque()
        self.events: deque[Changed | Answered] = deque()
        self._key, self._key_id = key, key_id
        self._algorithms = tuple(one for one in (HMAC_SHA_1_96, HMAC_SHA_256_128) if one >= algorithm_id)
        self._site_id, self._xtr_id = site_id, xtr_id
        self._nonce = int(wall_s) << 32 | secrets.randbits(32)
        self._subscriptions: dict[EidPrefix, _Subscription] = {}
        self._asks: dict[int, _Ask] = {}
        self._numbers = 0

    def subscribe(self, prefix: EidPrefix, now: float) -> None:
        """Be told of this prefix, and of all more specific ones, from now on."""
        self._subscriptions.setdefault(prefix, _Subscription(prefix, now))

    def ask(self, eid: EidPrefix, now: float) -> int:
        """Ask for a mapping; the number is that of the ``Answered`` to come. ``ValueError`` beyond ``MAX_ASKS``."""
        if len(self._asks) >= MAX_ASKS:
            raise ValueError(f"{MAX_ASKS} questions wait for the map server {self.server[0]} already")
        self._numbers += 1
        self._asks[self._numbers] = _Ask(eid, now)
        return self._numbers

    @property
    def confirmed(self) -> bool:
        """Whether the map server has confirmed every subscription."""
        return all(one.confirmed for one in self._subscriptions.values())

    @property
    def silent(self) -> bool:
        """Whether a subscription has been asked for again and again, or its refresh, and was not confirmed."""
        return any(one.attempt > SILENT_AFTER for one in self._subscriptions.values())

    def next_timer(self) -> float | None:
        dues = [one.due for one in self._subscriptions.values()] + [one.due for one in self._asks.values()]
        return min(dues, default=None)

    def timer(self, now: float) -> None:
        for subscription in self._subscriptions.values():
            if subscription.due <= now:
                self._nonce += 1 + secrets.randbits(31)  # nobody shall guess it and be near
                subscription.asked, subscription.asked_at = self._nonce, now
                subscription.due = now + RETRY_S[min(subscription.attempt, len(RETRY_S) - 1)]
                subscription.attempt += 1
                self._request(subscription.prefix, self._nonce, notify=True)
        for number, ask in list(self._asks.items()):
            if ask.due > now:
                continue
            if ask.attempt >= len(RETRY_S):
                del self._asks[number]
                self.events.append(Answered(number, None))
                continue
            ask.nonces.append(secrets.randbits(64))
            ask.due = now + RETRY_S[ask.attempt]
            ask.attempt += 1
            self._request(ask.eid, ask.nonces[-1], notify=False)

    def receive(self, data: bytes, source: Address, now: float) -> None:
        """One datagram; what is not for us, or not believed, is counted by reason and dropped."""
        if source[0] != self.server[0]:
            # Replies may come from a router (not a proxy): those are told by their nonce alone.
            reason = self._reply(data, now)
        else:
            reason = self._notify(data, now) if data[:1] and data[0] >> 4 == 4 else self._reply(data, now)
        if reason:
            self.refused[reason] += 1

    def _request(self, eid: EidPrefix, nonce: int, *, notify: bool) -> None:
        request = MapRequest(
            nonce, (self.address,), (EidRecord(eid, notify),), xtr_id=self._xtr_id if notify else None,
            site_id=self._site_id if notify else 0,
        )  # fmt: skip
        # The inner header: from us to the EID that is asked for (RFC 9301, 5.8).
        target = eid.network.network_address
        inner = target if target.version == self.address.version else self.address
        message = EncapsulatedControlMessage(self.address, inner, request, source_port=self.port)
        self.datagrams.append((message.encode(), self.server))

    def _reply(self, data: bytes, now: float) -> str:
        try:
            message = decode(data)
        except LispError:
            return "not LISP"
        if not isinstance(message, MapReply):
            return f"unexpected {type(message).__name__}"
        number = next((one for one, ask in self._asks.items() if message.nonce in ask.nonces), None)
        if number is None:
            return "nonce of a Map-Reply"
        asked = self._asks[number].eid
        covering = (one for one in message.records if isinstance(one.eid, EidPrefix) and one.eid.covers(asked))
        record = next(covering, None)
        if record is None:
            return "Map-Reply for another EID"
        del self._asks[number]
        self.events.append(Answered(number, record))
        return ""

    def _notify(self, data: bytes, now: float) -> str:
        try:
            message = decode(data)
            if not isinstance(message, MapNotify):
                return f"unexpected {type(message).__name__}"
            if message.xtr_id != self._xtr_id:
                return "Map-Notify for another"
            if message.key_id != self._key_id:
                return "key id of a Map-Notify"
            if message.algorithm_id not in self._algorithms:
                return "algorithm of a Map-Notify"
            if not verify(data, self._key, accept=self._algorithms):
                return "wrong key"
        except LispError:
            return "not LISP"
        subscription = self._of(message)
        if subscription is None:
            return "Map-Notify without a subscription"
        confirms = message.nonce == subscription.asked
        if confirms and not message.records:
            pass  # the map server asks whether it was us; the mappings come after the acknowledgement
        elif confirms:
            subscription.asked, subscription.attempt, subscription.confirmed = None, 0, True
            subscription.due = now + REFRESH_S
        elif message.nonce < subscription.newest:
            return "replayed Map-Notify"
        elif not subscription.confirmed or message.nonce - subscription.newest > WINDOW:
            return "nonce of a Map-Notify"
        fresh = message.nonce > subscription.newest and bool(message.records)
        if fresh:
            subscription.newest = message.nonce
        self._nonce = max(self._nonce, subscription.newest)
        ack = MapNotifyAck(message.nonce, message.records, self._xtr_id, message.site_id)
        signed = sign(ack, self._key, message.algorithm_id, key_id=self._key_id)
        self.datagrams.append((signed.encode(), self.server))
        if fresh:  # one that was repeated, for its acknowledgement was lost, is no news
            records = {record.eid: record for record in message.records if isinstance(record.eid, EidPrefix)}
            if confirms and len(records) <= WHOLE_RECORDS and len(data) <= WHOLE_OCTETS:
                self._missing(subscription, records, now)
            for eid, record in records.items():
                told = record if record.ttl else replace(record, locators=())
                self._know(subscription, eid, bool(told.locators), now)
                self.events.append(Changed(told, now))
        return ""

    def _know(self, subscription: _Subscription, eid: EidPrefix, there: bool, now: float) -> None:
        if not there:
            subscription.known.pop(eid, None)
        elif subscription.prefix.covers(eid) and (
            eid in subscription.known or len(subscription.known) < MAX_KNOWN
        ):
            subscription.known[eid] = now

    def _missing(self, subscription: _Subscription, records: Container[EidPrefix], now: float) -> None:
        """What a confirmation does not list is gone: that was published, and the publication was lost. Not so what
        was told after we had asked: the confirmation may be the older of the two."""
        for eid, told in list(subscription.known.items()):
            if eid not in records and told < subscription.asked_at:
                del subscription.known[eid]
                self.events.append(Changed(MappingRecord(eid, (), 0), now))

    def _of(self, message: MapNotify) -> _Subscription | None:
        """The subscription that a Map-Notify belongs to: the one that was asked for with its nonce, else the one
        whose nonces it continues. With a covering prefix and a host's own, both may be concerned."""
        for subscription in self._subscriptions.values():
            if subscription.asked == message.nonce:
                return subscription
        eids = [record.eid for record in message.records if isinstance(record.eid, EidPrefix)]
        found = [one for one in self._subscriptions.values()
                 if any(one.prefix.covers(eid) or eid.covers(one.prefix) for eid in eids)]  # fmt: skip
        return min(found, key=lambda one: abs(message.nonce - one.newest), default=None)
