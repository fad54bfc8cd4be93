"""Decisions that are due at once are taken together where room is short; who finds none is asked again.

    decisions = await gathering.decision(service)

Only where a data centre can be full: else each service is decided alone, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from followme.controllers.situations import Question, Situations
from followme.domain import Decision, Service
from followme.placement.stay_policy import StayOrGo
from followme.placement.together import Want, crowded, share_out

WINDOW_S = 0.02
"""How long a decision waits for others: far less than a migration takes, far more than a switch's turn."""
ALTERNATIVES = 4
"""Places besides the best that are looked at for each service when the best is crowded."""
ASKED_AGAIN = 32
"""Services that are asked again when room gets free somewhere; the others wait for the next time."""
URGENT = 1e6
"""What a rule's word weighs against sums: more than any of them, which are cut off at a tenth of it."""
LEAST = 1e-6
"""What going is worth at least where the policy says so, and the sum does not: so much for a service area that
it is nearer, and as much to begin with."""
NETWORK_BIT_S = 1e9
"""Taken for the sums where no bandwidth is known: they only put services in an order here."""


@dataclass(frozen=True, slots=True, eq=False)
class _Decided:
    question: Question
    decision: Decision


class Gathering:
    """``decide`` is what one question's answer is; ``follow`` has a service decided again; ``weigher`` is whose sum
    says what going is worth."""

    def __init__(
        self,
        situations: Situations,
        decide: Callable[[Question], Decision],
        follow: Callable[[Service], None],
        asked: Callable[[Service], Question | None],
        weigher: Callable[[], StayOrGo],
    ) -> None:
        self._weigher = weigher
        self._situations, self._decide, self._follow, self._asked = situations, decide, follow, asked
        self._due: dict[str, tuple[Service, asyncio.Future[Decision | None]]] = {}
        self._waiting: dict[str, tuple[Service, frozenset[str]]] = {}
        """Services by name, and the places that had no room for them; the longest waiting first."""

    async def decision(self, service: Service) -> Decision | None:
        """The decision about the service, with room reserved if it goes; ``None`` if there is nothing to decide,
        or it is under way already."""
        if service.name in self._due:
            return None
        loop = asyncio.get_running_loop()
        if not self._due:
            loop.call_later(WINDOW_S, self._take)
        future: asyncio.Future[Decision | None] = loop.create_future()
        self._due[service.name] = service, future
        return await future

    def freed(self, place: str) -> None:
        """Room has become free at ``place``: who went without is asked again."""
        asked = [service for service, places in self._waiting.values() if place in places][:ASKED_AGAIN]
        for service in asked:
            del self._waiting[service.name]
            self._follow(service)

    def _take(self) -> None:
        due, self._due = self._due, {}
        decided: dict[str, _Decided] = {}
        for service, future in due.values():
            self._waiting.pop(service.name, None)
            if self._situations.goes(service.machine):
                self._follow(service)  # it was sent somewhere while this waited: asked again when it is there
                continue
            try:
                question = self._asked(service)
                if question is not None:
                    decided[service.name] = _Decided(question, self._decide(question))
            except Exception as error:  # a policy's: the other services are not to suffer for it
                if not future.done():
                    future.set_exception(error)
        for name, decision in self._together(list(decided.values())).items():
            service, future = due[name]
            if future.done():  # the controller stops
                continue
            if decision.migrate:
                self._situations.reserve(service.machine, decision.target)
            future.set_result(decision)
        for service, future in due.values():
            if service.name not in decided and not future.done():
                future.set_result(None)

    def _together(self, decided: Sequence[_Decided]) -> dict[str, Decision]:
        """The decisions as they are, but where those that go to one place are too many for its room."""
        final = {one.question.service.name: one.decision for one in decided}
        going = {one.question.service.name: one for one in decided if one.decision.migrate}
        chooser = self._situations.chooser
        free = {name: self._situations.free(name) for name in chooser.names}
        wants = {name: self._want(one, False) for name, one in going.items()}
        asked: set[str] = set()
        # A place that is one's alternative may be another's first choice: that one is asked for alternatives, too.
        while short := set(crowded(wants.values(), free)):
            more = [name for name, want in wants.items() if want.first in short and name not in asked]
            if not more:
                break
            wants |= {name: self._want(going[name], True) for name in more}
            asked.update(more)
        if asked:
            given = share_out(list(wants.values()), free)
            for name, place in given.items():
                first = wants[name].first
                if place != first:
                    count = sum(first in (wants[other].first, given[other]) for other in wants)
                    final[name] = self._instead(going[name], place, count, free)
        for one in decided:
            self._wait(one, final[one.question.service.name])
        return final

    def _want(self, one: _Decided, alternatives: bool) -> Want:
        question, chooser = one.question, self._situations.chooser
        # A rule sends it to the best place: that one comes first, and any other before those who may also stay.
        rule = question.situation.rule is not None
        choices = [(one.decision.target, self._worth(question) + URGENT * rule)]
        for choice in chooser.others(question.choice, question.access, ALTERNATIVES) if alternatives else ():
            other = self._situations.question(question.service, question.access, question.current, choice)
            if self._decide(other).migrate:
                choices.append((other.situation.best, self._worth(other) + URGENT / 2.0 * rule))
        demand = chooser.needs(question.service.name).requirements.demand
        return Want(question.service.name, demand, tuple(choices))

    def _worth(self, question: Question) -> float:
        """In stay-or-go's unit for everybody, whatever the policy; above 0, for the policy says go."""
        situation = question.situation
        net = self._weigher().verdict(situation, NETWORK_BIT_S).net or 0.0
        least = LEAST * (1 + max(0, situation.distance - situation.distance_best))
        return min(max(net, least), URGENT / 10.0)

    def _instead(self, one: _Decided, place: str | None, count: int, free: dict[str, float]) -> Decision:
        decision = one.decision
        short = (
            f"{decision.target} has room for {free[decision.target]:g} and {count} want to go there now; "
            "where they go together costs least this way"
        )
        if place is None:
            why = f"{short}; asked again when room gets free"
            return replace(decision, migrate=False, target=decision.source, why=why)
        return replace(decision, target=place, why=f"{short}; {place} is the better for it of those with room")

    def _wait(self, one: _Decided, decision: Decision) -> None:
        """Remember which better places had no room."""
        question, choice = one.question, one.question.choice
        full = choice.full
        if choice.ranking is None:  # of no use to whom is nearer to where it is, or goes
            best = choice.delay_s(decision.target)
            full = frozenset(
                name for name in full
                if best is None or (delay := choice.delay_s(name)) is None or delay < best
            )  # fmt: skip
        if one.decision.migrate and one.decision.target != decision.target:
            full |= {one.decision.target}
        if full:
            self._waiting[question.service.name] = question.service, full
