"""The locators of own networks: each is given to one node at a time, and rests as long as there are others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from followme.domain import Network

from .registry import pool_bounds


class _Pool:
    def __init__(self, first: int, end: int) -> None:
        self.first, self.next, self.end = first, first, end
        self.holes: deque[tuple[int, int]] = deque()
        """Never given, as far as is known, and below ``next``: from, and before. A pool may hold millions."""
        self.free: deque[int] = deque()
        self.given: set[int] = set()


class Pools:
    """By network's name; locators are numbers here."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._pools = {network.name: _Pool(*pool_bounds(network)) for network in networks}

    def restore(self, network: str, locator: int) -> None:
        """It was given before; all of them, and then ``restored``."""
        self._pools[network].given.add(locator)

    def restored(self) -> None:
        for pool in self._pools.values():
            pool.next = max(pool.first, max(pool.given, default=0) + 1)
            pool.holes = deque(_between(pool.first, pool.end, pool.given))

    def give(self, network: str) -> int | None:
        """One that nobody has; ``None`` if all are given."""
        pool = self._pools[network]
        if pool.next < pool.end:
            locator = pool.next
            pool.next += 1
        elif pool.holes:
            locator, end = pool.holes.popleft()
            if locator + 1 < end:
                pool.holes.appendleft((locator + 1, end))
        elif pool.free:
            locator = pool.free.popleft()
        else:
            return None
        pool.given.add(locator)
        return locator

    def back(self, network: str, locator: int) -> None:
        pool = self._pools.get(network)  # None: not ours any more
        if pool is not None and locator in pool.given:
            pool.given.remove(locator)
            pool.free.append(locator)

    def given(self, network: str) -> int:
        """How many are given."""
        return len(self._pools[network].given)


def _between(first: int, end: int, given: Iterable[int]) -> Iterator[tuple[int, int]]:
    """What lies between those of the pool, each from and before; it may have been another when they were given."""
    for one in sorted(one for one in given if first <= one < end):
        if first < one:
            yield first, one
        first = one + 1
