"""A bucket of keys that outlives the process: what a domain's instances hand on to each other.

One writer at a time: ``take_over`` puts a fence into the bucket, and from then on no put of an earlier writer is
accepted, not even one that was already on its way (a process that was frozen wakes up). Puts are pipelined, and
are accepted in the order in which they were submitted or not at all: when one fails, so do all after it, until
``take_over`` is called again, which tells whether there is another writer. So what is in the bucket is always
what its writer had at some moment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

FENCE = "_fence"
"""The key of the fence; its value is the writer's epoch in decimal. ``watch`` shows it, ``load`` does not."""
MAX_KEY, MAX_VALUE = 256, 512 * 1024
_KEY = re.compile(r"[-/_=.a-zA-Z0-9]+")


class KvError(Exception):
    """The bucket cannot be read or written now; the text says why. A put may or may not have been stored."""


class Conflict(KvError):
    """The key is not as expected: nothing was written."""


class Fenced(KvError):
    """Another writer, with this epoch or a higher one, has taken the bucket over: nothing was written."""


class Full(KvError):
    """No room (disk, memory or the bucket's own limit) for it, or for one that was submitted before."""


@dataclass(frozen=True, slots=True)
class Entry:
    """``value`` is None when the key was deleted; ``revision`` grows with each write to the bucket."""

    key: str
    value: bytes | None
    revision: int


class KeyValue(Protocol):
    """One bucket. All methods raise ``KvError``; keys are 1 to 256 of ``[-/_=.a-zA-Z0-9]`` (``ValueError``)."""

    @property
    def name(self) -> str: ...

    async def get(self, key: str) -> Entry | None:
        """The newest of the key, from whoever decides (never an old copy); None if it is absent or deleted."""
        ...

    async def create(self, key: str, value: bytes) -> int:
        """Write it if it is absent or deleted, whoever is the writer; its revision. ``Conflict``."""
        ...

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write it if its newest is of ``revision``, whoever is the writer. ``Conflict``."""
        ...

    async def take_over(self, epoch: int) -> int:
        """Become the writer; the fence's revision: who has loaded or watched up to it has everything.

        The same epoch may call it again, after an error. ``Fenced`` if a higher one was here.
        """
        ...

    def submit(self, key: str, value: bytes | None) -> asyncio.Future[int]:
        """Put (None: delete) behind all that was submitted before; the future has its revision or ``KvError``.

        Only for the writer: ``take_over`` first. What is in flight is not bounded here: await now and then.
        """
        ...

    async def put(self, key: str, value: bytes) -> int:
        """``submit`` and wait."""
        ...

    async def delete(self, key: str) -> int: ...

    async def load(self) -> dict[str, Entry]:
        """All keys that are not deleted."""
        ...

    def watch(self) -> AsyncGenerator[Entry | None, None]:
        """All keys, then None once ("that was all"), then each change as it comes, deletions too, for ever.

        Revisions only grow. Who sees its own fence (``FENCE``, at the revision that ``take_over`` returned) has
        seen all that was written before it.

        It goes on by itself after the server was away; ``KvError`` when it cannot begin, or was away for long.
        """
        ...

    async def close(self) -> None: ...


def check_key(key: str) -> str:
    if not 0 < len(key) <= MAX_KEY or key[0] == "." or key[-1] == "." or not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} cannot be a key: 1 to {MAX_KEY} of letters, digits and -/_=. are allowed")
    return key


def check_value(key: str, value: bytes | None) -> None:
    if value is not None and not 0 < len(value) <= MAX_VALUE:
        raise ValueError(f"the value of {key} must have 1 to {MAX_VALUE} bytes, it has {len(value)}")


def fence_epoch(entry: Entry | None) -> int:
    """The epoch that a fence shows; 0 if there is none yet. ``KvError`` if it is no number."""
    if entry is None or entry.value is None:
        return 0
    try:
        return int(entry.value)
    except ValueError:
        raise KvError(f"the fence {entry.value[:40]!r} is no epoch") from None
