"""A delay line in user space, for kernels without netem: ``python -m followme.lab.delayline FD:MICROSECONDS ...``

Each file descriptor is a tun device that is passed in; what is read from it is written back after its
delay, in order. On SIGUSR1 one line of JSON with counters goes to standard output.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field

# 25 ms at 20 000 packets a second are 500 packets: this bound is met only when something is badly wrong.
QUEUE_LIMIT = 20_000
_BATCH = 64
_PACKET_BYTES = 65_535
_PR_SET_TIMERSLACK = 29


@dataclass(slots=True)
class Line:
    """A first-in, first-out queue in which each packet stays for ``delay_s``."""

    fd: int
    delay_s: float
    limit: int = QUEUE_LIMIT
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    packets: int = 0
    dropped: int = 0

    def put(self, packet: bytes, now: float) -> None:
        """Take a packet in, or drop it (counted) when the queue is full."""
        if len(self.queue) >= self.limit:
            self.dropped += 1
            return
        self.packets += 1
        self.queue.append((now + self.delay_s, packet))

    def due(self, now: float) -> list[bytes]:
        """The packets whose time has come, oldest first."""
        ready = []
        while self.queue and self.queue[0][0] <= now:
            ready.append(self.queue.popleft()[1])
        return ready

    def next_due(self) -> float | None:
        """When the next packet must leave; None when there is none."""
        return self.queue[0][0] if self.queue else None


def read_some(line: Line) -> None:
    """Take in what waits at the device, but not so much at once that packets due would leave late."""
    for _ in range(_BATCH):
        try:
            packet = os.read(line.fd, _PACKET_BYTES)
        except BlockingIOError:
            return
        line.put(packet, time.monotonic())


def write_due(line: Line) -> None:
    """Hand the packets whose time has come back to the kernel, which routes them on."""
    for packet in line.due(time.monotonic()):
        try:
            os.write(line.fd, packet)
        except OSError:  # the kernel refused this one (device down, no memory): as lost as on a real path
            line.dropped += 1


def timeout(lines: list[Line], now: float) -> float | None:
    """How long to sleep until a packet is due; None: until one comes in."""
    due = [at for line in lines if (at := line.next_due()) is not None]
    return max(0.0, min(due) - now) if due else None


def statistics(lines: list[Line]) -> str:
    """The counters since the start, as one line of JSON."""
    sums = {"packets": sum(line.packets for line in lines), "dropped": sum(line.dropped for line in lines)}
    return json.dumps(sums | {"queued": sum(len(line.queue) for line in lines)})


def serve(lines: list[Line]) -> None:
    """Delay packets for ever."""
    by_fd = {line.fd: line for line in lines}
    wake, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    while True:
        # select() takes microseconds where epoll takes milliseconds.
        readable, _, _ = select.select([*by_fd, wake], [], [], timeout(lines, time.monotonic()))
        for line in lines:
            write_due(line)
        for fd in readable:
            if fd == wake:
                os.read(wake, 64)
                print(statistics(lines), flush=True)
            else:
                read_some(by_fd[fd])


def main(arguments: list[str]) -> None:
    """Start with ``FD:MICROSECONDS`` for each line."""
    lines = []
    for argument in arguments:
        fd, _, microseconds = argument.partition(":")
        lines.append(Line(int(fd), int(microseconds) / 1e6))
        os.set_blocking(int(fd), False)
    # Wake when asked, not up to 50 µs later, and before emulated machines that compute for minutes.
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    serve(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
