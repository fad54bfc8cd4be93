"""The replicated store: a standby has what was committed, whole; what was not kept is not passed for kept."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from followme.domain import Attachment, Migration, MigrationState, Node, NodeKind, Placement
from followme.federation.memory_kv import MemoryBucket, MemoryKeyValue
from followme.store import Lease, ReplicatedStore, StoreError, commits

from .bucket import Bucket, content, leading, restored

MAC, OTHER_MAC = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
HOME, AWAY = IPv4Address("10.1.0.7"), IPv4Address("10.2.0.200")
NODE = Node("phone", NodeKind.USER, MAC, HOME, HOME, "west", 3)
PLACE = Placement("phone", "east", 4, AWAY, 2)
SAGA = Migration("m1", "vm", "dc1", "dc2", "live", MigrationState.PLANNED, 1.5, {"why": "far"})


def write_all(store: ReplicatedStore) -> None:
    store.put_node(NODE)
    store.put_node(replace(NODE, name="a b.ü", mac=OTHER_MAC, port=None))
    store.put_placement(PLACE)
    store.put_lease(Lease(MAC, HOME, "west", 1234.5))
    store.put_lease(Lease(OTHER_MAC, HOME, "west", 0.1))  # takes the identifier of the other
    store.allocate_locator("east", "phone", [AWAY])
    store.allocate_locator("we.st", "phone", [HOME])
    store.put_migration(SAGA, 2.0)
    store.put_migration(replace(SAGA, state=MigrationState.PREPARED), 3.0)
    store.put_fact("home.10.1.0.7", b"\0\xff")
    store.put_fact("..", b"")


async def test_a_standby_has_everything_but_the_history() -> None:
    bucket = Bucket()
    store = await leading(bucket)
    write_all(store)
    store.put_attachment(Attachment("phone", "east", 4, AWAY, 9.0))
    await store.replicated()
    other = await restored(bucket)
    assert content(other) == content(store)
    assert len(store.leases()) == 1
    assert other.attachments() == ()
    assert "node.=6120622ec3bc" in bucket.entries
    assert bucket.entries["fact.home.10.1.0.7"].value == b"0\0\xff"


async def test_it_goes_on_where_the_other_ended() -> None:
    bucket = Bucket()
    first = await leading(bucket)
    write_all(first)
    second = await restored(bucket)
    await second.lead(2)
    second.put_migration(replace(SAGA, state=MigrationState.RELEASED), 4.0)
    second.put_migration(replace(SAGA, id="m2"), 5.0)
    second.delete_node("phone")
    third = await restored(bucket)
    assert content(third) == content(second)
    assert [step.state for step in third.migration_steps("m1")] == ["planned", "prepared", "released"]
    assert [one.id for one in third.migrations()] == ["m2", "m1"]
    assert third.locators() == {}


async def test_a_standby_stays_warm_and_takes_no_writes() -> None:
    bucket = Bucket()
    store, standby = await leading(bucket), await restored(bucket)
    writes: list[Callable[[], object]] = [
        lambda: standby.put_node(NODE), lambda: standby.put_fact("a", b"1"), standby.transaction().__enter__,
    ]  # fmt: skip
    for write in writes:
        with pytest.raises(StoreError, match="standby"):
            write()
    write_all(store)
    await asyncio.sleep(0)
    assert content(standby) == content(store)
    store.close()
    standby.close()


async def test_one_commit_is_one_record_and_a_single_key_voids_it() -> None:
    bucket = Bucket()
    store = await leading(bucket)
    bucket.submitted.clear()
    with store.batch():
        store.put_node(NODE)
        store.put_placement(PLACE)
    store.put_placement(replace(PLACE, version=3))
    store.put_placement(replace(PLACE, version=4))
    with store.transaction():
        store.put_attachment(Attachment("phone", "east", 4, AWAY, 9.0))
    with contextlib.suppress(RuntimeError), store.transaction():
        store.put_fact("a", b"1")
        raise RuntimeError
    assert bucket.submitted == ["commit.0", "node.phone", "placement.phone", "commit.0", "placement.phone",
                                "placement.phone"]  # fmt: skip


@pytest.mark.parametrize("last", range(1, 13))
async def test_a_writer_that_dies_between_two_keys_leaves_whole_commits(last: int) -> None:
    bucket = Bucket()
    store = await leading(bucket)
    states = [content(store)]
    watching = await restored(bucket)
    bucket.dies_after = last
    for version in range(3):
        with store.transaction():
            store.put_node(replace(NODE, port=version))
            store.put_placement(replace(PLACE, version=version))
            for name in ("phone", "other") if version % 2 else ("other", "phone"):
                store.free_locator("east", name)
            store.allocate_locator("east", ("phone", "other")[version % 2], [AWAY])
        states.append(content(store))
        store.put_fact("a", b"%d" % version)
        states.append(content(store))
    bucket.dies_after = None
    found = await restored(bucket)
    assert content(found) in states[1:]
    assert content(watching) in states
    for one, epoch in ((found, 2), (watching, 3)):
        await one.lead(epoch)
        assert content(one) == content(found)
        one.put_fact("b", b"1")  # a commit of one key: it voids the record, whose keys must be there by now
        assert content(await restored(bucket)) == content(one)


async def test_it_is_safe_when_the_bucket_has_acknowledged_it() -> None:
    bucket = Bucket()
    store = await leading(bucket)
    assert store.replicating() is None
    await store.replicated()
    bucket.held = True
    store.put_node(NODE)
    assert store.replicating() is not None
    waiting = asyncio.ensure_future(store.replicated())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    bucket.let()
    await waiting
    assert store.replicating() is None
    bucket.held = True
    store.put_node(NODE)
    given_up = asyncio.ensure_future(store.replicated())
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    bucket.let()
    await store.replicated()
    store.put_node(NODE)


async def test_after_a_commit_that_was_not_kept_it_takes_no_writes_until_it_is_restored() -> None:
    bucket = Bucket()
    store = await leading(bucket)
    store.put_fact("kept", b"1")
    lost = asyncio.ensure_future(store.lost())
    await asyncio.sleep(0.01)
    assert not lost.done()
    bucket.broken = True
    store.put_fact("lost", b"1")
    with pytest.raises(StoreError, match="no room in the bucket"):
        await store.replicated()
    waiting = store.replicating()
    assert waiting is not None
    with pytest.raises(OSError, match="no room"):
        await waiting
    bucket.broken = False
    assert "no room" in store.failure
    assert await lost == store.failure
    for _ in range(2):
        with pytest.raises(StoreError, match="not kept: no room"):
            store.put_fact("more", b"1")
    await store.restore(bucket)
    assert store.failure == ""
    assert list(store.facts()) == [("kept", b"1")]
    await store.lead(2)
    store.put_fact("more", b"1")
    await store.replicated()
    assert [key for key, _ in store.facts()] == ["kept", "more"]


async def test_a_failure_of_its_former_life_is_no_failure_of_this_one() -> None:
    bucket = Bucket()
    store = await leading(bucket)
    bucket.held = True
    store.put_fact("lost", b"1")
    late = bucket._waiting.pop()[2]
    bucket.held = False
    await store.restore(bucket)
    await store.lead(2)
    late.set_exception(OSError("too late"))
    await asyncio.sleep(0.01)
    assert store.failure == ""
    store.put_fact("a", b"1")
    await store.replicated()
    assert list(store.facts()) == [("a", b"1")]


async def test_who_cannot_take_the_bucket_over_takes_no_writes() -> None:
    bucket = Bucket()
    await leading(bucket, 7)
    store = ReplicatedStore()
    with pytest.raises(StoreError, match="not restored"):
        await store.lead(8)
    await store.restore(bucket)
    with pytest.raises(StoreError, match="epoch 7 has it"):
        await store.lead(6)
    with pytest.raises(StoreError, match="standby"):
        store.put_fact("a", b"1")


async def test_it_waits_for_all_that_was_written_before_the_fence() -> None:
    bucket = Bucket()
    old, new = await leading(bucket), await restored(bucket)
    bucket.shows = False
    old.put_fact("a", b"1")
    leads = asyncio.ensure_future(new.lead(2))
    await asyncio.sleep(0.01)
    assert not leads.done()
    assert list(new.facts()) == []
    bucket.show()
    await asyncio.wait_for(leads, 5)
    assert content(new) == content(old)


@pytest.mark.parametrize(
    ("key", "value"),
    [("node.phone", b"{}"), ("node.phone", b"["), ("node.a.b", b"[]"), ("lease.zz", b"[1,2,3]"), ("node.=0", b"[]"),
     ("locator.a.b", b'["x"]'), ("migration.m", b"[]"), ("migration.m", b"[1]"), ("commit.0", b"short"),
     ("node.=ff", b"[]"), ("commit.0", bytes(7) + b"\1\0\1" + b"\0\4\0\0\0\4")],
)  # fmt: skip
async def test_what_no_store_has_written_is_refused_by_name(key: str, value: bytes) -> None:
    bucket = Bucket()
    bucket._write(key, value)
    with pytest.raises(StoreError, match=f"store replicated: {key}"):
        await restored(bucket)
    bucket = Bucket()
    standby = await restored(bucket)
    bucket._write(key, value)
    await asyncio.sleep(0.01)
    assert key in standby.failure
    with pytest.raises(StoreError, match=f"cannot be followed: {key}"):
        await standby.lead(1)


async def test_keys_of_others_are_passed_over() -> None:
    bucket = Bucket()
    bucket._write("something.else", b"1")
    assert content(await restored(bucket)) == content(ReplicatedStore())


async def test_what_no_bucket_would_keep_is_refused_and_not_committed() -> None:
    bucket = Bucket()
    store = await leading(bucket)
    with pytest.raises(StoreError, match="too long a name"):
        store.put_fact("k" * 300, b"1")
    with pytest.raises(StoreError, match="bytes"):
        store.put_fact("k", bytes(300_000))
    with pytest.raises(StoreError, match=r"migration\.m1 has"):
        store.put_migration(replace(SAGA, detail={"much": "x" * 300_000}), 1.0)
    assert content(store) == content(await restored(bucket)) == content(ReplicatedStore())
    store.put_node(NODE)
    assert (await restored(bucket)).nodes() == (NODE,)


@pytest.mark.parametrize("dies_after", [None, 1, 4, 5, 7])
async def test_a_commit_that_is_larger_than_a_value_may_be(dies_after: int | None) -> None:
    bucket = Bucket()
    store = await leading(bucket)
    before = content(store)
    bucket.dies_after = dies_after
    with store.transaction():
        for number in range(8):
            store.put_fact(f"{number}", bytes([number]) * 200_000)
    other = await restored(bucket)
    # Its record has four parts, the head comes last: before that it is as if nothing had been.
    assert content(other) == (before if dies_after == 1 else content(store))
    assert [key for key in bucket.submitted if key.startswith("commit")] == [f"commit.{n}" for n in (3, 2, 1, 0)]


def test_parts_of_different_commits_are_none() -> None:
    changes: commits.Changes = {f"fact.{number}": bytes(300_000) for number in range(3)}
    parts, newer = commits.pack(1, changes), commits.pack(2, changes)
    assert len(parts) == 3
    named = {f"commit.{number}": part for number, part in enumerate(parts)}
    assert commits.unpack(named) == changes
    assert commits.unpack({**named, "commit.2": newer[2]}) == {}
    assert commits.unpack({}) == {}


async def test_the_federations_own_bucket_fits() -> None:
    bucket = MemoryBucket("fmc-alpha", delay=0.001)
    old, new = ReplicatedStore(), ReplicatedStore()
    await old.restore(MemoryKeyValue(bucket))
    await old.lead(1)
    await new.restore(MemoryKeyValue(bucket))
    write_all(old)
    await old.replicated()
    await new.lead(2)
    assert content(new) == content(old)
    old.put_fact("late", b"1")
    with pytest.raises(StoreError):
        await old.replicated()
    bucket.full = True
    new.put_fact("more", b"1")
    with pytest.raises(StoreError, match="full"):
        await new.replicated()
