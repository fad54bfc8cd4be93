"""The 8-octet header of the data plane: RFC 9300, 5.1 and 5.3, and LISP-GPE (RFC 9305, 3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final

from .errors import LispError, need, within

DATA_PORT: Final = 4341
DATA_HEADER_SIZE: Final = 8

_HEADER: Final = Struct("!II")
_N, _L, _E, _V, _I, _P = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04


class NextProtocol(IntEnum):
    """What follows a LISP-GPE header (RFC 9305, 6.1)."""

    IPV4 = 1
    IPV6 = 2
    ETHERNET = 3
    NSH = 4


@dataclass(frozen=True, slots=True)
class DataHeader:
    """A data header: each field that is not ``None`` sets its flag.

    ``nonce`` N (24 bits; 16 with ``next_protocol``), ``map_versions`` V (source and destination, 12 bits
    each; 8 with ``next_protocol``; not together with a nonce), ``instance_id`` I (24 bits),
    ``locator_status`` L (32 bits; 8 with ``instance_id``), ``next_protocol`` P, which makes the header one
    of LISP-GPE. ``echo_nonce`` E asks for the nonce to be sent back. ``key`` is KK (RFC 8061), 0: plain.
    """

    nonce: int | None = None
    locator_status: int | None = None
    echo_nonce: bool = False
    map_versions: tuple[int, int] | None = None
    instance_id: int | None = None
    next_protocol: int | None = None
    key: int = 0

    def encode(self) -> bytes:
        """The 8 octets; ``LispError`` if a field does not fit or excludes another."""
        if self.nonce is not None and self.map_versions is not None:
            raise LispError("a nonce and map-versions stand in the same place", field="N and V")
        if self.echo_nonce and self.nonce is None:
            raise LispError("an echo of no nonce", field="E")
        flags = within(self.key, 2, "KK")
        first = second = 0
        shift = 0 if self.next_protocol is None else 8
        if self.nonce is not None:
            flags |= _N | self.echo_nonce * _E
            first = within(self.nonce, 24 - shift, "Nonce") << shift
        elif self.map_versions is not None:
            flags |= _V
            bits = 12 - shift // 2
            source, destination = (within(version, bits, "Map-Version") for version in self.map_versions)
            first = (source << bits | destination) << shift
        if self.next_protocol is not None:
            flags |= _P
            first |= within(self.next_protocol, 8, "Next Protocol")
        if self.instance_id is not None:
            flags |= _I
            second = within(self.instance_id, 24, "Instance ID") << 8
        if self.locator_status is not None:
            flags |= _L
            second |= within(self.locator_status, 32 if self.instance_id is None else 8, "Locator-Status-Bits")
        return _HEADER.pack(flags << 24 | first, second)


def decode_data_header(data: bytes, offset: int = 0) -> DataHeader:
    """The header at ``offset`` of ``data``, which goes on with the inner packet.

    ``LispError`` if it is cut short or has flags that exclude each other. Fields whose flag is not set are
    ignored on receipt (RFC 9300, 5.3).
    """
    need(data, offset, DATA_HEADER_SIZE, "LISP header")
    first, second = _HEADER.unpack_from(data, offset)
    flags = first >> 24
    if flags & _N and flags & _V:
        raise LispError("a nonce and map-versions stand in the same place", field="N and V", offset=offset)
    if flags & _E and not flags & _N:
        raise LispError("an echo of no nonce", field="E", offset=offset)
    shift = 8 if flags & _P else 0
    word = (first & 0xFFFFFF) >> shift
    bits = 12 - shift // 2
    return DataHeader(
        nonce=word if flags & _N else None,
        locator_status=(second & 0xFF if flags & _I else second) if flags & _L else None,
        echo_nonce=bool(flags & _E),
        map_versions=(word >> bits, word & (1 << bits) - 1) if flags & _V else None,
        instance_id=second >> 8 if flags & _I else None,
        next_protocol=first & 0xFF if flags & _P else None,
        key=flags & 3,
    )
