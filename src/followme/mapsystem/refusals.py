"""Refusals: all are counted by reason, few are logged."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from typing import Final

log = logging.getLogger(__name__)

LOG_EVERY_S: Final = 10.0
MAX_LINES: Final = 20
"""In ``LOG_EVERY_S``, whoever causes them."""
MAX_LOGGED: Final = 1024


class Refusals:
    """Counts by reason, and logs each source and reason once in ``LOG_EVERY_S``."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._logged: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._window, self._lines = 0.0, 0

    def refuse(self, reason: str, host: str, what: str, now: float) -> None:
        self.counts[reason] += 1
        last = self._logged.get((reason, host))
        if last is not None and now - last < LOG_EVERY_S:
            return
        if now - self._window >= LOG_EVERY_S:
            if self._lines > MAX_LINES:
                log.warning("%d more refusals were not logged", self._lines - MAX_LINES)
            self._window, self._lines = now, 0
        self._lines += 1
        if self._lines > MAX_LINES:
            return
        self._logged[reason, host] = now
        self._logged.move_to_end((reason, host))
        while len(self._logged) > MAX_LOGGED:
            self._logged.popitem(last=False)
        log.warning("refused (%s): %s: %s", reason, host, what)
