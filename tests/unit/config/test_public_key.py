"""Public keys of which signatures can be forged, or that are no points at all, prove nothing."""

from __future__ import annotations

import pytest

from followme.config.public_key import proves
from followme.federation.signing import Ed25519Signer, SigningError, generate_key

ORDER_8 = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"  # libsodium's blocklist has it
WEAK = [
    bytes(32), bytes([1, *bytes(31)]), bytes([*bytes(31), 0x80]), bytes.fromhex("ec" + "ff" * 30 + "7f"),
    bytes.fromhex(ORDER_8), bytes.fromhex("ed" + "ff" * 30 + "7f"), b"\xff" * 32, bytes([2, *bytes(31)]), b"short",
]  # fmt: skip


@pytest.mark.parametrize("key", WEAK, ids=lambda key: key.hex()[:8])
def test_what_proves_nothing_is_no_key(key: bytes) -> None:
    assert not proves(key)
    private, public = generate_key()
    with pytest.raises(SigningError, match="public key of beta"):
        Ed25519Signer(private, {"alpha": public, "beta": key})


def test_every_key_that_is_made_is_one() -> None:
    assert all(proves(generate_key()[1]) for _ in range(50))
