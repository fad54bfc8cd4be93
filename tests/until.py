"""Waiting for what happens elsewhere: in another task, behind a socket, in another process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], what: str = "what is waited for", seconds: float = 5.0) -> None:
    """``AssertionError`` that says what has not come true in time."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.001)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:g} s") from None
