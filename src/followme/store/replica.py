"""A store's rows as the keys and values of a bucket, there and back.

====================== =========================================================
key                    value
====================== =========================================================
node.NAME              JSON: kind, MAC (hex), identifier, address, home, port
placement.NODE         JSON: network, port, locator, version
lease.MAC              JSON: identifier, network, expires_at
locator.NETWORK.NODE   JSON: address
migration.ID           JSON: the row and its steps
fact.KEY               ``0`` and the fact's own bytes (a bucket keeps no empty value)
====================== =========================================================

Addresses are numbers, as in the tables. A name that has more than letters, digits, ``_``, ``/`` and ``-`` (a fact's
key may have single dots inside, too) is written as ``=`` and the hex of its UTF-8.
"""

from __future__ import annotations

import json
import re
import sqlite3
from dataclasses import dataclass
from typing import Any

from .records import StoreError

MAX_KEY = 256
MAX_VALUE = 256 << 10
"""Bytes, half of what a bucket takes: a value must also fit into a commit's record, with its key."""

_SAFE = re.compile(r"[A-Za-z0-9_/-]+")
_SAFE_FACT = re.compile(r"[A-Za-z0-9_/-]+(\.[A-Za-z0-9_/-]+)*")

Names = tuple[Any, ...]
"""The columns that a row is known by."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One table's rows as keys. ``names`` are its key's columns, ``columns`` the others, in the table's order."""

    name: str
    table: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    blobs: frozenset[str] = frozenset()

    @property
    def where(self) -> str:
        return " AND ".join(f"{name} = ?" for name in self.names)

    def delete(self, db: sqlite3.Connection, names: Names) -> None:
        db.execute(f"DELETE FROM {self.table} WHERE {self.where}", names)

    def read(self, db: sqlite3.Connection, names: Names) -> bytes | None:
        """The row's value; None if there is no such row."""
        row = db.execute(f"SELECT {', '.join(self.columns)} FROM {self.table} WHERE {self.where}", names).fetchone()
        if row is None:
            return None
        if self.table == "facts":
            fact: bytes = row[0]
            return b"0" + fact
        values = [one.hex() if name in self.blobs else one for name, one in zip(self.columns, row, strict=True)]
        if self.table == "migrations":
            steps = "SELECT step, state, at, detail FROM steps WHERE migration = ? ORDER BY step"
            values.append([list(step) for step in db.execute(steps, row[:1])])
        return json.dumps(values, separators=(",", ":")).encode()

    def write(self, db: sqlite3.Connection, names: Names, value: bytes) -> None:
        """The row that ``read`` gave. ``ValueError`` or ``sqlite3.Error`` if it is none."""
        if self.table == "facts":
            values: list[Any] = [value[1:]]
        else:
            values = json.loads(value)
        steps: list[Any] = []
        if self.table == "migrations":
            self.delete(db, names)
            steps = values.pop()
        columns = ", ".join((*self.names, *self.columns))
        values = [bytes.fromhex(one) if name in self.blobs else one
                  for name, one in zip(self.columns, values, strict=True)]  # fmt: skip
        marks = ", ".join("?" * (len(names) + len(values)))
        db.execute(f"INSERT OR REPLACE INTO {self.table} ({columns}) VALUES ({marks})", (*names, *values))
        for step in steps:
            db.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?)", (values[0], *step))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("node", "nodes", ("name",), ("kind", "mac", "identifier", "address", "home", "port"),
             frozenset({"mac"})),
        Kind("placement", "placements", ("node",), ("network", "port", "locator", "version")),
        Kind("lease", "leases", ("mac",), ("identifier", "network", "expires_at")),
        Kind("locator", "locators", ("network", "node"), ("address",)),
        Kind("migration", "migrations", ("id",),
             ("number", "machine", "source", "target", "mode", "state", "started", "updated", "detail")),
        Kind("fact", "facts", ("key",), ("value",)),
    )
}  # fmt: skip


def key_of(kind: str, names: Names) -> str:
    """The bucket's key; ``StoreError`` if that would be longer than a bucket allows."""
    safe = _SAFE_FACT if kind == "fact" else _SAFE
    words = (one.hex() if isinstance(one, bytes) else _word(one, safe) for one in names)
    key = ".".join((kind, *words))
    if len(key) > MAX_KEY:
        raise StoreError(f"{names[-1]!r} is too long a name: its key has {len(key)} characters of {MAX_KEY}")
    return key


