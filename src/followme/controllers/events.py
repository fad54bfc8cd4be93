"""What the controller tells those who watch it: the demo, the log, later the API."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

log = logging.getLogger(__name__)

Step = Literal["mobility", "placement", "migration", "continuity", "control"]


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the story; ``fact`` is the domain object behind it, if there is one. ``at`` in seconds."""

    at: float
    step: Step
    text: str
    fact: object = None


class Watchers:
    """Calls everybody who wants to know; one that fails does not stop the controller."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._watchers: list[Callable[[Happening], None]] = []

    def add(self, watcher: Callable[[Happening], None]) -> None:
        self._watchers.append(watcher)

    def tell(self, step: Step, text: str, fact: object = None) -> None:
        happening = Happening(self._clock(), step, text, fact)
        for watcher in self._watchers:
            try:
                watcher(happening)
            except Exception:
                log.exception("a watcher failed on: %s", text)
