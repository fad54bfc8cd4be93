"""Token buckets: how much a source is let through."""

from __future__ import annotations

from collections import OrderedDict

MAX_SOURCES = 4096


class SourceBuckets:
    """A bucket for each source, at most ``MAX_SOURCES``: the one that was silent longest is forgotten."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[object, Bucket] = OrderedDict()

    def take(self, source: object, now: float) -> bool:
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = Bucket(self._rate, self._burst)
            while len(self._buckets) > MAX_SOURCES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket.take(now)


class Gate:
    """A bucket for all sources together, behind one for each."""

    def __init__(self, rate: float, burst: float, source_rate: float, source_burst: float) -> None:
        self._total = Bucket(rate, burst)
        self._sources = SourceBuckets(source_rate, source_burst)

    def take(self, source: object, now: float) -> bool:
        return self._sources.take(source, now) and self._total.take(now)


class Bucket:
    """A token bucket: ``rate`` a second, ``burst`` at once."""

    __slots__ = ("burst", "last", "level", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self.level, self.last = rate, burst, burst, float("-inf")

    def take(self, now: float) -> bool:
        if self.last != float("-inf"):
            self.level = min(self.burst, self.level + max(now - self.last, 0.0) * self.rate)
        self.last = now
        if self.level < 1.0:
            return False
        self.level -= 1.0
        return True
