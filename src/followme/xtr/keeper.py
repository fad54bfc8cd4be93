"""The state file kept up to date: in a thread, as the disk may take its time and a router must not."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from followme.xtr.errors import DataPlaneError

from .state import State, StateFile

log = logging.getLogger(__name__)

RETRY_S = 1.0
LOG_EVERY_S = 60.0


class StateKeeper:
    """Writes what ``current`` returns to ``file`` whenever it has changed, one write at a time."""

    def __init__(self, file: StateFile, current: Callable[[], State]) -> None:
        self._file, self._current = file, current
        self._saved: State | None = None
        self._writing: asyncio.Task[None] | None = None
        self._retry_at = self._quiet_until = float("-inf")
        self._failed = False

    def later(self) -> None:
        """Write soon what has changed. If that fails it is logged, now and then, and tried again."""
        if self._writing is None and time.monotonic() >= self._retry_at and self._current() != self._saved:
            self._begin()

    async def now(self) -> None:
        """On the disk when this returns; ``DataPlaneError`` if it cannot be."""
        writing = self._writing
        if writing is None or writing.done():
            writing = self._begin()
        await asyncio.shield(writing)  # it also writes what has changed since it began

    async def close(self) -> None:
        """Write for the last time."""
        try:
            await self.now()
        except DataPlaneError:
            return  # it has been logged

    def _begin(self) -> asyncio.Task[None]:
        writing = self._writing = asyncio.ensure_future(self._write())
        writing.add_done_callback(self._done)
        return writing

    async def _write(self) -> None:
        while (state := self._current()) != self._saved:
            await asyncio.get_running_loop().run_in_executor(None, self._file.save, state)
            self._saved = state

    def _done(self, writing: asyncio.Task[None]) -> None:
        if self._writing is writing:
            self._writing = None
        if writing.cancelled():
            return
        error, now = writing.exception(), time.monotonic()
        if error is None:
            if self._failed:
                log.warning("%s: written again", self._file.path)
            self._failed = False
            return
        self._retry_at = now + RETRY_S
        if not self._failed or now >= self._quiet_until:
            log.error("%s; a restart would not know of the last changes", error)
            self._quiet_until = now + LOG_EVERY_S
        self._failed = True
