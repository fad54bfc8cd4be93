"""Files that are not ours, or are damaged, or cannot be made: refused by name, and left alone."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from followme.domain import Migration, MigrationState, Node, NodeKind
from followme.store import Store, StoreError
from followme.store.schema import APPLICATION_ID, VERSION

HOME = IPv4Address("10.1.0.7")
NODE = Node("phone", NodeKind.USER, b"\2\0\0\0\0\1", HOME, HOME, "west", 3)
SAGA = Migration("m1", "vm", "dc1", "dc2", "live", MigrationState.PLANNED, 1.5)


def test_a_file_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"just some text, long enough to be read as a header" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"{path}.*not a database"):
        Store(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE nodes (name TEXT)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"{path}.*another program"):
        Store(path)
    assert path.read_bytes() == before


def test_another_version_is_refused(path: Path) -> None:
    Store(path).close()
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(
        StoreError, match=f"{path}: schema version {VERSION + 1}, this program knows {VERSION}"
    ):
        Store(path)


@pytest.mark.parametrize("where", ["middle", "end"])
def test_a_damaged_file_is_refused(path: Path, where: str) -> None:
    with Store(path) as store:
        for number in range(500):
            store.put_node(replace(NODE, name=f"node{number:04}"))
    data = bytearray(path.read_bytes())
    if where == "middle":
        data[8192 : len(data) - 4096] = b"\xa5" * (len(data) - 12288)
        path.write_bytes(data)
    else:
        path.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreError, match=str(path)):
        Store(path)


def test_damage_that_sqlite_cannot_see_is_a_store_error_too(store: Store, path: Path) -> None:
    store.put_node(NODE)
    store.put_migration(SAGA, 2.0)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE nodes SET kind = 'ghost'")
    connection.execute("UPDATE migrations SET detail = '{'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=f"{path}.*ghost"):
        store.nodes()
    with pytest.raises(StoreError, match=str(path)):
        store.migration("m1")


def test_its_directory_is_made(tmp_path: Path) -> None:
    path = tmp_path / "var" / "lib" / "followme.db"
    Store(path).close()
    assert path.exists()


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "file" / "lib" / "followme.db")
    path = f"{tmp_path}/file/lib"
    assert str(caught.value) == f"store {path}/followme.db: directory {path}: Not a directory"


def test_a_directory_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "followme.db.lock").mkdir()
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "followme.db")
    assert str(caught.value) == f"store {tmp_path}/followme.db: {tmp_path}/followme.db.lock: Is a directory"


def test_history_must_be_positive() -> None:
    with pytest.raises(ValueError, match="history 0"):
        Store(":memory:", history=0)
