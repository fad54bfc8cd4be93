"""A table of EID-prefixes with longest match."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from followme.lisp import EidPrefix

V = TypeVar("V")


class PrefixTable(Generic[V]):
    """Values by EID-prefix; ``longest`` costs one dict look-up for each prefix length in use."""

    def __init__(self) -> None:
        self._values: dict[EidPrefix, V] = {}
        self._lengths: dict[tuple[int, int], int] = {}
        """How many prefixes there are of (octets, length)."""
        self._sorted: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[EidPrefix]:
        return iter(self._values)

    def __contains__(self, eid: EidPrefix) -> bool:
        return eid in self._values

    def get(self, eid: EidPrefix) -> V | None:
        return self._values.get(eid)

    def items(self) -> list[tuple[EidPrefix, V]]:
        return list(self._values.items())

    def set(self, eid: EidPrefix, value: V) -> None:
        if eid not in self._values:
            key = (len(eid.address), eid.length)
            self._lengths[key] = self._lengths.get(key, 0) + 1
            self._sorted.pop(key[0], None)
        self._values[eid] = value

    def pop(self, eid: EidPrefix) -> V | None:
        value = self._values.pop(eid, None)
        if value is not None:
            key = (len(eid.address), eid.length)
            self._lengths[key] -= 1
            if not self._lengths[key]:
                del self._lengths[key]
                self._sorted.pop(key[0], None)
        return value

    def longest(self, eid: EidPrefix) -> tuple[EidPrefix, V] | None:
        """The longest prefix that covers ``eid``, with its value."""
        octets = len(eid.address)
        lengths = self._sorted.get(octets)
        if lengths is None:
            lengths = self._sorted[octets] = sorted((n for o, n in self._lengths if o == octets), reverse=True)
        number, bits = int.from_bytes(eid.address, "big"), octets * 8
        for length in lengths:
            if length > eid.length:
                continue
            shift = bits - length
            key = EidPrefix(eid.iid, (number >> shift << shift).to_bytes(octets, "big"), length)
            value = self._values.get(key)
            if value is not None:
                return key, value
        return None

    def covering(self, eid: EidPrefix) -> list[V]:
        """The values of all prefixes that cover ``eid``, the longest first."""
        found = []
        at: EidPrefix | None = eid
        while at is not None and (hit := self.longest(at)) is not None:
            found.append(hit[1])
            at = _parent(hit[0])
        return found

    def within(self, eid: EidPrefix) -> list[EidPrefix]:
        """The prefixes that ``eid`` covers, itself included if it is there (walks the whole table)."""
        return [key for key in self._values if eid.covers(key)]


def _parent(eid: EidPrefix) -> EidPrefix | None:
    """``eid`` with its mask one bit shorter."""
    if eid.length == 0:
        return None
    octets = len(eid.address)
    shift = octets * 8 - eid.length + 1
    number = int.from_bytes(eid.address, "big") >> shift << shift
    return EidPrefix(eid.iid, number.to_bytes(octets, "big"), eid.length - 1)
