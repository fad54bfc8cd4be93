"""The papers' Mobility Detector: a known node shows up somewhere else. Has it moved, or does another pretend?

A node that moved does not answer at its old port any more: the port is gone, or an ARP request there stays
without reply. Only then the new place is believed; otherwise the claim is refused, counted and logged.
A machine moves when we carry it; one that shows up elsewhere unasked is checked in the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable

from followme.domain import Mac, Network, Node, mac_text

log = logging.getLogger(__name__)

ALIVE_WAIT_S = 0.15
ALIVE_TRIES = 2
MAX_CHECKS = 1024
MAX_LOGGED = 4096
LOG_EVERY_S = 10.0
MAX_LINES = 100
"""Lines in that time: a flood from ever new addresses is counted, but does not fill the disk."""


class Refusals:
    """Counts refused claims by kind, and logs each claimant once in a while, not at the rate of its packets."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._logged: OrderedDict[tuple[str, int, Mac, str], float] = OrderedDict()
        self._window, self._lines = 0.0, 0

    def refuse(self, kind: str, network: Network, port: int, mac: Mac, what: str, now: float) -> None:
        self.counts[kind] += 1
        key = (network.name, port, mac, kind)
        last = self._logged.get(key)
        if last is not None and now - last < LOG_EVERY_S:
            return
        if now - self._window >= LOG_EVERY_S:
            if self._lines > MAX_LINES:
                log.warning("%d more refusals were not logged", self._lines - MAX_LINES)
            self._window, self._lines = now, 0
        self._lines += 1
        if self._lines > MAX_LINES:
            return
        self._logged[key] = now
        self._logged.move_to_end(key)
        while len(self._logged) > MAX_LOGGED:
            self._logged.popitem(last=False)
        log.warning("refused (%s): %s at %s port %d %s", kind, mac_text(mac), network.name, port, what)


class MoveChecks:
    """Checks under way, one a node: asks at the old place, and believes the new one if nobody answers."""

    def __init__(self, ask: Callable[[Node], Awaitable[None]]) -> None:
        self._ask = ask
        self._checks: dict[str, asyncio.Future[bool]] = {}

    def answered(self, node: str) -> None:
        """An ARP reply came from the node's old place."""
        self._end(node, False)

    def left(self, node: str) -> None:
        """The old place itself is gone."""
        self._end(node, True)

    async def has_left(self, node: Node) -> bool | None:
        """Whether the node left its old place; ``None`` if a check is under way (or too many are)."""
        if node.name in self._checks or len(self._checks) >= MAX_CHECKS:
            return None
        verdict: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._checks[node.name] = verdict
        try:
            for _ in range(ALIVE_TRIES):
                await self._ask(node)
                done, _pending = await asyncio.wait((verdict,), timeout=ALIVE_WAIT_S)
                if done:
                    return verdict.result()
            return True
        finally:
            del self._checks[node.name]

    def _end(self, node: str, left: bool) -> None:
        verdict = self._checks.get(node)
        if verdict is not None and not verdict.done():
            verdict.set_result(left)
