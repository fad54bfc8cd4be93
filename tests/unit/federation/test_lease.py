"""One holder at a time: killed, frozen and cut-off holders, and clocks that are minutes apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from followme.federation.kv import KvError
from followme.federation.lease import KEY, Holder, Lease, clock, decode
from followme.federation.memory_kv import MemoryBucket, MemoryKeyValue

TTL = 0.3


def _lease(bucket: MemoryBucket, instance: str, offset: float = 0.0) -> tuple[Lease, MemoryKeyValue]:
    kv = MemoryKeyValue(bucket)
    return Lease(kv, "alpha", instance, TTL, lambda: clock() + offset), kv


async def test_first_come_first_served() -> None:
    bucket = MemoryBucket()
    ends = [_lease(bucket, f"a{number}")[0] for number in range(4)]
    tasks = [asyncio.create_task(end.acquire()) for end in ends]
    await asyncio.sleep(TTL / 3)
    assert [task.done() for task in tasks].count(True) == 1
    assert [end.valid() for end in ends].count(True) == 1
    assert next(end for end in ends if end.valid()).epoch == 1
    for task in tasks:
        task.cancel()


async def test_an_epoch_that_the_bucket_has_lost_is_not_begun_again() -> None:
    lost, above = _lease(MemoryBucket(), "a1")[0], [60]
    assert await lost.acquire(above=lambda: above[0]) == 61
    await lost.release()
    above[0] = 5
    assert await lost.acquire(above=lambda: above[0]) == 62


async def test_it_is_held_as_long_as_it_is_renewed() -> None:
    bucket = MemoryBucket(delay=0.01)
    one, two = _lease(bucket, "a1")[0], _lease(bucket, "a2")[0]
    await one.acquire()
    holding, waiting = asyncio.create_task(one.hold()), asyncio.create_task(two.acquire())
    end = time.monotonic() + 4 * TTL
    while time.monotonic() < end:
        assert one.valid()
        await asyncio.sleep(0.01)
    assert not waiting.done()
    assert two.holder == Holder(1, "a1", TTL)
    waiting.cancel()
    holding.cancel()


@pytest.mark.parametrize("offset", [-300.0, 0.0, 300.0])
async def test_a_killed_holder_is_followed_however_the_clocks_are_set(offset: float) -> None:
    bucket = MemoryBucket()
    one, two = _lease(bucket, "a1", offset)[0], _lease(bucket, "a2")[0]
    await one.acquire()
    holding = asyncio.create_task(one.hold())
    waiting = asyncio.create_task(two.acquire())
    await asyncio.sleep(TTL)
    assert one.valid()
    holding.cancel()
    begin = time.monotonic()
    assert await waiting == 2
    took = time.monotonic() - begin
    assert not one.valid()
    assert two.valid()
    assert took < 2 * TTL


async def test_a_holder_that_is_cut_off_has_given_up_before_the_next_begins() -> None:
    bucket = MemoryBucket()
    (one, kv), (two, _) = _lease(bucket, "a1"), _lease(bucket, "a2")
    await one.acquire()
    holding, waiting = asyncio.create_task(one.hold()), asyncio.create_task(two.acquire())
    await asyncio.sleep(TTL / 2)
    kv.cut = True
    while not waiting.done():
        assert not (one.valid() and two.valid())
        await asyncio.sleep(0.002)
    assert not one.valid()
    await asyncio.wait_for(holding, 1)
    kv.cut = False
    assert await _now_or_never(one.acquire(), TTL / 2) is None
    assert two.valid()


async def _now_or_never(wanted: object, seconds: float) -> object:
    task = asyncio.ensure_future(wanted)  # type: ignore[call-overload]
    await asyncio.wait([task], timeout=seconds)
    if task.done():
        return task.result()
    task.cancel()
    return None


async def test_a_frozen_holder_wakes_up_and_knows_that_it_is_none() -> None:
    bucket = MemoryBucket()
    (one, kv), (two, _) = _lease(bucket, "a1"), _lease(bucket, "a2")
    await one.acquire()
    assert one.valid()
    waiting = asyncio.create_task(two.acquire())  # nobody renews: the first one is frozen
    assert await waiting == 2
    assert not one.valid()
    await asyncio.wait_for(one.hold(), 1)
    with pytest.raises(KvError):
        await kv.update(KEY, b"x", 1)
    assert decode(bucket.entries[KEY].value or b"") == Holder(2, "a2", TTL)


async def test_a_renewal_whose_acknowledgement_was_lost_is_still_ours() -> None:
    bucket = MemoryBucket()
    lease, kv = _lease(bucket, "a1")
    await lease.acquire()
    right: Callable[[str, bytes, int], object] = kv.update
    lost = 0

    async def update(key: str, value: bytes, revision: int) -> int:
        nonlocal lost
        made: int = await right(key, value, revision)  # type: ignore[misc]
        lost += 1
        if lost == 1:
            raise KvError("the answer is lost")
        return made

    kv.update = update  # type: ignore[method-assign]
    holding = asyncio.create_task(lease.hold())
    end = time.monotonic() + 3 * TTL
    while time.monotonic() < end:
        assert lease.valid()
        await asyncio.sleep(0.01)
    assert lost > 2
    holding.cancel()


async def test_who_gives_it_back_is_followed_at_once() -> None:
    bucket = MemoryBucket()
    one, two = _lease(bucket, "a1")[0], _lease(bucket, "a2")[0]
    await one.acquire()
    waiting = asyncio.create_task(two.acquire())
    await asyncio.sleep(TTL / 4)
    await one.release()
    assert not one.valid()
    begin = time.monotonic()
    assert await waiting == 2
    assert time.monotonic() - begin < TTL / 2
    await two.release()
    assert await one.acquire() == 3


async def test_a_bucket_that_is_away_only_makes_it_wait() -> None:
    bucket = MemoryBucket(away=True)
    lease = _lease(bucket, "a1")[0]
    waiting = asyncio.create_task(lease.acquire())
    await asyncio.sleep(TTL)
    assert not waiting.done()
    bucket.away = False
    assert await asyncio.wait_for(waiting, 1) == 1


@pytest.mark.parametrize("value", [
    b"", b"[]", b"1",
    b'{"epoch": 9223372036854775807, "instance": "a", "ttl_s": 1}',
    b'{"epoch": 0, "instance": "a", "ttl_s": 1}', b"\xff",
    b'{"epoch": 1, "instance": 2, "ttl_s": 1}', b'{"epoch": 1, "ttl_s": 1e9}',
])  # fmt: skip
def test_what_is_no_holder(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(value)


async def test_one_that_hesitates_lets_others_go_first_and_takes_it_if_nobody_does() -> None:
    bucket = MemoryBucket()
    (one, _), (two, _), (three, _) = (_lease(bucket, f"a{number}") for number in (1, 2, 3))
    await one.acquire()
    hesitant = asyncio.create_task(two.acquire(lambda: 2 * TTL))
    await asyncio.sleep(TTL / 2)
    await one.release()
    assert await three.acquire() == 2
    assert not hesitant.done()
    begin = time.monotonic()
    await three.release()
    assert await hesitant == 3
    assert time.monotonic() - begin > TTL
