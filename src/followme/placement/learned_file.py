"""What was learned, in a file: NumPy's .npz, so numbers are kept to the last bit, with a format and a version.

Arrays only: nothing in the file is executed when it is read (no pickles). What is read is bounded before it is
unpacked, and checked by the classes of which it becomes an object.
"""

from __future__ import annotations

import json
import secrets
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from followme.config.document import short

from .learned import LearnedTables
from .learned_line import LearnedLine

FORMAT = "followme learned policy"
VERSION = 1
MOST_BYTES = 1 << 28
"""Unpacked. Three tables of 1000 areas are 24 MB, own values of 500 users 100 MB at the most that was seen."""
_MOST_HEAD_BYTES = 1 << 24
_ARRAY_HEAD_BYTES = 128
"""Of NumPy's format, for shapes as short as these."""

_KINDS: dict[str, tuple[Callable[..., LearnedTables | LearnedLine], dict[str, Any]]] = {
    "areas": (
        LearnedTables, {"gain": np.float64, "table_of": np.int64, "own_state": np.int64, "own_gain": np.float64}
    ),
    "line": (LearnedLine, {"gain": np.float64, "line_of": np.int64}),
}  # fmt: skip


class LearnedError(ValueError):
    """The file cannot be used; the text names it and says why."""


def save_learned(policy: LearnedTables | LearnedLine, file: Path) -> None:
    """Writes it, beside what is there first, so that a file is whole or as it was. ``OSError`` if it cannot be
    written; ``LearnedError`` if it is too large to be read again."""
    kind = "areas" if isinstance(policy, LearnedTables) else "line"
    head: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "kind": kind, "areas": policy.areas, "users": policy.users,
    }  # fmt: skip
    if isinstance(policy, LearnedTables):
        head["kinds"] = policy.kinds
    arrays: dict[str, Any] = {
        name: np.ascontiguousarray(getattr(policy, name), dtype) for name, dtype in _KINDS[kind][1].items()
    }
    packed = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    total = sum(one.nbytes + _ARRAY_HEAD_BYTES for one in (packed, *arrays.values()))
    if total > MOST_BYTES or packed.nbytes + _ARRAY_HEAD_BYTES > _MOST_HEAD_BYTES:
        raise LearnedError(f"too large to be read again: {total} bytes, of which {packed.nbytes} are names; "
                           f"{MOST_BYTES} and {_MOST_HEAD_BYTES} are taken")  # fmt: skip
    target = file.resolve()
    if target.exists() and not target.is_file():  # a device is written to, not replaced
        with target.open("wb") as stream:
            np.savez_compressed(stream, head=packed, **arrays)
        return
    beside = target.with_name(f".followme-{secrets.token_hex(8)}")
    try:
        with beside.open("xb") as stream:
            # By name into a stream, or NumPy would add a suffix to the file's name.
            np.savez_compressed(stream, head=packed, **arrays)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def load_learned(file: str | Path) -> LearnedTables | LearnedLine:
    """The policy that ``save_learned`` wrote, which decides as it did. ``LearnedError``."""
    path = Path(file)
    try:
        with zipfile.ZipFile(path) as archive:
            return _loaded(archive)
    except OSError as error:
        raise LearnedError(f"{path}: {error.strerror or error}") from None
    except LearnedError as error:
        raise LearnedError(f"{path}: {error}") from None
    except (
        zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RecursionError, NotImplementedError,
        RuntimeError,
    ) as error:  # fmt: skip
        why = " ".join(str(error).split()) or type(error).__name__
        raise LearnedError(f"{path}: not a learned policy, or a damaged one: {why}") from None


def _loaded(archive: zipfile.ZipFile) -> LearnedTables | LearnedLine:
    total = sum(member.file_size for member in archive.infolist())
    if total > MOST_BYTES:
        raise LearnedError(f"it unpacks to {total} bytes, more than {MOST_BYTES}")
    head = json.loads(_array(archive, "head", np.uint8).tobytes())
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise LearnedError("it is no learned policy")
    if head.get("version") != VERSION:
        raise LearnedError(f"it has version {short(head.get('version'))}; this program reads {VERSION}")
    known = _KINDS.get(str(head.get("kind")))
    if known is None:
        raise LearnedError(f"kind {short(head.get('kind'))} is unknown; known are {', '.join(_KINDS)}")
    kind, types = known
    names = {key: _names(head, key) for key in ("areas", "users", *(["kinds"] if "kinds" in head else []))}
    arrays = {name: _array(archive, name, dtype) for name, dtype in types.items()}
    try:
        return kind(**names, **arrays)
    except TypeError:
        raise LearnedError(f"its head has the wrong entries: {short(', '.join(head))}") from None


def _array(archive: zipfile.ZipFile, name: str, dtype: Any) -> Any:
    """Read by the header's shape, which must agree with the size: no memory is taken on its word alone."""
    member = f"{name}.npy"
    size = archive.getinfo(member).file_size
    if name == "head" and size > _MOST_HEAD_BYTES:
        raise LearnedError(f"its head has {size} bytes, more than {_MOST_HEAD_BYTES}")
    with archive.open(member) as stream:
        if npy.read_magic(stream) != (1, 0):
            raise LearnedError(f"{name} is of another version of NumPy's format")
        shape, fortran, found = npy.read_array_header_1_0(stream)
        data = stream.read(size)
    if found != np.dtype(dtype) or fortran or len(data) != found.itemsize * int(np.prod(shape, dtype=object)):
        raise LearnedError(f"{name} is {found} of shape {shape} in {len(data)} bytes, not {np.dtype(dtype)}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _names(head: dict[str, Any], key: str) -> tuple[str, ...]:
    names = head.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise LearnedError(f"{key} must be a list of names")
    return tuple(names)
