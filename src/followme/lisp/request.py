"""Map-Request (RFC 9301, 5.2 and 5.3), with the subscription of RFC 9437, 5."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final

from .address import Address, Eid, EidPrefix, decode_address, decode_eid, encode_address, encode_eid
from .errors import LispError, exactly, finished, need, within
from .record import MappingRecord, decode_record

MAX_ITR_RLOCS: Final = 32

_HEAD: Final = Struct("!IQ")
_A, _M, _P, _S = 1 << 27, 1 << 26, 1 << 25, 1 << 24
_PITR, _INVOKED, _I, _L, _D = 1 << 23, 1 << 22, 1 << 20, 1 << 14, 1 << 13
_NOTIFY = 0x80


@dataclass(frozen=True, slots=True)
class EidRecord:
    """An EID-prefix that is asked for; ``notify`` is the N-bit: the sender wants to be told of changes."""

    eid: Eid
    notify: bool = False


@dataclass(frozen=True, slots=True)
class MapRequest:
    """A Map-Request; ``nonce`` has 64 bits.

    ``authoritative`` A, ``probe`` P (RLOC-probe), ``smr`` S (solicit), ``pitr`` p (sent by a Proxy-ITR),
    ``smr_invoked`` s, ``local_xtr`` L, ``dont_map_reply`` D. ``map_reply`` sets M and goes with the
    request; ``xtr_id`` (16 octets) sets I and goes with ``site_id`` (64 bits). 1 to 32 ``itr_rlocs`` and
    1 to 255 ``records``. An ITR-RLOC may be an LCAF, or ``None`` (AFI 0), which alone ends a subscription
    (RFC 9437, 5). ``source_eid`` is ``None`` where no packet caused the request.
    """

    TYPE: ClassVar[int] = 1
    nonce: int
    itr_rlocs: tuple[Address, ...]
    records: tuple[EidRecord, ...]
    source_eid: Eid | None = None
    authoritative: bool = False
    probe: bool = False
    smr: bool = False
    pitr: bool = False
    smr_invoked: bool = False
    local_xtr: bool = False
    dont_map_reply: bool = False
    map_reply: MappingRecord | None = None
    xtr_id: bytes | None = None
    site_id: int = 0

    @property
    def subscribes(self) -> bool:
        """Whether any record has the N-bit; RFC 9437 wants the xTR-ID with it."""
        return any(record.notify for record in self.records)

    def encode(self) -> bytes:
        """The message's octets; ``LispError`` if a field does not fit."""
        if not 1 <= len(self.itr_rlocs) <= MAX_ITR_RLOCS:
            raise LispError(f"{len(self.itr_rlocs)} ITR-RLOCs, not 1 to 32", field="IRC")
        if not 1 <= len(self.records) <= 255:
            raise LispError(f"{len(self.records)} records, not 1 to 255", field="Record Count")
        if self.xtr_id is None and self.site_id:
            raise LispError("a Site-ID goes only with an xTR-ID", field="Site-ID")
        if isinstance(self.source_eid, EidPrefix) and not self.source_eid.host:
            raise LispError(f"{self.source_eid} is not one address", field="Source EID")
        first = (
            self.TYPE << 28
            | self.authoritative * _A
            | (self.map_reply is not None) * _M
            | self.probe * _P
            | self.smr * _S
            | self.pitr * _PITR
            | self.smr_invoked * _INVOKED
            | (self.xtr_id is not None) * _I
            | self.local_xtr * _L
            | self.dont_map_reply * _D
            | len(self.itr_rlocs) - 1 << 8
            | len(self.records)
        )
        parts = [_HEAD.pack(first, within(self.nonce, 64, "Nonce"))]
        parts.append(b"\0\0" if self.source_eid is None else encode_eid(self.source_eid))
        parts += [encode_address(rloc) for rloc in self.itr_rlocs]
        for record in self.records:
            length = within(record.eid.length, 8, "EID mask-len")
            parts.append(bytes((record.notify * _NOTIFY, length)) + encode_eid(record.eid))
        if self.map_reply is not None:
            parts.append(self.map_reply.encode())
        if self.xtr_id is not None:
            parts.append(encode_xtr(self.xtr_id, self.site_id))
        return b"".join(parts)


def decode_map_request(data: bytes) -> MapRequest:
    """The Map-Request in ``data``; ``LispError`` if it is none, or more."""
    need(data, 0, 12, "Map-Request")
    first, nonce = _HEAD.unpack_from(data)
    if first >> 28 != MapRequest.TYPE:
        raise LispError(f"type {first >> 28} is no Map-Request", field="Type", offset=0)
    source_eid, offset = decode_eid(data, 12, None, "Source EID")
    itr_rlocs: list[Address] = []
    for _ in range((first >> 8 & 0x1F) + 1):
        rloc, offset = decode_address(data, offset, "ITR-RLOC")
        itr_rlocs.append(rloc)
    if not first & 0xFF:
        raise LispError("a Map-Request that asks for nothing", field="Record Count", offset=3)
    need(data, offset, (first & 0xFF) * 8, f"{first & 0xFF} EID records")
    records = []
    for _ in range(first & 0xFF):
        need(data, offset, 4, "EID record")
        eid, end = decode_eid(data, offset + 2, data[offset + 1], "EID-prefix")
        if eid is None:
            raise LispError("an EID record without an EID (AFI 0)", field="EID-prefix", offset=offset + 2)
        records.append(EidRecord(eid, bool(data[offset] & _NOTIFY)))
        offset = end
    map_reply: MappingRecord | None = None
    if first & _M:
        map_reply, offset = decode_record(data, offset)
    xtr_id: bytes | None = None
    site_id = 0
    if first & _I:
        xtr_id, site_id, offset = decode_xtr(data, offset)
    finished(data, offset, "Map-Request")
    return MapRequest(
        nonce,
        tuple(itr_rlocs),
        tuple(records),
        source_eid,
        bool(first & _A),
        bool(first & _P),
        bool(first & _S),
        bool(first & _PITR),
        bool(first & _INVOKED),
        bool(first & _L),
        bool(first & _D),
        map_reply,
        xtr_id,
        site_id,
    )


def encode_xtr(xtr_id: bytes, site_id: int) -> bytes:
    """The xTR-ID (16 octets) and the Site-ID (64 bits) that end a message with the I-bit."""
    return exactly(xtr_id, 16, "xTR-ID") + within(site_id, 64, "Site-ID").to_bytes(8, "big")


def decode_xtr(data: bytes, offset: int) -> tuple[bytes, int, int]:
    """xTR-ID, Site-ID and the offset behind them."""
    need(data, offset, 24, "xTR-ID and Site-ID")
    site_id = int.from_bytes(data[offset + 16 : offset + 24], "big")
    return data[offset : offset + 16], site_id, offset + 24
