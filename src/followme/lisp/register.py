"""Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301, 5.6 and 5.7): records under a key."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final

from .errors import LispError, finished, need, within
from .record import MappingRecord, decode_records, encode_records
from .request import decode_xtr, encode_xtr

AUTHENTICATION_OFFSET: Final = 16
"""Where the authentication data begins in all three messages."""

_HEAD: Final = Struct("!IQBBH")
_P, _S, _I = 1 << 27, 1 << 26, 1 << 25
_T, _MERGE, _M = 1 << 11, 1 << 10, 1 << 8
_NOTIFY_I = 1 << 27


@dataclass(frozen=True, slots=True)
class MapRegister:
    """A Map-Register; ``nonce`` (64 bits) grows with every registration, against replay.

    ``proxy_map_reply`` P, ``security`` S (LISP-SEC capable), ``use_ttl`` T (the records' TTL is the
    registration's lifetime), ``merge`` a, ``want_map_notify`` M. ``xtr_id`` (16 octets) sets I and goes
    with ``site_id`` (64 bits). ``authentication`` is made by ``sign`` and checked by ``verify``.
    """

    TYPE: ClassVar[int] = 3
    nonce: int
    records: tuple[MappingRecord, ...]
    proxy_map_reply: bool = False
    security: bool = False
    use_ttl: bool = False
    merge: bool = False
    want_map_notify: bool = False
    xtr_id: bytes | None = None
    site_id: int = 0
    key_id: int = 0
    algorithm_id: int = 0
    authentication: bytes = b""

    def encode(self) -> bytes:
        """The message's octets with ``authentication`` as it is; ``LispError`` if a field does not fit."""
        flags = (
            self.proxy_map_reply * _P
            | self.security * _S
            | (self.xtr_id is not None) * _I
            | self.use_ttl * _T
            | self.merge * _MERGE
            | self.want_map_notify * _M
        )
        return _encode(self, flags)


@dataclass(frozen=True, slots=True)
class MapNotify:
    """A Map-Notify: an acknowledged registration (its nonce), or news to a subscriber (RFC 9437, 6).

    ``xtr_id`` and ``site_id`` are not of RFC 9301, but Map-Servers that were asked with an xTR-ID send
    them with a flag in the place of Map-Register's P, and Wireshark and tcpdump read them so.
    """

    TYPE: ClassVar[int] = 4
    nonce: int
    records: tuple[MappingRecord, ...]
    xtr_id: bytes | None = None
    site_id: int = 0
    key_id: int = 0
    algorithm_id: int = 0
    authentication: bytes = b""

    def encode(self) -> bytes:
        """The message's octets with ``authentication`` as it is; ``LispError`` if a field does not fit."""
        return _encode(self, (self.xtr_id is not None) * _NOTIFY_I)


@dataclass(frozen=True, slots=True)
class MapNotifyAck:
    """A Map-Notify-Ack: the Map-Notify's contents, sent back to stop its retransmission."""

    TYPE: ClassVar[int] = 5
    nonce: int
    records: tuple[MappingRecord, ...]
    xtr_id: bytes | None = None
    site_id: int = 0
    key_id: int = 0
    algorithm_id: int = 0
    authentication: bytes = b""

    def encode(self) -> bytes:
        """The message's octets with ``authentication`` as it is; ``LispError`` if a field does not fit."""
        return _encode(self, (self.xtr_id is not None) * _NOTIFY_I)


Signed = MapRegister | MapNotify | MapNotifyAck

OWN_NONCES: Final = 3 << 62
"""From here on are our map server's nonces for what it says of its own accord to a router that lost an EID. Those
of subscriptions, which begin with the nonce of a Map-Request, which anybody can send, are below for ever."""


def decode_map_register(data: bytes) -> MapRegister:
    """The Map-Register in ``data``, unverified; ``LispError`` if it is none, or more."""
    first, nonce, key_id, algorithm_id, authentication, records, xtr = _decode(data, MapRegister.TYPE, _I)
    return MapRegister(
        nonce,
        records,
        bool(first & _P),
        bool(first & _S),
        bool(first & _T),
        bool(first & _MERGE),
        bool(first & _M),
        *xtr,
        key_id,
        algorithm_id,
        authentication,
    )


def decode_map_notify(data: bytes) -> MapNotify:
    """The Map-Notify in ``data``, unverified; ``LispError`` if it is none, or more."""
    _, nonce, key_id, algorithm_id, authentication, records, xtr = _decode(data, MapNotify.TYPE, _NOTIFY_I)
    return MapNotify(nonce, records, *xtr, key_id, algorithm_id, authentication)


def decode_map_notify_ack(data: bytes) -> MapNotifyAck:
    """The Map-Notify-Ack in ``data``, unverified; ``LispError`` if it is none, or more."""
    _, nonce, key_id, algorithm_id, authentication, records, xtr = _decode(data, MapNotifyAck.TYPE, _NOTIFY_I)
    return MapNotifyAck(nonce, records, *xtr, key_id, algorithm_id, authentication)


def _encode(message: Signed, flags: int) -> bytes:
    if message.xtr_id is None and message.site_id:
        raise LispError("a Site-ID goes only with an xTR-ID", field="Site-ID")
    if len(message.authentication) > 0xFFFF:
        raise LispError("more than 65535 octets", field="Authentication Data")
    body = encode_records(message.records)
    head = _HEAD.pack(
        message.TYPE << 28 | flags | len(message.records),
        within(message.nonce, 64, "Nonce"),
        within(message.key_id, 8, "Key ID"),
        within(message.algorithm_id, 8, "Algorithm ID"),
        len(message.authentication),
    )
    xtr = b"" if message.xtr_id is None else encode_xtr(message.xtr_id, message.site_id)
    return head + message.authentication + body + xtr


def _decode(
    data: bytes, kind: int, xtr_flag: int
) -> tuple[int, int, int, int, bytes, tuple[MappingRecord, ...], tuple[bytes | None, int]]:
    name = {MapRegister.TYPE: "Map-Register", MapNotify.TYPE: "Map-Notify"}.get(kind, "Map-Notify-Ack")
    need(data, 0, AUTHENTICATION_OFFSET, name)
    first, nonce, key_id, algorithm_id, size = _HEAD.unpack_from(data)
    if first >> 28 != kind:
        raise LispError(f"type {first >> 28} is no {name}", field="Type", offset=0)
    offset = AUTHENTICATION_OFFSET + size
    need(data, AUTHENTICATION_OFFSET, size, "Authentication Data")
    records, end = decode_records(data, offset, first & 0xFF)
    xtr: tuple[bytes | None, int] = (None, 0)
    if first & xtr_flag:
        xtr_id, site_id, end = decode_xtr(data, end)
        xtr = (xtr_id, site_id)
    finished(data, end, name)
    return first, nonce, key_id, algorithm_id, data[AUTHENTICATION_OFFSET:offset], records, xtr
