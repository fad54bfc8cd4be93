"""Orders to one domain share frames, within the bounds of a frame."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address

from followme.federation.codec import MAX_FRAME, MAX_ORDERS, encode_orders
from followme.federation.messages import Flipped, Order, Told, Update
from followme.federation.nouns import MAX_OLD, Mapping, Place
from followme.federation.outbox import FLYING, Outbox

from .domains import card


class Frames:
    def __init__(self) -> None:
        self.sent: list[tuple[str, Sequence[Order]]] = []
        self.flying = self.most = 0
        self.land = asyncio.Event()

    async def send(self, to: str, orders: Sequence[Order]) -> None:
        self.flying += 1
        self.most = max(self.most, self.flying)
        self.sent.append((to, orders))
        await self.land.wait()
        self.flying -= 1


def _order(number: int) -> Flipped:
    return Flipped(IPv4Address(number), "m")


async def test_what_waits_for_one_domain_is_one_frame() -> None:
    frames = Frames()
    outbox = Outbox(frames.send)
    frames.land.set()
    for number in range(100):
        outbox.put("beta" if number % 2 else "gamma", _order(number))
    await asyncio.sleep(0.01)
    assert sorted((to, len(orders)) for to, orders in frames.sent) == [("beta", 50), ("gamma", 50)]
    outbox.put("beta", _order(1))
    await asyncio.sleep(0.01)
    assert frames.sent[-1] == ("beta", [_order(1)])


async def test_frames_are_bounded_and_so_are_those_on_their_way() -> None:
    frames = Frames()
    outbox = Outbox(frames.send)
    for number in range(10 * MAX_ORDERS):
        outbox.put("beta", _order(number))
    await asyncio.sleep(0.01)
    assert frames.most == FLYING
    frames.land.set()
    await asyncio.sleep(0.01)
    sent = [order for _, orders in frames.sent for order in orders]
    assert sent == [_order(number) for number in range(10 * MAX_ORDERS)]
    assert all(len(orders) <= MAX_ORDERS for _, orders in frames.sent)


async def test_large_orders_fit_into_their_frames() -> None:
    frames = Frames()
    outbox = Outbox(frames.send)
    frames.land.set()
    name = "\u00e9" * 60
    old = tuple(Place(name, IPv4Address(number)) for number in range(MAX_OLD))
    mapping = Mapping(card(1), 1, Place(name, IPv4Address(1)), old=old, signature=bytes(64))
    orders: list[Order] = []
    for number in range(200):
        orders.append(Update(mapping, tuple(f"{name}{each}" for each in range(number % 400))))
        orders.append(Told(IPv4Address(1), {f"{name}{each}": 1 << 50 for each in range(number)}))
    for order in orders:
        outbox.put("beta", order)
    await asyncio.sleep(0.1)
    assert [order for _, frame in frames.sent for order in frame] == orders
    assert all(len(encode_orders(1 << 50, frame)) <= MAX_FRAME for _, frame in frames.sent)


async def test_after_close_nothing_leaves() -> None:
    frames = Frames()
    outbox = Outbox(frames.send)
    outbox.put("beta", _order(1))
    outbox.close()
    await asyncio.sleep(0.01)
    assert frames.sent == []
