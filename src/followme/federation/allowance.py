"""How much each sender may ask: a bucket of tokens each, so that one that floods takes from itself only."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

ORDERS_S, OCTETS_EACH, MALFORMED = 10_000.0, 512, 50
"""What one domain may order in a second (and twice that at once): more than a process can do. So many octets count
as an order more, and a frame that cannot be read as so many orders."""
_MOST = 16_384
"""Senders that are known at a time: more than a federation has domains and hosts."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Allowance:
    """``rate`` tokens a second for each sender, and ``burst`` at once. Times are seconds of one clock."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: dict[Hashable, _Bucket] = {}

    def has(self, sender: Hashable, now: float) -> bool:
        """Whether it has anything left."""
        return self._of(sender, now).tokens > 0

    def take(self, sender: Hashable, now: float) -> bool:
        """Whether it has anything left, of which one is taken."""
        bucket = self._of(sender, now)
        if bucket.tokens <= 0:
            return False
        bucket.tokens -= 1
        return True

    def charge(self, sender: Hashable, cost: float, now: float) -> None:
        """What it has cost, which is known afterwards only: it may owe, a burst at the most, and has nothing until
        that is paid back."""
        bucket = self._of(sender, now)
        bucket.tokens = max(bucket.tokens - cost, -self._burst)

    def _of(self, sender: Hashable, now: float) -> _Bucket:
        bucket = self._buckets.get(sender)
        if bucket is None:
            if len(self._buckets) >= _MOST:
                self._buckets.clear()
            bucket = self._buckets[sender] = _Bucket(self._burst, now)
        elif now > bucket.at:
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
            bucket.at = now
        return bucket
