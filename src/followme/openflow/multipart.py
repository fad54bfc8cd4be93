"""Multipart messages (7.3.5): questions whose answer may be longer than one message."""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Final

from . import constants as of
from .errors import OpenFlowError
from .instructions import Instruction, pack_instructions, parse_instructions
from .match import Match, parse_match
from .message import Message, need
from .port_stats import PORT_STATS_SIZE, PortStats, PortStatsRequest, parse_port_stats, parse_port_stats_request
from .ports import PORT_SIZE, Port, pack_text, parse_port, parse_text
from .record import record

_HEAD: Final = Struct("!HH4x")
_DESC: Final = Struct("!256s256s256s32s256s")
_FLOW_REQUEST: Final = Struct("!B3xII4xQQ")
_FLOW_STATS: Final = Struct("!HBxIIHHHH4xQQQ")
_AGGREGATE: Final = Struct("!QQI4x")
_TABLE: Final = Struct("!B3xIQQ")


@record
class FlowStatsRequest:
    """Which flows: the body of an OFPMP_FLOW and of an OFPMP_AGGREGATE request (7.3.5.2, 7.3.5.3)."""

    match: Match = Match()
    table_id: int = of.OFPTT_ALL
    out_port: int = of.OFPP_ANY
    out_group: int = of.OFPG_ANY
    cookie: int = 0
    cookie_mask: int = 0

    def pack(self) -> bytes:
        head = _FLOW_REQUEST.pack(
            self.table_id, self.out_port, self.out_group, self.cookie, self.cookie_mask
        )
        return head + self.match.pack()


@record
class Desc:
    """Who made the switch (7.3.5.1)."""

    mfr_desc: str = ""
    hw_desc: str = ""
    sw_desc: str = ""
    serial_num: str = ""
    dp_desc: str = ""

    def pack(self) -> bytes:
        return _DESC.pack(
            pack_text(self.mfr_desc, 256),
            pack_text(self.hw_desc, 256),
            pack_text(self.sw_desc, 256),
            pack_text(self.serial_num, 32),
            pack_text(self.dp_desc, 256),
        )


@record
class FlowStats:
    """One flow entry as the switch has it (7.3.5.2)."""

    table_id: int
    match: Match
    instructions: tuple[Instruction, ...] = ()
    priority: int = of.OFP_DEFAULT_PRIORITY
    cookie: int = 0
    duration_sec: int = 0
    duration_nsec: int = 0
    idle_timeout: int = 0
    hard_timeout: int = 0
    flags: int = 0
    packet_count: int = 0
    byte_count: int = 0

    def pack(self) -> bytes:
        tail = self.match.pack() + pack_instructions(self.instructions)
        head = _FLOW_STATS.pack(
            48 + len(tail),
            self.table_id,
            self.duration_sec,
            self.duration_nsec,
            self.priority,
            self.idle_timeout,
            self.hard_timeout,
            self.flags,
            self.cookie,
            self.packet_count,
            self.byte_count,
        )
        return head + tail


@record
class AggregateStats:
    """The sums over flow entries (7.3.5.3)."""

    packet_count: int
    byte_count: int
    flow_count: int

    def pack(self) -> bytes:
        return _AGGREGATE.pack(self.packet_count, self.byte_count, self.flow_count)


@record
class TableStats:
    """The use of one table (7.3.5.4)."""

    table_id: int
    active_count: int
    lookup_count: int
    matched_count: int

    def pack(self) -> bytes:
        return _TABLE.pack(self.table_id, self.active_count, self.lookup_count, self.matched_count)


Part = Desc | FlowStats | AggregateStats | TableStats | PortStats | Port


