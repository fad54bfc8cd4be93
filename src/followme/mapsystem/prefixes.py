"""A table from EID-prefixes to values, with longest match, what lies inside a prefix, and the holes between."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

from followme.lisp import EidPrefix
from followme.lisp.address import MASKS

T = TypeVar("T")
_Group = tuple[int, int]


def truncate(eid: EidPrefix, length: int) -> EidPrefix:
    """The prefix of ``length`` bits (at most its own) that covers ``eid``."""
    octets = len(eid.address)
    number = int.from_bytes(eid.address, "big") & MASKS[octets][length]
    return EidPrefix(eid.iid, number.to_bytes(octets, "big"), length)


class PrefixTable(Generic[T]):
    """Prefixes of all instances and both families. A look-up costs one dict access for each length in use."""

    def __init__(self) -> None:
        self._values: dict[EidPrefix, T] = {}
        self._sorted: dict[_Group, list[EidPrefix]] = {}
        self._counts: dict[_Group, dict[int, int]] = {}
        self._lengths: dict[_Group, tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[EidPrefix]:
        return iter(self._values)

    def get(self, eid: EidPrefix) -> T | None:
        return self._values.get(eid)

    def values(self) -> Iterator[T]:
        return iter(self._values.values())

    def put(self, eid: EidPrefix, value: T) -> None:
        if eid not in self._values:
            group = eid.iid, len(eid.address)
            insort(self._sorted.setdefault(group, []), eid)
            counts = self._counts.setdefault(group, {})
            counts[eid.length] = counts.get(eid.length, 0) + 1
            self._lengths[group] = tuple(sorted(counts, reverse=True))
        self._values[eid] = value

    def pop(self, eid: EidPrefix) -> T | None:
        """Take it out; ``None`` if it is not there."""
        if eid not in self._values:
            return None
        group = eid.iid, len(eid.address)
        entries, counts = self._sorted[group], self._counts[group]
        del entries[bisect_left(entries, eid)]
        counts[eid.length] -= 1
        if not counts[eid.length]:
            del counts[eid.length]
            self._lengths[group] = tuple(sorted(counts, reverse=True))
        if not entries:  # so that instances that come and go leave nothing behind
            del self._sorted[group], self._counts[group], self._lengths[group]
        return self._values.pop(eid)

    def covering(self, eid: EidPrefix) -> Iterator[EidPrefix]:
        """The prefixes that cover ``eid``, itself among them, the longest first."""
        for length in self._lengths.get((eid.iid, len(eid.address)), ()):
            if length <= eid.length and (found := truncate(eid, length)) in self._values:
                yield found

    def longest(self, eid: EidPrefix) -> EidPrefix | None:
        """The longest match of ``eid``: the longest prefix that covers all of it."""
        return next(self.covering(eid), None)

    def within(self, eid: EidPrefix) -> Iterator[EidPrefix]:
        """The prefixes that ``eid`` covers, itself among them, in order. Do not change the table meanwhile."""
        entries = self._sorted.get((eid.iid, len(eid.address)), [])
        for index in range(bisect_left(entries, eid), len(entries)):
            if not eid.covers(entries[index]):
                return
            yield entries[index]

    def hole(self, eid: EidPrefix) -> int:
        """The length of the shortest prefix that covers ``eid`` and overlaps none but those that cover it.

        It is no shorter than the longest match. What lies within ``eid`` itself is left out of account.
        """
        octets = len(eid.address)
        entries = self._sorted.get((eid.iid, octets), [])
        number = int.from_bytes(eid.address, "big")
        last = (number | ~MASKS[octets][eid.length] & MASKS[octets][-1]).to_bytes(octets, "big")
        match = self.longest(eid)
        length = 0 if match is None else match.length
        # Prefixes are nested or apart. So of those apart, the next ones on both sides are the nearest.
        after = bisect_right(entries, EidPrefix(eid.iid, last, octets * 8))
        if after < len(entries):
            length = max(length, _common(number, entries[after], octets) + 1)
        for index in range(bisect_left(entries, eid) - 1, -1, -1):
            if not entries[index].covers(eid):
                length = max(length, _common(number, entries[index], octets) + 1)
                break
        return min(length, eid.length)


def _common(number: int, other: EidPrefix, octets: int) -> int:
    return octets * 8 - (number ^ int.from_bytes(other.address, "big")).bit_length()
