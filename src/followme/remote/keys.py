"""The shared keys by which two agents know each other."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

MIN_KEY, MAX_KEY = 16, 1024


class KeyFileError(Exception):
    """A key file cannot be used; the text names the file and never the key."""


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
    """The key in a file: its content without white space at the ends.

    ``KeyFileError`` where the file cannot be read, is no plain file, belongs to somebody else, may be read or
    written by others than its owner (and readers of its group), or holds no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise KeyFileError(f"key file {path} is no plain file")
            if about.st_uid not in (0, os.geteuid()):
                raise KeyFileError(f"key file {path} belongs to user {about.st_uid}, who could change it")
            if about.st_mode & 0o027:
                raise KeyFileError(f"key file {path} has mode {about.st_mode & 0o777:o}: others can read or change "
                                   f"it; chmod 600 {path}")
            secret = file.read(MAX_KEY + 64).strip()
    except OSError as error:
        raise KeyFileError(f"key file {path}: {error.strerror}") from None
    try:
        return Key(secret)
    except ValueError as error:
        raise KeyFileError(f"key file {path}: {error}") from None
