"""Before home believes that a node is elsewhere, the place where it is is asked: does it still answer there?

At home that is asked of the own network, elsewhere of the domain where the node is (``Left``). Checks run side by
side, and one that is under way serves all who wait for it. A user is let go by a domain that does not answer; a
machine is not, as it moves by itself only when its host has lost it. What is not known now is asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address
from typing import Final

from followme.domain import NodeKind

from .edge_network import NotKnown
from .federate import Federate
from .messages import Accepted, Answer, Attach, Left, Order, Refused
from .moves import Whereabouts

log = logging.getLogger(__name__)

ANSWER_S = 1.5
"""How long a domain may take to say whether a node has left; below ``engine.REQUEST_S``, for the asker waits."""
MAX_ASKED: Final = 4096

PRESENT: Final = Refused("it still answers where it is")
BUSY: Final = Refused("it is not known yet whether it still answers where it is", again=True)
SILENT: Final = Refused("the domain where the machine is does not answer", again=True)
MOVED: Final = Refused("the node has moved meanwhile", again=True)

Verdict = Accepted | Refused | tuple[Whereabouts, ...]
"""An answer that is final; or all who have been asked, and do not have the node."""


def final(verdicts: Sequence[Verdict]) -> list[Answer] | None:
    """The answers, if there is one to each order already: that need not wait for a turn."""
    answers: list[Answer] = [one for one in verdicts if isinstance(one, Accepted | Refused)]
    return answers if answers and len(answers) == len(verdicts) else None


class Presence:
    """``still_here`` says of a node whether it answers in an own network (``None``: that cannot be found out now);
    ``send`` brings an order to another domain, whose answer comes back by ``answered``."""

    def __init__(
        self, me: str, federate: Federate, still_here: Callable[[IPv4Address], Awaitable[bool | None]],
        send: Callable[[str, Order], None],
    ) -> None:  # fmt: skip
        self._me = me
        self._federate, self._still_here, self._send = federate, still_here, send
        self._asked: dict[tuple[str, IPv4Address], asyncio.Future[Answer | None]] = {}

    async def look(self, sender: str, orders: Sequence[Order]) -> list[Verdict]:
        """Of each order, what is to be known before ``Federate`` has it."""
        found: list[Verdict] = [()] * len(orders)
        asking = [index for index, order in enumerate(orders) if isinstance(order, Attach | Left)]
        if asking:
            verdicts = await asyncio.gather(*(self._of(sender, orders[index]) for index in asking))
            for index, verdict in zip(asking, verdicts, strict=True):
                found[index] = verdict
        return found

    def receive(self, sender: str, order: Order, verdict: Verdict, now: float) -> Answer:
        """``Federate``'s answer, unless the verdict is one, or is about where the node was before."""
        if isinstance(verdict, Accepted | Refused):
            return verdict
        if isinstance(order, Attach) and not {*self._federate.doubted(sender, order)} <= {*verdict}:
            return MOVED
        return self._federate.receive(sender, order, now)

    def answered(self, to: str, orders: Sequence[Order], answers: Sequence[Answer | None]) -> None:
        """What has come back of a frame."""
        for order, answer in zip(orders, answers, strict=True):
            waiting = self._asked.pop((to, order.identifier), None) if isinstance(order, Left) else None
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def has_left(self, domain: str, identifier: IPv4Address) -> bool:
        """Whether another domain, which had the node, says so; not if it does not answer."""
        return isinstance(await self._there(domain, identifier), Accepted)

    async def _of(self, sender: str, order: Order) -> Verdict:
        if isinstance(order, Left):
            return self._federate.may_ask(sender, order) or await self._here(order.identifier) or Accepted()
        asked = self._federate.doubted(sender, order) if isinstance(order, Attach) else ()
        answers = await asyncio.gather(*(self._at(where, order.identifier) for where in asked))
        # That it is somewhere is more than that it is not known whether it is.
        refused = sorted([answer for answer in answers if answer is not None], key=lambda one: one.again)
        return refused[0] if refused else asked

    async def _at(self, where: Whereabouts, identifier: IPv4Address) -> Refused | None:
        """Why it cannot be elsewhere."""
        if where.domain == self._me:
            return await self._here(identifier)
        answer = await self._there(where.domain, identifier)
        if isinstance(answer, Refused):
            return answer
        return SILENT if answer is None and where.kind is NodeKind.MACHINE else None

    async def _here(self, identifier: IPv4Address) -> Refused | None:
        try:
            here = await self._still_here(identifier)
        except NotKnown as error:
            return Refused(f"{BUSY.reason}: {error}", again=True)
        except Exception:  # a switch that is away, say: nothing is known
            log.exception("whether %s still answers", identifier)
            here = None
        return BUSY if here is None else PRESENT if here else None

    async def _there(self, domain: str, identifier: IPv4Address) -> Answer | None:
        """``None``: no answer."""
        key = domain, identifier
        waiting = self._asked.get(key)
        if waiting is None:
            if len(self._asked) >= MAX_ASKED:
                return BUSY
            waiting = self._asked[key] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(ANSWER_S, self._end, key, waiting)
            self._send(domain, Left(identifier))
        return await asyncio.shield(waiting)

    def _end(self, key: tuple[str, IPv4Address], waiting: asyncio.Future[Answer | None]) -> None:
        """It was waited for long enough."""
        if not waiting.done():
            waiting.set_result(None)
        if self._asked.get(key) is waiting:
            del self._asked[key]
