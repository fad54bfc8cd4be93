"""``parse``: bytes to any message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from . import constants as of
from .errors import OpenFlowError
from .flows import parse_flow_mod, parse_flow_removed, parse_group_mod
from .message import Message, need, read_header
from .multipart import parse_multipart_reply, parse_multipart_request
from .packets import parse_packet_in, parse_packet_out
from .ports import parse_port_status
from .record import record
from .session import (
    BarrierReply,
    BarrierRequest,
    EchoReply,
    EchoRequest,
    FeaturesRequest,
    GetConfigRequest,
    parse_error,
    parse_features_reply,
    parse_get_config_reply,
    parse_hello,
    parse_role_reply,
    parse_role_request,
    parse_set_config,
)


@record
class Unknown(Message):
    """A well-formed message of a type that this library has no class for."""

    type: int  # type: ignore[misc]  # a field here, a constant of the class in every other message
    body: bytes

    def _body(self) -> bytes:
        return self.body


def parse(data: bytes | memoryview) -> tuple[int, Message]:
    """Exactly one message to (xid, message), or ``OpenFlowError``."""
    data = bytes(data)
    need(data, of.OFP_HEADER_SIZE)
    version, kind, length, xid = read_header(data, 0)
    if length != len(data):
        raise OpenFlowError(f"length {length} of a message of {len(data)} bytes", message_type=kind, offset=2)
    return xid, parse_body(version, kind, data)


def parse_body(version: int, kind: int, data: bytes) -> Message:
    """The message ``data``, whose header says ``version`` and ``kind`` and has the right length."""
    # 6.3.1: only HELLO may come in another version than the one agreed on
    if version != of.OFP_VERSION and kind != of.OFPT_HELLO:
        raise OpenFlowError(f"version 0x{version:02x} is not 0x04", message_type=kind, offset=0)
    parser = _PARSERS.get(kind)
    if parser is None:
        return Unknown(kind, data[8:])
    try:
        return parser(data)
    except OpenFlowError as problem:
        problem.message_type = kind
        raise


def _empty(message: Message) -> Callable[[bytes], Message]:
    def parser(data: bytes) -> Message:
        need(data, of.OFP_HEADER_SIZE, exactly=True)
        return message

    return parser


_PARSERS: Final[dict[int, Callable[[bytes], Message]]] = {
    of.OFPT_HELLO: parse_hello,
    of.OFPT_ERROR: parse_error,
    of.OFPT_ECHO_REQUEST: lambda data: EchoRequest(data[8:]),
    of.OFPT_ECHO_REPLY: lambda data: EchoReply(data[8:]),
    of.OFPT_FEATURES_REQUEST: _empty(FeaturesRequest()),
    of.OFPT_FEATURES_REPLY: parse_features_reply,
    of.OFPT_GET_CONFIG_REQUEST: _empty(GetConfigRequest()),
    of.OFPT_GET_CONFIG_REPLY: parse_get_config_reply,
    of.OFPT_SET_CONFIG: parse_set_config,
    of.OFPT_PACKET_IN: lambda data: parse_packet_in(data, 0, len(data)),
    of.OFPT_FLOW_REMOVED: parse_flow_removed,
    of.OFPT_PORT_STATUS: parse_port_status,
    of.OFPT_PACKET_OUT: parse_packet_out,
    of.OFPT_FLOW_MOD: parse_flow_mod,
    of.OFPT_GROUP_MOD: parse_group_mod,
    of.OFPT_MULTIPART_REQUEST: parse_multipart_request,
    of.OFPT_MULTIPART_REPLY: parse_multipart_reply,
    of.OFPT_BARRIER_REQUEST: _empty(BarrierRequest()),
    of.OFPT_BARRIER_REPLY: _empty(BarrierReply()),
    of.OFPT_ROLE_REQUEST: parse_role_request,
    of.OFPT_ROLE_REPLY: parse_role_reply,
}
