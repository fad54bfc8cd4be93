"""The locators of own networks: each is given to one node at a time, and rests as long as there are others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

from followme.domain import Network

from .registry import pool_bounds

_GOLDEN: Final = 0.6180339887498949
"""Multiples of it are spread evenly between whole numbers."""


class _Pool:
    def __init__(self, first: int, end: int) -> None:
        self.first, self.next, self.end = first, first, end
        self.holes: deque[tuple[int, int]] = deque()
        """Never given, as far as is known, and below ``next``: from, and before. A pool may hold millions."""
        self.free: deque[int] = deque()
        self.back: set[int] = set()
        """Those in ``free``: one that was taken there, and has come back, stands in it once."""
        self.given: set[int] = set()

    def another(self) -> int | None:
        """One that was not given in turn, or has come back; it may have been taken."""
        if self.next < self.end:
            self.next += 1
            return self.next - 1
        if self.holes:
            locator, end = self.holes.popleft()
            if locator + 1 < end:
                self.holes.appendleft((locator + 1, end))
            return locator
        if not self.free:
            return None
        locator = self.free.popleft()
        self.back.discard(locator)
        return locator


class Pools:
    """By network's name; locators are numbers here."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._pools = {network.name: _Pool(*pool_bounds(network)) for network in networks}

    def restore(self, network: str, locator: int) -> None:
        """It was given before; all of them, and then ``restored``."""
        self._pools[network].given.add(locator)

    def restored(self) -> None:
        for pool in self._pools.values():
            # One that lies above the pool was given before the config cut it: there is nothing between.
            pool.next = max((one + 1 for one in pool.given if pool.first <= one < pool.end), default=pool.first)
            pool.holes = deque(_between(pool.first, pool.end, pool.given))

    def begin_at(self, epoch: int) -> None:
        """Pools of which nothing is known to be given begin at a place of this epoch's own: should records of an
        earlier one be lost, what was given then is mostly elsewhere."""
        for pool in self._pools.values():
            if not pool.given:
                pool.next = pool.first + int((epoch - 1) * _GOLDEN % 1.0 * (pool.end - pool.first))
                pool.holes = deque([(pool.first, pool.next)] if pool.first < pool.next else [])

    def give(self, network: str) -> int | None:
        """One that nobody has; ``None`` if all are given."""
        pool = self._pools[network]
        while (locator := pool.another()) is not None:
            if locator not in pool.given:
                pool.given.add(locator)
                return locator
        return None

    def take(self, network: str, locator: int) -> bool:
        """Give just this one; whether nobody has it."""
        pool = self._pools[network]
        if locator in pool.given or not pool.first <= locator < pool.end:
            return False
        pool.given.add(locator)
        return True

    def back(self, network: str, locator: int) -> None:
        pool = self._pools.get(network)  # None: not ours any more
        if pool is not None and locator in pool.given:
            pool.given.remove(locator)
            if locator not in pool.back:
                pool.back.add(locator)
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
