"""What the roles of one domain share: what is to be written and sent, who has not answered, what was refused.

An order is repeated until it is answered, after 0.2 s, doubling to 5 s; a newer one for the same purpose takes
its place at once. Keys name purposes: one Update for each domain and node, one phase for each migration.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from .messages import Order, Refused
from .nouns import Card
from .outputs import Effect, Outputs
from .registry import Registry
from .signing import Signer

REPEAT_S: Final = 0.2
REPEAT_MAX_S: Final = 5.0


@dataclass(slots=True)
class _Waiting:
    """An order without an answer. ``tag`` says what is in it; ``due`` is ``None`` while it is under way."""

    to: str
    order: Order
    tag: Any
    tries: int = 1
    due: float | None = None


class Desk:
    """Outputs, repeats and alarms. ``now`` is the highest time that was handed in."""

    def __init__(self, registry: Registry, signer: Signer) -> None:
        self.registry = registry
        self.signer = signer
        self.me = registry.domain
        self.now = 0.0
        self.refusals: Counter[str] = Counter()
        self.objection: Callable[[Card], str] = lambda card: ""
        """Why a card of another domain cannot be believed here, in few words that name nobody; or nothing."""
        self.out = Outputs()
        self._waiting: dict[Hashable, _Waiting] = {}
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def effect(self, effect: Effect) -> None:
        self.out.effects.append(effect)

    def refuse(self, reason: str, again: bool = False) -> Refused:
        """Count it and answer it. Reasons are few: they name no node."""
        self.refusals[reason] += 1
        return Refused(reason, again)

    def waits(self, key: Hashable) -> Any:
        """The tag of what is sent for this purpose and not answered yet; ``None``: nothing."""
        waiting = self._waiting.get(key)
        return None if waiting is None else waiting.tag

    def send(self, key: Hashable, to: str, order: Order, tag: Any) -> None:
        """Send, and repeat until ``settle`` or ``cancel``, or until another takes its place."""
        self._waiting[key] = _Waiting(to, order, tag)
        self.out.orders.append((to, order))

    def cancel(self, key: Hashable) -> None:
        self._waiting.pop(key, None)

    def settle(self, key: Hashable, order: Order) -> None:
        """It was answered for good."""
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.order is order:
            del self._waiting[key]

    def again(self, key: Hashable, order: Order) -> int:
        """Not answered, or not now: repeat it later; returns how often it was sent (0: another took its place)."""
        waiting = self._waiting.get(key)
        if waiting is None or waiting.order is not order or waiting.due is not None:
            return 0
        due = waiting.due = self.now + min(REPEAT_S * 2 ** min(waiting.tries - 1, 10), REPEAT_MAX_S)

        def repeat() -> None:
            if self._waiting.get(key) is waiting and waiting.due == due:
                waiting.due = None
                waiting.tries += 1
                self.out.orders.append((waiting.to, waiting.order))

        self.alarm(due, repeat)
        return waiting.tries

    def alarm(self, due: float, call: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._alarms, (due, self._number, call))

    def alarm_in(self, seconds: float, call: Callable[[], None]) -> None:
        """From now; or from the first time that is handed in, if none was."""
        if self.now:
            self.alarm(self.now + seconds, call)
        else:
            self.alarm(0.0, lambda: self.alarm(self.now + seconds, call))

    def timer(self, now: float) -> None:
        self.now = max(self.now, now)
        while self._alarms and self._alarms[0][0] <= self.now:
            heapq.heappop(self._alarms)[2]()

    def next_timer(self) -> float | None:
        return self._alarms[0][0] if self._alarms else None
