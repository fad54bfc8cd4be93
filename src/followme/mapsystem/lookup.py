"""A process that answers look-ups and passes all else on: ``python -m followme.mapsystem.lookup FD``.

It shares the map server's port (SO_REUSEPORT). FD is its end of a socket pair: over it come the addresses, the
sites' prefixes and the table's changes, and back go the datagrams that are no look-up.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from struct import Struct
from typing import Any, Final

from followme.lisp import Action, EidPrefix, MappingRecord
from followme.lisp.record import decode_record

from .answers import Answers, Entry, Negative
from .udp import Received, Wire, open_sockets

SETUP, CONFIGURED, CHANGES, READY = b"S", b"P", b"T", b"R"
PASSED, ANSWERED = b"D", b"A"
MAX_PACKET: Final = 60_000
_GONE, _HERE, _FORWARD = 0, 1, 2
_CHANGE: Final = Struct("!BH")
_PASSED: Final = Struct("!cBBH")
_COUNT: Final = Struct("!cQ")


def pack_changes(kind: bytes, changes: Iterable[tuple[EidPrefix, Entry | None]]) -> Iterator[tuple[bytes, int]]:
    """Changes of the table in packets of a bounded size; with each, how many it holds."""
    parts, size = [kind], 1
    for eid, entry in changes:
        state = _GONE if entry is None else _FORWARD if entry.forward else _HERE
        record = (MappingRecord(eid, (), 0) if entry is None else entry.record).encode()
        if size + len(record) + _CHANGE.size > MAX_PACKET:
            yield b"".join(parts), len(parts) - 1
            parts, size = [kind], 1
        parts.append(_CHANGE.pack(state, len(record)) + record)
        size += len(parts[-1])
    if len(parts) > 1:
        yield b"".join(parts), len(parts) - 1


def unpack_changes(packet: bytes) -> Iterator[tuple[EidPrefix, Entry | None]]:
    """What ``pack_changes`` packed."""
    offset = 1
    while offset < len(packet):
        state, size = _CHANGE.unpack_from(packet, offset)
        offset += _CHANGE.size
        record, _ = decode_record(packet[offset : offset + size], 0)
        offset += size
        if isinstance(record.eid, EidPrefix):
            yield record.eid, None if state == _GONE else Entry(record, state == _FORWARD)


def pack_passed(data: bytes, source: tuple[str, int], number: int) -> bytes:
    """``number`` is that of the listen address at which it came in."""
    address = ip_address(source[0]).packed
    return _PASSED.pack(PASSED, number, len(address), source[1]) + address + data


def unpack_passed(packet: bytes) -> tuple[Received, int]:
    _, number, size, port = _PASSED.unpack_from(packet)
    end = _PASSED.size + size
    return (packet[end:], (str(ip_address(packet[_PASSED.size : end])), port)), number


class Lookup:
    """The process: it ends when the other end of ``channel`` does."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._answers = Answers()
        self._wire = Wire(())
        self._setup: dict[str, Any] = {}
        self._configured: list[EidPrefix] = []
        self._told = 0
        self._poll = select.epoll()

    def run(self) -> None:
        self._poll.register(self._channel, select.EPOLLIN)
        by_number: dict[int, tuple[int, socket.socket]] = {}
        while True:
            for number, _ in self._poll.poll(1.0):
                if number != self._channel.fileno():
                    place, one = by_number[number]
                    self._pass_on(self._wire.drain(one, self._answers), place)
                    continue
                packet = self._channel.recv(MAX_PACKET * 2)
                if not packet:
                    return
                for place, one in enumerate(self._read(packet)):
                    by_number[one.fileno()] = place, one
                    self._poll.register(one, select.EPOLLIN)
            self._tell()

    def _read(self, packet: bytes) -> list[socket.socket]:
        """Returns the sockets, once there is a table to answer from."""
        kind = packet[:1]
        if kind == SETUP:
            self._setup = json.loads(packet[1:])
            self._start_table()
        elif kind == CONFIGURED:
            self._configured += [eid for eid, _ in unpack_changes(packet)]
            self._start_table()
        elif kind == CHANGES:
            for eid, entry in unpack_changes(packet):
                self._answers.put(eid, entry)
        elif kind == READY:
            addresses = [ip_address(text) for text in self._setup["addresses"]]
            self._wire = Wire(open_sockets(addresses, self._setup["port"], True))
            return list(self._wire.sockets)
        return []

    def _start_table(self) -> None:
        negative = Negative(Action(self._setup["outside"]), Action(self._setup["not_registered"]))
        self._answers = Answers(self._configured, negative)

    def _pass_on(self, rest: list[Received], number: int) -> None:
        for data, source in rest:
            if len(data) <= MAX_PACKET:
                try:
                    self._channel.send(pack_passed(data, source, number), socket.MSG_DONTWAIT)
                except BlockingIOError:
                    self._wire.unsent += 1  # as if the network had lost it

    def _tell(self) -> None:
        if self._wire.answered - self._told >= 1000:
            try:
                self._channel.send(_COUNT.pack(ANSWERED, self._wire.answered), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            self._told = self._wire.answered


def unpack_answered(packet: bytes) -> int:
    count: int = _COUNT.unpack(packet)[1]
    return count


def main() -> int:
    try:
        Lookup(socket.socket(fileno=int(sys.argv[1]))).run()
    except (KeyboardInterrupt, ConnectionError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
