"""The shared keys by which two agents know each other."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from followme.config.keys import MAX_KEY_BYTES as MAX_KEY
from followme.config.keys import KeyFileError, read_key

__all__ = ["MAX_KEY", "MIN_KEY", "Key", "KeyFileError", "load_key"]

MIN_KEY = 16


class Key:
    """A secret that never shows: not in a ``repr``, not in an error."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        """``ValueError`` unless it is 16 to 1024 bytes long: a shorter one could be guessed from one exchange."""
        if not MIN_KEY <= len(secret) <= MAX_KEY:
            raise ValueError(f"a key must have {MIN_KEY} to {MAX_KEY} bytes, this one has {len(secret)}")
        self._secret = secret

    @classmethod
    def random(cls) -> Key:
        return cls(secrets.token_bytes(32))

    def mac(self, label: bytes, *parts: bytes) -> bytes:
        """HMAC-SHA-256 (RFC 2104) over the label and the parts, each behind its length: 32 bytes."""
        digest = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in (label, *parts):
            digest.update(len(part).to_bytes(4))
            digest.update(part)
        return digest.digest()

    def __repr__(self) -> str:
        return "Key(...)"


def load_key(path: Path) -> Key:
    """The key in a file; ``KeyFileError`` as ``read_key``."""
    return Key(read_key(path, MIN_KEY))
