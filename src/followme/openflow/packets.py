"""Packets between switch and controller: PACKET_IN (7.4.1) and PACKET_OUT (7.3.7)."""

from __future__ import annotations

from struct import Struct, error
from typing import ClassVar, Final

from . import constants as of
from .actions import Action, parse_actions
from .errors import OpenFlowError
from .match import Match, parse_match
from .message import Message, need, unpackable
from .record import record

_PACKET_IN: Final = Struct("!IHBBQ")
_PACKET_OUT: Final = Struct("!IIH6x")
_PACKET_OUT_MESSAGE: Final = Struct("!BBHIIIH6x")


@record
class PacketIn(Message):
    """A packet for the controller. ``total_len`` is its full length, of which ``data`` may be a part."""

    type: ClassVar[int] = of.OFPT_PACKET_IN
    buffer_id: int
    total_len: int
    reason: int
    table_id: int
    cookie: int
    match: Match
    data: bytes

    @property
    def in_port(self) -> int | None:
        return self.match.in_port

    def _body(self) -> bytes:
        return b"".join((
            _PACKET_IN.pack(self.buffer_id, self.total_len, self.reason, self.table_id, self.cookie),
            self.match.pack(),
            b"\0\0",
            self.data,
        ))


@record
class PacketOut(Message):
    """A packet that the switch shall send: ``data``, or the one it keeps as ``buffer_id``."""

    type: ClassVar[int] = of.OFPT_PACKET_OUT
    data: bytes
    actions: tuple[Action, ...]
    in_port: int = of.OFPP_CONTROLLER
    buffer_id: int = of.OFP_NO_BUFFER

    def pack(self, xid: int) -> bytes:
        # one Struct for header and body: this is sent for each table miss
        try:
            actions = b"".join([action.pack() for action in self.actions])
            length = 24 + len(actions) + len(self.data)
            head = _PACKET_OUT_MESSAGE.pack(
                of.OFP_VERSION, of.OFPT_PACKET_OUT, length, xid, self.buffer_id, self.in_port, len(actions)
            )
            return head + actions + self.data
        except error as problem:
            raise unpackable(self.type, str(problem)) from None
        except OpenFlowError as problem:
            raise unpackable(self.type, problem.what) from None


def parse_packet_in(data: bytes, start: int, end: int) -> PacketIn:
    """The PACKET_IN at ``data[start:end]``, in place: a buffer with many of them is not cut up before."""
    try:
        if end - start < 34:
            raise OpenFlowError(f"{end - start} bytes where at least 34 belong", offset=start + 2)
        buffer_id, total_len, reason, table_id, cookie = _PACKET_IN.unpack_from(data, start + 8)
        match, after = parse_match(data, start + 24, end)
        if after + 2 > end:
            raise OpenFlowError("the 2 bytes of padding before the packet are missing", offset=after)
    except OpenFlowError as problem:
        problem.message_type = of.OFPT_PACKET_IN
        problem.offset = (problem.offset or 0) - start
        raise
    return PacketIn(buffer_id, total_len, reason, table_id, cookie, match, data[after + 2 : end])


def parse_packet_out(data: bytes) -> PacketOut:
    need(data, 24)
    buffer_id, in_port, actions_len = _PACKET_OUT.unpack_from(data, 8)
    after = 24 + actions_len
    if after > len(data):
        raise OpenFlowError(f"actions_len {actions_len} reaches past the end", offset=16)
    return PacketOut(data[after:], parse_actions(data, 24, after), in_port, buffer_id)
