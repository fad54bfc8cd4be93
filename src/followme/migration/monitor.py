"""QEMU's monitor (QMP) as this room uses it: commands that fail with a sentence, and events to wait for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError, Runstate

from followme.migration.host import MigrationError

Event = Mapping[str, Any]


def seconds(event: Event) -> float:
    """When QEMU says that an event happened (its machine's wall clock)."""
    stamp = event["timestamp"]
    return float(stamp["seconds"] + stamp["microseconds"] / 1e6)


def migration_event(*states: str) -> Callable[[Event], bool]:
    return lambda event: event["event"] == "MIGRATION" and event["data"]["status"] in states


class Events:
    """QEMU's events in the order in which they came, with QEMU's own timestamps."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.events: list[Event] = []
        self._lost = ""
        self._changed = asyncio.Event()

    def add(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    def end(self, why: str = "QEMU went away") -> None:
        """None comes any more."""
        self._lost = why
        self._changed.set()

    async def wait(self, wanted: Callable[[Event], bool], since: int = 0) -> Event:
        """The first from number ``since`` on that is wanted; ``MigrationError`` if none can come any more."""
        while True:
            for event in self.events[since:]:
                if wanted(event):
                    return event
            since = len(self.events)
            if self._lost:
                raise MigrationError(f"{self.who}: {self._lost}")
            self._changed.clear()
            await self._changed.wait()


class Monitor(Events):
    """A QMP connection: ``execute`` commands, ``wait`` for events."""

    def __init__(self, who: str) -> None:
        super().__init__(who)
        self._client = QMPClient(who)
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, path: Path, who: str, timeout: float = 10.0) -> Monitor:
        """Connect; ``MigrationError`` where nobody answers at ``path``."""
        self = cls(who)
        try:
            async with asyncio.timeout(timeout):
                await self._client.connect(str(path))
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            await self.close()
            raise MigrationError(f"{who}: QMP at {path} does not answer: {str(error) or 'no answer'}") from None
        self._reader = asyncio.create_task(self._read())
        return self

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None,
                      timeout: float = 10.0) -> Any:
        """What QEMU returns; ``MigrationError`` if it refuses, is gone, or takes too long."""
        try:
            async with asyncio.timeout(timeout):
                return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise MigrationError(f"{self.who}: QEMU refused {command}: {error}") from None
        except TimeoutError:
            raise MigrationError(f"{self.who}: QEMU did not answer {command} within {timeout:g} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise MigrationError(f"{self.who}: QEMU went away at {command}: {error}") from None

    async def give(self, descriptor: int, name: str) -> None:
        """Hand QEMU a copy of a descriptor, under a name that later commands use."""
        self._client.send_fd_scm(descriptor)
        await self.execute("getfd", {"fdname": name})

    async def _read(self) -> None:
        runstate = asyncio.create_task(self._watch())
        try:
            async for event in self._client.events:
                self.add(event)
        finally:
            runstate.cancel()

    async def _watch(self) -> None:
        # QMPClient's event queue does not end when the connection does: its run state tells.
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        self.end()

    async def close(self) -> None:
        """Leave; QEMU goes on."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
            self._reader = None
        self.end()
        # Reports why the connection ended, which execute() has said already.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()
