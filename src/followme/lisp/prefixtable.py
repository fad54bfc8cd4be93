"""A table from EID-prefixes to values, with longest match, what lies inside a prefix, and the holes between.

The map system's registrations and the xTRs' map-caches are such tables (RFC 9301, 5.5).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .address import MASKS, EidPrefix

T = TypeVar("T")


def truncate(eid: EidPrefix, length: int) -> EidPrefix:
    """The prefix of ``length`` bits (at most its own) that covers ``eid``."""
    octets = len(eid.address)
    number = int.from_bytes(eid.address, "big") & MASKS[octets][length]
    return EidPrefix(eid.iid, number.to_bytes(octets, "big"), length)


@dataclass(slots=True)
class _Group:
    """The prefixes of one instance and family; ``lengths`` are those of ``counts``, the longest first."""

    prefixes: list[EidPrefix] = field(default_factory=list)
    counts: dict[int, int] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()


_EMPTY = _Group()


class PrefixTable(Generic[T]):
    """Prefixes of all instances and both families. A look-up costs one dict access for each length in use.

    It is iterated in the order in which prefixes came, what a prefix covers in the order of addresses. Do not
    change the table meanwhile.
    """

    def __init__(self) -> None:
        # A plain tuple equals an EidPrefix with the same fields and costs a fifth of one, so it looks them up;
        # hence the prefix stands beside its value, too.
        self._entries: dict[tuple[int, bytes, int], tuple[EidPrefix, T]] = {}
        self._groups: dict[tuple[int, int], _Group] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[EidPrefix]:
        return (eid for eid, _ in self._entries.values())

    def __contains__(self, eid: EidPrefix) -> bool:
        return eid in self._entries

    def items(self) -> Collection[tuple[EidPrefix, T]]:
        return self._entries.values()

    def get(self, eid: EidPrefix) -> T | None:
        found = self._entries.get(eid)
        return None if found is None else found[1]

    def put(self, eid: EidPrefix, value: T) -> None:
        if eid not in self._entries:
            group = self._groups.setdefault((eid.iid, len(eid.address)), _Group())
            insort(group.prefixes, eid)
            if eid.length not in group.counts:
                group.lengths = tuple(sorted((*group.lengths, eid.length), reverse=True))
            group.counts[eid.length] = group.counts.get(eid.length, 0) + 1
        self._entries[eid] = eid, value

    def pop(self, eid: EidPrefix) -> T | None:
        """Take it out; ``None`` if it is not there."""
        found = self._entries.pop(eid, None)
        if found is None:
            return None
        key = eid.iid, len(eid.address)
        group = self._groups[key]
        del group.prefixes[bisect_left(group.prefixes, eid)]
        group.counts[eid.length] -= 1
        if not group.counts[eid.length]:
            del group.counts[eid.length]
            group.lengths = tuple(sorted(group.counts, reverse=True))
        if not group.prefixes:  # so that instances that come and go leave nothing behind
            del self._groups[key]
        return found[1]

    def covering(self, eid: EidPrefix) -> Iterator[tuple[EidPrefix, T]]:
        """The prefixes that cover ``eid``, itself among them, with their values: the longest first."""
        iid, address, limit = eid
        octets = len(address)
        number, masks = int.from_bytes(address, "big"), MASKS[octets]
        for length in self._groups.get((iid, octets), _EMPTY).lengths:
            if length <= limit:
                found = self._entries.get((iid, (number & masks[length]).to_bytes(octets, "big"), length))
                if found is not None:
                    yield found

    def longest(self, eid: EidPrefix) -> tuple[EidPrefix, T] | None:
        """The longest match of ``eid``, with its value: the longest prefix that covers all of it."""
        return next(self.covering(eid), None)

    def within(self, eid: EidPrefix) -> Iterator[tuple[EidPrefix, T]]:
        """The prefixes that ``eid`` covers, itself among them, with their values."""
        prefixes = self._groups.get((eid.iid, len(eid.address)), _EMPTY).prefixes
        for index in range(bisect_left(prefixes, eid), len(prefixes)):
            if not eid.covers(prefixes[index]):
                return
            yield self._entries[prefixes[index]]

    def hole(self, eid: EidPrefix) -> int:
        """The length of the shortest prefix that covers ``eid`` and overlaps none but those that cover it.

        It is no shorter than the longest match. What lies within ``eid`` itself is left out of account.
        """
        octets = len(eid.address)
        prefixes = self._groups.get((eid.iid, octets), _EMPTY).prefixes
        number = int.from_bytes(eid.address, "big")
        last = (number | ~MASKS[octets][eid.length] & MASKS[octets][-1]).to_bytes(octets, "big")
        match = self.longest(eid)
        length = 0 if match is None else match[0].length
        # Prefixes are nested or apart. So of those apart, the next ones on both sides are the nearest.
        after = bisect_right(prefixes, EidPrefix(eid.iid, last, octets * 8))
        if after < len(prefixes):
            length = max(length, _common(number, prefixes[after], octets) + 1)
        for index in range(bisect_left(prefixes, eid) - 1, -1, -1):
            if not prefixes[index].covers(eid):
                length = max(length, _common(number, prefixes[index], octets) + 1)
                break
        return min(length, eid.length)


def _common(number: int, other: EidPrefix, octets: int) -> int:
    return octets * 8 - (number ^ int.from_bytes(other.address, "big")).bit_length()
