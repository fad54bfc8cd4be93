"""A commit of several keys as one whole, in a bucket that writes single keys.

Before its keys are written, all of them go into one record, ``commit.0`` (and ``commit.1``... where one value is
too small for it; those are written first). Who reads a bucket whose writer died in the middle of them does what the
record says over what it has read. So a record must not outlive the next commit that has none: that one deletes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct, error

HEAD = "commit.0"
PREFIX = "commit."
PART = 480 << 10
"""Bytes of a part of a record, keys not counted: a bucket takes 512 KiB."""

Changes = dict[str, bytes | None]

_PART = Struct("!QI")  # number of the commit, number of its parts
_KEY = Struct("!Hi")  # lengths of key and value; -1: deleted


def pack(number: int, changes: Changes) -> list[bytes]:
    """The values of ``commit.0``, ``commit.1``... ``number`` tells one commit's parts from another's."""
    bodies = [bytearray()]
    for key, value in changes.items():
        if len(bodies[-1]) > PART - len(value or b""):
            bodies.append(bytearray())
        name = key.encode()
        bodies[-1] += _KEY.pack(len(name), -1 if value is None else len(value)) + name + (value or b"")
    head = _PART.pack(number, len(bodies))
    return [head + body for body in bodies]


def unpack(parts: Mapping[str, bytes]) -> Changes:
    """What the record says; nothing if there is none, or if its parts are of an earlier commit already: then all
    its keys are written. ``ValueError`` if it is no record."""
    first = parts.get(HEAD)
    if first is None:
        return {}
    changes: Changes = {}
    try:
        head = _PART.unpack_from(first)
        for number in range(head[1]):
            part = parts.get(f"{PREFIX}{number}", b"")
            if part[: _PART.size] != first[: _PART.size]:
                return {}
            _read(part, changes)
    except (error, UnicodeDecodeError) as problem:
        raise ValueError(f"{HEAD}: {problem}") from None
    return changes


def number_of(first: bytes | None) -> int:
    """Of the commit whose record this is; 0 if there is none."""
    number: int = _PART.unpack_from(first)[0] if first is not None and len(first) >= _PART.size else 0
    return number


def _read(part: bytes, changes: Changes) -> None:
    at = _PART.size
    while at < len(part):
        key_size, size = _KEY.unpack_from(part, at)
        at += _KEY.size
        end = at + key_size + max(size, 0)
        if end > len(part):
            raise ValueError(f"{HEAD}: a value is cut off")
        key = part[at : at + key_size].decode()
        changes[key] = None if size < 0 else part[at + key_size : end]
        at = end
