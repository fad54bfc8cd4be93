"""The file that holds a domain's private key, and how it is made."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from followme.config.keys import KeyFileError, read_key

from .signing import generate_key, public_key_of

_BYTES = 32


def load_private_key(path: Path) -> bytes:
    """32 octets; ``KeyFileError`` where the file is missing, may be read by others, or holds no such key."""
    try:
        key = base64.b64decode(read_key(path, 40), validate=True)
    except (binascii.Error, ValueError) as error:
        if isinstance(error, KeyFileError):
            raise
        key = b""
    if len(key) != _BYTES:
        raise KeyFileError(f"key file {path}: it does not hold a key as `followme federation key` makes it")
    return key


def make_key_file(path: Path) -> str:
    """Make a new key in a file that only its owner may read; its public key in base64.

    ``FileExistsError`` if there is one: a private key that is lost cannot be had again. ``OSError`` if it cannot
    be written.
    """
    private, public = generate_key()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(private) + b"\n")
        file.flush()
        os.fsync(descriptor)
    return text_of(public)


def public_key_text(path: Path) -> str:
    """The public key, in base64, of the private one in the file; ``KeyFileError``."""
    return text_of(public_key_of(load_private_key(path)))


def text_of(public: bytes) -> str:
    return base64.b64encode(public).decode()
