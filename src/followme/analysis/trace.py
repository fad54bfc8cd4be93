"""Reading a trace of moving users: a CSV file, plain or gzip, of who was where when.

The header names the columns; needed are the user (``taxi`` or ``user``, any text), ``t_s`` (seconds), ``lat``
and ``lon`` (degrees, WGS 84). Further columns are ignored, and so are blank lines. A bad row costs that row and is
counted by its reason; what makes the whole file doubtful (a missing column, a gzip file cut off, no good row at
all) is a ``TraceError``. The file is read in blocks: memory follows the good rows (some 200 bytes each at the most,
32 in the end), not the text.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FIELDS = "wrong number of fields"
NO_USER = "no user"
NO_NUMBER = "time or position is not a finite number"
BEYOND = "time is more than 4e9 seconds from 0"
OFF_EARTH = "latitude beyond 90 or longitude beyond 180 degrees"
REPEATED = "second position of a user at the same time"
MAX_TIME_S = 4e9
"""Unix time until the year 2096; milliseconds since 1970 are beyond. Costs are counted by hours in between."""
REASONS = (FIELDS, NO_USER, NO_NUMBER, BEYOND, OFF_EARTH, REPEATED)
"""Why a row is dropped."""

_USER_COLUMNS = ("taxi", "user")
_NUMBERS = ("t_s", "lat", "lon")
_BLOCK_BYTES = 1 << 22
_LONGEST_LINE_BYTES = 1 << 16


class TraceError(ValueError):
    """The file as a whole cannot be used; the text names the file and says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Positions, sorted by user, then by time, which rises strictly for each user.

    ``user`` (n,) is an index into ``users``; ``t_s`` (n,) in seconds; ``lat`` and ``lon`` (n,) in degrees.
    ``rows`` were read, of which ``dropped`` says how many were left out for each reason; ``turned_back`` is
    how many stood behind a later position of the same user: those were sorted in, not dropped.
    """

    users: tuple[str, ...]
    user: Ints
    t_s: Floats
    lat: Floats
    lon: Floats
    rows: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    turned_back: int = 0


def read_trace(path: Path) -> Trace:
    """The positions in a file. ``TraceError`` says why there are none."""
    lines_of_blocks = ([line for line in block if line.strip()] for block in _blocks(path))
    first = next((lines for lines in lines_of_blocks if lines), None)
    if not first:
        raise TraceError(f"{path}: the file is empty")
    header, *rest = first
    columns = [name.strip() for name in header.removeprefix("\ufeff").split(",")]
    places = column_places(path, columns, (_USER_COLUMNS, *((name,) for name in _NUMBERS)))
    users: dict[str, int] = {}
    dropped = dict.fromkeys(REASONS, 0)
    rows = 0
    parts: list[Floats] = []
    for lines in chain((rest,), lines_of_blocks):
        rows += len(lines)
        parts.append(_good_rows(lines, len(columns), places, users, dropped))
    return _trace(path, tuple(users), np.concatenate(parts, axis=1), rows, dropped)


def column_places(path: Path, columns: Sequence[str], needed: Sequence[tuple[str, ...]]) -> list[int]:
    """Where the needed columns stand, each under one of its names; ``TraceError`` names all that are missing."""
    found = [next((columns.index(name) for name in names if name in columns), None) for names in needed]
    missing = [" or ".join(names) for names, place in zip(needed, found, strict=True) if place is None]
    if missing:
        raise TraceError(f"{path}: no column {', '.join(missing)}; the header has {shown(', '.join(columns))}")
    return [place for place in found if place is not None]


def shown(text: str) -> str:
    """What a file says, for a message: in quotes, with escapes, 80 characters at the most."""
    quoted = repr(text[:80])
    return quoted if len(quoted) <= 80 and len(text) <= 80 else f"{quoted[:77]}..."


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a small CSV file, plain or gzip; ``TraceError`` as for a trace."""
    return chain.from_iterable(_blocks(path))


def _blocks(path: Path) -> Iterator[list[str]]:
    """The lines of a file, some 4 MB at a time."""
    try:
        with path.open("rb") as raw:
            # By its first bytes, not by its name: a renamed file is read all the same.
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
            left = b""
            while block := stream.read(_BLOCK_BYTES):
                *lines, left = (left + block).split(b"\n")
                if len(left) > _LONGEST_LINE_BYTES:
                    raise TraceError(f"{path}: a line is longer than {_LONGEST_LINE_BYTES} bytes: not a trace")
                yield [_text(line) for line in lines]
            if left:
                yield [_text(left)]
    except EOFError:
        raise TraceError(f"{path}: the gzip file is cut off") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"{path}: the gzip file is damaged: {error}") from None
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")


def _good_rows(
    lines: list[str], width: int, places: Sequence[int], users: dict[str, int], dropped: dict[str, int]
) -> Floats:
    """(4, m): user, time, latitude and longitude of the good rows; new users get the next numbers."""
    rows = [row for row in (line.split(",") for line in lines) if len(row) == width]
    dropped[FIELDS] += len(lines) - len(rows)
    names = [row[places[0]].strip() for row in rows]
    numbers = np.array([_numbers([row[place] for row in rows]) for place in places[1:]])
    named = np.array([bool(name) for name in names], dtype=np.bool_)
    finite = np.isfinite(numbers).all(axis=0)
    # A time far from the others would stretch everything that is counted by hours.
    near = np.abs(numbers[0]) <= MAX_TIME_S
    on_earth = (np.abs(numbers[1]) <= 90.0) & (np.abs(numbers[2]) <= 180.0)
    good = named & finite & near & on_earth
    # One reason a row: the first that holds.
    dropped[NO_USER] += int((~named).sum())
    dropped[NO_NUMBER] += int((named & ~finite).sum())
    dropped[BEYOND] += int((named & finite & ~near).sum())
    dropped[OFF_EARTH] += int((named & finite & near & ~on_earth).sum())
    who = [users.setdefault(names[index], len(users)) for index in np.flatnonzero(good)]
    return np.concatenate([np.array(who, dtype=np.float64)[None, :], numbers[:, good]])


def _numbers(texts: list[str]) -> Floats:
    """(m,): nan where the text is no number."""
    try:
        return np.array(texts, dtype=np.float64)
    except ValueError:
        return np.array([_number(text) for text in texts], dtype=np.float64)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _trace(path: Path, users: tuple[str, ...], table: Floats, rows: int, dropped: dict[str, int]) -> Trace:
    """Sort, count what was out of order, keep the first of positions at one time."""
    user, t_s = table[0].astype(np.int64), table[1]
    order = np.lexsort((t_s, user))
    # In file order but user by user: a row stands behind a later one if its time is below the running maximum.
    by_user = np.argsort(user, kind="stable")
    turned_back = sum(
        int((times < np.maximum.accumulate(times)).sum())
        for times in np.split(t_s[by_user], np.flatnonzero(np.diff(user[by_user])) + 1)
        if len(times)
    )
    user, t_s, lat, lon = user[order], t_s[order], table[2, order], table[3, order]
    fresh = np.ones(len(user), dtype=np.bool_)
    fresh[1:] = (np.diff(user) != 0) | (np.diff(t_s) > 0.0)
    dropped[REPEATED] += int((~fresh).sum())
    if not len(user):
        why = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise TraceError(f"{path}: there is no user in it: {why or 'no row below the header'}")
    return Trace(users, user[fresh], t_s[fresh], lat[fresh], lon[fresh], rows, dropped, turned_back)
