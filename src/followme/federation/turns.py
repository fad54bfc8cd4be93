"""What the engine does at one go: frames of other domains that it answers, own orders, effects."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from .messages import Answer, Order, Refused, Update
from .outputs import Effect
from .presence import Verdict


@dataclass(slots=True)
class Asked:
    """A frame of another domain that waits for its turn."""

    sender: str
    orders: list[Order]
    verdicts: list[Verdict]
    answers: asyncio.Future[list[Answer] | None]


@dataclass(slots=True)
class Turn:
    asked: list[tuple[Asked, list[Answer]]]
    own: list[tuple[Order, Answer]]
    effects: list[Effect]

    def unanswered(self, _: object = None) -> None:
        """Whoever has asked and was not answered will not be: nobody waits for that any more."""
        unanswered(asked for asked, _ in self.asked)


def unanswered(many: Iterable[Asked]) -> None:
    for asked in many:
        if not asked.answers.done():  # who has asked may have been cancelled
            asked.answers.set_result(None)


def unless(wrong: Mapping[IPv4Address, Refused], order: Order, answer: Answer) -> Answer:
    """A mapping whose rules the switches do not have is not held, or not yet."""
    if isinstance(order, Update) and not isinstance(answer, Refused):
        return wrong.get(order.identifier, answer)
    return answer
