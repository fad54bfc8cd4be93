"""Map-Notifies that nobody asked for just now: to subscribers (RFC 9437), and to a router that lost an EID.

A Map-Request has no authentication. So a subscription counts only when the Map-Notify that confirms it came
back as a Map-Notify-Ack under the site's key, and one that exists changes and ends only in the same way: who
has no key gets one small Map-Notify and changes nothing. Where the mappings are more than that, the first one
has no record, and all come with the same nonce after its acknowledgement. The security association of RFC 9437,
7.1 is the site's key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from followme.lisp import EidPrefix, MapNotify, MapNotifyAck, MappingRecord, MapRequest, sign, verify
from followme.lisp.errors import LispError
from followme.lisp.register import OWN_NONCES

from .answers import MAX_OCTETS, Answers
from .events import Subscribed, Unsubscribed
from .notices import TRIES, Key, Notice, Notices, Subject
from .outbox import Datagram, Outbox
from .registry import Registry, Router, RouterId
from .sites import Site, Sites
from .stamps import Stamp
from .subscriptions import MAX_FAILURES, Subscription, Subscriptions
from .unproven import Unproven

MAX_UNCONFIRMED: Final = 4096
"""Subscriptions asked for by hosts that have never registered, and not confirmed. With one more the oldest goes:
source addresses can be forged, so nothing but its acknowledgement tells a controller that starts from a flood, and
that takes no longer than the way there and back."""
MAX_NOTIFY_OCTETS: Final = 32_000
MAX_PREFIXES: Final = 16
"""In one Map-Request that subscribes."""


class _Proposed(NamedTuple):
    """Subscriptions that wait for the subscriber's key, and the records that it was sent."""

    subscriptions: tuple[Subscription, ...]
    records: tuple[MappingRecord, ...]
    sent: bool  # all records, and not only the question whether it is there
    replay: bool  # the nonce was too old: it is told only who has the key
    asker: str


class _Ending(NamedTuple):
    subscriptions: tuple[Subscription, ...]


class _Published(NamedTuple):
    subscription: Subscription


class _Lost(NamedTuple):
    eid: EidPrefix
    router: RouterId


_Stamps = dict[tuple[str, int, int], Stamp]
"""By site, key id and algorithm."""


