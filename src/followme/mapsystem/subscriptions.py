"""Subscriptions (RFC 9437): who wants to hear of changes in which EID-prefix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from followme.lisp import EidPrefix
from followme.lisp.prefixtable import PrefixTable

from .sites import Site

MAX_SUBSCRIPTIONS: Final = 1 << 16
MAX_OF_XTR: Final = 1024
MAX_FAILURES: Final = 3
"""Publications in a row without an acknowledgement, after which a subscription ends."""


@dataclass(slots=True)
class Subscription:
    """``nonce`` is that of the last Map-Notify sent, or of the Map-Request that made it.

    ``gap`` is left before the next one: the last that were sent before a crash may not have been stored.
    ``local`` is the address of ours that the subscriber speaks to.
    """

    site: Site
    xtr: bytes
    prefix: EidPrefix
    nonce: int
    host: str
    port: int
    failures: int = 0
    gap: int = 0
    local: str = ""


class Subscriptions:
    """All confirmed ones, bounded in all and for each subscriber."""

    def __init__(self, limit: int = MAX_SUBSCRIPTIONS, per_xtr: int = MAX_OF_XTR) -> None:
        self._table: PrefixTable[dict[bytes, Subscription]] = PrefixTable()
        self._of_xtr: dict[bytes, int] = {}
        self._count = 0
        self._limit = limit
        self._per_xtr = per_xtr

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Subscription]:
        for _, of_prefix in self._table.items():
            yield from of_prefix.values()

    def get(self, prefix: EidPrefix, xtr: bytes) -> Subscription | None:
        of_prefix = self._table.get(prefix)
        return None if of_prefix is None else of_prefix.get(xtr)

    def room(self, xtr: bytes, count: int) -> bool:
        """Whether ``xtr`` may have ``count`` more."""
        return self._count + count <= self._limit and self._of_xtr.get(xtr, 0) + count <= self._per_xtr

    def put(self, subscription: Subscription) -> None:
        """A new one, or a newer one in the place of the same subscriber's for the same prefix."""
        of_prefix = self._table.get(subscription.prefix)
        if of_prefix is None:
            of_prefix = {}
            self._table.put(subscription.prefix, of_prefix)
        if subscription.xtr not in of_prefix:
            self._count += 1
            self._of_xtr[subscription.xtr] = self._of_xtr.get(subscription.xtr, 0) + 1
        of_prefix[subscription.xtr] = subscription

    def remove(self, subscription: Subscription) -> bool:
        """Whether it was there."""
        of_prefix = self._table.get(subscription.prefix)
        if of_prefix is None or of_prefix.get(subscription.xtr) is not subscription:
            return False
        del of_prefix[subscription.xtr]
        if not of_prefix:
            self._table.pop(subscription.prefix)
        self._count -= 1
        left = self._of_xtr[subscription.xtr] - 1
        if left:
            self._of_xtr[subscription.xtr] = left
        else:
            del self._of_xtr[subscription.xtr]
        return True

    def concerned(self, eid: EidPrefix) -> list[Subscription]:
        """Those whose prefix covers ``eid``, or lies in it."""
        found = [*self._table.covering(eid), *(pair for pair in self._table.within(eid) if pair[0] != eid)]
        return [one for _, of_prefix in found for one in of_prefix.values()]
