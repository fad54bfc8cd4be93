"""One Map-Notify for many subscribers: only its nonce, its xTR-ID and its HMAC differ, so only they are made anew.

A move has to be told to a thousand routers at once, and to encode and sign a message from objects takes longer
than to send it.
"""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Final

from followme.lisp import HMAC_SHA_1_96, HMAC_SHA_256_128, MapNotify, sign
from followme.lisp.register import AUTHENTICATION_OFFSET

_DIGESTS: Final = {HMAC_SHA_1_96: "sha1", HMAC_SHA_256_128: "sha256"}
_XTR_OCTETS, _SITE_OCTETS = 16, 8


class Stamp:
    """``message`` with an xTR-ID, as ``sign`` would make it for each nonce and xTR-ID."""

    __slots__ = ("_blank", "_digest", "_end", "_key", "_octets")

    def __init__(self, message: MapNotify, key: bytes, algorithm_id: int, key_id: int) -> None:
        message = replace(message, xtr_id=message.xtr_id or bytes(_XTR_OCTETS))
        signed = sign(message, key, algorithm_id, key_id=key_id)
        octets = self._octets = len(signed.authentication)
        blank = self._blank = bytearray(signed.encode())
        blank[AUTHENTICATION_OFFSET : AUTHENTICATION_OFFSET + octets] = bytes(octets)
        self._key, self._digest, self._end = key, _DIGESTS[algorithm_id], len(blank) - _SITE_OCTETS

    def message(self, nonce: int, xtr_id: bytes) -> bytes:
        """The signed octets for one router; ``xtr_id`` has 16 octets."""
        data = self._blank
        data[4:12] = nonce.to_bytes(8, "big")
        data[self._end - _XTR_OCTETS : self._end] = xtr_id
        mac = hmac.digest(self._key, data, self._digest)[: self._octets]
        head = AUTHENTICATION_OFFSET
        return bytes(data[:head]) + mac + bytes(data[head + self._octets :])
