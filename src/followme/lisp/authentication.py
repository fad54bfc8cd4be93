"""Authentication of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301, 5.6 and 9).

The MAC is over the whole message, xTR-ID and Site-ID included, with the authentication data set to 0 (so
does Open Overlay Router). Algorithms 1 and 2 have no key derivation: the key is the shared secret itself.
Algorithm 3 (a key derived for each message with HKDF) is refused as unknown.

**Lengths.** The names say it: HMAC-SHA-1-96 (RFC 2404) is 12 octets and HMAC-SHA-256-128 (RFC 4868) is 16.
Implementations of RFC 6830 send the whole digest instead: 20 octets of SHA-1 (Open Overlay Router, VPP,
lispers.net) and 32 of SHA-256 (VPP, lispers.net). Both lengths are accepted and compared whole. What is
sent by default is 20 octets of SHA-1, as only those old peers use it, and 16 octets of SHA-256.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from dataclasses import replace
from typing import Final, TypeVar

from .errors import LispError, need
from .register import AUTHENTICATION_OFFSET, MapNotify, MapNotifyAck, MapRegister, Signed

HMAC_SHA_1_96: Final = 1
HMAC_SHA_256_128: Final = 2

_TYPES: Final = (MapRegister.TYPE, MapNotify.TYPE, MapNotifyAck.TYPE)
_DIGESTS: Final = {HMAC_SHA_1_96: "sha1", HMAC_SHA_256_128: "sha256"}
_LENGTHS: Final = {HMAC_SHA_1_96: (20, 12), HMAC_SHA_256_128: (16, 32)}

_S = TypeVar("_S", bound=Signed)


def sign(
    message: _S, key: bytes, algorithm_id: int = HMAC_SHA_256_128, *, key_id: int = 0, length: int | None = None
) -> _S:
    """``message`` with its authentication data, key id and algorithm id.

    ``length`` (octets) chooses one of the two lengths of the algorithm. ``LispError`` for an unknown
    algorithm or another length, and for an empty key.
    """
    lengths = _lengths(algorithm_id)
    octets = lengths[0] if length is None else length
    if octets not in lengths:
        raise LispError(f"{octets} octets for algorithm {algorithm_id}", field="Authentication Data Length")
    blank = replace(message, key_id=key_id, algorithm_id=algorithm_id, authentication=bytes(octets))
    return replace(blank, authentication=_mac(blank.encode(), key, algorithm_id)[:octets])


def verify(datagram: bytes, key: bytes, *, accept: Collection[int] = (HMAC_SHA_1_96, HMAC_SHA_256_128)) -> bool:
    """Whether the MAC of the Map-Register, Map-Notify or Map-Notify-Ack in ``datagram`` is right.

    ``accept`` holds the algorithms that may have made it. ``LispError`` if ``datagram`` is no such message,
    has authentication data of another length, or of an algorithm that is not accepted ("none" never is).
    Nothing else of the message is looked at: decode it after this.
    """
    need(datagram, 0, AUTHENTICATION_OFFSET, "authenticated message")
    if datagram[0] >> 4 not in _TYPES:
        raise LispError(f"type {datagram[0] >> 4} has no authentication data", field="Type", offset=0)
    algorithm_id = datagram[13]
    octets = datagram[14] << 8 | datagram[15]
    if algorithm_id not in accept:
        raise LispError(f"algorithm {algorithm_id} is not accepted", field="Algorithm ID", offset=13)
    if octets not in _lengths(algorithm_id):
        raise LispError(
            f"{octets} octets for algorithm {algorithm_id}", field="Authentication Data Length", offset=14
        )
    need(datagram, AUTHENTICATION_OFFSET, octets, "Authentication Data")
    end = AUTHENTICATION_OFFSET + octets
    blank = datagram[:AUTHENTICATION_OFFSET] + bytes(octets) + datagram[end:]
    expected = _mac(blank, key, algorithm_id)[:octets]
    return hmac.compare_digest(expected, datagram[AUTHENTICATION_OFFSET:end])


def _lengths(algorithm_id: int) -> tuple[int, int]:
    lengths = _LENGTHS.get(algorithm_id)
    if lengths is None:
        raise LispError(f"algorithm {algorithm_id} is not supported", field="Algorithm ID")
    return lengths


def _mac(message: bytes, key: bytes, algorithm_id: int) -> bytes:
    if not key:
        raise LispError("an empty key authenticates nobody", field="key")
    return hmac.digest(key, message, _DIGESTS[algorithm_id])
