"""The papers' Mobility Detector: a known node shows up somewhere else. Has it moved, or does another pretend?

A node that moved does not answer at its old port any more: the port is gone, or an ARP request there stays
without reply. Only then the new place is believed; otherwise the claim is refused.
A machine moves when we carry it; one that shows up elsewhere unasked is checked in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from followme.domain import Node

ALIVE_WAIT_S = 0.15
ALIVE_TRIES = 2
MAX_CHECKS = 1024


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
                    break
            self._end(node.name, True)
            return verdict.result()
        finally:
            del self._checks[node.name]
            verdict.cancel()

    async def verdict(self, node: Node) -> bool | None:
        """As ``has_left``, but waits for a check that is under way; ``None`` only if too many are."""
        while (check := self._checks.get(node.name)) is not None:
            await asyncio.wait((check,))
            if not check.cancelled():
                return check.result()
        return await self.has_left(node)

    def _end(self, node: str, left: bool) -> None:
        verdict = self._checks.get(node)
        if verdict is not None and not verdict.done():
            verdict.set_result(left)
