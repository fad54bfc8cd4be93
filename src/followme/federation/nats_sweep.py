"""What is left of deleted keys in a stream (a message each that says so) goes after some minutes, all of it.

It stays that long so that whoever follows the bucket learns of the deletion even if it was away; who was away for
longer than ``AWAY_S`` has to begin anew (``nats_watch``). Each takes some 160 octets of the bucket: what is
deleted within ``MARKERS_S`` must fit, and where very much is deleted it goes sooner, though not before ``_SOONER``
of that.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice

from .kv import KvError

MARKERS_S = 300.0
AWAY_S = MARKERS_S / 2
SWEEP_S = 5.0
AT_ONCE = 128
"""Erasures in flight: each is a request to the server, which has the puts of the bucket to do meanwhile."""
_MANY = 500_000
_SOONER = 0.6
_FORGET = 2
"""Who is not the writer leaves it to the writer, and forgets what it must have erased long ago."""


class GoneError(KvError):
    """No such message is in the stream."""


class Sweeper:
    """``erase`` takes the sequence of one message away; ``GoneError`` if it is not there, ``KvError`` if the
    server says nothing. ``may`` is whether it is ours to do that now."""

    def __init__(self, erase: Callable[[int], Awaitable[None]], may: Callable[[], bool] = lambda: True) -> None:
        self._erase, self._may = erase, may
        self._slots: deque[tuple[float, array[int]]] = deque()
        self._highest = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return sum(len(sequences) for _, sequences in self._slots)

    def note(self, sequence: int) -> None:
        """A deletion is at this sequence, from now on or from before. They come in order; again is harmless."""
        if sequence <= self._highest:
            return
        self._highest = sequence
        now = asyncio.get_running_loop().time()
        if not self._slots or now > self._slots[-1][0]:  # one for each time that is swept, not each deletion
            self._slots.append((now + min(SWEEP_S, MARKERS_S), array("Q")))
        self._slots[-1][1].append(sequence)

    def start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            while (slot := self._due()) is not None:
                if left := await self._erase_all(slot[1]):
                    self._slots.appendleft((slot[0], left))
                    break

    def _due(self) -> tuple[float, array[int]] | None:
        """The oldest, taken out, if its time has come."""
        now = asyncio.get_running_loop().time()
        age_s = MARKERS_S * (_SOONER if len(self) > _MANY else 1)
        if not self._may():
            age_s = MARKERS_S * _FORGET
            while self._slots and self._slots[0][0] + age_s <= now:
                self._slots.popleft()
            return None
        return self._slots.popleft() if self._slots and self._slots[0][0] + age_s <= now else None

    async def _erase_all(self, sequences: array[int]) -> array[int]:
        """What could not be erased, because the server is away."""
        rest = iter(sequences)
        while part := list(islice(rest, AT_ONCE)):
            results = await asyncio.gather(*(self._erase(one) for one in part), return_exceptions=True)
            failed = [
                one for one, result in zip(part, results, strict=True)
                if isinstance(result, KvError) and not isinstance(result, GoneError)
            ]  # fmt: skip
            if failed:
                return array("Q", [*failed, *rest])
        return array("Q")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