def _word(name: str, safe: re.Pattern[str]) -> str:
    return name if safe.fullmatch(name) else "=" + name.encode().hex()


def names_of(key: str) -> tuple[Kind, Names] | None:
    """Whose row a key is; None if it is no row's. ``ValueError`` if it is a row's that no store has written."""
    kind = KINDS.get(key.partition(".")[0])
    if kind is None:
        return None
    rest = key.partition(".")[2]
    words = [rest] if kind.name == "fact" else rest.split(".")
    if len(words) != len(kind.names):
        raise ValueError(f"{len(words)} names where {len(kind.names)} belong")
    if kind.name == "lease":
        return kind, (bytes.fromhex(rest),)
    return kind, tuple(bytes.fromhex(one[1:]).decode() if one.startswith("=") else one for one in words)


def record_changes(db: sqlite3.Connection) -> None:
    """From now on each change of a row is in the table ``changed``, and is undone there when it is undone.

    By triggers, so no way of writing can be forgotten: not the row that an ``INSERT OR REPLACE`` displaces, and not
    what a savepoint takes back.
    """
    db.execute("PRAGMA recursive_triggers = ON")  # or REPLACE would delete behind the triggers' back
    db.execute("CREATE TEMP TABLE IF NOT EXISTS changed (kind, one, two, PRIMARY KEY (kind, one, two)) "
               "WITHOUT ROWID")  # fmt: skip
    for kind in KINDS.values():
        one, two = (*kind.names, None)[:2]
        for event, rows in (("INSERT", ("new",)), ("UPDATE", ("old", "new")), ("DELETE", ("old",))):
            marks = (_mark(kind.name, f"{row}.{one}", f"{row}.{two}" if two else "''") for row in rows)
            db.execute(f"CREATE TEMP TRIGGER IF NOT EXISTS {kind.name}_{event} AFTER {event} ON {kind.table} "
                       f"BEGIN {''.join(marks)} END")  # fmt: skip
    # Steps are only ever added, and go with their migration.
    saga = "(SELECT id FROM migrations WHERE number = new.migration)"
    db.execute("CREATE TEMP TRIGGER IF NOT EXISTS step_INSERT AFTER INSERT ON steps "
               f"BEGIN {_mark('migration', saga, repr(''))} END")  # fmt: skip


def _mark(kind: str, one: str, two: str) -> str:
    # Not by OR IGNORE: the statement that fires a trigger says what its conflicts do, too.
    return (f"INSERT INTO changed SELECT '{kind}', {one}, {two} WHERE NOT EXISTS "
            f"(SELECT 1 FROM changed WHERE kind = '{kind}' AND one = {one} AND two = {two});")  # fmt: skip


def take_changes(db: sqlite3.Connection) -> dict[str, bytes | None]:
    """What has changed since the last time: key to value as it is now, None if the row is gone. ``StoreError`` if a
    bucket could not keep one of them."""
    changes: dict[str, bytes | None] = {}
    # Facts are many: all of them at once.
    facts = "SELECT one, value FROM changed LEFT JOIN facts ON key = one WHERE kind = 'fact'"
    for one, fact in db.execute(facts):
        changes[key_of("fact", (one,))] = None if fact is None else b"0" + fact
    for name, one, two in db.execute("SELECT kind, one, two FROM changed WHERE kind <> 'fact'").fetchall():
        kind = KINDS[name]
        names = (one, two)[: len(kind.names)]
        changes[key_of(name, names)] = kind.read(db, names)
    for key, value in changes.items():
        if value is not None and len(value) > MAX_VALUE:
            raise StoreError(f"{key} has {len(value)} bytes, {MAX_VALUE} are allowed")
    db.execute("DELETE FROM changed")
    return changes


def apply_changes(db: sqlite3.Connection, changes: dict[str, bytes | None]) -> None:
    """Write what ``take_changes`` gave elsewhere: what goes first, so that what comes finds its place free.
    ``ValueError`` or ``sqlite3.Error`` naming the key."""
    for change in sorted(changes.items(), key=_stays):
        _each(db, *change)


def _stays(change: tuple[str, bytes | None]) -> bool:
    return change[1] is not None


def _each(db: sqlite3.Connection, key: str, value: bytes | None) -> None:
    try:
        found = names_of(key)
        if found is None:
            return
        kind, names = found
        if value is None:
            kind.delete(db, names)
        else:
            kind.write(db, names, value)
    except (ValueError, TypeError, AttributeError, IndexError, sqlite3.Error) as error:
        raise ValueError(f"{key}: {error}") from error


