"""Who is not answered is let go: when a commit fails, when the bus is paused, when an effect goes wrong."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import pytest

from followme.federation.bus import BusError
from followme.federation.codec import encode_orders
from followme.federation.memory import MemoryHub
from followme.federation.messages import Told, Update
from followme.federation.nouns import Mapping, Place
from followme.federation.outputs import Effect
from followme.store import Store, StoreError

from .bus_contract import served_before_and_after_a_pause
from .domains import Four, OneDomain, card


class Failing(Store):
    failing = False

    async def replicated(self) -> None:
        if self.failing:
            raise StoreError("full")


async def test_frames_of_a_turn_that_is_not_kept_end_without_an_answer() -> None:
    store = Failing(":memory:")
    one = await OneDomain(MemoryHub().bus("alpha"), store).start()
    one.engine.know(card(0))
    await asyncio.sleep(0.05)
    store.failing = True
    frame = encode_orders(1, [Told(card(0).identifier, {"n4": 0})])
    asking = [asyncio.create_task(one.engine.receive("beta", frame)) for _ in range(8)]
    with pytest.raises(StoreError):
        await asyncio.wait_for(one.engine.wait(), 2)
    done, waiting = await asyncio.wait(asking, timeout=1)
    assert not waiting
    assert all(isinstance(task.exception(), BusError) for task in done)
    with pytest.raises(BusError):  # and one that comes later
        await asyncio.wait_for(one.engine.receive("beta", frame), 1)
    await one.stop()


async def test_frames_whose_switches_are_slow_end_when_the_engine_is_closed() -> None:
    async with Four() as four:
        four.beta.switches.pause = 60.0
        node = card(0)
        update = Update(Mapping(node, 5, Place("n3", IPv4Address("10.3.128.9"))), ("n2",))
        asking = asyncio.create_task(four.beta.engine.receive("alpha", encode_orders(1, [update])))
        async with asyncio.timeout(5):
            while not four.beta.switches.applied:
                await asyncio.sleep(0.01)
        await asyncio.wait_for(four.beta.stop(), 2)
        with pytest.raises(BusError):
            await asyncio.wait_for(asking, 1)


async def test_what_is_being_served_ends_when_the_bus_is_paused() -> None:
    hub = MemoryHub()
    alpha, beta = hub.bus("alpha"), hub.bus("beta")
    assert await served_before_and_after_a_pause(alpha, beta) == (True, False)


async def test_an_effect_that_goes_wrong_concerns_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Four(2) as four:
        def broken(effect: Effect) -> None:
            raise StoreError("full")

        monkeypatch.setattr(four.beta.switches, "effect", broken)
        await four.attach(four.beta, 0)
        await four.attach(four.beta, 1)
        await four.settled(("alpha", "beta"), "n2")
        assert four.beta.engine.counted["effects failed"] == 2
