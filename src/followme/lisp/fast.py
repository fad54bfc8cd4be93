"""The Map-Server's hot path: the commonest Map-Request read, and its Map-Reply built, without objects.

A Map-Server answers most requests from a table that goes from the ``EidPrefix`` asked for to the octets of
a mapping record. So this reads just what that takes, and returns ``None`` for all that is not common or
not right; ``decode`` then says what it is, or what is wrong with it. Whatever is read here, ``decode``
reads the same (``tests/property`` holds the two together).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .address import MASKS, EidPrefix

_INSTANCE_IPV4: Final = b"\0\x0a"
_INSTANCE_IPV6: Final = b"\0\x16"
_REPLY: Final = b"\x20\0\0\1"


class FastRequest(NamedTuple):
    """A Map-Request for one EID-prefix from one ITR-RLOC, without N, I, M, A, P, S, L or D.

    ``nonce`` (8 octets) goes into ``map_reply_fast``; ``eid`` is the key of the table; the reply goes to
    ``itr_rloc`` (packed, 4 or 16 octets) and UDP port ``reply_port``. The p and s bits may be set: they
    change nothing in the answer.
    """

    nonce: bytes
    eid: EidPrefix
    itr_rloc: bytes
    reply_port: int


def parse_map_request_fast(datagram: bytes) -> FastRequest | None:
    """The Map-Request in the ECM ``datagram``, if it is of the commonest form and all right, else ``None``.

    That form: IPv4 without options or IPv6 inside, right checksums, one ITR-RLOC, one record that is IPv4
    or IPv6, plain or with an instance-ID, any source EID of those. Never raises for ``bytes``.
    """
    size = len(datagram)
    if size < 52 or datagram[0] & 0xF8 != 0x80:
        return None
    version = datagram[4]
    if version == 0x45:
        # UDP, no fragment, lengths that agree, then the sums: 0 modulo 65535 as in RFC 1071, 2 (B).
        udp = 24
        udp_size = size - 24
        if (
            datagram[13] != 17
            or datagram[6] << 8 | datagram[7] != size - 4
            or (datagram[10] & 0x3F) | datagram[11]
            or int.from_bytes(datagram[4:24], "big") % 0xFFFF
        ):
            return None
        summed = datagram[16:]
    elif version >> 4 == 6:
        udp = 44
        udp_size = size - 44
        if udp_size < 8 or datagram[10] != 17 or datagram[8] << 8 | datagram[9] != udp_size:
            return None
        summed = datagram[12:]
    else:
        return None
    if datagram[udp + 4] << 8 | datagram[udp + 5] != udp_size:
        return None
    if datagram[udp + 6] | datagram[udp + 7]:
        total = int.from_bytes(summed, "big")
        if size & 1:
            total <<= 8
        if (total + 17 + udp_size) % 0xFFFF:
            return None
    elif udp == 44:
        return None
    return _request(datagram, udp, size)


def _request(data: bytes, udp: int, size: int) -> FastRequest | None:
    at = udp + 8
    # Type 1 and no A, M, P or S; none of the R, I, L and D bits; IRC 0; one record.
    if size < at + 22 or data[at] != 0x10 or data[at + 1] & 0x10 or data[at + 2] & 0x7F or data[at + 3] != 1:
        return None
    nonce = data[at + 4 : at + 12]
    at += 12
    afi = data[at : at + 2]
    if afi == b"\0\0":
        at += 2
    elif afi == b"\0\1":
        at += 6
    elif afi == b"\0\2":
        at += 18
    elif afi == b"\x40\x03" and size > at + 14 and data[at + 4] == 2:
        # An instance-ID above 24 bits is for the full parser to refuse.
        inner = data[at + 6 : at + 8] + data[at + 12 : at + 14]
        if data[at + 8] or inner not in (b"\0\x0a\0\1", b"\0\x16\0\2"):
            return None
        at += 18 if inner[3] == 1 else 30
    else:
        return None
    afi = data[at : at + 2]
    if afi == b"\0\1":
        itr_rloc = data[at + 2 : at + 6]
        at += 6
    elif afi == b"\0\2":
        itr_rloc = data[at + 2 : at + 18]
        at += 18
    else:
        return None
    if size < at + 8 or data[at] & 0x80:
        return None
    length = data[at + 1]
    afi = data[at + 2 : at + 4]
    iid = 0
    if afi == b"\x40\x03":
        if size < at + 20 or data[at + 6] != 2 or data[at + 10]:
            return None
        iid = data[at + 11] << 16 | data[at + 12] << 8 | data[at + 13]
        afi = data[at + 14 : at + 16]
        if data[at + 8 : at + 10] != (_INSTANCE_IPV4 if afi == b"\0\1" else _INSTANCE_IPV6):
            return None
        at += 16
    else:
        at += 4
    address = data[at:]
    if afi == b"\0\1":
        if size != at + 4 or length > 32:
            return None
        if length != 32:
            address = (int.from_bytes(address, "big") & MASKS[4][length]).to_bytes(4, "big")
    elif afi == b"\0\2":
        if size != at + 16 or length > 128:
            return None
        if length != 128:
            address = (int.from_bytes(address, "big") & MASKS[16][length]).to_bytes(16, "big")
    else:
        return None
    return FastRequest(nonce, EidPrefix(iid, address, length), itr_rloc, data[udp] << 8 | data[udp + 1])


def map_reply_fast(nonce: bytes, record: bytes) -> bytes:
    """The Map-Reply of one record: ``nonce`` of 8 octets, ``record`` from ``MappingRecord.encode``."""
    return _REPLY + nonce + record
