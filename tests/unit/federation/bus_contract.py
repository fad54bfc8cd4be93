"""What every bus does, whether it is in memory or a nats-server."""

from __future__ import annotations

import asyncio
import contextlib

from followme.federation.bus import Bus, BusError


async def served_before_and_after_a_pause(alpha: Bus, beta: Bus) -> tuple[bool, bool]:
    """Whether beta still serves a request that takes for ever, before it is paused and after it."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def forever(sender: str, payload: bytes) -> bytes:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return b""

    await beta.serve(forever)
    async with asyncio.timeout(10):
        while not began.is_set():  # it may take a moment until beta is found
            with contextlib.suppress(BusError):
                await alpha.request("beta", b"x", 0.3)
    before = not ended.is_set()
    await beta.pause()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), 2)
    return before, not ended.is_set()
