"""What a replicated store needs of the bucket that it is kept in; ``federation/kv.py`` has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol


class Entry(Protocol):
    """``value`` is None when the key was deleted; ``revision`` grows with each write to the bucket."""

    @property
    def key(self) -> str: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def revision(self) -> int: ...


class KeyValue(Protocol):
    """One bucket with one writer at a time, whose writes are kept in order or not at all: when one is lost, so are
    all after it. Keys are 1 to 256 of ``[-/_=.a-zA-Z0-9]``, values 1 byte to 512 KiB."""

    async def take_over(self, epoch: int) -> int:
        """Become the writer: nothing of an earlier one is accepted any more. Who has watched up to the revision
        that is returned has seen all that was. Raises what it likes if a higher epoch was here."""
        ...

    def submit(self, key: str, value: bytes | None) -> asyncio.Future[int]:
        """Put (None: delete) behind all that was submitted before; the future fails if that is not kept."""
        ...

    def watch(self) -> AsyncIterator[Entry | None]:
        """All keys, then None once, then each change as it comes."""
        ...
