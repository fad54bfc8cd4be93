"""Records of nodes, kept as octets: one million of them must fit into memory, and few are in use at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

MAX_LIVE: Final = 4096
"""Records kept decoded beside their octets."""

R = TypeVar("R")


class Table(Generic[R]):
    """Records by identifier (as a number), and their facts ``<prefix>/<identifier>``."""

    def __init__(self, prefix: str, encode: Callable[[R], bytes], decode: Callable[[bytes], R]) -> None:
        self._prefix, self._encode, self._decode = prefix, encode, decode
        self._octets: dict[int, bytes] = {}
        self._live: dict[int, R] = {}
        self._dirty: set[int] = set()

    def __len__(self) -> int:
        return len(self._octets)

    def __iter__(self) -> Iterator[int]:
        return iter(self._octets)

    def __contains__(self, identifier: int) -> bool:
        return identifier in self._octets

    def restore(self, identifier: int, fact: bytes) -> None:
        self._octets[identifier] = fact

    def facts(self) -> Iterator[tuple[int, bytes]]:
        """What was restored, as it was written."""
        return iter(list(self._octets.items()))

    def get(self, identifier: int) -> R | None:
        """The record; who changes it must ``put`` it."""
        record = self._live.get(identifier)
        if record is None:
            octets = self._octets.get(identifier)
            if octets is None:
                return None
            record = self._live[identifier] = self._decode(octets)
        return record

    def put(self, identifier: int, record: R, write: bool = True) -> None:
        """Keep it; written by the next ``flush``, unless it can be made again (``write``)."""
        if write:
            self._live[identifier] = record
            self._dirty.add(identifier)
            self._octets.setdefault(identifier, b"")
        else:
            self._octets[identifier] = self._encode(record)

    def delete(self, identifier: int) -> None:
        if self._octets.pop(identifier, None) is not None:
            self._live.pop(identifier, None)
            self._dirty.add(identifier)

    def flush(self, writes: dict[str, bytes | None]) -> None:
        """Put what has changed into ``writes``."""
        for identifier in self._dirty:
            key = f"{self._prefix}/{identifier}"
            if identifier in self._octets:
                writes[key] = self._octets[identifier] = self._encode(self._live[identifier])
            else:
                writes[key] = None
        self._dirty.clear()
        if len(self._live) > MAX_LIVE:
            self._live.clear()
