"""Instructions (7.2.4): what a flow entry does."""

from __future__ import annotations

from struct import Struct
from typing import Final

from .actions import Action, pack_actions, parse_actions
from .constants import (
    OFPIT_APPLY_ACTIONS,
    OFPIT_CLEAR_ACTIONS,
    OFPIT_GOTO_TABLE,
    OFPIT_WRITE_ACTIONS,
    OFPIT_WRITE_METADATA,
)
from .errors import OpenFlowError
from .record import record

_HEAD: Final = Struct("!HH")
_ACTIONS: Final = Struct("!HH4x")
_GOTO_TABLE: Final = Struct("!HHB3x")
_WRITE_METADATA: Final = Struct("!HH4xQQ")


@record
class ApplyActions:
    """Do the actions now, in this order."""

    actions: tuple[Action, ...] = ()

    def pack(self) -> bytes:
        body = pack_actions(self.actions)
        return _ACTIONS.pack(OFPIT_APPLY_ACTIONS, 8 + len(body)) + body


@record
class WriteActions:
    """Merge the actions into the packet's action set, which is done at the pipeline's end."""

    actions: tuple[Action, ...] = ()

    def pack(self) -> bytes:
        body = pack_actions(self.actions)
        return _ACTIONS.pack(OFPIT_WRITE_ACTIONS, 8 + len(body)) + body


@record
class ClearActions:
    """Empty the packet's action set."""

    def pack(self) -> bytes:
        return _ACTIONS.pack(OFPIT_CLEAR_ACTIONS, 8)


@record
class GotoTable:
    """Go on in a later table."""

    table_id: int

    def pack(self) -> bytes:
        return _GOTO_TABLE.pack(OFPIT_GOTO_TABLE, 8, self.table_id)


@record
class WriteMetadata:
    """Write the bits of ``metadata`` that ``mask`` has."""

    metadata: int
    mask: int = 0xFFFFFFFFFFFFFFFF

    def pack(self) -> bytes:
        return _WRITE_METADATA.pack(OFPIT_WRITE_METADATA, 24, self.metadata, self.mask)


@record
class RawInstruction:
    """An instruction without a class here (meter, experimenter): its type, and what follows type and length."""

    type: int
    body: bytes

    def pack(self) -> bytes:
        return _HEAD.pack(self.type, 4 + len(self.body)) + self.body


Instruction = ApplyActions | WriteActions | ClearActions | GotoTable | WriteMetadata | RawInstruction

_FIXED_LENGTH: Final = {OFPIT_GOTO_TABLE: 8, OFPIT_WRITE_METADATA: 24, OFPIT_CLEAR_ACTIONS: 8}


def pack_instructions(instructions: tuple[Instruction, ...]) -> bytes:
    return b"".join([instruction.pack() for instruction in instructions])


def parse_instructions(data: bytes, offset: int, end: int) -> tuple[Instruction, ...]:
    """The instructions that fill ``data[offset:end]``."""
    instructions = []
    while offset < end:
        if end - offset < 8:
            raise OpenFlowError("instruction is cut off", offset=offset)
        kind, length = _HEAD.unpack_from(data, offset)
        after = offset + length
        # 7.2.4: an instruction is a multiple of 8 bytes long; a length of 0 would never end.
        if length < 8 or length % 8 or after > end or length != _FIXED_LENGTH.get(kind, length):
            raise OpenFlowError(f"instruction of type {kind} cannot be {length} bytes long", offset=offset)
        instructions.append(_instruction(kind, data, offset, after))
        offset = after
    return tuple(instructions)


def _instruction(kind: int, data: bytes, offset: int, after: int) -> Instruction:
    if kind == OFPIT_APPLY_ACTIONS:
        return ApplyActions(parse_actions(data, offset + 8, after))
    if kind == OFPIT_WRITE_ACTIONS:
        return WriteActions(parse_actions(data, offset + 8, after))
    if kind == OFPIT_CLEAR_ACTIONS:
        return ClearActions()
    if kind == OFPIT_GOTO_TABLE:
        return GotoTable(_GOTO_TABLE.unpack_from(data, offset)[2])
    if kind == OFPIT_WRITE_METADATA:
        _, _, metadata, mask = _WRITE_METADATA.unpack_from(data, offset)
        return WriteMetadata(metadata, mask)
    return RawInstruction(kind, data[offset + 4 : after])
