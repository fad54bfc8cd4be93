"""Records of nodes: one million of them must fit into memory, and few are in use at a time.

What the store has is not kept here a second time: of a record that rests only its identifier is known, and it is
read again when it is wanted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

from followme.system.seldom import MAX_LINES

log = logging.getLogger(__name__)

MAX_LIVE: Final = 4096
"""Records kept decoded beside what is stored."""

R = TypeVar("R")
Load = Callable[[str], bytes | None]
"""The fact of this key as it was written last; ``None`` if there is none."""


class Table(Generic[R]):
    """Records by identifier (as a number), and their facts ``<prefix>/<identifier>``. Without ``load`` all octets
    are kept. ``weigh`` is told by how many octets a record's fact has grown."""

    def __init__(
        self, prefix: str, encode: Callable[[R], bytes], decode: Callable[[bytes], R], load: Load | None,
        weigh: Callable[[int, int], None] = lambda identifier, octets: None,
    ) -> None:  # fmt: skip
        self._prefix, self._encode, self._decode, self._load = prefix, encode, decode, load
        self._weigh = weigh
        self._octets: dict[int, bytes | int | None] = {}
        """Those of its fact, or how many are in the store; ``None`` before it is there."""
        self._numbers: dict[int, int] = {}
        """Of octets: a million records have few different ones, which are kept once."""
        self._live: dict[int, R] = {}
        self._dirty: set[int] = set()
        self._ahead: dict[int, R] = {}
        """Records that have changed since they were written, in what may be lost."""
        self.aside = 0
        """Records that could not be read."""

    def __len__(self) -> int:
        return len(self._octets)

    def __iter__(self) -> Iterator[int]:
        return iter(self._octets)

    def __contains__(self, identifier: int) -> bool:
        return identifier in self._octets

    def restore(self, identifier: int, fact: bytes) -> None:
        self._octets[identifier] = self._kept(fact)
        self._weigh(identifier, len(fact))

    def _kept(self, fact: bytes) -> bytes | int:
        return fact if self._load is None else self._numbers.setdefault(len(fact), len(fact))

    def get(self, identifier: int) -> R | None:
        """The record; who changes it must ``put`` it."""
        record = self.peek(identifier)
        if record is not None:
            self._live[identifier] = record
        return record

    def peek(self, identifier: int) -> R | None:
        """The record, to look at: all of them may be looked at one after the other."""
        record = self._live.get(identifier)
        if record is not None or identifier not in self._octets:
            return record
        octets = self._octets[identifier]
        if not isinstance(octets, bytes) and self._load is not None:
            octets = self._load(f"{self._prefix}/{identifier}")
        if not isinstance(octets, bytes):
            raise LookupError(f"fact {self._prefix}/{identifier} is not in the store any more")
        try:
            return self._decode(octets)
        except Exception as error:
            self._set_aside(identifier, error)
            return None

    def _set_aside(self, identifier: int, error: Exception) -> None:
        """One record that cannot be read must not take all others with it: the next one takes its place."""
        self.aside += 1
        if self.aside <= MAX_LINES:
            log.error("record %s/%d is set aside: %s: %s", self._prefix, identifier, type(error).__name__, error)
        self._weigh(identifier, -_size(self._octets.pop(identifier, None)))

    def put(self, identifier: int, record: R, write: bool = True) -> None:
        """Keep it; written by the next ``flush``, unless it can be made again (``write``)."""
        if write:
            self._live[identifier] = record
            self._dirty.add(identifier)
            self._octets.setdefault(identifier, None)
        else:
            self._octets[identifier] = self._encode(record)

    def note(self, identifier: int, record: R) -> None:
        """It has changed in what is asked again after a restart: it is written when it is next put, no sooner."""
        self._live[identifier] = self._ahead[identifier] = record

    def delete(self, identifier: int) -> None:
        if identifier in self._octets:
            self._weigh(identifier, -_size(self._octets.pop(identifier)))
            self._ahead.pop(identifier, None)
            self._live.pop(identifier, None)
            self._dirty.add(identifier)

    def flush(self, writes: dict[str, bytes | None]) -> None:
        """Put what has changed into ``writes``, which are in the store before anything else is asked of us."""
        for identifier in self._dirty:
            self._ahead.pop(identifier, None)
            key = f"{self._prefix}/{identifier}"
            if identifier in self._octets:
                octets = writes[key] = self._encode(self._live[identifier])
                self._weigh(identifier, len(octets) - _size(self._octets[identifier]))
                self._octets[identifier] = self._kept(octets)
            else:
                writes[key] = None
        self._dirty.clear()
        if len(self._live) > MAX_LIVE:
            self._live.clear()
            self._live.update(self._ahead)


def _size(kept: bytes | int | None) -> int:
    return len(kept) if isinstance(kept, bytes) else kept or 0
