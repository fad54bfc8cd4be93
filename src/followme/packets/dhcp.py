"""DHCP messages (RFC 2131, options of RFC 2132, long options of RFC 3396): the codec.

``dhcp_frames`` puts them on the wire and finds them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address
from struct import Struct
from typing import Final

from .errors import PacketError

BOOTREQUEST: Final = 1
BOOTREPLY: Final = 2
BROADCAST_FLAG: Final = 0x8000

OPTION_SUBNET_MASK: Final = 1
OPTION_ROUTER: Final = 3
OPTION_DNS: Final = 6
OPTION_HOSTNAME: Final = 12
OPTION_REQUESTED_IP: Final = 50
OPTION_LEASE_TIME: Final = 51
OPTION_OVERLOAD: Final = 52
OPTION_MESSAGE_TYPE: Final = 53
OPTION_SERVER_ID: Final = 54
OPTION_PARAMETER_LIST: Final = 55
OPTION_MESSAGE: Final = 56
OPTION_RENEWAL_TIME: Final = 58
OPTION_REBINDING_TIME: Final = 59
OPTION_CLIENT_ID: Final = 61

MIN_MESSAGE: Final = 300
"""Bytes that a message is padded to: BOOTP's fixed size (RFC 1542 section 2.1); old peers drop less."""
MAX_MESSAGE: Final = 1472
"""Bytes that one unfragmented Ethernet frame carries; longer messages are refused."""

ZERO: Final = IPv4Address(0)

_PAD = 0
_END = 255
_COOKIE = b"\x63\x82\x53\x63"
_FIXED = Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
# Options that the properties below read, and their lengths (RFC 2132 sections 9.1 to 9.6).
_LENGTHS = {
    OPTION_REQUESTED_IP: 4,
    OPTION_LEASE_TIME: 4,
    OPTION_MESSAGE_TYPE: 1,
    OPTION_SERVER_ID: 4,
}


