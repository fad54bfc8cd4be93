"""A Map-Notify made for many is, for each, the one that would have been made for it alone."""

from __future__ import annotations

import pytest

from followme.lisp import HMAC_SHA_1_96, HMAC_SHA_256_128, MapNotify, sign, verify
from followme.mapsystem.stamps import Stamp

from .fakes import record


@pytest.mark.parametrize("algorithm_id", [HMAC_SHA_1_96, HMAC_SHA_256_128])
def test_it_is_what_sign_makes(algorithm_id: int) -> None:
    key, records = b"a shared secret", (record("10.3.0.5/32", "192.0.2.9"), record("2001:db8::/48", "2001:db8::1"))
    stamp = Stamp(MapNotify(0, records, None, 0), key, algorithm_id, 7)
    for nonce in (1, 1 << 40, (1 << 64) - 1):
        xtr = nonce.to_bytes(16, "little")
        alone = sign(MapNotify(nonce, records, xtr, 0), key, algorithm_id, key_id=7).encode()
        assert stamp.message(nonce, xtr) == alone
        assert verify(alone, key)
