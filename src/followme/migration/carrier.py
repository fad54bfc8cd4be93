"""The relay through which the migration stream flows, so that it flows no faster than we want.

QEMU can do no more than the relay lets through: a held relay holds the migration at a point of our choice
while the machine runs on, without any of QEMU's own timers (its rate limiter sleeps up to 100 ms, which
would be added to the machine's pause).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios

from followme.migration.host import Host, MigrationError
from followme.system.netns import socket_in

CHUNK = 256 << 10
# What has left QEMU but not the relay cannot be held back: keep it small.
SEND_BUFFER = 64 << 10
NOT_SENT = 128 << 10
_TCP_NOTSENT_LOWAT = 25
_TURN = 8


def stream_pair() -> tuple[socket.socket, socket.socket]:
    """(QEMU's end, the relay's end) of the stream."""
    theirs, ours = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return theirs, ours


async def connect(host: Host, address: tuple[str, int], timeout: float = 10.0) -> socket.socket:
    """A TCP connection from the source host to the target's management address."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = socket_in(host.namespace, family, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # On a slow path a full send buffer would be time added to the pause: keep what is not sent small.
    made.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOT_SENT)
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(made, address)
    except (OSError, TimeoutError) as error:
        made.close()
        raise MigrationError(
            f"host {host.name} cannot reach the target at {address[0]} port {address[1]}: "
            f"{str(error) or 'no answer'}; check the management network"
        ) from None
    return made


class Relay:
    """Carries bytes from ``source`` to ``target`` within a budget, and freely back."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.passed = 0
        self.ended = asyncio.Event()
        self.error: OSError | None = None
        self._source, self._target = source, target
        self._budget: int | None = 0
        self._spent = asyncio.Event()
        self._buffer = bytearray(CHUNK)
        self._left = memoryview(b"")
        self._loop = asyncio.get_running_loop()
        self._reading = self._writing = self._closed = self._shut = False
        for end in (source, target):
            end.setblocking(False)
        self._loop.add_reader(target, self._back)

    def open(self) -> None:
        """Let everything pass from now on."""
        self._budget = None
        self._watch()

    def hold(self) -> None:
        """Let nothing more in (what was taken in already is still delivered)."""
        self._budget = 0
        self._watch()

    async def let(self, quantum: int, patience: float) -> int:
        """Let at most ``quantum`` bytes in, and wait until they are on their way or ``patience`` is over.

        Returns how many bytes passed; the relay is held afterwards.
        """
        before = self.passed
        self._budget = quantum
        self._spent.clear()
        self._watch()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._spent.wait(), patience)
        self.hold()
        return self.passed - before

    @property
    def unacknowledged(self) -> int:
        """Bytes that the target's host has not confirmed yet."""
        answer = fcntl.ioctl(self._target, termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("=i", answer)[0]) + len(self._left)

    def close(self) -> None:
        """Cut the stream: both sides see the end."""
        if self._closed:
            return
        self._closed = True
        for end in (self._source, self._target):
            self._loop.remove_reader(end)
            self._loop.remove_writer(end)
            end.close()
        self._end()

    def _end(self) -> None:
        self.ended.set()
        self._spent.set()

    def _watch(self) -> None:
        if self._closed:
            return
        read = not self._left and not self._shut and self._budget != 0
        if read != self._reading:
            self._reading = read
            if read:
                self._loop.add_reader(self._source, self._forth)
            else:
                self._loop.remove_reader(self._source)
        write = bool(self._left)
        if write != self._writing:
            self._writing = write
            if write:
                self._loop.add_writer(self._target, self._flush)
            else:
                self._loop.remove_writer(self._target)

    def _forth(self) -> None:
        try:
            # Some chunks in a turn: fewer trips around the event loop, but never long.
            for _ in range(_TURN):
                if self._left or self._budget == 0:
                    break
                size = CHUNK if self._budget is None else min(CHUNK, self._budget)
                got = self._source.recv_into(self._buffer, size)
                if got == 0:
                    self._shut = True
                    self._target.shutdown(socket.SHUT_WR)
                    self._spent.set()
                    break
                if self._budget is not None:
                    self._budget -= got
                self._left = memoryview(self._buffer)[:got]
                self._send()
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)
            return
        self._watch()

    def _flush(self) -> None:
        try:
            self._send()
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)
            return
        self._watch()

    def _send(self) -> None:
        sent = self._target.send(self._left)
        self.passed += sent
        self._left = self._left[sent:]
        if not self._left and self._budget == 0:
            self._spent.set()

    def _back(self) -> None:
        # The return path carries a few bytes at a time; a source that does not read them has gone.
        try:
            data = self._target.recv(CHUNK)
            if data:
                self._source.sendall(data)
                return
            self._source.shutdown(socket.SHUT_WR)
            self._loop.remove_reader(self._target)
            self._end()
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.error = error
        self.close()
