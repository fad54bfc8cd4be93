"""Facts, and files of the version before them."""

from __future__ import annotations

import contextlib
import sqlite3
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from followme.domain import Placement
from followme.store import Store, StoreError, schema, sqlite

PLACE = Placement("phone", "east", 1, IPv4Address("10.2.0.128"), 7)


def of_version_1(path: Path) -> None:
    """As the first version made it, with a placement in it."""
    connection = sqlite3.connect(path)
    for statement in schema.TABLES:
        if statement != schema.FACTS:
            connection.execute(statement)
    connection.execute("INSERT INTO placements VALUES ('phone', 'east', 1, ?, 7)", (int(PLACE.locator),))
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()


def test_facts_are_there_again_in_the_order_of_their_keys(tmp_path: Path) -> None:
    with Store(tmp_path / "fmc.db") as store:
        store.put_fact("b", b"\0\xff")
        store.put_fact("a", b"")
        store.put_fact("c", b"gone")
        store.put_fact("b", b"newer")
        store.put_fact("c", None)
        store.put_fact("never was", None)
        assert store.replicating() is None
    with Store(tmp_path / "fmc.db") as store:
        assert list(store.facts()) == [("a", b""), ("b", b"newer")]
        assert [store.fact(key) for key in "abc"] == [b"", b"newer", None]


def test_facts_are_part_of_a_commit(tmp_path: Path) -> None:
    with Store(tmp_path / "fmc.db") as store:
        store.put_fact("a", b"1")
        with contextlib.suppress(RuntimeError), store.transaction():
            store.put_fact("a", b"2")
            store.put_fact("b", b"2")
            raise RuntimeError
        assert list(store.facts()) == [("a", b"1")]
        with store.batch():
            store.put_fact("a", b"3")
            other = sqlite3.connect(tmp_path / "fmc.db")
            assert other.execute("SELECT value FROM facts").fetchall() == [(b"1",)]
            other.close()
        assert list(store.facts()) == [("a", b"3")]


def test_more_facts_than_a_page_are_read_while_others_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_PAGE", 3)
    with Store(":memory:") as store:
        for number in range(10):
            store.put_fact(f"{number}", b"x")
        read = []
        for key, _ in store.facts():
            read.append(key)
            store.put_fact(key, None)
        assert read == [f"{number}" for number in range(10)]
        assert list(store.facts()) == []


def test_a_value_that_is_no_bytes_is_refused() -> None:
    with Store(":memory:") as store, pytest.raises(StoreError):
        store.put_fact("a", "text")  # type: ignore[arg-type]


def test_a_file_of_version_1_is_brought_to_this_version(tmp_path: Path) -> None:
    path = tmp_path / "fmc.db"
    of_version_1(path)
    for _ in range(2):
        with Store(path) as store:
            assert store.placements() == (PLACE,)
            store.put_fact("a", b"1")
            assert list(store.facts()) == [("a", b"1")]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    connection.close()


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "fmc.db"
    of_version_1(path)
    monkeypatch.setitem(schema.UPGRADES, 1, (schema.FACTS, "CREATE TABLE nodes (no TEXT)"))
    with pytest.raises(StoreError, match=r"fmc\.db.*nodes already exists"):
        Store(path)
    monkeypatch.undo()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'facts'").fetchall() == []
    connection.close()
    with Store(path) as store:
        assert store.placements() == (PLACE,)