@record
class MultipartRequest(Message):
    """``MultipartRequest(OFPMP_FLOW, FlowStatsRequest(...))``, OFPMP_PORT_STATS with ``PortStatsRequest(port)``;
    the other types we use have no body."""

    type: ClassVar[int] = of.OFPT_MULTIPART_REQUEST
    multipart_type: int
    body: FlowStatsRequest | PortStatsRequest | bytes = b""
    flags: int = 0

    def _body(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else self.body.pack()
        return _HEAD.pack(self.multipart_type, self.flags) + body


@record
class MultipartReply(Message):
    """The answer, or a part of it: ``flags`` has OFPMPF_REPLY_MORE if more follows.

    ``parts`` holds what the properties name; it stays empty for a type that this library has no class
    for, whose body is ``raw``. ``Connection`` joins the parts and hands on one reply.
    """

    type: ClassVar[int] = of.OFPT_MULTIPART_REPLY
    multipart_type: int
    parts: tuple[Part, ...] = ()
    flags: int = 0
    raw: bytes = b""

    @property
    def desc(self) -> Desc:
        """Of a reply to OFPMP_DESC; like the other properties, ``OpenFlowError`` for one to another type."""
        for part in self.parts:
            if isinstance(part, Desc):
                return part
        raise self._other_type()

    @property
    def aggregate(self) -> AggregateStats:
        for part in self.parts:
            if isinstance(part, AggregateStats):
                return part
        raise self._other_type()

    @property
    def flows(self) -> tuple[FlowStats, ...]:
        self._require(of.OFPMP_FLOW)
        return tuple(part for part in self.parts if isinstance(part, FlowStats))

    @property
    def tables(self) -> tuple[TableStats, ...]:
        self._require(of.OFPMP_TABLE)
        return tuple(part for part in self.parts if isinstance(part, TableStats))

    @property
    def port_stats(self) -> tuple[PortStats, ...]:
        self._require(of.OFPMP_PORT_STATS)
        return tuple(part for part in self.parts if isinstance(part, PortStats))

    @property
    def ports(self) -> tuple[Port, ...]:
        self._require(of.OFPMP_PORT_DESC)
        return tuple(part for part in self.parts if isinstance(part, Port))

    def _require(self, multipart_type: int) -> None:
        if self.multipart_type != multipart_type:
            raise self._other_type()

    def _other_type(self) -> OpenFlowError:
        return OpenFlowError(f"reply is of multipart type {self.multipart_type}", message_type=self.type)

    def _body(self) -> bytes:
        parts = b"".join([part.pack() for part in self.parts])
        return _HEAD.pack(self.multipart_type, self.flags) + parts + self.raw


def parse_multipart_request(data: bytes) -> MultipartRequest:
    need(data, 16)
    kind, flags = _HEAD.unpack_from(data, 8)
    if kind in (of.OFPMP_FLOW, of.OFPMP_AGGREGATE):
        need(data, 56)
        table_id, out_port, out_group, cookie, cookie_mask = _FLOW_REQUEST.unpack_from(data, 16)
        match, after = parse_match(data, 48, len(data))
        if after != len(data):
            raise OpenFlowError("bytes behind the match", offset=after)
        body = FlowStatsRequest(match, table_id, out_port, out_group, cookie, cookie_mask)
        return MultipartRequest(kind, body, flags)
    if kind == of.OFPMP_PORT_STATS:
        need(data, 24, exactly=True)
        return MultipartRequest(kind, parse_port_stats_request(data, 16), flags)
    return MultipartRequest(kind, data[16:], flags)


def parse_multipart_reply(data: bytes) -> MultipartReply:
    need(data, 16)
    kind, flags = _HEAD.unpack_from(data, 8)
    if kind == of.OFPMP_FLOW:
        return MultipartReply(kind, _flow_stats(data), flags)
    if kind == of.OFPMP_PORT_DESC:
        return MultipartReply(kind, tuple(parse_port(data, i) for i in _entries(data, PORT_SIZE)), flags)
    if kind == of.OFPMP_PORT_STATS:
        stats = tuple(parse_port_stats(data, i) for i in _entries(data, PORT_STATS_SIZE))
        return MultipartReply(kind, stats, flags)
    if kind == of.OFPMP_TABLE:
        tables = tuple(TableStats(*_TABLE.unpack_from(data, i)) for i in _entries(data, _TABLE.size))
        return MultipartReply(kind, tables, flags)
    if kind == of.OFPMP_AGGREGATE:
        need(data, 16 + _AGGREGATE.size, exactly=True)
        return MultipartReply(kind, (AggregateStats(*_AGGREGATE.unpack_from(data, 16)),), flags)
    if kind == of.OFPMP_DESC:
        need(data, 16 + _DESC.size, exactly=True)
        return MultipartReply(kind, (Desc(*map(parse_text, _DESC.unpack_from(data, 16))),), flags)
    return MultipartReply(kind, (), flags, data[16:])


def _entries(data: bytes, size: int) -> range:
    if (len(data) - 16) % size:
        raise OpenFlowError(f"body is not made of entries of {size} bytes", offset=16)
    return range(16, len(data), size)


def _flow_stats(data: bytes) -> tuple[FlowStats, ...]:
    flows = []
    offset, end = 16, len(data)
    while offset < end:
        if end - offset < 56:
            raise OpenFlowError("flow entry is cut off", offset=offset)
        length, table_id, sec, nsec, priority, idle, hard, flags, cookie, packets, octets = (
            _FLOW_STATS.unpack_from(data, offset)
        )
        after = offset + length
        if length < 56 or after > end:
            raise OpenFlowError(f"flow entry length {length} is wrong", offset=offset)
        match, instructions_at = parse_match(data, offset + 48, after)
        instructions = parse_instructions(data, instructions_at, after)
        flows.append(
            FlowStats(
                table_id,
                match,
                instructions,
                priority,
                cookie,
                sec,
                nsec,
                idle,
                hard,
                flags,
                packets,
                octets,
            )
        )
        offset = after
    return tuple(flows)
