"""What waits to be written to switches: until the turn's end, and until it is safe in the store.

A commit to a file is safe at once, and what a read has caused is written at its end. Where the store replicates,
a commit is safe when others have it: until then what was caused waits here, in order, and is never written if that
fails.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from followme.continuity.channel import Channel
    from followme.continuity.southbound import Southbound

NOT_STORED = "what it was to be told could not be stored; it gets its rules anew"

_Held = tuple[Awaitable[object] | None, list[tuple["Channel", bytes]]]


class Outbox:
    def __init__(self, southbound: Southbound) -> None:
        self._southbound = southbound
        self._dirty: set[Channel] = set()
        self._held: deque[_Held] = deque()
        self._writer: asyncio.Task[None] | None = None

    def touch(self, channel: Channel) -> None:
        """It has something to say: at the end of this turn."""
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self.flush)
        self._dirty.add(channel)

    def flush(self) -> None:
        """Write what waits, if all that was committed is safe. So a crash at any line can be recovered. (A standby
        says nothing that has to be stored.)"""
        dirty = self._dirty
        if not dirty:
            return
        self._dirty = set()
        southbound = self._southbound
        stored = None if southbound.stands_by else southbound.handlers.stored()
        if stored is None and not self._held:
            for channel in dirty:
                channel.write()
            return
        held = [(channel, data) for channel in dirty if (data := channel.take())]
        if not held:
            return
        self._held.append((stored, held))
        if self._writer is None:
            self._writer = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        try:
            while self._held:
                stored = self._held[0][0]
                if stored is not None:
                    await asyncio.shield(asyncio.ensure_future(stored))
                for channel, data in self._held.popleft()[1]:
                    channel.put(data)
        except Exception as error:
            self._southbound.complaints.fault(error)
            self._give_up()
        finally:
            if self._writer is asyncio.current_task():
                self._writer = None

    def take_back(self) -> None:
        """What was queued in this read is not to be sent: it could not be written down."""
        dirty, self._dirty = self._dirty, set()
        for channel in dirty:
            if channel.connection.data_to_send():
                channel.abort(NOT_STORED)

    def _give_up(self) -> None:
        """What follows was caused by commits behind the one that is lost."""
        held, self._held = self._held, deque()
        for channel in {channel: None for _, some in held for channel, _ in some}:
            channel.abort(NOT_STORED)

    def drop(self, channels: Collection[Channel]) -> None:
        """Forget what waits for these. Of the others nothing was written down: they need not wait any more."""
        for channel in channels:
            channel.connection.data_to_send()
            channel.held = 0
        if self._writer is not None:
            self._writer.cancel()
            self._writer = None
        held, self._held = self._held, deque()
        for _, some in held:
            for channel, data in some:
                if channel not in channels:
                    channel.put(data)

    def lost(self, channel: Channel) -> None:
        self._dirty.discard(channel)

    def close(self) -> None:
        """Nothing that waits is written any more."""
        if self._writer is not None:
            self._writer.cancel()
