"""The map server and map resolver without sockets and clocks (RFC 9301, 5.6 to 5.8 and 8; RFC 9437)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from followme.lisp import (
    CONTROL_PORT,
    UNUSABLE,
    Action,
    Address,
    EidPrefix,
    EncapsulatedControlMessage,
    LispError,
    MapNotify,
    MapNotifyAck,
    MappingRecord,
    MapRegister,
    MapReply,
    MapRequest,
    decode,
    sign,
    verify,
)
from followme.system.seldom import Refusals

from .answers import MAX_OCTETS, Answers, Entry, Negative
from .events import Damped, Gone, Moved, Registered
from .outbox import Datagram, Outbox, Outcome
from .publisher import Publisher
from .registry import NO_XTR_ID, Claim, Damping, Registration, Registry, Router, RouterId
from .sites import Site, Sites
from .subscriptions import Subscriptions

MAX_ASKED: Final = 16
"""EID records in a Map-Request."""
SILENT: Final = ("subscription-replay", "too-many-unproven")
"""Refused subscriptions that are not answered: another Map-Request later may well be accepted."""
Rloc = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Settings:
    """``interval_s``: how often routers register. ``families``: IP versions that there are sockets for. ``ours``:
    whether what is sent to an address, port 4342, comes to this map server."""

    interval_s: float = 60.0
    damping: Damping = field(default_factory=Damping)
    negative: Negative = field(default_factory=Negative)
    families: tuple[int, ...] = (4, 6)
    ours: Callable[[Rloc], bool] = lambda rloc: False


class MapServer:
    """Datagrams and time in, ``Outcome`` out. Time is in seconds and never goes back.

    ``nonce`` must be greater in each life than all in the life before: nanoseconds since 1970 will do where the
    clock does not go back, and ``MapStore.load`` sees to it where it does. What is in ``outbox.unsaved`` must be
    stored before the outcome's datagrams are sent.
    """

    def __init__(self, sites: Iterable[Site], settings: Settings | None = None, *, nonce: int) -> None:
        self.settings = settings or Settings()
        self.sites = Sites(tuple(sites))
        self.answers = Answers(self.sites.prefixes, self.settings.negative)
        self.registry = Registry(self.settings.interval_s, self.settings.damping)
        self.subscriptions = Subscriptions()
        self.outbox = Outbox()
        self.refusals = Refusals(logging.getLogger(__name__))
        self.counts: Counter[str] = Counter()
        self.publisher = Publisher(
            self.sites, self.answers, self.registry, self.subscriptions, self.outbox, nonce
        )

    def receive(self, data: bytes, source: tuple[str, int], now: float, local: str = "") -> Outcome:
        """A datagram from ``source``, an address as text and a port, to our address ``local``, from which later
        datagrams to the sender go. Raises nothing for any bytes."""
        self.outbox.local = local
        try:
            message = decode(data)
        except LispError as problem:
            self.refusals.refuse("malformed", source[0], now, problem)
            return self.outbox.take()
        reason = "unexpected"
        if isinstance(message, MapRegister):
            self.counts["map-register"] += 1
            reason = self._register(data, message, source, now)
        elif isinstance(message, MapRequest):
            reason = self._request(message, data, False, source, source[1], now)
        elif isinstance(message, EncapsulatedControlMessage) and isinstance(message.message, MapRequest):
            reason = self._request(message.message, data, True, source, message.source_port, now)
        elif isinstance(message, MapNotifyAck):
            reason = self.publisher.acknowledge(data, message, source, now)
        if reason:
            self.refusals.refuse(reason, source[0], now, type(message).__name__)
        return self.outbox.take()

    def timer(self, now: float) -> Outcome:
        """To be called at ``next_timer``; later or earlier does no harm."""
        self.outbox.local = ""
        for held in self.registry.expired(now):
            self._gone(held, "expired", now)
        self.publisher.timer(now)
        return self.outbox.take()

    def next_timer(self) -> float | None:
        due = (self.registry.expiry(), self.publisher.notices.due())
        return min((one for one in due if one is not None), default=None)

    def restore(self, registration: Registration) -> None:
        """From the store: as it was, without a word to anybody."""
        self.registry.add(registration)
        self.answers.put(registration.eid, Entry(registration.record, registration.forward))

    # --- Map-Register -------------------------------------------------------------------------------------

    def _register(self, data: bytes, message: MapRegister, source: tuple[str, int], now: float) -> str:
        eids = [record.eid for record in message.records if isinstance(record.eid, EidPrefix)]
        site = self.sites.of(message.site_id, eids[0] if eids else None)
        if site is None:
            return "unknown-site"
        reason = self._authentic(data, message, site)
        if reason:
            return reason
        id = RouterId(site.name, message.xtr_id or NO_XTR_ID + source[0].encode())
        if site.replay_protection and message.nonce <= self.registry.last_nonce(id):
            return "replay"
        router = self.registry.router(id, site, *source)
        if router is None:
            return "too-many-routers"
        self.outbox.unsaved.routers |= self.registry.forgotten
        self.registry.forgotten.clear()
        router.nonce, (router.host, router.port) = message.nonce, source
        router.key_id, router.algorithm_id = message.key_id, message.algorithm_id
        router.local = self.outbox.local
        self.outbox.unsaved.routers.add(router.id)
        accepted = []
        for record in message.records:
            refused = self._record(router, record, message, now)
            if refused:
                self.refusals.refuse(refused, source[0], now, f"{site.name} registers {record.eid}")
            else:
                accepted.append(record)
        if message.want_map_notify and accepted:
            notify = MapNotify(message.nonce, tuple(accepted), message.xtr_id, message.site_id)
            signed = sign(notify, site.keys[message.key_id], message.algorithm_id, key_id=message.key_id,
                          length=len(message.authentication))  # fmt: skip
            self.outbox.datagrams.append(Datagram(signed.encode(), *source))
        return ""

    def _authentic(self, data: bytes, message: MapRegister, site: Site) -> str:
        key = site.keys.get(message.key_id)
        if key is None:
            return "unknown-key-id"
        try:
            return "" if verify(data, key, accept=site.algorithms) else "wrong-key"
        except LispError:
            return "algorithm"

    def _record(self, router: Router, record: MappingRecord, message: MapRegister, now: float) -> str:
        eid = record.eid
        refused = self.sites.refusal(router.site, record)
        if refused or not isinstance(eid, EidPrefix):
            return refused
        before = self.registry.table.get(eid)
        claim = self.registry.claim(router, record, message.proxy_map_reply, message.use_ttl, now)
        if claim.refused:
            if claim.refused == "lost" and before is not None:
                self.publisher.tell_loser(router, eid, before.record, now)
            if claim.damped and before is not None:
                self.outbox.events.append(Damped(eid, before.holder.site.name, now))
            return claim.refused
        self.outbox.unsaved.registrations.add(eid)
        held = self.registry.table.get(eid)
        if held is None:
            if before is not None:
                self._gone(before, "withdrawn", now)
            return ""
        self._changed(held, claim, now)
        return ""

    def _changed(self, held: Registration, claim: Claim, now: float) -> None:
        eid, record = held.eid, held.record
        entry = Entry(record, held.forward)
        if self.answers.put(eid, entry):
            self.outbox.changes[eid] = entry
        if not claim.changed:
            return
        to_rlocs = tuple(locator.address for locator in record.locators)
        if claim.loser is not None and claim.previous is not None:
            self.counts["moves"] += 1
            self.publisher.tell_loser(claim.loser, eid, record, now)
            from_rlocs = tuple(locator.address for locator in claim.previous.locators)
            self.outbox.events.append(
                Moved(eid, from_rlocs, to_rlocs, claim.loser.site.name, held.holder.site.name, now)
            )
        else:
            self.outbox.events.append(Registered(eid, to_rlocs, now))
        self.publisher.publish(eid, now)

    def _gone(self, held: Registration, why: str, now: float) -> None:
        self.answers.put(held.eid, None)
        self.outbox.changes[held.eid] = None
        self.outbox.unsaved.registrations.add(held.eid)
        self.outbox.events.append(Gone(held.eid, why, now))
        self.publisher.publish(held.eid, now)

    # --- Map-Request --------------------------------------------------------------------------------------

    def _request(
        self, request: MapRequest, data: bytes, encapsulated: bool, source: tuple[str, int], port: int, now: float
    ) -> str:
        self.counts["map-request"] += 1
        if request.smr or request.probe:
            return "smr" if request.smr else "probe"
        if request.subscribes:
            return self._subscribe(request, source, port, now)
        rloc = self._usable(request.itr_rlocs)
        if rloc is None:
            return "itr-rloc"
        if len(request.records) > MAX_ASKED:
            return "too-many-records"
        found: list[MappingRecord] = []
        for asked in request.records:
            eid = asked.eid
            if not isinstance(eid, EidPrefix):
                return "unsupported-eid"
            records = self.answers.records(eid, MAX_OCTETS // len(request.records))
            if records is None:
                return self._forward(eid, request, rloc, port, data if encapsulated else None)
            found += [record for record in records if record not in found]
        self.outbox.datagrams.append(Datagram(MapReply(request.nonce, tuple(found)).encode(), str(rloc), port))
        return ""

    def _subscribe(self, request: MapRequest, source: tuple[str, int], port: int, now: float) -> str:
        ends = all(rloc is None or (isinstance(rloc, Rloc) and rloc.is_unspecified) for rloc in request.itr_rlocs)
        rloc = self._usable(request.itr_rlocs, source[0])
        if rloc is None and not ends:
            return "itr-rloc"
        target = None if rloc is None else (str(rloc), port)
        reason = self.publisher.subscribe(request, source, target, now)
        if reason and rloc is not None and reason not in SILENT:
            action = Action.DROP_AUTH_FAILURE if reason == "unknown-subscriber" else Action.DROP_POLICY_DENIED
            refused = tuple(MappingRecord(record.eid, (), 1, action) for record in request.records[:MAX_ASKED])
            self.outbox.datagrams.append(Datagram(MapReply(request.nonce, refused).encode(), str(rloc), port))
        return reason

    def _forward(self, eid: EidPrefix, request: MapRequest, rloc: Rloc, port: int, ecm: bytes | None) -> str:
        """To an ETR of the site (RFC 9301, 8.3), as it came or in an ECM of ours."""
        match = self.registry.table.longest(eid)
        held = None if match is None else match[1]
        etr = None if held is None else self._etr(held.record)
        if etr is None:
            return "no-etr"
        if ecm is None:
            destination = eid.network.network_address
            inner = rloc if rloc.version == destination.version else type(destination)(0)
            ecm = EncapsulatedControlMessage(inner, destination, request, source_port=port).encode()
        self.counts["forwarded"] += 1
        self.outbox.datagrams.append(Datagram(ecm, str(etr), CONTROL_PORT))
        return ""

    def _etr(self, record: MappingRecord) -> Rloc | None:
        for locator in sorted(record.locators, key=lambda one: one.priority):
            found = self._usable((locator.address,))
            # One at our own address would come back for ever.
            if found is not None and locator.priority != UNUSABLE and not self.settings.ours(found):
                return found
        return None

    def _usable(self, rlocs: Iterable[Address], best: str = "") -> Rloc | None:
        """The first that a datagram can be sent to; ``best``, if it is among them."""
        usable = [
            rloc for rloc in rlocs
            if isinstance(rloc, Rloc) and rloc.version in self.settings.families
            and not (rloc.is_multicast or rloc.is_unspecified or rloc == IPv4Address("255.255.255.255"))
        ]  # fmt: skip
        if best and (source := ip_address(best)) in usable:
            return source
        return usable[0] if usable else None
