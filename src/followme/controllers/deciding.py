"""Steps 2 and 3 in a row: decide about a service, and have its machine carried if that is the decision."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Mapping

from followme.controllers.events import Watchers
from followme.controllers.gathering import Gathering
from followme.controllers.situations import Question, Situations
from followme.domain import Decision, Service
from followme.migration.host import MigrationError
from followme.placement import Always, Never, Policy, Situation, policy_named
from followme.placement.stay_policy import StayOrGo

log = logging.getLogger(__name__)

JUDGES_ANY_PLACE = (Always.name, Never.name, StayOrGo.name)
"""The policies that do not go by distance: they decide also about services that have weights."""
_BY_DEFAULT = StayOrGo()


class Deciding:
    """One for a controller, whichever way it keeps sessions. ``situations`` is ``None`` where nothing can run.

    ``ready`` is awaited before a decision about a service (whose user has left the network that it is told of, if
    any); ``carry`` has a machine carried to a data centre, ``MigrationError`` if it stays; ``place`` is where a
    machine is.
    """

    def __init__(
        self,
        situations: Situations | None,
        policy: Policy,
        watchers: Watchers,
        *,
        ready: Callable[[Service, str | None], Awaitable[None]],
        carry: Callable[[str, str], Awaitable[object]],
        place: Callable[[str], str],
    ) -> None:
        self.situations, self.policy = situations, policy
        self.gathering = None if situations is None or not situations.chooser.scarce else Gathering(
            situations, self._answer, self.follow, self._question, self._weigher
        )  # fmt: skip
        self._watchers = watchers
        self._ready, self._carry_to, self._place = ready, carry, place
        self._impossible: dict[str, bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Forget what is being decided; machines that are being carried are the caller's."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def situation(self, service: Service) -> Situation | None:
        """All that a policy may know about the service now; ``None`` while its user or machine has no place."""
        question = self._question(service)
        return None if question is None else question.situation

    def decide(self, service: Service) -> Decision | None:
        """What is best for the service now, whatever others want; ``None`` as ``situation``."""
        question = self._question(service)
        return None if question is None else self._answer(question)

    def content_ends(self, service: str, remaining_s: float | None) -> None:
        """The service's content ends in ``remaining_s`` seconds (``None``: it has no end), from now on whatever the
        config says. ``ValueError`` if there is no such service, or the time is negative or not finite."""
        if self.situations is None:
            raise ValueError("no data centre can run machines: there are no decisions")
        self.situations.content_ends(service, remaining_s)

    def _question(self, service: Service) -> Question | None:
        question = None if self.situations is None else self.situations.of(service)
        if question is None:
            return None
        choice = question.choice
        excluded = b"" if choice.feasible.all() else choice.feasible.tobytes()
        if self._impossible.get(service.name, b"") != excluded:  # said once, not at each decision
            self._impossible[service.name] = excluded
            if excluded:
                self._watchers.tell("placement", f"{service.name}: not possible: " + "; ".join(
                    f"{name}: {why}" for name, why in sorted(choice.excluded.items())), choice)  # fmt: skip
        return question

    def _answer(self, question: Question) -> Decision:
        """Rules first; then stay-or-go where the service has weights, for models of distance cannot judge a
        place that was chosen for something else; then the policy."""
        situation = question.situation
        if situation.rule is not None and situation.best != situation.current:
            return situation.decide("rule", situation.rule.migrate, situation.rule.why)
        weigh = situation.weighed and self.policy.name not in JUDGES_ANY_PLACE
        decision = (self._weigher() if weigh else self.policy).decide(situation)
        if situation.weighed and decision.migrate:
            return dataclasses.replace(decision, why=f"{decision.why}; {question.choice.why}")
        return decision

    def _weigher(self) -> StayOrGo:
        """With the config's parameters if they are stay-or-go's."""
        return self.policy if isinstance(self.policy, StayOrGo) else _BY_DEFAULT

    def follow(self, service: Service, left: str | None = None) -> None:
        """Decide about the service, and carry its machine if that is the decision; the user has ``left``."""
        task = asyncio.ensure_future(self._follow(service, left))
        self._tasks.add(task)
        task.add_done_callback(self._followed)

    async def _follow(self, service: Service, left: str | None) -> None:
        await self._ready(service, left)
        decision = self.decide(service) if self.gathering is None else await self.gathering.decision(service)
        if decision is None:
            return
        verb = f"go to {decision.target}" if decision.migrate else f"stay at {decision.source}"
        self._watchers.tell("placement", f"{service.name}: {verb} ({decision.policy}: {decision.why})", decision)
        if decision.migrate:
            await self._carry(service.machine, decision)

    async def _carry(self, machine: str, decision: Decision) -> None:
        situations = self.situations
        if situations is not None:
            situations.reserve(machine, decision.target)
        try:
            with contextlib.suppress(MigrationError):  # reported already
                await self._carry_to(machine, decision.target)
        finally:
            if situations is not None:
                situations.release(machine)
        if self.gathering is not None:
            left = self._place(machine) == decision.target
            self.gathering.freed(decision.source if left else decision.target)

    async def idle(self) -> None:
        """Return when every decision that was due has been taken and carried out."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    def _followed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("following a user failed", exc_info=task.exception())

    def use_policy(self, name: str, parameters: Mapping[str, float | str]) -> None:
        """Another policy from now on; ``ValueError`` names what is wrong with it."""
        self.policy = policy_named(name, parameters)

