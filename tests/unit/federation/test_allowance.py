"""What each sender may ask: one that floods takes from itself only, before anything of it is read."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import pytest

from followme.federation.allowance import MALFORMED, ORDERS_S, Allowance
from followme.federation.bus import BusError
from followme.federation.codec import MAX_ORDERS, encode_orders
from followme.federation.messages import Order, Told

from .domains import Four

FLOOD = encode_orders(1, [Told(IPv4Address("10.1.0.5"), {})] * MAX_ORDERS)


def test_a_sender_has_a_burst_and_then_its_rate() -> None:
    allowance = Allowance(10, 20)
    for _ in range(20):
        assert allowance.has("a", 0)
        allowance.charge("a", 1, 0)
    assert not allowance.has("a", 0)
    assert allowance.has("b", 0)
    assert allowance.has("a", 0.1)
    allowance.charge("a", 1, 0.1)
    assert not allowance.has("a", 0.1)
    assert not allowance.has("a", 0), "a clock that goes back gives nothing"


def test_who_owes_pays_back_a_burst_at_the_most() -> None:
    allowance = Allowance(10, 20)
    allowance.charge("a", 1e9, 0)
    assert not allowance.has("a", 2)
    assert allowance.has("a", 2.1)


async def test_orders_beyond_the_allowance_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Four() as four:
        engine = four.beta.engine
        read: list[bytes] = []

        def decode(payload: bytes) -> tuple[int, list[Order]]:
            read.append(payload)
            return 1, [Told(IPv4Address("10.1.0.5"), {})] * MAX_ORDERS

        monkeypatch.setattr("followme.federation.engine.decode_orders", decode)
        many = 5 * int(ORDERS_S) // MAX_ORDERS
        results = [await _answer(four, FLOOD) for _ in range(many)]
        assert not results[-1]
        assert engine.counted["too much"] == results.count(False) == many - len(read)
        assert len(read) * MAX_ORDERS <= 3 * ORDERS_S + MAX_ORDERS  # some time has passed
        monkeypatch.undo()
        await engine.receive("alpha", encode_orders(1, []))  # others are heard


async def test_what_cannot_be_read_costs_more_than_an_order() -> None:
    async with Four() as four:
        most = int(2 * ORDERS_S / MALFORMED)
        for _ in range(2 * most):
            assert not await _answer(four, b"[1,[")
        assert four.beta.engine.counted["malformed"] < 1.5 * most
        assert four.beta.engine.counted["too much"] > 0.5 * most


async def _answer(four: Four, payload: bytes) -> bool:
    try:
        async with asyncio.timeout(5):
            await four.beta.engine.receive("gamma", payload)
    except BusError:
        return False
    return True
