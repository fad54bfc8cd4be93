"""The bucket in memory keeps what every bucket promises, and fails when a test wants it to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from followme.federation.kv import Fenced, Full, KeyValue, KvError
from followme.federation.memory_kv import MemoryBucket, MemoryKeyValue

from .kv_contract import CONTRACT, Open


@pytest.mark.parametrize("check", CONTRACT, ids=lambda one: one.__name__)
@pytest.mark.parametrize("delay", [0.0, 0.001])
async def test_contract(check: Callable[[Open], Awaitable[None]], delay: float) -> None:
    bucket = MemoryBucket(delay=delay)

    async def open() -> KeyValue:
        return MemoryKeyValue(bucket)

    await check(open)


async def test_a_full_bucket_keeps_what_it_had_and_takes_no_more_until_it_is_taken_over() -> None:
    bucket = MemoryBucket()
    kv = MemoryKeyValue(bucket)
    await kv.take_over(1)
    await kv.put("a", b"1")
    bucket.full = True
    with pytest.raises(Full):
        await kv.put("a", b"2")
    bucket.full = False
    with pytest.raises(KvError, match="full"):
        await kv.put("b", b"2")
    await kv.take_over(1)
    await kv.put("b", b"3")
    assert {key: entry.value for key, entry in (await kv.load()).items()} == {"a": b"1", "b": b"3"}


async def test_an_instance_that_is_cut_off_learns_later_that_it_was_replaced() -> None:
    bucket = MemoryBucket()
    one, two = MemoryKeyValue(bucket), MemoryKeyValue(bucket)
    await one.take_over(1)
    one.cut = True
    with pytest.raises(KvError, match="away"):
        await one.put("a", b"1")
    await two.take_over(2)
    one.cut = False
    with pytest.raises(Fenced):
        await one.take_over(1)


async def test_a_put_is_not_acknowledged_before_its_time() -> None:
    bucket = MemoryBucket(delay=0.05)
    kv = MemoryKeyValue(bucket)
    await kv.take_over(1)
    future = kv.submit("a", b"1")
    await asyncio.sleep(0.01)
    assert not future.done()
    await future
