"""Registrations at the map servers (RFC 9301, 5.6 and 8.2): until confirmed, and again each minute."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from followme.lisp import EidPrefix, MapRegister, sign
from followme.lisp.prefixtable import PrefixTable

from .outputs import Datagram, Output
from .site import MapServer, Site

RETRY_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
MAX_RECORDS = 16
"""In one Map-Register: with a few locators each it stays below the MTU."""
MAX_EIDS = 8192


@dataclass(slots=True)
class _Batch:
    """EIDs that go together; ``nonces`` of all attempts, as the confirmation of an earlier one counts too."""

    eids: tuple[EidPrefix, ...]
    due: float
    attempt: int = 0
    nonces: list[int] = field(default_factory=list)
    withdraw: bool = False


class _Session:
    """What one map server was told and has confirmed."""

    def __init__(self, server: MapServer) -> None:
        self.server = server
        self.batches: list[_Batch] = []
        self.confirmed: dict[EidPrefix, float] = {}
        self.refresh = 0.0


class Registrar:
    """Keeps ``eids`` registered at every map server. ``next_nonce`` gives growing nonces (RFC 9301, 5.6)."""

    def __init__(self, site: Site, out: list[Output], next_nonce: Callable[[], int]) -> None:
        self._site, self._out, self._next = site, out, next_nonce
        self.eids: PrefixTable[float] = PrefixTable()
        """What is registered, with the time of its claim."""
        self.sessions = {server.address: _Session(server) for server in site.servers}

    def claim(self, eid: EidPrefix, now: float) -> bool:
        """Register ``eid`` at once, whether it was or not; ``False`` if there is no room."""
        if eid not in self.eids and len(self.eids) >= MAX_EIDS:
            return False
        self.eids.put(eid, now)
        for session in self.sessions.values():
            self._strike(session, eid)
            batch = _Batch((eid,), now)
            session.batches.append(batch)
            self._send(session, batch, now)
        return True

    def drop(self, eid: EidPrefix, now: float, *, withdraw: bool) -> None:
        """``eid`` is no longer ours; ``withdraw`` says so to the map servers (TTL 0, RFC 9301, 5.6)."""
        if self.eids.pop(eid) is None:
            return
        for session in self.sessions.values():
            session.confirmed.pop(eid, None)
            self._strike(session, eid)
            if withdraw:
                batch = _Batch((eid,), now, withdraw=True)
                session.batches.append(batch)
                self._send(session, batch, now)

    def confirmed(
        self, server: MapServer, nonce: int, named: Collection[EidPrefix], now: float
    ) -> tuple[EidPrefix, ...] | None:
        """A Map-Notify of ``nonce``: the EIDs that it confirms, ``None`` if it answers none of ours.

        Only those that it names are registered; the others go on being asked for (RFC 9301, 5.7).
        """
        session = self.sessions[server.address]
        for batch in session.batches:
            if nonce in batch.nonces:
                done = tuple(eid for eid in batch.eids if eid in named)
                batch.eids = tuple(eid for eid in batch.eids if eid not in named)
                if not batch.eids:
                    session.batches.remove(batch)
                if not batch.withdraw:
                    session.confirmed.update((eid, now) for eid in done if eid in self.eids)
                return done
        return None

    def settled(self, eid: EidPrefix) -> bool:
        """Whether no claim of ``eid`` waits for its confirmation."""
        return not any(eid in batch.eids for s in self.sessions.values() for batch in s.batches)

    def timer(self, now: float) -> None:
        for session in self.sessions.values():
            if now >= session.refresh:
                session.refresh = now + self._site.register_interval_s
                waiting = {eid for batch in session.batches for eid in batch.eids}
                rest = [eid for eid in self.eids if eid not in waiting]
                session.batches += [
                    _Batch(tuple(rest[i : i + MAX_RECORDS]), now) for i in range(0, len(rest), MAX_RECORDS)
                ]
            for batch in list(session.batches):
                if batch.due > now:
                    continue
                if batch.withdraw and batch.attempt >= len(RETRY_S):
                    session.batches.remove(batch)  # it expires at the server
                    continue
                self._send(session, batch, now)

    def next_timer(self) -> float | None:
        times = [session.refresh for session in self.sessions.values()]
        times += [batch.due for session in self.sessions.values() for batch in session.batches]
        return min(times, default=None)

    def _send(self, session: _Session, batch: _Batch, now: float) -> None:
        nonce = self._next()
        batch.nonces = [*batch.nonces[-7:], nonce]
        batch.due = now + RETRY_S[min(batch.attempt, len(RETRY_S) - 1)]
        batch.attempt += 1
        site, server = self._site, session.server
        ttl = 0 if batch.withdraw else None
        message = MapRegister(
            nonce,
            tuple(site.record(eid, ttl) for eid in batch.eids),
            proxy_map_reply=site.proxy_reply,
            want_map_notify=True,
            xtr_id=site.xtr_id,
            site_id=site.site_id,
        )
        data = sign(message, server.key, server.algorithm_id, key_id=server.key_id).encode()
        self._out.append(Datagram(data, server.address, server.port))

    @staticmethod
    def _strike(session: _Session, eid: EidPrefix) -> None:
        """Take ``eid`` out of what is still to be sent: what follows is newer."""
        for batch in list(session.batches):
            if eid in batch.eids:
                batch.eids = tuple(other for other in batch.eids if other != eid)
                if not batch.eids:
                    session.batches.remove(batch)
