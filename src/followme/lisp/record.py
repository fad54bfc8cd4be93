"""Mapping records: an EID-prefix and its locators (RFC 9301, 5.4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from .address import Address, Eid, decode_address, decode_eid, encode_address, encode_eid
from .errors import LispError, need, within

UNUSABLE: Final = 255
"""The priority of a locator that must not be used (RFC 9301, 5.4)."""
TTL_UNLIMITED: Final = 0xFFFFFFFF
"""The TTL with which the recipient decides for how long to store the record."""

_HEAD: Final = Struct("!IBBHH")
_LOCATOR: Final = Struct("!BBBBH")
_AUTHORITATIVE: Final = 0x1000
_LOCAL, _PROBED, _REACHABLE = 4, 2, 1


class Action(IntEnum):
    """What an ITR does with a packet for a mapping without locators (ACT; 6 and 7 are not assigned)."""

    NO_ACTION = 0
    NATIVELY_FORWARD = 1
    SEND_MAP_REQUEST = 2
    DROP = 3
    DROP_POLICY_DENIED = 4
    DROP_AUTH_FAILURE = 5


@dataclass(frozen=True, slots=True)
class Locator:
    """An RLOC with its priorities (lower is better, 255 is "do not use") and weights (of equal priorities)."""

    address: Address
    priority: int = 1
    weight: int = 100
    mpriority: int = UNUSABLE
    mweight: int = 0
    local: bool = False
    probed: bool = False
    reachable: bool = True

    def encode(self) -> bytes:
        flags = self.local * _LOCAL | self.probed * _PROBED | self.reachable * _REACHABLE
        return _LOCATOR.pack(
            within(self.priority, 8, "Priority"),
            within(self.weight, 8, "Weight"),
            within(self.mpriority, 8, "M Priority"),
            within(self.mweight, 8, "M Weight"),
            flags,
        ) + encode_address(self.address)


@dataclass(frozen=True, slots=True)
class MappingRecord:
    """An EID-to-RLOC mapping; ``ttl`` in minutes; without locators it is negative and ``action`` counts."""

    eid: Eid
    locators: tuple[Locator, ...] = ()
    ttl: int = 1440
    action: int = Action.NO_ACTION
    authoritative: bool = False
    map_version: int = 0

    def encode(self) -> bytes:
        """The record's octets; ``LispError`` if a field does not fit."""
        if len(self.locators) > 255:
            raise LispError(f"{len(self.locators)} locators, at most 255 fit", field="Locator Count")
        head = _HEAD.pack(
            within(self.ttl, 32, "Record TTL"),
            len(self.locators),
            within(self.eid.length, 8, "EID mask-len"),
            within(self.action, 3, "ACT") << 13 | self.authoritative * _AUTHORITATIVE,
            within(self.map_version, 12, "Map-Version Number"),
        )
        return head + encode_eid(self.eid) + b"".join([locator.encode() for locator in self.locators])


def decode_record(data: bytes, offset: int) -> tuple[MappingRecord, int]:
    """The mapping record at ``offset`` and the offset behind it; ``LispError`` if it is none."""
    need(data, offset, 10, "mapping record")
    ttl, count, length, flags, version = _HEAD.unpack_from(data, offset)
    eid, end = decode_eid(data, offset + 10, length, "EID-prefix")
    if eid is None:
        raise LispError("a mapping record without an EID (AFI 0)", field="EID-prefix", offset=offset + 10)
    # A locator takes at least 8 octets: a count that lies is refused before the first is read.
    need(data, end, count * 8, f"{count} locators")
    locators = []
    for _ in range(count):
        locator, end = _decode_locator(data, end)
        locators.append(locator)
    record = MappingRecord(eid, tuple(locators), ttl, flags >> 13, bool(flags & _AUTHORITATIVE), version & 0x0FFF)
    return record, end


def _decode_locator(data: bytes, offset: int) -> tuple[Locator, int]:
    need(data, offset, 8, "locator")
    priority, weight, mpriority, mweight, flags = _LOCATOR.unpack_from(data, offset)
    address, end = decode_address(data, offset + 6, "locator")
    locator = Locator(
        address,
        priority,
        weight,
        mpriority,
        mweight,
        bool(flags & _LOCAL),
        bool(flags & _PROBED),
        bool(flags & _REACHABLE),
    )
    return locator, end


def encode_records(records: tuple[MappingRecord, ...]) -> bytes:
    """All records, one behind the other; ``LispError`` for more than the Record Count can say."""
    if len(records) > 255:
        raise LispError(f"{len(records)} records, at most 255 fit", field="Record Count")
    return b"".join([record.encode() for record in records])


def decode_records(data: bytes, offset: int, count: int) -> tuple[tuple[MappingRecord, ...], int]:
    """``count`` records from ``offset`` on, and the offset behind them."""
    # AFI 0 is refused, so a record takes at least 16 octets (10, an AFI, an IPv4 address).
    need(data, offset, count * 16, f"{count} mapping records")
    records = []
    for _ in range(count):
        record, offset = decode_record(data, offset)
        records.append(record)
    return tuple(records), offset
