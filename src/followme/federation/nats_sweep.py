"""What is left of deleted keys in a stream (a message each that says so) goes after an hour.

It stays that long so that whoever follows the bucket learns of the deletion even if it was away; who was away for
longer than ``AWAY_S`` has to begin anew (``nats_watch``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from .kv import KvError

MARKERS_S = 3600.0
AWAY_S = MARKERS_S / 2
SWEEP_S = 30.0
_AT_ONCE = 500
_MOST = 1_000_000


class Sweeper:
    """``erase`` takes the sequence of one message away; it raises ``KvError`` if it cannot, or if it is gone."""

    def __init__(self, erase: Callable[[int], Awaitable[None]]) -> None:
        self._erase = erase
        self._markers: deque[tuple[float, int]] = deque(maxlen=_MOST)
        self._task: asyncio.Task[None] | None = None

    def note(self, sequence: int) -> None:
        """A deletion is at this sequence, from now on or from before."""
        self._markers.append((asyncio.get_running_loop().time() + MARKERS_S, sequence))

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.ensure_future(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            for _ in range(_AT_ONCE):
                if not self._markers or self._markers[0][0] > now:
                    break
                try:
                    await self._erase(self._markers.popleft()[1])
                except KvError:
                    continue  # the key was written again, or the server is away: then it stays, a few octets

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
