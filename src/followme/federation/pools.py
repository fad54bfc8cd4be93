"""The locators of own networks: each is given to one node at a time, and rests as long as there are others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from followme.domain import Network

from .registry import pool_bounds


class _Pool:
    def __init__(self, first: int, end: int) -> None:
        self.first, self.next, self.end = first, first, end
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
            pool.next = max(pool.given, default=pool.first - 1) + 1
            pool.free = deque(one for one in range(pool.first, min(pool.next, pool.end)) if one not in pool.given)

    def give(self, network: str) -> int | None:
        """One that nobody has; ``None`` if all are given."""
        pool = self._pools[network]
        if pool.next < pool.end:
            locator = pool.next
            pool.next += 1
        elif pool.free:
            locator = pool.free.popleft()
        else:
            return None
        pool.given.add(locator)
        return locator

    def back(self, network: str, locator: int) -> None:
        pool = self._pools[network]
        if locator in pool.given:
            pool.given.remove(locator)
            pool.free.append(locator)

    def given(self, network: str) -> int:
        """How many are given."""
        return len(self._pools[network].given)
