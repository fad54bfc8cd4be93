"""What the map server must know again after a restart, in one SQLite file: one commit for each read of a socket."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from followme.lisp import EidPrefix, LispError, MappingRecord
from followme.lisp.record import decode_record
from followme.lisp.register import OWN_NONCES
from followme.store import StoreError
from followme.store.lock import FileLock

from .registry import Registration, RouterId
from .server import MapServer
from .subscriptions import Subscription

log = logging.getLogger(__name__)

APPLICATION_ID: Final = 0x464D4D53
VERSION: Final = 3
GAP: Final = 1024
"""Nonces left out after a restart: more than one turn uses, and those of the last turn may not be stored."""
RESERVED: Final = 1 << 16
"""Nonces of the map server's own that are stored as used before they are: one write for so many."""
_NONCES: Final = "CREATE TABLE nonces (own BLOB)"
_TABLES: Final = (
    _NONCES,
    "CREATE TABLE routers (site TEXT, xtr BLOB, nonce BLOB, host TEXT, port INTEGER, key_id INTEGER, "
    "algorithm_id INTEGER, local TEXT DEFAULT '', PRIMARY KEY (site, xtr)) WITHOUT ROWID",
    "CREATE TABLE registrations (iid INTEGER, address BLOB, length INTEGER, site TEXT, xtr BLOB, record BLOB, "
    "proxy INTEGER, expires REAL, losers TEXT, remaining REAL DEFAULT 0, "
    "PRIMARY KEY (iid, address, length)) WITHOUT ROWID",
    "CREATE TABLE subscriptions (iid INTEGER, address BLOB, length INTEGER, xtr BLOB, site TEXT, nonce BLOB, "
    "host TEXT, port INTEGER, local TEXT DEFAULT '', PRIMARY KEY (iid, address, length, xtr)) WITHOUT ROWID",
)
_NEW_COLUMNS: Final = (
    "ALTER TABLE routers ADD COLUMN local TEXT DEFAULT ''",
    "ALTER TABLE registrations ADD COLUMN remaining REAL DEFAULT 0",
    "ALTER TABLE subscriptions ADD COLUMN local TEXT DEFAULT ''",
)


