"""Switches with a connection to each of several controllers, and ways to servers that may be blocked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from tests.unit.continuity.flowtable import FlowTable
from tests.unit.continuity.switch import Shared, Switch

from followme.openflow import FlowMod, Message, PacketIn, PacketOut
from followme.openflow.constants import OFPCR_ROLE_SLAVE

BACKOFF_S = 0.2
"""Between a switch's attempts to connect."""


class _Line(Switch):
    """One connection of a switch that has several; ``refused`` is what it was told there as a slave."""

    def __init__(self, datapath: int, both: Both) -> None:
        super().__init__(datapath, both.table)
        self.shared = both.shared
        self._both = both
        self.accepted = self.refused = 0

    def _take(self, xid: int, message: Message) -> None:
        if isinstance(message, FlowMod | PacketOut) and self.role == OFPCR_ROLE_SLAVE:
            self.refused += 1
        elif isinstance(message, FlowMod | PacketOut):
            self.accepted += 1
            self._both.received.append(message)
        super()._take(xid, message)


class Gate:
    """A way to a server that may be blocked without a word, as by a broken cable far away."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._free = asyncio.Event()
        self._free.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", 0)
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def block(self, *, on: bool = True) -> None:
        (self._free.clear if on else self._free.set)()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.removeprefix("nats://").rpartition(":")
        there, out = await asyncio.open_connection(host, int(port))
        for one in (self._carry(reader, out), self._carry(there, writer)):
            task = asyncio.ensure_future(one)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(1 << 16):
                await self._free.wait()
                sink.write(data)
        sink.close()

    async def close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Both:
    """A switch with a connection to each controller of its domain, and the way back when one breaks."""

    def __init__(self, datapath: int, ports: Sequence[int]) -> None:
        self.datapath, self.ports = datapath, ports
        self.table = FlowTable()
        self.shared = Shared()
        self.received: list[Message] = []
        self.told = 0
        self.lines: dict[int, _Line] = {}
        self.cut: set[int] = set()
        self._tasks = [asyncio.ensure_future(self._keep(port)) for port in ports]

    async def _keep(self, port: int) -> None:
        while True:
            if port not in self.cut:
                line = _Line(self.datapath, self)
                with contextlib.suppress(OSError):
                    await line.connect(port)
                    self.lines[port] = line
                    await line.closed.wait()
                    if self.shared.master is line:
                        self.shared.master = None
                self.lines.pop(port, None)
            await asyncio.sleep(BACKOFF_S)

    async def disconnect(self, port: int) -> None:
        """Until ``cut`` is emptied."""
        self.cut.add(port)
        if port in self.lines:
            await self.lines[port].leave()

    def say(self, message: PacketIn) -> None:
        self.told += 1
        for line in self.lines.values():
            if line.role != OFPCR_ROLE_SLAVE:
                line.say(message)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for line in list(self.lines.values()):
            line.stop_reading()
