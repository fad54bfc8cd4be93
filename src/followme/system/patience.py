"""Long work in an event loop that has other things to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

TURN_S = 0.05
"""How long work that is long may keep everything else from going on."""


async def patiently(many: Iterable[T]) -> AsyncIterator[T]:
    """Each of them, letting others have a turn now and then."""
    enough = time.monotonic() + TURN_S
    for one in many:
        yield one
        if time.monotonic() >= enough:
            await asyncio.sleep(0)
            enough = time.monotonic() + TURN_S


async def through(many: Iterable[object]) -> None:
    """All the work that is done as ``many`` goes on."""
    async for _ in patiently(many):
        pass
