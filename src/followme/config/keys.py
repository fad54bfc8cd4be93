"""Files that hold a shared secret, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_KEY_BYTES = 1024


class KeyFileError(ValueError):
    """A key file cannot be used; the text names the file and never the key."""


def read_key(path: Path, least: int) -> bytes:
    """The key in a file: its content without white space at the ends, ``least`` to ``MAX_KEY_BYTES`` long.

    ``KeyFileError`` where the file cannot be read, is no plain file, belongs to somebody else, may be read or
    written by others than its owner (and readers of its group), or holds no such key.
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
                                   f"it; chmod 600 {path}")  # fmt: skip
            secret = file.read(MAX_KEY_BYTES + 64).strip()
    except OSError as error:
        raise KeyFileError(f"key file {path}: {error.strerror}") from None
    if not least <= len(secret) <= MAX_KEY_BYTES:
        raise KeyFileError(
            f"key file {path}: a key must have {least} to {MAX_KEY_BYTES} bytes, this one has {len(secret)}"
        )
    return secret
