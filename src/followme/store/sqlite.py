"""The store in one SQLite file: what the controller must know again after a crash.

It is used from one thread. A write commits at once, unless it is in a ``transaction()`` or a ``batch()``;
do not await inside either, for another task's writes would join them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from followme.domain import Attachment, Mac, Migration, MigrationState, Node, NodeKind, Placement

from .lock import FileLock
from .records import Lease, MigrationStep, StoreError
from .schema import open_database

_FINISHED = (MigrationState.RELEASED.value, MigrationState.FAILED.value)
_NODE = "name, kind, mac, identifier, address, home, port"
_PLACEMENT = "node, network, port, locator, version"
_LEASE = "mac, identifier, network, expires_at"
_ATTACHMENT = "node, network, port, locator, at"
_MIGRATION = "id, machine, source, target, mode, state, started, detail"
_PAGE = 1000
"""Facts read at a time: there may be a million."""

Row = tuple[Any, ...]
T = TypeVar("T")


class Store:
    """Nodes, placements, leases, locators, sagas, a federation's facts, and where nodes were.

    ``path`` is a file, or ``":memory:"``. ``history`` bounds the attachments kept and the finished
    migrations kept; unfinished ones are never dropped. All methods raise ``StoreError`` if the file fails. A file
    belongs to one store at a time: another one's ``StoreError`` names the process that has it.
    """

    def __init__(self, path: str | Path, *, history: int = 10_000) -> None:
        if history < 1:
            raise ValueError(f"history {history} must be at least 1")
        self._name = str(path)
        self._history = history
        self._lock = FileLock(self._name)
        try:
            self._db = open_database(self._name)
        except BaseException:
            self._lock.release()
            raise
        self._batches = 0
        self._depth = 0
        self._begun = False

    def close(self) -> None:
        """Commits nothing: a batch or transaction that is open is given up."""
        self._db.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- commits ------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside become one commit, or none if an exception leaves it. May stand in another."""
        self._begin()
        self._check()
        savepoint = f"level{self._depth}"
        self._run(f"SAVEPOINT {savepoint}")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._db.in_transaction:
                self._run(f"ROLLBACK TO {savepoint}")
                self._run(f"RELEASE {savepoint}")
            if self._outside:
                self._abandon()
            raise
        self._depth -= 1
        if self._outside:
            self._commit()
        else:
            self._check()
            self._run(f"RELEASE {savepoint}")

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Group commit: the writes inside are committed once, at its end, even if an exception leaves it.

        For independent facts (a batch of packet-ins): what was written before the exception did happen. A
        ``transaction()`` inside still undoes its own. A batch without writes costs nothing.
        """
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1
            if self._outside:
                self._commit()

    def replicating(self) -> Awaitable[object] | None:
        """What to await before anybody is told what was committed; it raises if that is not safe. ``None`` when all
        is: here always, for a commit is in the file."""
        return None

    async def replicated(self) -> None:
        """Return when all that was committed so far is safe; ``StoreError`` if it is not."""

    @property
    def _outside(self) -> bool:
        return not self._batches and not self._depth

    def _begin(self) -> None:
        if not self._begun:
            self._run("BEGIN IMMEDIATE")
            self._begun = True

    def _commit(self) -> None:
        if not self._begun:
            return
        try:
            self._check()
            self._run("COMMIT")
        except StoreError:
            self._abandon()
            raise
        self._begun = False

    def _abandon(self) -> None:
        self._begun = False
        if self._db.in_transaction:
            self._run("ROLLBACK")

    def _check(self) -> None:
        """SQLite itself rolls back on a full disk or an I/O error: what follows must not pass for whole."""
        if self._begun and not self._db.in_transaction:
            raise StoreError(f"store {self._name}: the writes of this batch were undone by an earlier error")

    def _run(self, statement: str, parameters: Iterable[object] = ()) -> sqlite3.Cursor:
        try:
            return self._db.execute(statement, tuple(parameters))
        except (sqlite3.Error, OverflowError) as error:
            raise StoreError(f"store {self._name}: {error}") from error

    def _write(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        if not self._outside:
            self._begin()
            self._check()
        return self._run(statement, parameters)

    def _write_many(self, statement: str, rows: list[Row]) -> None:
        with self.batch():
            self._begin()
            self._check()
            try:
                self._db.executemany(statement, rows)
            except (sqlite3.Error, OverflowError) as error:
                raise StoreError(f"store {self._name}: {error}") from error

    def _read(self, statement: str, *parameters: object) -> list[Row]:
        return self._read_as(tuple, statement, *parameters)

    def _read_as(self, decode: Callable[[Row], T], statement: str, *parameters: object) -> list[T]:
        try:
            return [decode(row) for row in self._run(statement, parameters)]
        except (sqlite3.Error, ValueError) as error:
            raise StoreError(f"store {self._name}: {error}") from error

    # --- nodes and placements -----------------------------------------------------------------------------

    def put_node(self, node: Node) -> None:
        self._write(
            "INSERT OR REPLACE INTO nodes VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(node.name, node.kind.value, node.mac, int(node.identifier), int(node.address)),
            *(node.home, node.port),
        )

    def delete_node(self, name: str) -> None:
        """The node, its placement and its locators; its history stays."""
        with self.transaction():
            self._write("DELETE FROM nodes WHERE name = ?", name)
            self._write("DELETE FROM placements WHERE node = ?", name)
            self._write("DELETE FROM locators WHERE node = ?", name)

    def nodes(self) -> tuple[Node, ...]:
        """By name."""
        return tuple(self._read_as(_node, f"SELECT {_NODE} FROM nodes ORDER BY name"))

    def put_placement(self, placement: Placement) -> None:
        self._write(
            "INSERT OR REPLACE INTO placements VALUES (?, ?, ?, ?, ?)",
            *(placement.node, placement.network, placement.port, int(placement.locator), placement.version),
        )

    def delete_placement(self, node: str) -> None:
        self._write("DELETE FROM placements WHERE node = ?", node)

    def placements(self) -> tuple[Placement, ...]:
        """By node."""
        return tuple(self._read_as(_placement, f"SELECT {_PLACEMENT} FROM placements ORDER BY node"))

    def placement(self, node: str) -> Placement | None:
        found = self._read_as(_placement, f"SELECT {_PLACEMENT} FROM placements WHERE node = ?", node)
        return found[0] if found else None

    # --- leases -------------------------------------------------------------------------------------------

    def put_lease(self, lease: Lease) -> None:
        """Replaces the lease of the same MAC, and any other's of the same identifier: it has one holder."""
        self._write(
            "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)",
            *(lease.mac, int(lease.identifier), lease.network, lease.expires_at),
        )

    def delete_lease(self, mac: Mac) -> None:
        self._write("DELETE FROM leases WHERE mac = ?", mac)

    def leases(self) -> tuple[Lease, ...]:
        """By MAC, expired ones too: who had an address gets it again if it can."""
        return tuple(self._read_as(_lease, f"SELECT {_LEASE} FROM leases ORDER BY mac"))

    # --- locators -----------------------------------------------------------------------------------------

    def allocate_locator(self, network: str, node: str, candidates: Iterable[IPv4Address]) -> IPv4Address:
        """The locator of ``node`` in ``network``: the one that it has, else the first free candidate.

        ``StoreError`` naming the pool if all candidates are taken.
        """
        mine = self._read("SELECT address FROM locators WHERE network = ? AND node = ?", network, node)
        if mine:
            return IPv4Address(mine[0][0])
        taken = {address for (address,) in self._read("SELECT address FROM locators")}
        for candidate in candidates:
            if int(candidate) not in taken:
                self._write("INSERT INTO locators VALUES (?, ?, ?)", network, node, int(candidate))
                return candidate
        raise StoreError(f"store {self._name}: the pool of locators of {network} is used up, none for {node}")

    def free_locator(self, network: str, node: str) -> None:
        """Nothing happens if it has none."""
        self._write("DELETE FROM locators WHERE network = ? AND node = ?", network, node)

    def locators(self) -> dict[tuple[str, str], IPv4Address]:
        """(network, node) to address."""
        rows = self._read("SELECT network, node, address FROM locators ORDER BY network, node")
        return {(network, node): IPv4Address(address) for network, node, address in rows}

    # --- migrations ---------------------------------------------------------------------------------------

    def put_migration(self, migration: Migration, at: float) -> None:
        """Write the saga as it is at ``at`` seconds; a state other than the last one becomes a step.

        ``StoreError`` if its detail is no JSON.
        """
        try:
            detail = json.dumps(dict(migration.detail), sort_keys=True)
        except (TypeError, ValueError) as error:
            raise StoreError(f"store {self._name}: detail of migration {migration.id}: {error}") from error
        state = migration.state.value
        with self.transaction():
            self._write(
                f"INSERT INTO migrations ({_MIGRATION}, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET machine = excluded.machine, source = excluded.source, "
                "target = excluded.target, mode = excluded.mode, state = excluded.state, "
                "started = excluded.started, detail = excluded.detail, updated = excluded.updated",
                *(migration.id, migration.machine, migration.source, migration.target, migration.mode),
                *(state, migration.started, detail, at),
            )
            ((number, step, last),) = self._read(
                "SELECT number, coalesce(step, 0), steps.state FROM migrations LEFT JOIN steps "
                "ON migration = number WHERE id = ? ORDER BY step DESC LIMIT 1",
                migration.id,
            )
            if state == last:
                return
            self._write("INSERT INTO steps VALUES (?, ?, ?, ?, ?)", number, step + 1, state, at, detail)
            if state in _FINISHED:
                self._drop_old_migrations()

    def _drop_old_migrations(self) -> None:
        self._write(
            "DELETE FROM migrations WHERE state IN (?, ?) AND number <= (SELECT number FROM migrations "
            "WHERE state IN (?, ?) ORDER BY number DESC LIMIT 1 OFFSET ?)",
            *(*_FINISHED, *_FINISHED, self._history),
        )

    def migration(self, id: str) -> Migration | None:
        found = self._read_as(_migration, f"SELECT {_MIGRATION} FROM migrations WHERE id = ?", id)
        return found[0] if found else None

    def migrations(self, limit: int = 100) -> tuple[Migration, ...]:
        """The last ``limit``, newest first."""
        newest = f"SELECT {_MIGRATION} FROM migrations ORDER BY number DESC LIMIT ?"
        return tuple(self._read_as(_migration, newest, limit))

    def unfinished_migrations(self) -> tuple[Migration, ...]:
        """Sagas that are neither released nor failed, oldest first: after a crash, finish or roll back."""
        unfinished = f"SELECT {_MIGRATION} FROM migrations WHERE state NOT IN (?, ?) ORDER BY number"
        return tuple(self._read_as(_migration, unfinished, *_FINISHED))

    def migration_steps(self, id: str) -> tuple[MigrationStep, ...]:
        """The saga's history, in order; empty if it is unknown."""
        steps = (
            "SELECT steps.state, at, steps.detail FROM steps JOIN migrations ON migration = number "
            "WHERE id = ? ORDER BY step"
        )
        return tuple(self._read_as(_step, steps, id))

    # --- facts --------------------------------------------------------------------------------------------

    def put_fact(self, key: str, value: bytes | None) -> None:
        """``None``: it is no fact any more."""
        self.put_facts({key: value})

    def put_facts(self, facts: Mapping[str, bytes | None]) -> None:
        gone = [(key,) for key, value in facts.items() if value is None]
        kept = [(key, value) for key, value in facts.items() if value is not None]
        if gone:
            self._write_many("DELETE FROM facts WHERE key = ?", gone)
        if kept:
            self._write_many("INSERT OR REPLACE INTO facts VALUES (?, ?)", kept)

    def fact(self, key: str) -> bytes | None:
        found = self._read("SELECT value FROM facts WHERE key = ?", key)
        return found[0][0] if found else None

    def facts(self) -> Iterator[tuple[str, bytes]]:
        """(key, value) by key, read bit by bit: what is written meanwhile is seen or is not."""
        more: list[Row] = self._read("SELECT key, value FROM facts ORDER BY key LIMIT ?", _PAGE)
        while more:
            yield from more
            more = self._read("SELECT key, value FROM facts WHERE key > ? ORDER BY key LIMIT ?", more[-1][0], _PAGE)

    # --- attachments --------------------------------------------------------------------------------------

    def put_attachment(self, attachment: Attachment) -> None:
        """Append to the history, and drop what exceeds its bound."""
        with self.transaction():
            row = self._write(
                "INSERT INTO attachments (node, network, port, locator, at) VALUES (?, ?, ?, ?, ?)",
                *(attachment.node, attachment.network, attachment.port, int(attachment.locator)),
                attachment.at,
            )
            newest = row.lastrowid or 0
            self._write("DELETE FROM attachments WHERE number <= ?", newest - self._history)

    def attachments(self, node: str | None = None, limit: int = 100) -> tuple[Attachment, ...]:
        """The last ``limit``, of ``node`` or of all, newest first."""
        if node is None:
            last = f"SELECT {_ATTACHMENT} FROM attachments ORDER BY number DESC LIMIT ?"
            return tuple(self._read_as(_attachment, last, limit))
        last = f"SELECT {_ATTACHMENT} FROM attachments WHERE node = ? ORDER BY number DESC LIMIT ?"
        return tuple(self._read_as(_attachment, last, node, limit))


# Rows to nouns, in the order of the column lists above.


def _node(row: Row) -> Node:
    name, kind, mac, identifier, address, home, port = row
    return Node(name, NodeKind(kind), mac, IPv4Address(identifier), IPv4Address(address), home, port)


def _placement(row: Row) -> Placement:
    node, network, port, locator, version = row
    return Placement(node, network, port, IPv4Address(locator), version)


def _lease(row: Row) -> Lease:
    mac, identifier, network, expires_at = row
    return Lease(mac, IPv4Address(identifier), network, expires_at)


def _migration(row: Row) -> Migration:
    id, machine, source, target, mode, state, started, detail = row
    return Migration(id, machine, source, target, mode, MigrationState(state), started, json.loads(detail))


def _step(row: Row) -> MigrationStep:
    state, at, detail = row
    return MigrationStep(MigrationState(state), at, json.loads(detail))


def _attachment(row: Row) -> Attachment:
    node, network, port, locator, at = row
    return Attachment(node, network, port, IPv4Address(locator), at)
