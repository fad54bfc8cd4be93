"""A host's end of orders to carry machines: each is carried out once, however often it is asked for."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from ipaddress import IPv4Address
from typing import Any

from followme.federation.orders import Carry, CarryAnswer, OrderError, decode_order
from followme.migration.host import MigrationError
from followme.migration.mover import Result
from followme.store import StoreError

log = logging.getLogger(__name__)

WAIT_S = 1.0
"""An answer waits so long for the end of it."""
MAX_ORDERS = 256
"""Of orders that are remembered; the oldest that is over goes for one more."""


class Carrying:
    """``carry`` carries a machine of the site to another; ``identifier`` knows whose address is whose, and ``runs``
    what runs here."""

    def __init__(
        self, site: str, carry: Callable[[str, str], Awaitable[Result]], runs: Callable[[], Mapping[str, Any]],
        identifier: Callable[[str], IPv4Address],
    ) -> None:  # fmt: skip
        self._site, self._carry, self._runs, self._identifier = site, carry, runs, identifier
        self._orders: OrderedDict[str, asyncio.Task[CarryAnswer]] = OrderedDict()

    async def receive(self, payload: bytes) -> bytes:
        """An order; its answer says how far it is."""
        try:
            order = decode_order(payload)
        except OrderError as error:
            return CarryAnswer("failed", str(error)).encode()
        work = self._orders.get(order.id)
        if work is None:
            begun = self._begin(order)
            if isinstance(begun, CarryAnswer):
                return begun.encode()
            work = begun
        await asyncio.wait([work], timeout=WAIT_S)
        if not work.done():
            return CarryAnswer("running", f"on its way to {order.network}", self._site).encode()
        if work.cancelled():
            return CarryAnswer("again", "the agent stops", self._site).encode()
        return work.result().encode()

    def _begin(self, order: Carry) -> asyncio.Task[CarryAnswer] | CarryAnswer:
        machine = next((name for name in self._runs() if self._known(name) == order.identifier), None)
        if machine is None:
            return CarryAnswer("elsewhere", f"{order.identifier} does not run at {self._site}", self._site)
        if order.network == self._site:
            return CarryAnswer("done", f"{machine} is at {self._site}", self._site)
        over = [id for id, work in self._orders.items() if work.done()]
        if len(self._orders) >= MAX_ORDERS:
            if not over:
                return CarryAnswer("again", f"{MAX_ORDERS} orders are under way at {self._site}", self._site)
            del self._orders[over[0]]
        log.info("order %s: %s goes to %s", order.id, machine, order.network)
        work = asyncio.create_task(self._run(machine, order.network), name=f"order {order.id}")
        self._orders[order.id] = work
        return work

    def _known(self, machine: str) -> IPv4Address | None:
        try:
            return self._identifier(machine)
        except MigrationError:
            return None

    async def _run(self, machine: str, network: str) -> CarryAnswer:
        try:
            result = await self._carry(machine, network)
        except (MigrationError, StoreError) as error:
            text = "; ".join([str(error), *getattr(error, "__notes__", [])])
            log.warning("order to carry %s to %s: %s", machine, network, text)
            return CarryAnswer("failed", text, self._site)
        return CarryAnswer("done", f"{machine} is at {network}", self._site, asdict(result))

    async def close(self) -> None:
        """Its machines are the site's, which ends what is under way."""
        for work in self._orders.values():
            work.cancel()
        await asyncio.gather(*self._orders.values(), return_exceptions=True)
