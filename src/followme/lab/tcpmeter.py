"""One TCP session to an echo port, watched: does each byte come back once and in order, how long does it stall?"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Self

from followme.system.netns import socket_in

RECORD_BYTES = 64
_NUMBER = struct.Struct("!Q")
_CONNECT_SECONDS = 10.0

NOTED_S = 0.012
"""Stalls longer than this are kept one by one: a little more than the time between two records."""
MAX_NOTED = 100_000


def record(number: int) -> bytes:
    """The numbered record: eight bytes of number, then bytes that differ from record to record."""
    return _NUMBER.pack(number) + bytes((number + at) & 0xFF for at in range(RECORD_BYTES - _NUMBER.size))


@dataclass(frozen=True, slots=True)
class TcpReport:
    """What became of the session.

    ``intact``: all that came back is byte for byte what was sent, nothing lost, nothing twice.
    ``alive``: at the end the session still worked and all that was sent had come back.
    ``longest_stall_s``: the longest time without a byte while bytes were awaited; it began at
    ``longest_stall_at_s`` (``time.monotonic()``).
    """

    sent_bytes: int
    received_bytes: int
    intact: bool
    alive: bool
    longest_stall_s: float
    longest_stall_at_s: float
    error: str | None
    stalls: tuple[tuple[float, float], ...] = ()
    """(begin, end) of all stalls longer than ``NOTED_S``, in order."""

    def longest_between(self, begin: float, end: float) -> float:
        """The longest stall that began between ``begin`` and ``end``; 0 if none was noted."""
        return max((b - a for a, b in self.stalls if begin <= a < end), default=0.0)


class StreamCheck:
    """Compares the echoed stream with the records sent, and times the gaps. No I/O; ``now`` is handed in."""

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.intact = True
        self.longest_stall_s = 0.0
        self.longest_stall_at_s = 0.0
        self.stalls: deque[tuple[float, float]] = deque(maxlen=MAX_NOTED)
        self._waiting_since: float | None = None
        self._awaited = bytearray()

    @property
    def outstanding(self) -> int:
        """Bytes that have not come back yet."""
        return self.sent - self.received

    def send(self, data: bytes, now: float) -> None:
        """``data`` goes out."""
        if self._waiting_since is None:
            self._waiting_since = now
        self.sent += len(data)
        self._awaited += data

    def receive(self, data: bytes, now: float) -> None:
        """``data`` came in."""
        self.pause(now)
        self.received += len(data)
        if self._awaited[: len(data)] != data:
            self.intact = False
        del self._awaited[: len(data)]
        self._waiting_since = now if self._awaited else None

    def pause(self, now: float) -> None:
        """Count the time since the last byte as a stall so far (the end of the session calls it too)."""
        if self._waiting_since is not None and now - self._waiting_since > self.longest_stall_s:
            self.longest_stall_s = now - self._waiting_since
            self.longest_stall_at_s = self._waiting_since
        if self._waiting_since is not None and now - self._waiting_since > NOTED_S:
            self.stalls.append((self._waiting_since, now))


class TcpMeter:
    """Sends a record each ``interval_s`` while the ``async with`` block runs; then read ``report()``.

    At the end of the block it waits up to ``linger_s`` for what is still on its way.
    """

    def __init__(
        self,
        namespace: str | None,
        target: IPv4Address,
        *,
        port: int = 7,
        interval_s: float = 0.010,
        linger_s: float = 3.0,
    ) -> None:
        self.namespace = namespace
        self.target = target
        self.port = port
        self.interval_s = interval_s
        self.linger_s = linger_s
        self.check = StreamCheck()
        self._error: str | None = None
        self._alive = False
        self._stop = asyncio.Event()
        # Set while nothing is awaited, or nothing can come any more.
        self._settled = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._socket = await self._open()
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sender = asyncio.create_task(self._send())
        self._receiver = asyncio.create_task(self._receive())
        return self

    async def _open(self) -> socket.socket:
        """The session's socket, which does not block."""
        made = socket_in(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        where = f"{self.target} port {self.port}"
        try:
            connect = asyncio.get_running_loop().sock_connect(made, (str(self.target), self.port))
            await asyncio.wait_for(connect, _CONNECT_SECONDS)
        except TimeoutError:
            made.close()
            raise TimeoutError(f"no TCP connection to {where} within {_CONNECT_SECONDS:g} s") from None
        except BaseException as error:
            made.close()
            if isinstance(error, OSError):
                raise OSError(error.errno, f"no TCP connection to {where}: {error.strerror}") from None
            raise
        return made

    async def __aexit__(self, *_: object) -> None:
        try:
            # The sender finishes the record that it has begun: half a record would look like loss.
            self._stop.set()
            deadline = time.monotonic() + self.linger_s
            await asyncio.wait([self._sender], timeout=self.linger_s)
            if self.check.outstanding == 0:
                self._settled.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), max(0.0, deadline - time.monotonic()))
            self.check.pause(time.monotonic())
            self._alive = self._error is None and self.check.outstanding == 0
        finally:
            await _end(self._sender)
            await _end(self._receiver)
            self._socket.close()

    def report(self) -> TcpReport:
        """The figures; complete once the block has ended."""
        check = self.check
        return TcpReport(
            sent_bytes=check.sent,
            received_bytes=check.received,
            intact=check.intact,
            alive=self._alive,
            longest_stall_s=check.longest_stall_s,
            longest_stall_at_s=check.longest_stall_at_s,
            error=self._error,
            stalls=tuple(check.stalls),
        )

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        number = 0
        due = time.monotonic()
        with contextlib.suppress(OSError):  # the receiver meets the same error and reports it
            while not self._stop.is_set() and self._error is None:
                data = record(number)
                self._settled.clear()
                self.check.send(data, time.monotonic())
                await loop.sock_sendall(self._socket, data)
                number += 1
                due = max(due + self.interval_s, time.monotonic())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), due - time.monotonic())

    async def _receive(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(self._socket, 65536):
                self.check.receive(data, time.monotonic())
                if self.check.outstanding <= 0:
                    self._settled.set()
            self._error = "the other end closed the session"
        except OSError as error:
            self._error = f"the session broke: {error.strerror}"
        self._settled.set()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
