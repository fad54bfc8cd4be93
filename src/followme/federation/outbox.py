"""Orders on their way out, by domain: what waits for one domain leaves as one frame."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from .codec import MAX_FRAME, MAX_ORDERS
from .messages import Holds, Order, Told, Update
from .nouns import MAX_NAME

FLYING = 4
"""Frames to one domain at a time: one that waits for a slow switch does not stop the others."""
_HEAD, _NUMBER, _REST = 64, 24, 2000

Send = Callable[[str, Sequence[Order]], Awaitable[None]]


class Outbox:
    """``send`` is called with at most 256 orders that make a frame of at most 512 KiB, and must not raise."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: dict[str, deque[Order]] = {}
        self._flying: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, to: str, order: Order) -> None:
        """It leaves when the caller lets go of the loop, with all that is put until then."""
        waiting = self._waiting.get(to)
        if waiting is None:
            waiting = self._waiting[to] = deque()
        waiting.append(order)
        if len(waiting) == 1 and self._flying.get(to, 0) < FLYING:
            self._start(to)

    def _start(self, to: str) -> None:
        self._flying[to] = self._flying.get(to, 0) + 1
        task = asyncio.ensure_future(self._carry(to))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, to: str) -> None:
        try:
            while self._waiting[to]:
                frame = self._frame(self._waiting[to])
                if self._waiting[to] and self._flying[to] < FLYING:
                    self._start(to)
                await self._send(to, frame)
        finally:
            self._flying[to] -= 1

    def _frame(self, waiting: deque[Order]) -> list[Order]:
        frame: list[Order] = []
        room = MAX_FRAME - _HEAD
        while waiting and len(frame) < MAX_ORDERS:
            room -= _most(waiting[0])
            if frame and room < 0:
                break
            frame.append(waiting.popleft())
        return frame

    def close(self) -> None:
        """What waits, and answers to what is flying, are given up."""
        for task in self._tasks:
            task.cancel()
        self._waiting.clear()


def _most(order: Order) -> int:
    """Octets that it takes in a frame at most: to know them exactly would be to write it twice. JSON takes up to
    six for a character of a name; reasons and migrations' names are bounded."""
    match order:
        case Update(mapping, networks, _, told):
            names = 6 + len(networks) + len(told) + len(mapping.old)
        case Holds(mapping, told):
            names = 6 + len(told) + len(mapping.old)
        case Told(_, told):
            names = len(told)
        case _:
            names = 6
    return names * (6 * MAX_NAME + _NUMBER) + _REST
