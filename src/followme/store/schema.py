"""The tables, and the opening of a file: ours and of a version that we know, or ``StoreError``."""

from __future__ import annotations

import sqlite3

from .records import StoreError

APPLICATION_ID = 0x464D4330
"""``FMC0`` in the file's header, by which a store knows its own."""
VERSION = 2

FACTS = "CREATE TABLE facts (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID"
"""What a federation must know again; what stands in a value is its own business."""
UPGRADES = {1: (FACTS,)}
"""Version to what makes the next one of it."""

TABLES = (
    """CREATE TABLE nodes (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, mac BLOB NOT NULL, identifier INTEGER NOT NULL,
        address INTEGER NOT NULL, home TEXT NOT NULL, port INTEGER
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE placements (
        node TEXT PRIMARY KEY, network TEXT NOT NULL, port INTEGER NOT NULL, locator INTEGER NOT NULL,
        version INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE leases (
        mac BLOB PRIMARY KEY, identifier INTEGER NOT NULL UNIQUE, network TEXT NOT NULL,
        expires_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID""",
    # The core routes on a locator, so it is unique among all networks and not only in its own.
    """CREATE TABLE locators (
        network TEXT NOT NULL, node TEXT NOT NULL, address INTEGER NOT NULL UNIQUE,
        PRIMARY KEY (network, node)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE migrations (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, machine TEXT NOT NULL,
        source TEXT NOT NULL, target TEXT NOT NULL, mode TEXT NOT NULL, state TEXT NOT NULL,
        started REAL NOT NULL, updated REAL NOT NULL, detail TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE steps (
        migration INTEGER NOT NULL REFERENCES migrations (number) ON DELETE CASCADE, step INTEGER NOT NULL,
        state TEXT NOT NULL, at REAL NOT NULL, detail TEXT NOT NULL,
        PRIMARY KEY (migration, step)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE attachments (
        number INTEGER PRIMARY KEY AUTOINCREMENT, node TEXT NOT NULL, network TEXT NOT NULL,
        port INTEGER NOT NULL, locator INTEGER NOT NULL, at REAL NOT NULL
    ) STRICT""",
    "CREATE INDEX attachments_of_node ON attachments (node, number)",
    FACTS,
)


def open_database(name: str) -> sqlite3.Connection:
    """The database in the file ``name`` (``":memory:"`` for none), created if it is absent or empty,
    and brought to this version if it is of an older one.

    Nothing is written to a file that is not ours. ``StoreError`` if it is foreign, corrupt, of a newer
    version, or cannot be opened.
    """
    try:
        # Autocommit: BEGIN is ours to say. One second is long for an event loop, but two controllers on
        # one file are a mistake and should hear of it.
        connection = sqlite3.connect(name, timeout=1.0, isolation_level=None)
    except sqlite3.Error as error:
        raise StoreError(f"store {name}: {error}") from error
    try:
        _check_or_create(connection, name)
        journal = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        # Without WAL (some network file systems) a commit needs the full sync to keep the file whole.
        connection.execute(f"PRAGMA synchronous = {'NORMAL' if journal == 'wal' else 'FULL'}")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error as error:
        connection.close()
        raise StoreError(f"store {name}: {error}") from error
    except StoreError:
        connection.close()
        raise
    return connection


def _check_or_create(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    objects = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application == 0 and version == 0 and objects == 0:
        for statement in TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    elif application != APPLICATION_ID:
        raise StoreError(f"store {name}: this is the SQLite file of another program")
    elif version != VERSION and version not in UPGRADES:
        raise StoreError(f"store {name}: schema version {version}, this program knows {VERSION}")
    else:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise StoreError(f"store {name}: the file is corrupt: {verdict}")
        if version != VERSION:
            for older in range(version, VERSION):
                for statement in UPGRADES[older]:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