class MapStore:
    """``path`` is a file, or ``":memory:"``. All methods raise ``StoreError`` if the file fails or is foreign."""

    def __init__(self, path: str | Path) -> None:
        self._name = str(path)
        self._reserved = -1  # the map server's own nonces up to this one are stored as used
        self._lock = FileLock(self._name)
        try:
            with self._errors():
                self._db = sqlite3.connect(self._name, timeout=1.0, isolation_level=None)
                self._create()
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        self._db.close()
        self._lock.release()

    def save(self, server: MapServer, now: float, wall: float) -> None:
        """Store what is unsaved. ``now`` and ``wall`` are the same moment, the second in
        seconds since 1970, as the server's own clock means nothing after a restart."""
        self.save_claims(server, now, wall)
        unsaved = server.outbox.unsaved
        if unsaved.subscriptions:
            with self._commit():
                self._subscriptions(server, unsaved.subscriptions)
            unsaved.subscriptions.clear()

    def save_claims(self, server: MapServer, now: float, wall: float) -> None:
        """The part of it that must be stored before anything is sent: registrations and nonces."""
        unsaved, own = server.outbox.unsaved, server.publisher.nonce
        if unsaved.registrations or unsaved.routers or own > self._reserved:
            reserved = self._reserved if own <= self._reserved else own + RESERVED
            with self._commit():
                if reserved != self._reserved:
                    self._db.execute("DELETE FROM nonces")
                    self._db.execute("INSERT INTO nonces VALUES (?)", (_nonce(reserved),))
                self._routers(server, unsaved.routers)
                self._registrations(server, unsaved.registrations, now, wall)
            self._reserved = reserved
            unsaved.registrations.clear()
            unsaved.routers.clear()

    @contextmanager
    def _commit(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def load(self, server: MapServer, now: float, wall: float) -> None:
        """Give a new server all that was stored and that its sites still allow.

        A registration lasts for one life time more at least: its router could not refresh it meanwhile. The map
        server's own nonces go on above those of its last life, whatever the clock was set to.
        """
        with self._errors():
            for (own,) in self._db.execute("SELECT own FROM nonces"):
                server.publisher.nonce = max(server.publisher.nonce, int.from_bytes(own, "big"))
            self._load_routers(server)
            self._load_registrations(server, now, wall)
            for iid, address, length, xtr, site, nonce, host, port, local in self._db.execute(
                "SELECT * FROM subscriptions"
            ):
                eid = EidPrefix(iid, address, length)
                number = int.from_bytes(nonce, "big")
                if site in server.sites.by_name and number < OWN_NONCES:
                    server.subscriptions.put(
                        Subscription(server.sites.by_name[site], xtr, eid, number, host, port, gap=GAP, local=local)
                    )
                else:
                    server.outbox.unsaved.subscriptions.add((eid, xtr))

    def _create(self) -> None:
        application = self._db.execute("PRAGMA application_id").fetchone()[0]
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if application == 0 and not self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self._db.execute("BEGIN IMMEDIATE")
            for table in _TABLES:
                self._db.execute(table)
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._db.execute("COMMIT")
        elif application != APPLICATION_ID:
            raise StoreError(f"store {self._name}: this is the SQLite file of another program")
        elif version in (1, 2):
            self._db.execute("BEGIN IMMEDIATE")
            for change in (_NONCES, *_NEW_COLUMNS) if version == 1 else _NEW_COLUMNS:
                self._db.execute(change)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._db.execute("COMMIT")
        elif version != VERSION:
            raise StoreError(f"store {self._name}: schema version {version}, this program knows {VERSION}")
        journal = self._db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        self._db.execute(f"PRAGMA synchronous = {'NORMAL' if journal == 'wal' else 'FULL'}")

    def _routers(self, server: MapServer, ids: Iterable[RouterId]) -> None:
        rows: list[tuple[Any, ...]] = []
        gone: list[RouterId] = []
        for id in ids:
            router = server.registry.routers.get(id)
            if router is None:
                gone.append(id)
                continue
            rows.append((*id, _nonce(router.nonce), router.host, router.port, router.key_id, router.algorithm_id,
                         router.local))  # fmt: skip
        self._db.executemany("DELETE FROM routers WHERE site = ? AND xtr = ?", gone)
        self._db.executemany("INSERT OR REPLACE INTO routers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _registrations(self, server: MapServer, eids: Iterable[EidPrefix], now: float, wall: float) -> None:
        rows: list[tuple[Any, ...]] = []
        gone: list[EidPrefix] = []
        for eid in eids:
            held = server.registry.table.get(eid)
            if held is None:
                gone.append(eid)
                continue
            losers = json.dumps([[id.site, id.xtr.hex()] for id in held.losers])
            rows.append((*eid, *held.holder.id, held.record.encode(), held.proxy, held.expires - now + wall,
                         losers, held.expires - now))  # fmt: skip
        self._db.executemany("DELETE FROM registrations WHERE iid = ? AND address = ? AND length = ?", gone)
        self._db.executemany("INSERT OR REPLACE INTO registrations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _subscriptions(self, server: MapServer, keys: Iterable[tuple[EidPrefix, bytes]]) -> None:
        rows: list[tuple[Any, ...]] = []
        gone: list[tuple[Any, ...]] = []
        for eid, xtr in keys:
            one = server.subscriptions.get(eid, xtr)
            if one is None:
                gone.append((*eid, xtr))
            else:
                rows.append((*eid, xtr, one.site.name, _nonce(one.nonce), one.host, one.port, one.local))
        self._db.executemany(
            "DELETE FROM subscriptions WHERE iid = ? AND address = ? AND length = ? AND xtr = ?", gone
        )
        self._db.executemany("INSERT OR REPLACE INTO subscriptions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _load_routers(self, server: MapServer) -> None:
        for site, xtr, nonce, host, port, key_id, algorithm_id, local in self._db.execute("SELECT * FROM routers"):
            known = server.sites.by_name.get(site)
            router = None if known is None else server.registry.router(RouterId(site, xtr), known, host, port)
            if router is not None:
                router.nonce = int.from_bytes(nonce, "big")
                router.key_id, router.algorithm_id, router.local = key_id, algorithm_id, local

    def _load_registrations(self, server: MapServer, now: float, wall: float) -> None:
        for iid, address, length, site, xtr, data, proxy, expires, losers, remaining in self._db.execute(
            "SELECT * FROM registrations"
        ):
            eid = EidPrefix(iid, address, length)
            record = _record(data)
            router = server.registry.routers.get(RouterId(site, xtr))
            if router is None or record is None or server.sites.refusal(router.site, record):
                log.warning("a stored registration of %s by site %s is not allowed any more", eid, site)
                server.outbox.unsaved.registrations.add(eid)
                continue
            # No longer than there was left when it was stored, though the clock was set back.
            until = now + max(min(expires - wall, remaining), server.registry.lifetime_s)
            marks = {RouterId(name, bytes.fromhex(text)): None for name, text in json.loads(losers)}
            server.restore(Registration(record, eid, router, until, bool(proxy), marks))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"store {self._name}: {error}") from error


def _nonce(nonce: int) -> bytes:
    """64 bits without a sign are more than an INTEGER of SQLite holds."""
    return min(max(nonce, 0), (1 << 64) - 1).to_bytes(8, "big")


def _record(data: bytes) -> MappingRecord | None:
    try:
        return decode_record(data, 0)[0]
    except LispError:
        return None