class Publisher:
    """``nonce`` is no less than all that this map server used before for its own Map-Notifies."""

    def __init__(
        self, sites: Sites, answers: Answers, registry: Registry, subscriptions: Subscriptions, outbox: Outbox,
        nonce: int,
    ) -> None:  # fmt: skip
        self.notices = Notices()
        self.subscriptions = subscriptions
        self.published = 0
        self.nonce = OWN_NONCES | nonce  # the last one used
        self._sites = sites
        self._answers = answers
        self._registry = registry
        self._outbox = outbox
        self._strangers: dict[Subject, None] = {}  # the oldest first
        self._unproven = Unproven()

    def tell_loser(self, router: Router, eid: EidPrefix, record: MappingRecord, now: float) -> None:
        """``eid`` is at another router now: ``record`` says where (RFC 9301, 5.7)."""
        self.nonce += 1
        message = MapNotify(
            self.nonce, (record,), router.xtr_id, 0 if router.xtr_id is None else router.site.site_id
        )
        subject = Subject("lost", router.id.xtr, (eid,))
        self._send(message, router.site, router.id.xtr, (router.host, router.port), subject,
                   _Lost(eid, router.id), now, local=router.local)  # fmt: skip

    def publish(self, eid: EidPrefix, now: float) -> None:
        """The mapping of ``eid`` is new, another, or gone: tell all whom it concerns (RFC 9437, 6).

        Gone is a record with TTL 0, and behind it the one that covers the EID now, if there is one.
        """
        held = self._registry.table.get(eid)
        if held is not None:
            records: tuple[MappingRecord, ...] = (held.record,)
        else:
            match = self._registry.table.longest(eid)
            cover = None if match is None else match[1]
            gone = MappingRecord(eid, (), 0)
            records = (gone,) if cover is None else (gone, cover.record)
        stamps: _Stamps = {}
        for subscription in self._subscribers(eid):
            self._publish(subscription, records, eid, now, stamps)

    def subscribe(
        self, request: MapRequest, source: tuple[str, int], target: tuple[str, int] | None, now: float
    ) -> str:
        """The N-bit: subscribe, or (``target`` is ``None``) unsubscribe. Returns the reason of a refusal."""
        prefixes = tuple(dict.fromkeys(record.eid for record in request.records if record.notify))
        eids = tuple(eid for eid in prefixes if isinstance(eid, EidPrefix))
        if request.xtr_id is None or len(eids) != len(prefixes) or len(eids) > MAX_PREFIXES:
            return "subscription"
        if request.nonce >= OWN_NONCES:
            return "nonce"
        xtr = request.xtr_id
        site = self._subscriber(request.site_id, xtr)
        if site is None:
            return "unknown-subscriber"
        existing = [one for eid in eids if (one := self.subscriptions.get(eid, xtr)) is not None]
        old = any(one.site is not site or request.nonce <= one.nonce for one in existing)
        if target is None:
            if old:
                return "subscription-replay"
            self._unsubscribe(request, site, eids, tuple(existing), source, now)
            return ""
        router = self._registry.routers.get(RouterId(site.name, xtr))
        stranger = router is None or router.host != target[0]
        if old and any(one.host == target[0] for one in existing):
            return "subscription-replay"  # others are answered alike, or they could search for the nonce
        if not self.subscriptions.room(xtr, len(eids) - len(existing)):
            return "too-many-subscriptions"
        if not self._unproven.room(target[0], source[0], now):
            return "too-many-unproven"
        records = self._current(eids)
        small = sum(len(record.encode()) for record in records) <= MAX_OCTETS
        subscriptions = tuple(
            Subscription(site, xtr, eid, request.nonce, *target, local=self._outbox.local) for eid in eids
        )
        message = MapNotify(request.nonce, records if small else (), xtr, request.site_id)
        # With target and asker: a stranger's request must not take the place of the subscriber's own.
        subject = Subject(f"subscription {target[0]} {target[1]} of {source[0]}", xtr, eids)
        if stranger:
            self._wait_for_stranger(subject)
        proposed = _Proposed(subscriptions, records, small, old, source[0])
        self._send(message, site, xtr, target, subject, proposed, now, 1 if stranger else TRIES, self._outbox.local)
        return ""

    def acknowledge(self, data: bytes, message: MapNotifyAck, source: tuple[str, int], now: float) -> str:
        """A Map-Notify-Ack. Returns the reason of a refusal."""
        first = message.records[0].eid if message.records else None
        notice = self.notices.get(Key(*source, message.nonce, first))
        if notice is None:
            return "unexpected-ack"
        key = notice.site.keys.get(message.key_id)
        if key is None:
            return "unknown-key-id"
        try:
            if not verify(data, key, accept=notice.site.algorithms):
                return "wrong-key"
        except LispError:
            return "algorithm"
        self.notices.acknowledged(notice)
        if isinstance(notice.about, _Proposed):
            return self._confirm(notice.about, now)
        self._done(notice.about, now)
        return ""

    def timer(self, now: float) -> None:
        """Send again what was not acknowledged; give up what has been sent often enough."""
        again, given_up = self.notices.repeat(now)
        for notice in again:
            self._outbox.datagrams.append(Datagram(notice.data, notice.key.host, notice.key.port, notice.local))
        for notice in given_up:
            about = notice.about
            if isinstance(about, _Published):
                about.subscription.failures += 1
                if about.subscription.failures >= MAX_FAILURES:
                    self._end(about.subscription, "silent", now)

    def _done(self, about: object, now: float) -> None:
        if isinstance(about, _Published):
            about.subscription.failures = 0
        elif isinstance(about, _Lost):
            if self._registry.acknowledged(about.eid, about.router):
                self._outbox.unsaved.registrations.add(about.eid)
        elif isinstance(about, _Ending):
            for subscription in about.subscriptions:
                self._end(subscription, "asked", now)

    def _confirm(self, proposed: _Proposed, now: float) -> str:
        """The subscriber has proved itself. Returns the reason of a refusal."""
        first = proposed.subscriptions[0]
        site, xtr, target = first.site, first.xtr, (first.host, first.port)
        self._unproven.proven(first.host, proposed.asker)
        if proposed.replay:
            return "subscription-replay"
        for subscription in proposed.subscriptions:
            old = self.subscriptions.get(subscription.prefix, subscription.xtr)
            if old is None and not self.subscriptions.room(subscription.xtr, 1):
                continue
            if old is not None:
                subscription.nonce = max(subscription.nonce, old.nonce)
            self.subscriptions.put(subscription)
            self._outbox.unsaved.subscriptions.add((subscription.prefix, subscription.xtr))
            if old is None:
                self._outbox.events.append(
                    Subscribed(subscription.prefix, subscription.site.name, subscription.host, now)
                )
        eids = tuple(one.prefix for one in proposed.subscriptions)
        records = self._current(eids)
        if not proposed.sent:
            message = MapNotify(first.nonce, records, xtr, site.site_id)
            self._send(message, site, xtr, target, Subject("confirmation", xtr, eids), _Published(first), now,
                       local=first.local)  # fmt: skip
        elif records != proposed.records:
            # What changed between the Map-Notify and its acknowledgement was published to others only.
            for subscription in proposed.subscriptions:
                records = self._current((subscription.prefix,))
                self._publish(subscription, records, subscription.prefix, now, {})
        return ""

    def _unsubscribe(
        self, request: MapRequest, site: Site, eids: tuple[EidPrefix, ...], existing: tuple[Subscription, ...],
        source: tuple[str, int], now: float,
    ) -> None:  # fmt: skip
        xtr = request.xtr_id or b""
        message = MapNotify(request.nonce, tuple(MappingRecord(eid, (), 0) for eid in eids), xtr, request.site_id)
        if not existing:
            # RFC 9437, 5: told all the same, for an xTR that starts does not know what it left behind.
            self._outbox.datagrams.append(Datagram(self._signed(message, site, xtr), *source))
            return
        target = existing[0].host, existing[0].port
        if self._unproven.room(target[0], source[0], now):
            self._send(message, site, xtr, target, Subject("ending", xtr, eids), _Ending(existing), now,
                       local=existing[0].local)  # fmt: skip

    def _wait_for_stranger(self, subject: Subject) -> None:
        self._strangers.pop(subject, None)
        self._strangers[subject] = None
        if len(self._strangers) > MAX_UNCONFIRMED:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            self.notices.forget(oldest)

    def _publish(
        self, subscription: Subscription, records: tuple[MappingRecord, ...], eid: EidPrefix, now: float,
        stamps: _Stamps,
    ) -> None:  # fmt: skip
        """``stamps`` are those of the same records."""
        if subscription.nonce + 1 + subscription.gap >= OWN_NONCES:
            self._end(subscription, "nonces", now)
            return
        subscription.nonce += 1 + subscription.gap
        subscription.gap = 0
        self.published += 1
        self._outbox.unsaved.subscriptions.add((subscription.prefix, subscription.xtr))
        site, xtr = subscription.site, subscription.xtr
        key_id, algorithm_id = self._association(site, xtr)
        stamp = stamps.get((site.name, key_id, algorithm_id))
        if stamp is None:
            message = MapNotify(0, records, xtr, site.site_id)
            stamp = Stamp(message, site.keys[key_id], algorithm_id, key_id)
            stamps[site.name, key_id, algorithm_id] = stamp
        # By subscription: two prefixes of one subscriber may both cover the EID, each with its own nonces.
        subject = Subject("publication", xtr, (subscription.prefix, eid))
        key = Key(subscription.host, subscription.port, subscription.nonce, records[0].eid)
        data = stamp.message(subscription.nonce, xtr)
        local = subscription.local
        self._outbox.datagrams.append(Datagram(data, subscription.host, subscription.port, local))
        self.notices.add(Notice(key, subject, site, data, _Published(subscription), local=local), now)

    def _send(
        self, message: MapNotify, site: Site, xtr: bytes, target: tuple[str, int], subject: Subject,
        about: object, now: float, tries: int = TRIES, local: str = "",
    ) -> bool:  # fmt: skip
        data = self._signed(message, site, xtr)
        self._outbox.datagrams.append(Datagram(data, *target, local))
        key = Key(*target, message.nonce, message.records[0].eid if message.records else None)
        return self.notices.add(Notice(key, subject, site, data, about, tries, local=local), now)

    def _signed(self, message: MapNotify, site: Site, xtr: bytes) -> bytes:
        key_id, algorithm_id = self._association(site, xtr)
        return sign(message, site.keys[key_id], algorithm_id, key_id=key_id).encode()

    def _association(self, site: Site, xtr: bytes) -> tuple[int, int]:
        """Key id and algorithm: those that the router used last, if they still count, else the site's first key
        and best algorithm."""
        router = self._registry.routers.get(RouterId(site.name, xtr))
        if router is not None and router.key_id in site.keys and router.algorithm_id in site.algorithms:
            return router.key_id, router.algorithm_id
        return next(iter(site.keys)), max(site.algorithms)

    def _subscriber(self, site_id: int, xtr: bytes) -> Site | None:
        site = self._sites.by_id.get(site_id)
        if site is None and not site_id:
            site = next((router.site for id, router in self._registry.routers.items() if id.xtr == xtr), None)
        return site

    def _subscribers(self, eid: EidPrefix) -> list[Subscription]:
        """Of a prefix that covers the EID, or lies in it and has no longer match."""
        found = []
        for subscription in self.subscriptions.concerned(eid):
            if subscription.prefix.length > eid.length:
                match = self._registry.table.longest(subscription.prefix)
                if match is not None and match[0].length > eid.length:
                    continue
            found.append(subscription)
        return found

    def _current(self, eids: tuple[EidPrefix, ...]) -> tuple[MappingRecord, ...]:
        found: dict[MappingRecord, None] = {}
        for eid in eids:
            for record in self._answers.records(eid, MAX_NOTIFY_OCTETS // len(eids), proxy=True) or ():
                found[replace(record, authoritative=False)] = None
        return tuple(found)[:255]

    def _end(self, subscription: Subscription, why: str, now: float) -> None:
        if self.subscriptions.remove(subscription):
            self._outbox.unsaved.subscriptions.add((subscription.prefix, subscription.xtr))
            self._outbox.events.append(
                Unsubscribed(subscription.prefix, subscription.site.name, subscription.host, why, now)
            )
