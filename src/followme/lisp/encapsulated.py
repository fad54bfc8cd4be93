"""Encapsulated Control Message: a control message in an IP and a UDP header of its own (RFC 9301, 5.8)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import ClassVar, Final, Protocol

from followme.packets.checksum import internet_checksum

from .errors import LispError, need, within

CONTROL_PORT: Final = 4342

_UDP: Final = 17
_HOPS: Final = 64
_IPV4: Final = Struct("!BBHHHBBH4s4s")
_IPV6: Final = Struct("!IHBB16s16s")
_PORTS: Final = Struct("!HHHH")
_S, _D = 1 << 27, 1 << 26


class Encodable(Protocol):
    """A control message."""

    def encode(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class EncapsulatedControlMessage:
    """``message`` (a Map-Request, as a rule) from ``source`` to ``destination``, both IPv4 or both IPv6.

    For a Map-Request ``destination`` is the EID that is asked for, and ``source_port`` is the UDP port
    that the Map-Reply goes to. ``ddt`` is the D-bit.
    """

    TYPE: ClassVar[int] = 8
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    message: Encodable
    source_port: int = CONTROL_PORT
    destination_port: int = CONTROL_PORT
    ddt: bool = False

    def encode(self) -> bytes:
        """The message's octets, checksums included; ``LispError`` if a field does not fit."""
        payload = self.message.encode()
        if not payload or payload[0] >> 4 == self.TYPE:
            raise LispError("an ECM in an ECM" if payload else "it has no octets", field="message")
        size = len(payload) + 8
        source, destination = self.source.packed, self.destination.packed
        if len(source) != len(destination):
            raise LispError(f"{self.source} and {self.destination} differ in family", field="inner addresses")
        if size + 20 > 0xFFFF:
            raise LispError(f"{size - 8} octets do not fit one packet", field="message")
        ports = within(self.source_port, 16, "source port"), within(self.destination_port, 16, "port")
        pseudo = source + destination + bytes((0, _UDP)) + size.to_bytes(2, "big")
        # A sum of 0 is sent as 0xFFFF, which means the same: 0 says "no checksum" (RFC 768).
        checksum = internet_checksum(pseudo + _PORTS.pack(*ports, size, 0) + payload) or 0xFFFF
        head = (self.TYPE << 28 | self.ddt * _D).to_bytes(4, "big")
        return head + _ip_header(source, destination, size) + _PORTS.pack(*ports, size, checksum) + payload


def _ip_header(source: bytes, destination: bytes, size: int) -> bytes:
    if len(source) == 16:
        return _IPV6.pack(6 << 28, size, _UDP, _HOPS, source, destination)
    header = _IPV4.pack(0x45, 0, 20 + size, 0, 0x4000, _HOPS, _UDP, 0, source, destination)
    return header[:10] + internet_checksum(header).to_bytes(2, "big") + header[12:]


def decode_encapsulated(data: bytes, decode: Callable[[bytes], Encodable]) -> EncapsulatedControlMessage:
    """The ECM in ``data``, its message read by ``decode``.

    ``LispError`` for anything but one unfragmented UDP packet with right checksums, for an ECM in it, and
    for the S-bit: what LISP-SEC (RFC 9303) puts before the inner header is not read here.
    """
    need(data, 0, 5, "Encapsulated Control Message")
    first = int.from_bytes(data[:4], "big")
    if first >> 28 != EncapsulatedControlMessage.TYPE:
        raise LispError(f"type {first >> 28} is no ECM", field="Type", offset=0)
    if first & _S:
        raise LispError("LISP-SEC is not supported", field="S-bit", offset=0)
    version = data[4] >> 4
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    if version == 4:
        packed, udp = _open_ipv4(data)
        source, destination = IPv4Address(packed[:4]), IPv4Address(packed[4:])
    elif version == 6:
        packed, udp = _open_ipv6(data)
        source, destination = IPv6Address(packed[:16]), IPv6Address(packed[16:])
    else:
        raise LispError(f"IP version {version}", field="inner IP header", offset=4)
    need(data, udp, 8, "inner UDP header")
    source_port, destination_port, size, checksum = _PORTS.unpack_from(data, udp)
    if size < 8 or size != len(data) - udp:
        raise LispError(f"length {size}, {len(data) - udp} octets are there", field="inner UDP", offset=udp)
    if checksum:
        pseudo = packed + bytes((0, _UDP)) + size.to_bytes(2, "big")
        if internet_checksum(pseudo + data[udp:]):
            raise LispError("the checksum is wrong", field="inner UDP", offset=udp)
    elif version == 6:
        raise LispError("no checksum, which IPv6 requires", field="inner UDP", offset=udp)
    if size > 8 and data[udp + 8] >> 4 == EncapsulatedControlMessage.TYPE:
        raise LispError("an ECM in an ECM", field="message", offset=udp + 8)
    return EncapsulatedControlMessage(
        source, destination, decode(data[udp + 8 :]), source_port, destination_port, bool(first & _D)
    )


def _open_ipv4(data: bytes) -> tuple[bytes, int]:
    """Both addresses, packed, and the offset of the UDP header."""
    need(data, 4, 20, "inner IPv4 header")
    versioned, _, total, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(data, 4)
    size = (versioned & 0x0F) * 4
    if size < 20 or total != len(data) - 4 or size > total:
        raise LispError(
            f"header of {size} octets, total length {total}, {len(data) - 4} octets are there",
            field="inner IPv4 header",
            offset=4,
        )
    if internet_checksum(data[4 : 4 + size]):
        raise LispError("the checksum is wrong", field="inner IPv4 header", offset=4)
    if fragment & 0x3FFF or protocol != _UDP:
        raise LispError("a fragment" if fragment & 0x3FFF else "not UDP", field="inner IPv4 header", offset=4)
    return source + destination, 4 + size


def _open_ipv6(data: bytes) -> tuple[bytes, int]:
    """Both addresses, packed, and the offset of the UDP header; extension headers are refused."""
    need(data, 4, 40, "inner IPv6 header")
    _, size, following, _, source, destination = _IPV6.unpack_from(data, 4)
    if following != _UDP:
        raise LispError(f"next header {following} is not UDP", field="inner IPv6 header", offset=4)
    if size != len(data) - 44:
        raise LispError(
            f"payload length {size}, {len(data) - 44} octets are there", field="inner IPv6 header", offset=4
        )
    return source + destination, 44
