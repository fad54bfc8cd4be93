"""The store: what was written is there again, in one commit or none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from followme.domain import Attachment, Migration, MigrationState, Node, NodeKind, Placement
from followme.store import Lease, MigrationStep, Store, StoreError

MAC, OTHER_MAC = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
HOME, AWAY = IPv4Address("10.1.0.7"), IPv4Address("255.2.0.200")
NODE = Node("phone", NodeKind.USER, MAC, HOME, IPv4Address("192.168.0.7"), "west", 3)
MACHINE = Node("vm", NodeKind.MACHINE, OTHER_MAC, AWAY, AWAY, "dc1")
PLACE = Placement("phone", "east", 4, AWAY, 2)
SAGA = Migration("m1", "vm", "dc1", "dc2", "live", MigrationState.PLANNED, 1.5, {"why": "far", "bytes": 7})


@contextmanager
def failing() -> Iterator[None]:
    """What stands inside must end with a ``RuntimeError``."""
    with pytest.raises(RuntimeError):
        yield


def placements_on_disk(path: Path) -> tuple[Placement, ...]:
    """What another process would see now: only commits."""
    copy = path.with_name("copy.db")
    source, target = sqlite3.connect(path), sqlite3.connect(copy)
    source.backup(target)
    source.close()
    target.close()
    with Store(copy) as other:
        return other.placements()


# --- what is written is read again ---------------------------------------------------------------------


def test_everything_is_there_again(path: Path) -> None:
    lease = Lease(MAC, HOME, "west", 1234.5)
    seen = Attachment("phone", "east", 4, AWAY, 9.25)
    with Store(path) as store:
        store.put_node(NODE)
        store.put_node(MACHINE)
        store.put_placement(PLACE)
        store.put_lease(lease)
        store.put_migration(SAGA, 2.0)
        store.put_attachment(seen)
        store.allocate_locator("east", "phone", [AWAY])
    with Store(path) as store:
        assert store.nodes() == (NODE, MACHINE)
        assert store.placements() == (PLACE,)
        assert store.placement("phone") == PLACE
        assert store.placement("vm") is None
        assert store.leases() == (lease,)
        assert store.migration("m1") == SAGA
        assert store.migration("m2") is None
        assert store.attachments() == (seen,)
        assert store.locators() == {("east", "phone"): AWAY}


def test_memory_works_as_a_file_does() -> None:
    with Store(":memory:") as store:
        store.put_node(NODE)
        with failing(), store.transaction():
            store.put_node(MACHINE)
            raise RuntimeError
        assert store.nodes() == (NODE,)


def test_a_file_is_in_wal_mode(store: Store, path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_the_last_write_holds(store: Store) -> None:
    store.put_node(NODE)
    store.put_node(replace(NODE, port=None))
    store.put_placement(PLACE)
    store.put_placement(replace(PLACE, network="west", version=3))
    assert store.nodes() == (replace(NODE, port=None),)
    assert store.placements() == (replace(PLACE, network="west", version=3),)
    store.delete_placement("phone")
    assert store.placements() == ()


def test_deleting_a_node_frees_what_it_held(store: Store) -> None:
    for node in (NODE, MACHINE):
        store.put_node(node)
        store.put_placement(replace(PLACE, node=node.name))
    store.allocate_locator("east", "phone", [AWAY])
    store.delete_node("phone")
    assert store.nodes() == (MACHINE,)
    assert [place.node for place in store.placements()] == ["vm"]
    assert store.allocate_locator("east", "vm", [AWAY]) == AWAY


def test_an_address_is_leased_to_one(store: Store) -> None:
    store.put_lease(Lease(MAC, HOME, "west", 10.0))
    store.put_lease(Lease(MAC, AWAY, "west", 20.0))
    store.put_lease(Lease(OTHER_MAC, AWAY, "west", 30.0))
    assert store.leases() == (Lease(OTHER_MAC, AWAY, "west", 30.0),)
    store.delete_lease(OTHER_MAC)
    assert store.leases() == ()


def test_attachments_are_bounded_and_newest_first() -> None:
    with Store(":memory:", history=5) as store:
        for number in range(8):
            store.put_attachment(Attachment(f"user{number % 2}", "east", 1, AWAY, float(number)))
        assert [seen.at for seen in store.attachments()] == [7.0, 6.0, 5.0, 4.0, 3.0]
        assert [seen.at for seen in store.attachments("user1")] == [7.0, 5.0, 3.0]
        assert [seen.at for seen in store.attachments("user1", limit=1)] == [7.0]
        assert [seen.at for seen in store.attachments(limit=2)] == [7.0, 6.0]


# --- migrations ------------------------------------------------------------------------------------------


def test_each_state_becomes_a_step(store: Store) -> None:
    prepared = replace(SAGA, state=MigrationState.PREPARED, detail={"locator": "10.2.0.9"})
    store.put_migration(SAGA, 2.0)
    store.put_migration(prepared, 3.0)
    store.put_migration(replace(prepared, detail={"progress": 0.5}), 4.0)
    assert store.migration_steps("m1") == (
        MigrationStep(MigrationState.PLANNED, 2.0, SAGA.detail),
        MigrationStep(MigrationState.PREPARED, 3.0, {"locator": "10.2.0.9"}),
    )
    now = store.migration("m1")
    assert now is not None
    assert (now.state, now.detail) == (MigrationState.PREPARED, {"progress": 0.5})
    assert store.migration_steps("m2") == ()


def test_unfinished_migrations_are_found(store: Store) -> None:
    for number, state in enumerate(MigrationState):
        store.put_migration(replace(SAGA, id=f"m{number}", state=state), 2.0)
    assert [saga.state.value for saga in store.unfinished_migrations()] == [
        "planned",
        "prepared",
        "transferring",
        "switched",
    ]
    assert [saga.id for saga in store.migrations(limit=2)] == ["m5", "m4"]
    assert len(store.migrations()) == 6


def test_old_finished_migrations_go_with_their_steps_and_unfinished_stay(path: Path) -> None:
    with Store(path, history=2) as store:
        store.put_migration(replace(SAGA, id="open"), 0.0)
        for number in range(4):
            saga = replace(SAGA, id=f"m{number}")
            store.put_migration(saga, 1.0)
            store.put_migration(replace(saga, state=MigrationState.RELEASED), 2.0)
        assert [saga.id for saga in store.migrations()] == ["m3", "m2", "open"]
        assert store.migration_steps("m1") == ()
        assert len(store.migration_steps("m2")) == 2
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM steps").fetchone() == (5,)
    connection.close()


def test_a_detail_that_is_no_json_is_refused_and_nothing_written(store: Store) -> None:
    with pytest.raises(StoreError, match="detail of migration m1"):
        store.put_migration(replace(SAGA, detail={"mac": MAC}), 2.0)
    assert store.migration("m1") is None


# --- locators ----------------------------------------------------------------------------------------------

POOL = [IPv4Address("10.2.0.128"), IPv4Address("10.2.0.129")]


def test_a_locator_is_given_once(store: Store) -> None:
    assert store.allocate_locator("east", "a", POOL) == POOL[0]
    assert store.allocate_locator("east", "b", POOL) == POOL[1]
    assert store.allocate_locator("east", "a", POOL) == POOL[0]
    with pytest.raises(StoreError, match="pool of locators of east is used up, none for c"):
        store.allocate_locator("east", "c", POOL)
    store.free_locator("east", "a")
    store.free_locator("east", "a")
    assert store.allocate_locator("east", "c", iter(POOL)) == POOL[0]


def test_a_locator_is_unique_among_networks(store: Store) -> None:
    assert store.allocate_locator("east", "a", POOL) == POOL[0]
    assert store.allocate_locator("west", "a", POOL) == POOL[1]
    store.free_locator("east", "a")
    assert store.locators() == {("west", "a"): POOL[1]}


def test_the_table_itself_refuses_a_second_owner(store: Store, path: Path) -> None:
    store.allocate_locator("east", "a", POOL)
    connection = sqlite3.connect(path)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO locators VALUES ('west', 'b', ?)", (int(POOL[0]),))
    connection.close()


def test_a_locator_of_a_transaction_that_failed_is_free_again(store: Store) -> None:
    with failing(), store.transaction():
        store.allocate_locator("east", "a", POOL)
        raise RuntimeError
    assert store.allocate_locator("east", "b", POOL) == POOL[0]


# --- commits -----------------------------------------------------------------------------------------------


def test_a_single_write_is_committed_at_once(store: Store, path: Path) -> None:
    store.put_placement(PLACE)
    assert placements_on_disk(path) == (PLACE,)


def test_a_transaction_is_one_commit(store: Store, path: Path) -> None:
    reader = sqlite3.connect(path)
    with store.transaction():
        store.put_placement(PLACE)
        store.put_node(NODE)
        assert reader.execute("SELECT count(*) FROM placements").fetchone() == (0,)
    assert reader.execute("SELECT count(*) FROM placements").fetchone() == (1,)
    assert reader.execute("SELECT count(*) FROM nodes").fetchone() == (1,)
    reader.close()


def test_a_transaction_that_fails_leaves_nothing_and_the_store_goes_on(store: Store, path: Path) -> None:
    with failing(), store.transaction():
        store.put_placement(PLACE)
        raise RuntimeError
    assert store.placements() == ()
    store.put_placement(PLACE)
    assert placements_on_disk(path) == (PLACE,)


def test_an_inner_transaction_undoes_only_its_own(store: Store, path: Path) -> None:
    with store.transaction():
        store.put_node(NODE)
        with failing(), store.transaction():
            store.put_placement(PLACE)
            raise RuntimeError
        with store.transaction():
            store.put_node(MACHINE)
    assert store.nodes() == (NODE, MACHINE)
    assert placements_on_disk(path) == ()


def test_an_outer_transaction_undoes_the_inner_ones(store: Store) -> None:
    with failing(), store.transaction():
        with store.transaction():
            store.put_placement(PLACE)
        with store.batch():
            store.put_node(NODE)
        raise RuntimeError
    assert (store.placements(), store.nodes()) == ((), ())


def test_a_batch_is_one_commit_at_its_end(store: Store, path: Path) -> None:
    reader = sqlite3.connect(path)
    with store.batch():
        store.put_placement(PLACE)
        with store.batch():
            store.put_node(NODE)
        with failing(), store.transaction():
            store.put_node(MACHINE)
            raise RuntimeError
        assert reader.execute("SELECT count(*) FROM placements").fetchone() == (0,)
        assert store.placements() == (PLACE,)
    assert reader.execute("SELECT count(*) FROM placements").fetchone() == (1,)
    assert reader.execute("SELECT name FROM nodes").fetchall() == [("phone",)]
    reader.close()


def test_a_batch_that_an_exception_leaves_keeps_what_happened(store: Store, path: Path) -> None:
    with failing(), store.batch():
        store.put_placement(PLACE)
        raise RuntimeError
    assert placements_on_disk(path) == (PLACE,)


def test_a_batch_without_writes_takes_no_lock(store: Store, path: Path) -> None:
    with store.batch():
        assert store.placements() == ()
        other = sqlite3.connect(path, timeout=0)
        other.execute("INSERT INTO placements VALUES ('phone', 'east', 1, 2, 3)")
        other.commit()
        other.close()
        assert [place.node for place in store.placements()] == ["phone"]


def test_a_batch_that_sqlite_undid_does_not_pass_for_whole(store: Store, path: Path) -> None:
    """A full disk makes SQLite roll back by itself; what follows in the batch must not be committed alone."""
    store.put_node(NODE)
    batch = store.batch()
    batch.__enter__()
    store.put_placement(PLACE)
    store._db.execute("ROLLBACK")
    with pytest.raises(StoreError, match="undone"):
        store.put_node(MACHINE)
    with pytest.raises(StoreError, match="undone"), store.transaction():
        pytest.fail("entered what is lost")
    with pytest.raises(StoreError, match=f"{path}.*undone"):
        batch.__exit__(None, None, None)
    store.put_node(replace(NODE, port=9))
    assert store.nodes() == (replace(NODE, port=9),)
    assert placements_on_disk(path) == ()


def test_a_second_writer_is_told_not_waited_for(store: Store, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"followme\.db.*locked"):
        store.put_placement(PLACE)
    with pytest.raises(StoreError, match="locked"), store.transaction():
        pytest.fail("entered without the lock")
    other.close()
    store.put_placement(PLACE)
    assert placements_on_disk(path) == (PLACE,)


@pytest.mark.parametrize("bad", [{"port": 2**63}, {"version": None}, {"version": "newest"}])
def test_values_that_do_not_fit_are_store_errors(store: Store, bad: dict[str, int]) -> None:
    with pytest.raises(StoreError, match=r"followme\.db"):
        store.put_placement(replace(PLACE, **bad))  # type: ignore[arg-type]
    assert store.placements() == ()


def test_a_closed_store_says_so(path: Path) -> None:
    store = Store(path)
    store.close()
    with pytest.raises(StoreError, match=r"followme\.db"):
        store.placements()
