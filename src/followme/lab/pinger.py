"""Pings at a fixed pace from inside a namespace, with the kernel's time stamps of what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Self

from followme.system.netns import socket_in

_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_HEADER = struct.Struct("!BBHHH")
# Our own counter behind ICMP's 16 bits, which wrap after eleven minutes at 10 ms, then padding to the
# classic 56 bytes.
_COUNTER = struct.Struct("!Q")
_PADDING = bytes(48)
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("qq")
_SOL_RAW, _ICMP_FILTER = 255, 1


@dataclass(slots=True)
class Ping:
    """One ping: when it was sent (``time.monotonic()``), and its round trip, or None if none came back."""

    sequence: int
    sent_s: float
    rtt_s: float | None = None


class Pinger:
    """Pings ``target`` each ``interval_s`` while the ``async with`` block runs; then read ``pings``.

    A ping without an answer after ``linger_s`` at the end of the block is lost. ``duplicates`` counts
    answers that came more than once; ``unsent`` counts pings that this host could not even send (no route).
    """

    def __init__(
        self,
        namespace: str | None,
        target: IPv4Address,
        *,
        interval_s: float = 0.010,
        linger_s: float = 1.0,
    ) -> None:
        self.namespace = namespace
        self.target = target
        self.interval_s = interval_s
        self.linger_s = linger_s
        self.pings: list[Ping] = []
        self.duplicates = 0
        self.unsent = 0
        self._sent_ns: list[int] = []
        self._unanswered = 0
        self._settled = asyncio.Event()
        self._id = int.from_bytes(os.urandom(2), "big")

    def key(self, ping: Ping) -> bytes:
        """The ping's identifier and number as they are in its ICMP header."""
        return struct.pack("!HH", self._id, ping.sequence & 0xFFFF)

    @property
    def lost(self) -> list[Ping]:
        """The pings that were never answered."""
        return [ping for ping in self.pings if ping.rtt_s is None]

    async def __aenter__(self) -> Self:
        self._socket = socket_in(self.namespace, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        # A raw socket sees all of ICMP: let the kernel keep away what is not an answer.
        self._socket.setsockopt(
            _SOL_RAW, _ICMP_FILTER, struct.pack("I", 0xFFFFFFFF & ~(1 << _ECHO_REPLY))
        )
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._sender.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sender
        try:
            if self._unanswered > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._settled.wait(), self.linger_s)
        finally:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    async def _send(self) -> None:
        due = time.monotonic()
        while True:
            self._send_one()
            due += self.interval_s
            # Behind time (a busy host): go on from now, a burst to catch up would measure itself.
            due = max(due, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def _send_one(self) -> None:
        sequence = len(self.pings)
        body = _COUNTER.pack(sequence) + _PADDING
        packet = _HEADER.pack(_ECHO_REQUEST, 0, 0, self._id, sequence & 0xFFFF) + body
        packet = packet[:2] + checksum(packet).to_bytes(2, "big") + packet[4:]
        sent_s, sent_ns = time.monotonic(), time.time_ns()
        try:
            self._socket.sendto(packet, (str(self.target), 0))
        except OSError:  # e.g. no route while the address changes: the user sees a lost ping
            self.unsent += 1
        self.pings.append(Ping(sequence, sent_s))
        self._unanswered += 1
        self._settled.clear()
        self._sent_ns.append(sent_ns)

    def _read(self) -> None:
        while True:
            try:
                packet, ancillary, _, peer = self._socket.recvmsg(2048, socket.CMSG_SPACE(_TIMESPEC.size))
            except BlockingIOError:
                return
            if peer[0] != str(self.target):
                continue
            self._take(packet, received_ns(ancillary))

    def _take(self, packet: bytes, received_ns: int) -> None:
        start = (packet[0] & 0x0F) * 4
        if len(packet) < start + _HEADER.size + _COUNTER.size:
            return
        kind, _, _, id, _ = _HEADER.unpack_from(packet, start)
        (sequence,) = _COUNTER.unpack_from(packet, start + _HEADER.size)
        if kind != _ECHO_REPLY or id != self._id or sequence >= len(self.pings):
            return
        ping = self.pings[sequence]
        if ping.rtt_s is not None:
            self.duplicates += 1
            return
        ping.rtt_s = (received_ns - self._sent_ns[sequence]) / 1e9
        self._unanswered -= 1
        if self._unanswered == 0:
            self._settled.set()


def received_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """When the kernel received it (Unix clock, nanoseconds), as ``recvmsg`` says; now, if it does not."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
