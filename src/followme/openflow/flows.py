"""Flow and group entries: FLOW_MOD (7.3.4.1), GROUP_MOD (7.3.4.2) and FLOW_REMOVED (7.4.2)."""

from __future__ import annotations

from struct import Struct, error
from typing import ClassVar, Final

from . import constants as of
from .actions import Action, pack_actions, parse_actions
from .errors import OpenFlowError
from .instructions import Instruction, parse_instructions
from .match import Match, parse_match
from .message import Message, need, unpackable
from .record import record

_FLOW_MOD: Final = Struct("!QQBBHHHIIIH2x")
_FLOW_MOD_MESSAGE: Final = Struct("!BBHIQQBBHHHIIIH2x")
_FLOW_REMOVED: Final = Struct("!QHBBIIHHQQ")
_GROUP_MOD: Final = Struct("!HBxI")
_BUCKET: Final = Struct("!HHII4x")


@record
class FlowMod(Message):
    """Add, change or delete flow entries (7.3.4.1).

    ``out_port`` and ``out_group`` narrow a deletion; their defaults do not. A deletion from every table
    needs ``table_id=OFPTT_ALL``.
    """

    type: ClassVar[int] = of.OFPT_FLOW_MOD
    match: Match = Match()
    instructions: tuple[Instruction, ...] = ()
    command: int = of.OFPFC_ADD
    table_id: int = 0
    priority: int = of.OFP_DEFAULT_PRIORITY
    cookie: int = 0
    cookie_mask: int = 0
    idle_timeout: int = 0
    hard_timeout: int = 0
    buffer_id: int = of.OFP_NO_BUFFER
    out_port: int = of.OFPP_ANY
    out_group: int = of.OFPG_ANY
    flags: int = 0

    def pack(self, xid: int) -> bytes:
        # one Struct for header and body: this is sent for each table miss
        try:
            tail = self.match.pack() + b"".join([instruction.pack() for instruction in self.instructions])
            return (
                _FLOW_MOD_MESSAGE.pack(
                    of.OFP_VERSION,
                    of.OFPT_FLOW_MOD,
                    48 + len(tail),
                    xid,
                    self.cookie,
                    self.cookie_mask,
                    self.table_id,
                    self.command,
                    self.idle_timeout,
                    self.hard_timeout,
                    self.priority,
                    self.buffer_id,
                    self.out_port,
                    self.out_group,
                    self.flags,
                )
                + tail
            )
        except error as problem:
            raise unpackable(self.type, str(problem)) from None
        except OpenFlowError as problem:
            raise unpackable(self.type, problem.what) from None


@record
class FlowRemoved(Message):
    """A flow entry went, by timeout or deletion (7.4.2)."""

    type: ClassVar[int] = of.OFPT_FLOW_REMOVED
    match: Match
    cookie: int
    priority: int
    reason: int
    table_id: int
    duration_sec: int
    duration_nsec: int
    idle_timeout: int
    hard_timeout: int
    packet_count: int
    byte_count: int

    def _body(self) -> bytes:
        head = _FLOW_REMOVED.pack(
            self.cookie,
            self.priority,
            self.reason,
            self.table_id,
            self.duration_sec,
            self.duration_nsec,
            self.idle_timeout,
            self.hard_timeout,
            self.packet_count,
            self.byte_count,
        )
        return head + self.match.pack()


@record
class Bucket:
    """One list of actions of a group (7.3.4.2); ``weight`` for OFPGT_SELECT, the watches for OFPGT_FF."""

    actions: tuple[Action, ...] = ()
    weight: int = 0
    watch_port: int = of.OFPP_ANY
    watch_group: int = of.OFPG_ANY

    def pack(self) -> bytes:
        body = pack_actions(self.actions)
        return _BUCKET.pack(16 + len(body), self.weight, self.watch_port, self.watch_group) + body


@record
class GroupMod(Message):
    """Add, change or delete a group (7.3.4.2)."""

    type: ClassVar[int] = of.OFPT_GROUP_MOD
    command: int
    group_id: int
    group_type: int = of.OFPGT_ALL
    buckets: tuple[Bucket, ...] = ()

    def _body(self) -> bytes:
        buckets = b"".join([bucket.pack() for bucket in self.buckets])
        return _GROUP_MOD.pack(self.command, self.group_type, self.group_id) + buckets


def parse_flow_mod(data: bytes) -> FlowMod:
    need(data, 56)
    cookie, cookie_mask, table_id, command, idle, hard, priority, buffer_id, port, group, flags = (
        _FLOW_MOD.unpack_from(data, 8)
    )
    match, after = parse_match(data, 48, len(data))
    instructions = parse_instructions(data, after, len(data))
    return FlowMod(
        match,
        instructions,
        command,
        table_id,
        priority,
        cookie,
        cookie_mask,
        idle,
        hard,
        buffer_id,
        port,
        group,
        flags,
    )


def parse_flow_removed(data: bytes) -> FlowRemoved:
    need(data, 56)
    match, after = parse_match(data, 48, len(data))
    if after != len(data):
        raise OpenFlowError("bytes behind the match", offset=after)
    return FlowRemoved(match, *_FLOW_REMOVED.unpack_from(data, 8))


def parse_group_mod(data: bytes) -> GroupMod:
    need(data, 16)
    command, group_type, group_id = _GROUP_MOD.unpack_from(data, 8)
    buckets = []
    offset, end = 16, len(data)
    while offset < end:
        if end - offset < 16:
            raise OpenFlowError("bucket is cut off", offset=offset)
        length, weight, watch_port, watch_group = _BUCKET.unpack_from(data, offset)
        if length < 16 or length % 8 or offset + length > end:
            raise OpenFlowError(f"bucket length {length} is wrong", offset=offset)
        actions = parse_actions(data, offset + 16, offset + length)
        buckets.append(Bucket(actions, weight, watch_port, watch_group))
        offset += length
    return GroupMod(command, group_id, group_type, tuple(buckets))
