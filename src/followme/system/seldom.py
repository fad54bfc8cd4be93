"""What comes at somebody else's rate: counted always, logged seldom."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Final

LOG_EVERY_S: Final = 10.0
MAX_LINES: Final = 20


class Seldom:
    """Says of each thing once in ``every_s`` that it may be logged, and of ``lines`` things at the most in that
    time, whoever causes them: a flood from ever new addresses fills neither the disk nor the memory."""

    def __init__(self, log: logging.Logger, lines: int = MAX_LINES, every_s: float = LOG_EVERY_S) -> None:
        self._log, self._max, self._every_s = log, lines, every_s
        self._said: OrderedDict[Hashable, float] = OrderedDict()
        self._window, self._lines = float("-inf"), 0

    def due(self, what: Hashable, now: float) -> bool:
        """Whether to log ``what`` at ``now`` (seconds of one clock that does not go back)."""
        last = self._said.get(what)
        if last is not None and now - last < self._every_s:
            return False
        if now - self._window >= self._every_s:
            if self._lines > self._max:
                self._log.warning("%d more such lines were not logged", self._lines - self._max)
            self._window, self._lines = now, 0
        self._lines += 1
        if self._lines > self._max:
            return False
        self._said[what] = now
        self._said.move_to_end(what)
        if len(self._said) > 2 * self._max:
            self._said.popitem(last=False)  # two windows ago: it may be logged again
        return True


class Refusals:
    """Counts by reason (a fixed set of words), and a line in ``log`` for each reason and sender once in a while."""

    def __init__(self, log: logging.Logger, lines: int = MAX_LINES) -> None:
        self.counts: Counter[str] = Counter()
        self._log = log
        self._seldom = Seldom(log, lines)

    def refuse(self, reason: str, who: Hashable, now: float, detail: object = "") -> None:
        """``who`` sent it (an address, a MAC); ``detail`` is for the log only and never a secret."""
        self.counts[reason] += 1
        if self._seldom.due((reason, who), now):
            self._log.warning("refused (%s): %s%s", reason, who, f": {detail}" if detail else "")
