"""The processes beside the map server that answer look-ups: started, fed, and started again."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from followme.lisp import EidPrefix, MappingRecord

from .answers import Answers, Entry
from .lookup import (
    ANSWERED,
    CHANGES,
    CONFIGURED,
    MAX_PACKET,
    READY,
    SETUP,
    pack_changes,
    unpack_answered,
    unpack_passed,
)
from .udp import DRAIN, Received

log = logging.getLogger(__name__)

RESTART_S: Final = 1.0


class Helper:
    """One such process. ``received`` gets the datagrams that it passes on, by the number of the listen address."""

    def __init__(
        self, setup: dict[str, Any], configured: list[EidPrefix], answers: Answers,
        received: Callable[[list[Received], int], None],
    ) -> None:  # fmt: skip
        self.answered = 0
        self.process: asyncio.subprocess.Process | None = None
        self._setup = setup
        self._configured = configured
        self._answers = answers
        self._received = received
        self._channel: socket.socket | None = None
        self._behind: dict[EidPrefix, Entry | None] = {}
        self._ready = False

    async def run(self) -> None:
        """Keep it alive until cancelled."""
        while True:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                await self._once(ours, theirs)
                log.warning("a process that answers look-ups has ended; another starts in %g s", RESTART_S)
            except OSError as error:
                log.warning("no process that answers look-ups could be started: %s", error)
            finally:
                self._channel = None
                loop = asyncio.get_running_loop()
                loop.remove_reader(ours)
                loop.remove_writer(ours)
                ours.close()
                theirs.close()
                if self.process is not None:
                    await self.process.wait()  # it ends with its channel
            await asyncio.sleep(RESTART_S)

    def feed(self, changes: dict[EidPrefix, Entry | None]) -> None:
        """The newest state of each EID is kept until the process takes it: no more than the table is long."""
        if self._channel is not None:
            self._behind.update(changes)
            self._flush()

    async def _once(self, ours: socket.socket, theirs: socket.socket) -> None:
        ours.setblocking(False)
        for one in (ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "followme.mapsystem.lookup", str(theirs.fileno()),
            pass_fds=(theirs.fileno(),), stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(ours, SETUP + json.dumps(self._setup).encode())
        prefixes = ((eid, Entry(MappingRecord(eid))) for eid in self._configured)
        for packet, _ in pack_changes(CONFIGURED, prefixes):
            await loop.sock_sendall(ours, packet)
        # The table as it is at this moment, and from now on what changes: not one before it knows the prefixes.
        self._behind = dict(self._answers.entries.items())
        self._ready, self._channel = False, ours
        loop.add_reader(ours, self._read)
        self._flush()
        await self.process.wait()

    def _flush(self) -> None:
        channel = self._channel
        if channel is None:
            return
        loop = asyncio.get_running_loop()
        try:
            pending = list(self._behind.items())
            sent = 0
            for packet, count in pack_changes(CHANGES, pending):
                channel.send(packet)
                for eid, _ in pending[sent : sent + count]:
                    del self._behind[eid]
                sent += count
            if not self._ready:
                channel.send(READY)
                self._ready = True
            loop.remove_writer(channel)
        except BlockingIOError:
            loop.add_writer(channel, self._flush)
        except OSError:
            loop.remove_writer(channel)  # it has ended; ``run`` sees that too

    def _read(self) -> None:
        channel = self._channel
        passed: dict[int, list[Received]] = {}
        if channel is None:
            return
        for _ in range(DRAIN):
            try:
                packet = channel.recv(MAX_PACKET * 2)
            except BlockingIOError:
                break
            except OSError:
                packet = b""
            if not packet:
                asyncio.get_running_loop().remove_reader(channel)
                break
            if packet[:1] == ANSWERED:
                self.answered = unpack_answered(packet)
            else:
                received, number = unpack_passed(packet)
                passed.setdefault(number, []).append(received)
        for number, some in passed.items():
            self._received(some, number)
