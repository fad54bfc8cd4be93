"""Counting what a federation costs: the orders that pass its bus, and the entries that its switches hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from followme.continuity.southbound import Southbound
from followme.federation.bus import Bus, Handler
from followme.federation.codec import decode_orders
from followme.federation.messages import Order

Sent = tuple[str, str, str]
"""Sender's domain, receiver's domain, kind of the order."""


class CountedBus:
    """A ``Bus`` that counts what is asked over it: ``orders`` by sender, receiver and kind, ``frames`` by sender
    and receiver. Each of both that is answered has one answer; what is repeated counts again."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.orders: Counter[Sent] = Counter()
        self.frames: Counter[tuple[str, str]] = Counter()
        self.octets = 0

    @property
    def domain(self) -> str:
        return self._bus.domain

    async def request(self, to: str, payload: bytes, timeout: float) -> bytes:
        orders: list[Order] = decode_orders(payload)[1]
        self.frames[self.domain, to] += 1
        self.orders.update((self.domain, to, type(order).__name__) for order in orders)
        answer = await self._bus.request(to, payload, timeout)
        self.octets += len(payload) + len(answer)
        return answer

    async def serve(self, handler: Handler) -> None:
        await self._bus.serve(handler)

    async def request_host(self, host: str, payload: bytes, timeout: float) -> bytes:
        return await self._bus.request_host(host, payload, timeout)

    async def serve_hosts(self, handler: Handler) -> None:
        await self._bus.serve_hosts(handler)

    async def pause(self) -> None:
        await self._bus.pause()

    async def close(self) -> None:
        await self._bus.close()


def orders_of(orders: Mapping[Sent, int], domain: str | None = None) -> int:
    """Orders that ``domain`` has sent or received (all, if that is ``None``)."""
    return sum(count for (sender, receiver, _), count in orders.items() if domain in (None, sender, receiver))


async def entries(southbounds: Mapping[str, tuple[Southbound, int, str]]) -> dict[str, int]:
    """Entries as the switches themselves count them. By network: southbound, datapath, their owner there."""
    return {name: len(await southbound.flows(datapath, owner))
            for name, (southbound, datapath, owner) in southbounds.items()}  # fmt: skip
