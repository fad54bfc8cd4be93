"""What passes a machine's tap while the machine is carried, with the kernel's time stamps: when the first request
came to the machine's own door, and when the machine itself first answered.

Between the two no network is in the way, so what lies between is the machine's own: an emulated one runs code that
its new QEMU has not translated yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import enum
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from followme.lab.pinger import received_ns
from followme.system.netns import socket_in

_ETH_P_ALL: Final = 3
_SO_ATTACH_FILTER: Final = 26
_SO_TIMESTAMPNS: Final = 35
_SO_RCVBUFFORCE: Final = 33
_STAMP_BYTES: Final = 64
_BUFFER: Final = 16 << 20
_SNAP: Final = 42
"""Bytes of a frame up to the ping's identifier and number."""
_POLL_S: Final = 0.05
_BATCH: Final = 512
"""Not one wake-up a frame: the pings that are measured leave from the same process."""
_PACKET_TYPE: Final = 0xFFFFF004
_FILTER: Final = (
    (0x28, 0, 0, 12),  # 0: ldh, the EtherType
    (0x15, 7, 0, 0x0806),  # 1: ARP: to 9
    (0x15, 0, 10, 0x0800),  # 2: not IPv4: drop
    (0x30, 0, 0, 23),  # 3: ldb, the protocol
    (0x15, 0, 8, 1),  # 4: not ICMP: drop
    (0x30, 0, 0, 34),  # 5: ldb, the type (no options: they are our own pings)
    (0x15, 2, 0, 0),  # 6: an answer: to 9
    (0x15, 0, 5, 8),  # 7: no request: drop
    (0x05, 0, 0, 2),  # 8: a request: to 11
    (0x20, 0, 0, _PACKET_TYPE),  # 9: from the machine ...
    (0x15, 2, 3, 4),  # 10: ... that is, not what we send out of the device
    (0x20, 0, 0, _PACKET_TYPE),  # 11: to the machine
    (0x15, 1, 0, 4),  # 12: to 14, else drop
    (0x06, 0, 0, 0),  # 13: drop
    (0x06, 0, 0, _SNAP),  # 14: take
)


class Kind(enum.Enum):
    """Requests go to the machine, answers and ARP come from it."""

    REQUEST = "request"
    ANSWER = "answer"
    ARP = "arp"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame at a tap at ``at`` (seconds of the Unix clock); ``ping`` is its identifier and number."""

    at: float
    kind: Kind
    ping: bytes = b""


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """``asked_at``: the first request came to the machine's new tap. ``answered_at``: the machine let out its first
    answer to one that came by that tap, or asked something itself (ARP), for then it waits for the network.
    ``runs_at``: its QEMU resumed it. Seconds of the Unix clock."""

    runs_at: float
    asked_at: float
    answered_at: float

    @property
    def cold_s(self) -> float:
        """How long the running machine took for an answer to what lay at its own door."""
        return self.answered_at - max(self.runs_at, self.asked_at)


def first_answer(frames: Sequence[Frame], runs_at: float, since: bytes | None = None) -> FirstAnswer:
    """From the ``frames`` at the new tap, in their order; only pings of ``since``'s sender from that one on, if it
    is given. ``ValueError`` if none was answered."""
    asked: dict[bytes, float] = {}
    for frame in frames:
        if frame.kind is Kind.REQUEST and (since is None or _follows(frame.ping, since)):
            asked.setdefault(frame.ping, frame.at)
        elif asked and frame.at >= runs_at and (frame.kind is Kind.ARP or frame.ping in asked):
            return FirstAnswer(runs_at, min(asked.values()), frame.at)
    raise ValueError(f"of {len(asked)} requests at the machine's tap it answered none")


def _follows(ping: bytes, since: bytes) -> bool:
    """Whether a ping is of the same sender, and not before ``since`` (the 16 bits of its number wrap)."""
    number, first = (int.from_bytes(one[2:]) for one in (ping, since))
    return ping[:2] == since[:2] and (number - first) & 0xFFFF < 0x8000


def last_answer(frames: Sequence[Frame], before: float) -> float | None:
    """When the machine's last answer left it ``before`` (Unix clock); None if there was none."""
    return max((one.at for one in frames if one.kind is Kind.ANSWER and one.at <= before), default=None)


class TapWatch:
    """Watches the device ``tap`` of a namespace, there yet or not, while the ``async with`` block runs; then read
    ``frames``."""

    def __init__(self, namespace: str, tap: str) -> None:
        self.frames: list[Frame] = []
        self._tap = tap
        # Of all devices: the tap comes and goes with its QEMU.
        self._socket = socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))

    async def __aenter__(self) -> Self:
        try:
            self._socket.setblocking(False)
            code = b"".join(struct.pack("HBBI", *one) for one in _FILTER)
            program = ctypes.create_string_buffer(code)
            wanted = struct.pack("HxxxxxxP", len(_FILTER), ctypes.addressof(program))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, wanted)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            # What came before the filter was there.
            with contextlib.suppress(BlockingIOError):
                while True:
                    self._socket.recv(_SNAP)
        except BaseException:
            self._socket.close()
            raise
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        try:
            while self._take():
                pass
        finally:
            self._socket.close()

    async def _read(self) -> None:
        while True:
            await asyncio.sleep(0 if self._take() else _POLL_S)

    def _take(self) -> bool:
        """Read a batch; whether there may be more."""
        for _ in range(_BATCH):
            try:
                data, ancillary, _, address = self._socket.recvmsg(_SNAP, _STAMP_BYTES)
            except BlockingIOError:
                return False
            # A device that is gone by now has no name any more: of those in a hypervisor only the tap goes.
            if address[0] in (self._tap, ""):
                self.frames.append(_frame(data, received_ns(ancillary) / 1e9))
        return True


def _frame(data: bytes, at: float) -> Frame:
    if data[12:14] == b"\x08\x06":
        return Frame(at, Kind.ARP)
    return Frame(at, Kind.REQUEST if data[34] == 8 else Kind.ANSWER, data[38:42])
