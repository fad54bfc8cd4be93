"""ICMP echo and echo reply (RFC 792 page 14), for the ping tool."""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from .checksum import internet_checksum
from .errors import PacketError

ECHO_REPLY: Final = 0
ECHO_REQUEST: Final = 8

_ECHO = Struct("!BBHHH")


class Echo(NamedTuple):
    """An echo request or its reply; a reply carries the request's identifier, sequence and payload."""

    type: int
    identifier: int
    sequence: int
    payload: bytes

    @property
    def is_reply(self) -> bool:
        return self.type == ECHO_REPLY


def parse_echo(data: bytes, offset: int = 0) -> Echo:
    """The echo message that fills ``data`` from ``offset`` on: an IPv4 payload, as ICMP has no length field.

    ``PacketError`` if it is short, another ICMP message, or has a wrong checksum.
    """
    if offset < 0 or len(data) - offset < 8:
        raise PacketError(f"ICMP echo of {max(0, len(data) - offset)} bytes: the header alone takes 8")
    kind, code, _, identifier, sequence = _ECHO.unpack_from(data, offset)
    if kind not in (ECHO_REPLY, ECHO_REQUEST) or code != 0:
        raise PacketError(f"ICMP type {kind} code {code} is neither echo nor echo reply")
    if internet_checksum(data[offset:]) != 0:
        raise PacketError("ICMP checksum is wrong")
    return Echo(kind, identifier, sequence, data[offset + 8 :])


def pack_echo(echo: Echo) -> bytes:
    """The message with its checksum; ``PacketError`` if a field does not fit."""
    kind, identifier, sequence, payload = echo
    if kind not in (ECHO_REPLY, ECHO_REQUEST):
        raise PacketError(f"ICMP type {kind} is neither echo nor echo reply")
    if not (0 <= identifier <= 0xFFFF and 0 <= sequence <= 0xFFFF):
        raise PacketError(f"ICMP identifier {identifier} and sequence {sequence} do not both fit in 16 bits")
    checksum = internet_checksum(_ECHO.pack(kind, 0, 0, identifier, sequence) + payload)
    return _ECHO.pack(kind, 0, checksum, identifier, sequence) + payload


def echo_reply(request: Echo) -> Echo:
    """The answer to ``request``."""
    return request._replace(type=ECHO_REPLY)
