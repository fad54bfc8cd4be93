"""The tunnel router's control plane in one object: datagrams, misses, events and the time in; outputs out.

No socket, no clock, no kernel. ``now`` is monotonic time in seconds. What is to be done is in ``take()``,
in the order in which it must be done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from followme.lisp import (
    EidPrefix,
    EncapsulatedControlMessage,
    LispError,
    Locator,
    MapNotify,
    MapNotifyAck,
    MappingRecord,
    MapRegister,
    MapReply,
    MapRequest,
    decode,
    verify,
)
from followme.lisp.register import OWN_NONCES
from followme.system.seldom import Refusals

from .buckets import SourceBuckets
from .etr import Etr
from .itr import Itr
from .outputs import (
    Appeared,
    CheckNode,
    Departed,
    Encap,
    IPAddress,
    Output,
    Release,
    RemoveRoute,
    SetRoute,
    ToLan,
    Way,
)
from .paced import PER_S
from .requests import Nonces
from .residents import Policy, Resident, Residents
from .site import Site, ends_of, host

MAX_DATAGRAM = 9000
YOUNG_S = 0.8
"""A claim of ours this young is not given up at once: the Map-Notify may be of the time before. It is not
acknowledged either, so if it is true it comes again (the map server repeats it after a second)."""
ADOPTED_S = 900.0
"""How long a route of an earlier run is kept from when it is asked about."""
SWITCHED_MINUTES = 5
RECLAIMS, RECLAIMS_S = 5.0, 60.0
"""How often an address of our own is claimed again at once, as a machine is; then with the next registrations."""


class Control:
    """``wall`` is the time of day at ``now``; ``register_nonce`` gives the nonces of Map-Registers, which
    must grow over restarts too; those of Map-Requests are above ``request_nonce``."""

    def __init__(
        self, site: Site, policy: Policy, wall: float, now: float, register_nonce: Callable[[], int],
        request_nonce: int = 0,
    ) -> None:  # fmt: skip
        self.site = site
        self.refusals = Refusals(logging.getLogger(__name__))
        self._out: list[Output] = []
        nonces = self.nonces = Nonces(wall, now, request_nonce)
        self.residents = Residents(policy, site.own, self.away)
        self.itr = Itr(site, self._out, self.refusals, nonces, self.local, self.router_has)
        self.etr = Etr(site, self._out, self.refusals, nonces, self.itr.cache, self.local, register_nonce)
        self._servers = {server.address: server for server in site.servers}
        self._usurped: list[EidPrefix] = []
        self._reclaims = SourceBuckets(RECLAIMS / RECLAIMS_S, RECLAIMS)
        for prefix in site.prefixes:
            self.etr.registrar.eids.put(prefix, now)

    def take(self) -> list[Output]:
        """The outputs since the last call, oldest first."""
        out = self._out[:]
        self._out.clear()
        return out

    def local(self, eid: EidPrefix) -> bool:
        """Whether the EID is behind us: it has moved in, or it is of our subnet and has not moved out."""
        resident = self.residents.here.get(eid)
        if resident is not None:
            return not resident.expected
        return eid.host and self.site.own(eid) and not self.away(eid)

    def router_has(self, eid: EidPrefix) -> bool:
        """Whether it is an address of the router itself, on its LAN: nobody else can have that."""
        return eid in self.residents.policy.own_addresses

    def away(self, eid: EidPrefix) -> bool:
        """Whether an EID of our subnet is elsewhere now."""
        return eid in self.itr.cache.away

    # -- in: the network -------------------------------------------------------------------------------

    def receive(self, data: bytes, source: IPAddress, port: int, now: float) -> None:
        """A datagram from the control port's socket. Never raises."""
        if len(data) > MAX_DATAGRAM:
            self.refusals.refuse("oversized datagram", source, now)
            return
        try:
            message = decode(data)
            if isinstance(message, MapNotify):
                self._notify(message, data, source, now)
                return
        except LispError as error:
            self.refusals.refuse("not a LISP message", source, now, error)
            return
        if isinstance(message, MapReply):
            self.itr.reply(message, source, now)
        elif isinstance(message, MapRequest):
            if message.smr:
                self.itr.hearsay.solicited(message, source, now)
            else:
                self.etr.request(message, source, port, now, forwarded=False)
        elif isinstance(message, EncapsulatedControlMessage):
            inner = message.message
            if not isinstance(inner, MapRequest) or inner.smr or inner.probe:
                self.refusals.refuse("ECM with something else in it", source, now)
            elif source not in self._servers:
                self.refusals.refuse("ECM from a stranger", source, now)
            elif (ask := self.itr.requests.asked(inner.nonce)) is not None:
                self.itr.returned(ask)  # our own question, as the map server thinks that we know
            else:
                self.etr.request(inner, source, message.source_port, now, forwarded=True)
        elif isinstance(message, MapRegister | MapNotifyAck):
            self.refusals.refuse("message for a map server", source, now)
        else:
            self.refusals.refuse("message of an unknown type", source, now)

    def miss(self, packet: bytes, now: float) -> None:
        """An IP packet to an EID without a route."""
        ends = self.itr.miss(packet, now)
        if ends is None:
            self._missed_here(packet, now)
        elif self.local(ends[0]):
            found = self.itr.cache.find(ends[1])
            if found is not None and isinstance(found[1].way, Encap):
                for rloc, _ in found[1].way.paths:
                    self.etr.correspondents.heard(ends[0], rloc, now)

    def _missed_here(self, packet: bytes, now: float) -> None:
        """A packet to an EID that has moved in, and whose route to the LAN the kernel has lost."""
        ends = ends_of(packet)
        eid = None if ends is None else host(self.site.iid, ends[1])
        if eid is not None and self.local(eid) and self.residents.unrouted(eid, now):
            self.refusals.refuse("route that the kernel has lost", eid, now)
            self._out += [SetRoute(eid, ToLan()), Release(eid, (packet,))]

    # -- in: the LAN and the agent ---------------------------------------------------------------------

    def appeared(self, eid: EidPrefix, mac: bytes, now: float) -> bool:
        """A node of the LAN shows itself; whether it was taken in."""
        self.residents.heard(eid, mac, now)
        reason = self.residents.judge(eid, mac, now)
        if reason is None:
            return False
        if reason:
            self.refusals.refuse(reason, mac.hex(":"), now, eid)
            return False
        displaced = self.residents.displaced(eid, mac, now)
        if displaced is not None:
            self.erase(displaced, now, withdraw=True)
        self.claim(eid, mac, now, pinned=False)
        return True

    def claim(self, eid: EidPrefix, mac: bytes, now: float, *, pinned: bool) -> None:
        """The EID is here: route it to the LAN and register it."""
        self.residents.put(Resident(eid, mac, pinned))
        self.residents.heard(eid, mac, now)
        self.residents.guarded.pop(eid, None)
        self.itr.cache.give_up(eid)
        self._out.append(SetRoute(eid, ToLan()))
        if not self.etr.registrar.claim(eid, now):
            self.refusals.refuse("registrations", eid, now)
        self.itr.requests_done(eid)
        self._out.append(Appeared(eid, mac))

    def settle(self, resident: Resident, now: float) -> None:
        """A dynamic EID that was here before a restart: as it was, and registered again."""
        self.residents.put(resident)
        if not resident.expected:
            self._out.append(SetRoute(resident.eid, ToLan()))
            self.etr.registrar.eids.put(resident.eid, now - YOUNG_S)

    def switch(self, eid: EidPrefix, rloc: IPAddress, now: float) -> None:
        """The EID is behind ``rloc`` from now on: not ours any more, and routed there."""
        self.residents.drop(eid)
        self.residents.guard(eid)
        self.etr.registrar.drop(eid, now, withdraw=False)
        record = MappingRecord(eid, (Locator(rloc),), SWITCHED_MINUTES)
        self.itr.place(record, eid, now)

    def erase(self, eid: EidPrefix, now: float, *, withdraw: bool) -> None:
        """Forget a dynamic EID: no entry, no route of its own. ``withdraw`` its registration too."""
        resident = self.residents.drop(eid)
        if resident is not None and resident.pinned:
            self.residents.guard(eid)
        self.etr.registrar.drop(eid, now, withdraw=withdraw)
        if self.itr.cache.remove(eid) is None:
            self._out.append(RemoveRoute(eid))

    def adopt(self, eid: EidPrefix, way: Way, now: float) -> None:
        """A route that an earlier run left in the kernel: it stays, and the map system is asked about it."""
        if self.router_has(eid):
            self._out.append(RemoveRoute(eid))
        else:
            self.itr.adopt(eid, way, now, ADOPTED_S + len(self.itr.cache.table) / PER_S)

    def saw(self, eid: EidPrefix, now: float) -> None:
        """A packet to a watched EID was seen on the LAN: its mapping is in use, so it is asked for again."""
        key = self.itr.cache.saw(eid)
        if key is not None:
            self.itr.ask(key, now)

    # -- time ------------------------------------------------------------------------------------------

    def timer(self, now: float) -> None:
        """Whatever is due."""
        ask, left = self.residents.sweep(now)
        self._out += [CheckNode(eid) for eid in ask]
        for eid in left:
            self.erase(eid, now, withdraw=True)
        self.itr.timer(now)
        self.etr.timer(now)

    def next_timer(self) -> float | None:
        below = (self.residents.next_sweep(), self.itr.next_timer(), self.etr.next_timer())
        return min((time for time in below if time is not None), default=None)

    # -- Map-Notify ------------------------------------------------------------------------------------

    def _notify(self, message: MapNotify, data: bytes, source: IPAddress, now: float) -> None:
        server = self._servers.get(source)
        if server is None:
            self.refusals.refuse("Map-Notify from a stranger", source, now)
            return
        if not verify(data, server.key, accept=(server.algorithm_id,)):
            self.refusals.refuse("Map-Notify with a wrong key", source, now)
            return
        if message.xtr_id is not None and message.xtr_id != self.site.xtr_id:
            self.refusals.refuse("Map-Notify for another xTR", source, now)
            return
        confirms = self.etr.notified(message, server, now)
        known = confirms or self.itr.confirmed(message, now) or self.itr.published(message, now)
        if not known and not self._believed(message, source, now):
            return  # no acknowledgement: what is true is sent again
        if not confirms:
            self.etr.acknowledge(message, server)
        for eid in self._usurped:  # after the acknowledgement it is a new claim (docs/mapserver.md)
            if self._reclaims.take(eid, now):
                self.etr.registrar.claim(eid, now)
        self._usurped.clear()

    def _believed(self, message: MapNotify, source: IPAddress, now: float) -> bool:
        """Whether an authenticated Map-Notify that confirms nothing and is of no subscription is the case now, and
        the map server's own word.

        Anybody can have it sign what is so for a Map-Request in our name, and the acknowledgement of that would be
        a subscription by a nonce that is not ours. So where there is no news in it, and its nonce is not of those
        that our map server keeps for its own word, the map system is asked instead.
        """
        # Only now: the nonces of a subscription are not those of the map server's own word.
        own_word = message.nonce >= OWN_NONCES or self.etr.repeats(message) or self.itr.hearsay.over(message)
        for record in self.etr.elsewhere(message):
            if not own_word and self.itr.hearsay.knows(record):
                continue
            if not self._elsewhere(record, message.nonce, now):
                return False
            own_word = True
        if self.itr.replayed(message) or not any(self._concerns_us(record) for record in message.records):
            self.refusals.refuse("Map-Notify that nobody asked for", source, now)
            return False
        if self.etr.denied(message, self.router_has):
            # With an acknowledgement our next Map-Register would take the EID from who has it.
            self.refusals.refuse("Map-Notify against what is ours", source, now)
            return False
        if self.itr.hearsay.doubts(message, now):
            return False
        if not own_word:
            self.refusals.refuse("Map-Notify that nobody asked for", source, now)
            self.itr.hearsay.ask_about(message, now)
        return own_word

    def _concerns_us(self, record: MappingRecord) -> bool:
        """What the map server says under our key is acknowledged also of an EID that we have given up by ourselves:
        until then our next claim of it would be refused."""
        return isinstance(record.eid, EidPrefix) and self.site.in_space(record.eid)

    def _elsewhere(self, record: MappingRecord, nonce: int, now: float) -> bool:
        """An EID of ours is behind another router: late packets are sent on, its correspondents told.

        ``False`` if that is not believed yet, as the EID has just come (back) here. An address of this router
        itself is registered from now on.
        """
        eid = record.eid
        if not isinstance(eid, EidPrefix):
            return True
        if self.router_has(eid):
            self.refusals.refuse("claim of an address of our own", eid, now)
            self.etr.believed(eid, nonce)
            self.etr.registrar.eids.put(eid, now)
            self._usurped.append(eid)
            return True
        claimed = self.etr.registrar.eids.get(eid)
        if claimed is not None and now - claimed < YOUNG_S:
            self.refusals.counts["Map-Notify against a young claim"] += 1
            return False
        self.etr.believed(eid, nonce)
        resident = self.residents.drop(eid)
        if resident is not None and resident.pinned:
            self.residents.guard(eid)
        self.etr.registrar.drop(eid, now, withdraw=False)
        self.itr.place(replace(record, authoritative=False), eid, now)
        entry = self.itr.cache.table.get(eid)
        rlocs = tuple(rloc for rloc, _ in entry.way.paths) if entry and isinstance(entry.way, Encap) else ()
        self._out.append(Departed(eid, rlocs))
        self.etr.solicit(eid, now)
        return True
