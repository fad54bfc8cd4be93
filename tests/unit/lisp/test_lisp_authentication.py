"""Authentication data: against OpenSSL's digests, and against what must not pass."""

from __future__ import annotations

import pytest

from followme.lisp import (
    HMAC_SHA_1_96,
    HMAC_SHA_256_128,
    LispError,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    decode,
    sign,
    verify,
)

from .vectors import NONCE, XTR, negative, positive

KEY = b"a shared secret"
REGISTER = MapRegister(NONCE, (positive,), want_map_notify=True, xtr_id=XTR, site_id=42)


# Printed by `openssl dgst -mac hmac -macopt key:...` over the message with its authentication data at 0.
@pytest.mark.parametrize(
    ("algorithm_id", "length", "digest"),
    [
        (HMAC_SHA_1_96, 20, "2202f061eec25d320d08fb625a740711b1ec1f67"),
        (HMAC_SHA_1_96, 12, "6a26bc4fe4d0cff728071706"),
        (HMAC_SHA_256_128, 16, "3bdad33b048bd2fac865188c900e2802"),
        (HMAC_SHA_256_128, 32, "57522e1e1d2a1ad4d171cb2df0497339f9049c41c32164160512c5a76eaa40fc"),
    ],
)
def test_digest_of_openssl(algorithm_id: int, length: int, digest: str) -> None:
    signed = sign(REGISTER, KEY, algorithm_id, length=length)
    assert signed.authentication.hex() == digest
    assert verify(signed.encode(), KEY)


def test_default_lengths() -> None:
    assert len(sign(REGISTER, KEY).authentication) == 16
    assert len(sign(REGISTER, KEY, HMAC_SHA_1_96).authentication) == 20


@pytest.mark.parametrize("message", [REGISTER, MapNotify(NONCE, (negative,)), MapNotifyAck(NONCE, (negative,))])
@pytest.mark.parametrize("algorithm_id", [HMAC_SHA_1_96, HMAC_SHA_256_128])
def test_every_octet_is_authenticated(message: MapRegister | MapNotify | MapNotifyAck, algorithm_id: int) -> None:
    signed = sign(message, KEY, algorithm_id, key_id=5).encode()
    assert verify(signed, KEY)
    assert not verify(signed, KEY + b"!")
    for at in range(len(signed)):
        forged = bytearray(signed)
        forged[at] ^= 1
        try:
            accepted = verify(bytes(forged), KEY)
        except LispError:
            accepted = False
        assert not accepted, f"octet {at}"


def test_what_is_signed_is_what_is_read() -> None:
    signed = sign(REGISTER, KEY, key_id=5)
    assert (signed.key_id, signed.algorithm_id, signed.records) == (5, HMAC_SHA_256_128, REGISTER.records)
    assert decode(signed.encode()) == signed


@pytest.mark.parametrize(
    ("algorithm_id", "length", "said"),
    [
        (0, None, "algorithm 0"),
        (3, None, "algorithm 3"),
        (1, 16, "16 octets"),
        (2, 20, "20 octets"),
        (2, 0, "0 octets"),
    ],
)
def test_no_such_algorithm_or_length(algorithm_id: int, length: int | None, said: str) -> None:
    with pytest.raises(LispError, match=said):
        sign(REGISTER, KEY, algorithm_id, length=length)


def test_an_empty_key_signs_nothing() -> None:
    with pytest.raises(LispError, match="empty key"):
        sign(REGISTER, b"")
    with pytest.raises(LispError, match="empty key"):
        verify(sign(REGISTER, KEY).encode(), b"")


def test_no_authentication_is_never_accepted() -> None:
    with pytest.raises(LispError, match="algorithm 0 is not accepted"):
        verify(REGISTER.encode(), KEY)
    with pytest.raises(LispError, match="algorithm 0 is not supported"):
        verify(REGISTER.encode(), KEY, accept=(0, 1))


def test_algorithms_can_be_forbidden() -> None:
    old = sign(REGISTER, KEY, HMAC_SHA_1_96).encode()
    assert verify(old, KEY, accept=(HMAC_SHA_1_96,))
    with pytest.raises(LispError, match="algorithm 1 is not accepted"):
        verify(old, KEY, accept=(HMAC_SHA_256_128,))


@pytest.mark.parametrize("octets", [0, 1, 15, 17, 31, 0x0110, 0x1000])
def test_shortened_authentication_data(octets: int) -> None:
    whole = sign(REGISTER, KEY, length=32).encode()
    cut = whole[:14] + octets.to_bytes(2, "big") + whole[16 : 16 + octets] + whole[48:]
    with pytest.raises(LispError, match=f"{octets} octets for algorithm 2"):
        verify(cut, KEY)


@pytest.mark.parametrize(
    "data", [b"", bytes(15), b"\x10" + bytes(40), b"\x30" + bytes(12) + b"\2\0\x20" + bytes(31)]
)
def test_no_authenticated_message(data: bytes) -> None:
    with pytest.raises(LispError):
        verify(data, KEY)


def test_no_key_in_a_repr() -> None:
    assert "shared" not in repr(sign(REGISTER, KEY))
