"""Actions (7.2.5): what happens to a packet."""

from __future__ import annotations

from ipaddress import IPv4Address
from struct import Struct
from typing import Final

from .constants import OFPAT_GROUP, OFPAT_OUTPUT, OFPAT_SET_FIELD, OFPCML_NO_BUFFER
from .errors import OpenFlowError
from .match import PADDING
from .oxm import BY_HEADER, BY_NAME, HEADER, Value, pack_value, parse_value
from .record import record

_HEAD: Final = Struct("!HH")
_OUTPUT: Final = Struct("!HHIH6x")
_GROUP: Final = Struct("!HHI")


@record
class Output:
    """Send the packet to ``port``; ``max_len`` bytes of it if the port is OFPP_CONTROLLER."""

    port: int
    max_len: int = OFPCML_NO_BUFFER

    def pack(self) -> bytes:
        return _OUTPUT.pack(OFPAT_OUTPUT, 16, self.port, self.max_len)


@record
class Group:
    """Process the packet through a group."""

    group_id: int

    def pack(self) -> bytes:
        return _GROUP.pack(OFPAT_GROUP, 8, self.group_id)


@record
class SetField:
    """Write ``value`` to the header field that ``Match`` calls ``field``; see ``set_ipv4_dst`` and the like."""

    field: str
    value: Value

    def pack(self) -> bytes:
        field = BY_NAME.get(self.field)
        # 7.2.5: the fields of the pipeline (port, metadata) are not header fields.
        if field is None or self.field in _NOT_SETTABLE:
            raise OpenFlowError(f"{self.field} is not a field that set-field can write")
        oxm = pack_value(field, self.value)
        length = 4 + len(oxm)
        padding = PADDING[length & 7]
        return _HEAD.pack(OFPAT_SET_FIELD, length + len(padding)) + oxm + padding


@record
class RawAction:
    """An action that this library has no class for: its type, and what follows type and length."""

    type: int
    body: bytes

    def pack(self) -> bytes:
        return _HEAD.pack(self.type, 4 + len(self.body)) + self.body


Action = Output | SetField | Group | RawAction
_NOT_SETTABLE: Final = frozenset({"in_port", "metadata"})


def set_eth_dst(mac: bytes) -> SetField:
    return SetField("eth_dst", mac)


def set_eth_src(mac: bytes) -> SetField:
    return SetField("eth_src", mac)


def set_ipv4_dst(address: IPv4Address) -> SetField:
    return SetField("ipv4_dst", address)


def set_ipv4_src(address: IPv4Address) -> SetField:
    return SetField("ipv4_src", address)


def set_arp_spa(address: IPv4Address) -> SetField:
    return SetField("arp_spa", address)


def set_arp_tpa(address: IPv4Address) -> SetField:
    return SetField("arp_tpa", address)


def pack_actions(actions: tuple[Action, ...]) -> bytes:
    return b"".join([action.pack() for action in actions])


def parse_actions(data: bytes, offset: int, end: int) -> tuple[Action, ...]:
    """The actions that fill ``data[offset:end]``."""
    actions = []
    while offset < end:
        if end - offset < 8:
            raise OpenFlowError("action is cut off", offset=offset)
        kind, length = _HEAD.unpack_from(data, offset)
        after = offset + length
        # 7.2.5: an action is a multiple of 8 bytes long; a length of 0 would never end.
        if length < 8 or length % 8 or after > end:
            raise OpenFlowError(f"action length {length} is not 8, 16, ... up to the end", offset=offset)
        actions.append(_action(kind, length, data, offset))
        offset = after
    return tuple(actions)


def _action(kind: int, length: int, data: bytes, offset: int) -> Action:
    if kind == OFPAT_OUTPUT and length == 16:
        _, _, port, max_len = _OUTPUT.unpack_from(data, offset)
        return Output(port, max_len)
    if kind == OFPAT_GROUP and length == 8:
        return Group(_GROUP.unpack_from(data, offset)[2])
    if kind in (OFPAT_OUTPUT, OFPAT_GROUP):
        raise OpenFlowError(f"action of type {kind} cannot be {length} bytes long", offset=offset)
    if kind == OFPAT_SET_FIELD:
        (header,) = HEADER.unpack_from(data, offset + 4)
        field = BY_HEADER.get(header)
        if 8 + (header & 0xFF) > length:
            raise OpenFlowError(f"OXM 0x{header:08x} reaches past its action", offset=offset + 4)
        if field is not None and field.name not in _NOT_SETTABLE and length == (8 + field.size + 7) // 8 * 8:
            return SetField(field.name, parse_value(field, data[offset + 8 : offset + 8 + field.size]))
    return RawAction(kind, data[offset + 4 : offset + length])
