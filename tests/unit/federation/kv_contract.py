"""What every bucket does, whether it is in memory or in JetStream. ``open`` gives another instance's way to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from followme.federation.kv import FENCE, Conflict, Entry, Fenced, KeyValue, KvError

Open = Callable[[], Awaitable[KeyValue]]


async def single_keys(open: Open) -> None:
    kv = await open()
    assert await kv.get("a/b") is None
    first = await kv.create("a/b", b"1")
    assert await kv.get("a/b") == Entry("a/b", b"1", first)
    with pytest.raises(Conflict):
        await kv.create("a/b", b"2")
    second = await kv.update("a/b", b"2", first)
    assert second > first
    with pytest.raises(Conflict):
        await kv.update("a/b", b"3", first)
    assert await kv.get("a/b") == Entry("a/b", b"2", second)
    with pytest.raises(ValueError, match="key"):
        await kv.get("a b")
    with pytest.raises(ValueError, match="bytes"):
        await kv.create("empty", b"")


async def a_deleted_key_is_created_again(open: Open) -> None:
    kv = await open()
    await kv.take_over(1)
    await kv.put("a", b"1")
    await kv.delete("a")
    assert await kv.get("a") is None
    assert await kv.load() == {}
    await kv.create("a", b"2")
    entry = await kv.get("a")
    assert entry is not None
    assert entry.value == b"2"


async def one_of_many_creates_it(open: Open) -> None:
    ends = [await open() for _ in range(5)]
    made = await asyncio.gather(*(end.create("a", b"%d" % n) for n, end in enumerate(ends)), return_exceptions=True)
    assert sum(isinstance(one, int) for one in made) == 1
    assert sum(isinstance(one, Conflict) for one in made) == 4


async def only_the_writer_writes(open: Open) -> None:
    kv = await open()
    with pytest.raises(KvError, match="take_over"):
        await kv.put("a", b"1")


async def puts_are_kept_in_order(open: Open) -> None:
    kv = await open()
    fence = await kv.take_over(1)
    futures = [kv.submit(f"k{number % 700}", b"%d" % number) for number in range(3000)]
    revisions = await asyncio.gather(*futures)
    assert revisions == list(range(fence + 1, fence + 3001))
    found = await (await open()).load()
    assert {key: entry.value for key, entry in found.items()} == {
        f"k{number % 700}": b"%d" % number for number in range(2300, 3000)
    }
    assert {entry.revision for entry in found.values()} == set(revisions[2300:])


async def the_next_writer_fences_out_the_last(open: Open) -> None:
    one, two = await open(), await open()
    await one.take_over(1)
    await one.put("a", b"1")
    fence = await two.take_over(2)
    with pytest.raises(KvError):
        await one.put("a", b"late")
    with pytest.raises(Fenced):
        await one.take_over(1)
    assert await two.put("a", b"2") == fence + 1
    entry = await one.get("a")
    assert entry is not None
    assert entry.value == b"2"


async def what_was_on_its_way_is_before_the_fence_or_nowhere(open: Open) -> None:
    """The last writer is in full flight: what the next one loads is all that ever comes of it."""
    one, two = await open(), await open()
    await one.take_over(1)
    futures = [one.submit(f"k{number}", b"1") for number in range(2000)]
    await asyncio.sleep(0.01)
    fence = await two.take_over(2)
    kept = await two.load()
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert await two.put("mine", b"2") == fence + 1
    acknowledged = {f"k{number}" for number, result in enumerate(results) if isinstance(result, int)}
    assert acknowledged <= kept.keys()
    assert kept.keys() == {f"k{number}" for number in range(len(kept))}  # in order, without a gap
    assert (await two.load()).keys() == kept.keys() | {"mine"}


async def a_watch_shows_all_then_changes(open: Open) -> None:
    one, two = await open(), await open()
    await one.take_over(1)
    await one.put("a", b"1")
    await one.put("b", b"1")
    await one.delete("b")
    async with following(two) as seen:
        first: list[Entry] = []
        while (entry := await asyncio.wait_for(anext(seen), 5)) is not None:
            first.append(entry)
        assert [(entry.key, entry.value) for entry in first] == [(FENCE, b"1"), ("a", b"1"), ("b", None)]
        await one.put("a", b"2")
        await one.delete("a")
        fence = await one.take_over(2)
        changes: list[Entry] = []
        while not changes or changes[-1].revision < fence:
            entry = await asyncio.wait_for(anext(seen), 5)
            assert entry is not None
            changes.append(entry)
        shown = [(entry.key, entry.value) for entry in changes if entry.key != FENCE]
        assert shown == [("a", b"2"), ("a", None)]
        assert changes[-1] == Entry(FENCE, b"2", fence)


async def an_empty_bucket_is_complete_at_once(open: Open) -> None:
    kv = await open()
    assert await kv.load() == {}
    async with following(kv) as seen:
        assert await asyncio.wait_for(anext(seen), 5) is None


@contextlib.asynccontextmanager
async def following(kv: KeyValue) -> AsyncIterator[AsyncIterator[Entry | None]]:
    async with contextlib.aclosing(kv.watch()) as seen:
        yield seen


CONTRACT = [
    single_keys, a_deleted_key_is_created_again, one_of_many_creates_it, only_the_writer_writes,
    puts_are_kept_in_order, the_next_writer_fences_out_the_last,
    what_was_on_its_way_is_before_the_fence_or_nowhere, a_watch_shows_all_then_changes,
    an_empty_bucket_is_complete_at_once,
]  # fmt: skip
