"""Refusals: each counted by its reason, logged not at the rate at which they come."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0
MAX_LINES = 20
MAX_REMEMBERED = 512
MAX_SOURCES = 4096


class Refusals:
    """Counts by reason (a fixed set of words), and a log line for each reason and sender once in a while."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._logged: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._window, self._lines = 0.0, 0

    def refuse(self, reason: str, who: object, now: float, detail: object = "") -> None:
        """``who`` sent it (an address, a MAC); ``detail`` is for the log only and never a secret."""
        self.counts[reason] += 1
        key = (reason, str(who))
        last = self._logged.get(key)
        if last is not None and now - last < LOG_EVERY_S:
            return
        if now - self._window >= LOG_EVERY_S:
            if self._lines > MAX_LINES:
                log.warning("%d more refusals were not logged", self._lines - MAX_LINES)
            self._window, self._lines = now, 0
        self._lines += 1
        if self._lines > MAX_LINES:
            return
        self._logged[key] = now
        self._logged.move_to_end(key)
        while len(self._logged) > MAX_REMEMBERED:
            self._logged.popitem(last=False)
        log.warning("refused (%s): %s%s", reason, who, f": {detail}" if detail else "")


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