class MessageType(IntEnum):
    """RFC 2132 section 9.6."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


@dataclass(frozen=True, slots=True)
class Dhcp:
    """One message of an Ethernet client; ``options`` maps a code to its bytes, in the order of the message.

    ``sname`` and ``file`` (network boot) are neither kept nor sent, but for options in them (option 52).
    ``PacketError`` on construction if a field does not fit or an option that is read here has a wrong length.
    """

    op: int
    xid: int
    chaddr: bytes
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = ZERO
    yiaddr: IPv4Address = ZERO
    siaddr: IPv4Address = ZERO
    giaddr: IPv4Address = ZERO
    options: Mapping[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.op not in (BOOTREQUEST, BOOTREPLY):
            raise PacketError(f"DHCP op {self.op} is neither request (1) nor reply (2)")
        if len(self.chaddr) != 6:
            raise PacketError(f"DHCP chaddr of {len(self.chaddr)} bytes: Ethernet's takes 6")
        if not (0 <= self.xid < 2**32 and 0 <= self.secs < 2**16 and 0 <= self.flags < 2**16):
            raise PacketError(
                f"DHCP field out of range: xid {self.xid}, secs {self.secs}, flags {self.flags}"
            )
        for code, length in _LENGTHS.items():
            if code in self.options and len(self.options[code]) != length:
                raise PacketError(f"DHCP option {code} of {len(self.options[code])} bytes: it takes {length}")

    @property
    def message_type(self) -> MessageType | None:
        """Option 53; ``None`` for plain BOOTP and for types that RFC 2132 does not name."""
        value = self.options.get(OPTION_MESSAGE_TYPE)
        if value is None or not MessageType.DISCOVER <= value[0] <= MessageType.INFORM:
            return None
        return MessageType(value[0])

    @property
    def broadcast(self) -> bool:
        """The client cannot take unicast before it has its address (RFC 2131 section 4.1)."""
        return bool(self.flags & BROADCAST_FLAG)

    @property
    def requested_ip(self) -> IPv4Address | None:
        return self._address(OPTION_REQUESTED_IP)

    @property
    def server_id(self) -> IPv4Address | None:
        return self._address(OPTION_SERVER_ID)

    @property
    def lease_time_s(self) -> int | None:
        """Option 51, seconds; 0xffffffff is for ever."""
        value = self.options.get(OPTION_LEASE_TIME)
        return None if value is None else int.from_bytes(value, "big")

    @property
    def client_id(self) -> bytes | None:
        return self.options.get(OPTION_CLIENT_ID)

    @property
    def hostname(self) -> str | None:
        """Option 12 as text; bytes that are no ASCII become U+FFFD."""
        value = self.options.get(OPTION_HOSTNAME)
        return None if value is None else value.rstrip(b"\0").decode("ascii", "replace")

    @property
    def parameter_list(self) -> tuple[int, ...]:
        """Option 55: the option codes that the client asks for, most wanted first."""
        return tuple(self.options.get(OPTION_PARAMETER_LIST, b""))

    def _address(self, code: int) -> IPv4Address | None:
        value = self.options.get(code)
        return None if value is None else IPv4Address(value)


def parse_dhcp(data: bytes) -> Dhcp:
    """The message in ``data``, a UDP payload of at most ``MAX_MESSAGE`` bytes.

    An option that comes in parts is joined in the order options, file, sname (RFC 3396 section 5).
    ``PacketError`` for anything that is not a DHCP message of an Ethernet client with its end option: a
    message without one was cut off, and half of a lease is worse than none.
    """
    if not _FIXED.size <= len(data) <= MAX_MESSAGE:
        raise PacketError(f"DHCP message of {len(data)} bytes: it takes {_FIXED.size} to {MAX_MESSAGE}")
    op, htype, hlen, _, xid, secs, flags, *rest = _FIXED.unpack_from(data)
    ciaddr, yiaddr, siaddr, giaddr, chaddr, sname, file, cookie = rest
    if htype != 1 or hlen != 6:
        raise PacketError(
            f"DHCP hardware type {htype} with {hlen} bytes: only Ethernet, 1 with 6, is understood"
        )
    if cookie != _COOKIE:
        raise PacketError("BOOTP message without DHCP's magic cookie")
    parts: dict[int, list[bytes]] = {}
    _collect(data[_FIXED.size :], "options", parts)
    overload = b"".join(parts.pop(OPTION_OVERLOAD, []))
    if overload not in (b"", b"\x01", b"\x02", b"\x03"):
        raise PacketError(f"DHCP option overload {overload.hex()} is not 1, 2 or 3")
    fields = overload[0] if overload else 0
    if fields & 1:
        _collect(file, "file", parts)
    if fields & 2:
        _collect(sname, "sname", parts)
    if OPTION_OVERLOAD in parts:
        raise PacketError("DHCP option overload inside an overloaded field")
    return Dhcp(
        op=op,
        xid=xid,
        chaddr=chaddr[:6],
        secs=secs,
        flags=flags,
        ciaddr=IPv4Address(ciaddr),
        yiaddr=IPv4Address(yiaddr),
        siaddr=IPv4Address(siaddr),
        giaddr=IPv4Address(giaddr),
        options={code: b"".join(pieces) for code, pieces in parts.items()},
    )


def pack_dhcp(message: Dhcp) -> bytes:
    """The message, padded to ``MIN_MESSAGE`` bytes; options of more than 255 bytes are split (RFC 3396).

    ``PacketError`` if it grows beyond ``MAX_MESSAGE`` or an option's code is pad, end or overload.
    """
    addresses = (message.ciaddr, message.yiaddr, message.siaddr, message.giaddr)
    packed_addresses = (address.packed for address in addresses)
    head = (message.op, 1, 6, 0, message.xid, message.secs, message.flags)
    pieces = [_FIXED.pack(*head, *packed_addresses, message.chaddr, b"", b"", _COOKIE)]
    # The message type goes first: the rest of the options is read in its light.
    for code in sorted(message.options, key=lambda code: code != OPTION_MESSAGE_TYPE):
        if not _PAD < code < _END or code == OPTION_OVERLOAD:
            raise PacketError(f"DHCP option {code} cannot be sent")
        value = message.options[code]
        for start in range(0, max(1, len(value)), 255):
            part = value[start : start + 255]
            pieces.append(bytes((code, len(part))) + part)
    pieces.append(bytes((_END,)))
    packed = b"".join(pieces)
    if len(packed) > MAX_MESSAGE:
        raise PacketError(f"DHCP message of {len(packed)} bytes: at most {MAX_MESSAGE} fit in a frame")
    return packed.ljust(MIN_MESSAGE, b"\0")


def _collect(area: bytes, name: str, parts: dict[int, list[bytes]]) -> None:
    """Append each option of ``area`` to ``parts``; each step goes on by one byte or more, so it ends."""
    at = 0
    size = len(area)
    while at < size:
        code = area[at]
        at += 1
        if code == _PAD:
            continue
        if code == _END:
            return
        if at == size or at + 1 + area[at] > size:
            raise PacketError(f"DHCP option {code} runs out of the {name} field")
        length = area[at]
        parts.setdefault(code, []).append(area[at + 1 : at + 1 + length])
        at += 1 + length
    raise PacketError(f"DHCP {name} field has no end option")
