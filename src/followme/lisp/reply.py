"""Map-Reply, positive and negative (RFC 9301, 5.4 and 5.5)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final

from .address import Eid
from .errors import LispError, finished, need, within
from .record import Action, MappingRecord, decode_records, encode_records

_HEAD: Final = Struct("!IQ")
_P, _E, _S = 1 << 27, 1 << 26, 1 << 25


@dataclass(frozen=True, slots=True)
class MapReply:
    """A Map-Reply to the Map-Request of the same 64-bit ``nonce``.

    ``probe`` P (answers an RLOC-probe), ``echo_nonce`` E (the data plane echoes nonces). ``security`` sets
    S and is the LISP-SEC authentication data (RFC 9303) that ends the message, kept unread.
    """

    TYPE: ClassVar[int] = 2
    nonce: int
    records: tuple[MappingRecord, ...]
    probe: bool = False
    echo_nonce: bool = False
    security: bytes | None = None

    def encode(self) -> bytes:
        """The message's octets; ``LispError`` if a field does not fit."""
        body = encode_records(self.records)
        first = (
            self.TYPE << 28
            | self.probe * _P
            | self.echo_nonce * _E
            | (self.security is not None) * _S
            | len(self.records)
        )
        return _HEAD.pack(first, within(self.nonce, 64, "Nonce")) + body + (self.security or b"")


def decode_map_reply(data: bytes) -> MapReply:
    """The Map-Reply in ``data``; ``LispError`` if it is none, or more."""
    need(data, 0, 12, "Map-Reply")
    first, nonce = _HEAD.unpack_from(data)
    if first >> 28 != MapReply.TYPE:
        raise LispError(f"type {first >> 28} is no Map-Reply", field="Type", offset=0)
    records, offset = decode_records(data, 12, first & 0xFF)
    security: bytes | None = None
    if first & _S:
        security = data[offset:]
    else:
        finished(data, offset, "Map-Reply")
    return MapReply(nonce, records, bool(first & _P), bool(first & _E), security)


def negative_map_reply(nonce: int, eid: Eid, action: int = Action.NATIVELY_FORWARD, ttl: int = 15) -> MapReply:
    """A Negative Map-Reply: ``eid`` has no locators, do ``action`` with its packets for ``ttl`` minutes.

    15 minutes is for an EID outside every registered prefix, 1 minute for one inside a prefix that is
    delegated but not registered now (RFC 9301, 8.3).
    """
    return MapReply(nonce, (MappingRecord(eid, (), ttl, action),))
