"""What is left of deleted keys goes when its time has come: all of it, and no live key's."""

from __future__ import annotations

import asyncio

import pytest

from followme.federation import nats_sweep
from followme.federation.kv import KvError
from followme.federation.nats_sweep import GoneError, Sweeper


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_sweep, "MARKERS_S", 0.02)
    monkeypatch.setattr(nats_sweep, "SWEEP_S", 0.01)


async def test_all_that_are_due_go_however_many() -> None:
    erased: list[int] = []
    together: list[int] = [0, 0]

    async def erase(sequence: int) -> None:
        together[0] += 1
        together[1] = max(together)
        await asyncio.sleep(0)
        together[0] -= 1
        erased.append(sequence)
        if sequence % 7 == 0:
            raise GoneError("the key was written again")

    sweeper = Sweeper(erase)
    for sequence in range(1, 5001):
        sweeper.note(sequence)
        sweeper.note(sequence)  # seen by the watch, too
    sweeper.start()
    async with asyncio.timeout(5):
        while len(sweeper):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    sweeper.stop()
    assert sorted(erased) == list(range(1, 5001))
    assert 1 < together[1] <= nats_sweep.AT_ONCE


async def test_those_that_could_not_be_erased_stay_noted() -> None:
    away = True
    erased: list[int] = []

    async def erase(sequence: int) -> None:
        if away and sequence > 3:
            raise KvError("no answer")
        erased.append(sequence)

    sweeper = Sweeper(erase)
    for sequence in range(1, 301):
        sweeper.note(sequence)
    sweeper.start()
    await asyncio.sleep(0.1)
    assert erased == [1, 2, 3]
    away = False
    async with asyncio.timeout(5):
        while len(erased) < 300:
            await asyncio.sleep(0.01)
    sweeper.stop()
    assert sorted(erased) == list(range(1, 301))


async def test_who_is_not_the_writer_erases_nothing_and_forgets_them_later() -> None:
    erased: list[int] = []

    async def erase(sequence: int) -> None:
        erased.append(sequence)

    sweeper = Sweeper(erase, lambda: False)
    sweeper.note(1)
    sweeper.start()
    async with asyncio.timeout(5):
        while len(sweeper):
            await asyncio.sleep(0.01)
    sweeper.stop()
    assert erased == []
