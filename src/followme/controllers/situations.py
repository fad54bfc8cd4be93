"""Step 2's questions: for each service, what is known of it now and which data centre is best for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import fsum, isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from followme.domain import Service
from followme.placement import Situation
from followme.placement.chooser import Choice, Chooser, Measured
from followme.placement.residence import Residence

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A service, what its choice is made of, and the situation that a policy is asked about."""

    service: Service
    access: str
    current: str
    choice: Choice
    situation: Situation


class World(Protocol):
    """What is known of places and paths, however sessions are kept; times and delays in seconds."""

    centres: Sequence[str]
    """The data centres, in the order of what ``measured`` gives."""

    @property
    def moves(self) -> int:
        """Raised with each change of a machine's place."""

    def access_of(self, user: str) -> str | None:
        """The access network where the user is; ``None`` if it is at none."""

    def place_of(self, machine: str) -> tuple[str, str] | None:
        """The data centre where the machine runs, and the one that it is being carried to (or the same)."""

    def measured(self, access: str) -> tuple[Floats, Floats, Floats]:
        """(data centres,) each: one-way delay, loss, free bandwidth in bit/s; NaN where nobody knows, an infinite
        delay where nothing gets through."""

    def expected_bytes(self, machine: str) -> int:
        """What carrying it would cost."""

    def bandwidth_bit_s(self, source: str, target: str) -> float | None:
        """Free for machines between two data centres."""

    def stalled_s(self, machine: str) -> float | None:
        """For how long it stood still when it was carried last."""


class Situations:
    """Puts together what the world knows; keeps who takes what room, and when contents end.

    Times are ``clock``'s, but for the config's ``ends_at``, which are ``wall``'s.
    """

    def __init__(
        self,
        services: Iterable[Service],
        chooser: Chooser,
        world: World,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.chooser = chooser
        self.residence = Residence()
        self._services = {service.name: service for service in services}
        self._world = world
        self._clock, self._wall = clock, wall
        self._ends: dict[str, float | None] = {}
        self._going: dict[str, str] = {}
        self._used: NDArray[np.float64] = np.zeros(len(chooser.names))
        self._used_at = -1
        # The way to every data centre is measured, the chooser knows those that can run machines.
        columns = [list(world.centres).index(name) for name in chooser.names]
        self._columns = None if columns == list(range(len(world.centres))) else np.array(columns)

    def of(self, service: Service) -> Question | None:
        """All that a policy may know about the service now; ``None`` while its user or machine has no place."""
        access, place = self._world.access_of(service.user), self._world.place_of(service.machine)
        if access is None or place is None:
            return None
        current = place[0]
        choice = self.chooser.choose(
            service.name, access, current, self._measured(access), self.remaining_s(service.name)
        )
        return self.question(service, access, current, choice)

    def question(self, service: Service, access: str, current: str, choice: Choice) -> Question:
        """The question whether to go where ``choice`` says."""
        best, world = choice.best or current, self._world
        stay_s, stays = self.residence.of(service.user)
        distance = self.chooser.distance
        return Question(service, access, current, choice, Situation(
            service=service.name,
            current=current,
            best=best,
            distance=distance(access, current),
            delay_current_s=choice.delay_s(current),
            delay_best_s=choice.delay_s(best),
            migration_bytes=world.expected_bytes(service.machine),
            bandwidth_bit_s=world.bandwidth_bit_s(current, best),
            rule=choice.verdict,
            distance_best=distance(access, best),
            weighed=choice.ranking is not None,
            gain=choice.gain,
            stay_s=stay_s,
            stays=stays,
            remaining_s=self.remaining_s(service.name),
            stalled_s=world.stalled_s(service.machine),
            user=service.user,
        ))  # fmt: skip

    def remaining_s(self, service: str) -> float | None:
        """For how long the service's content goes on; ``None`` without end, 0 if it is over."""
        if service in self._ends:
            end = self._ends[service]
            return None if end is None else max(0.0, end - self._clock())
        ends_at = self.chooser.needs(service).ends_at
        return None if ends_at is None else max(0.0, ends_at - self._wall())

    def content_ends(self, service: str, remaining_s: float | None) -> None:
        """The service's content ends in ``remaining_s`` seconds (``None``: it has no end): this counts from now
        on, whatever the config says. ``ValueError`` if there is no such service, or the time is none."""
        if service not in self._services:
            raise ValueError(f"there is no service {service!r}; known: {', '.join(sorted(self._services))}")
        if remaining_s is not None and not (isfinite(remaining_s) and remaining_s >= 0.0):
            raise ValueError(f"remaining_s {remaining_s} must be finite and not negative")
        self._ends[service] = None if remaining_s is None else self._clock() + remaining_s

    # ---- room

    def reserve(self, machine: str, place: str) -> None:
        """The machine is to go to ``place``: room is taken from the decision on, not only from the preparation."""
        self._going[machine] = place
        self._used_at = -1

    def goes(self, machine: str) -> bool:
        """Whether the machine is on its way by our decision."""
        return machine in self._going

    def release(self, machine: str) -> None:
        """It has arrived, or come to nothing: where it is counts."""
        self._going.pop(machine, None)
        self._used_at = -1

    def free(self, name: str) -> float:
        """The capacity of the data centre that nobody has taken."""
        return max(0.0, self.chooser.capacity(name) - float(self._taken()[self.chooser.names.index(name)]))

    def _taken(self) -> NDArray[np.float64]:
        """(data centres,): a machine that is being carried counts where it will be, and also where it is: it comes
        back if that fails."""
        if self._used_at != self._world.moves:
            self._used_at = self._world.moves
            demands: dict[str, list[float]] = {}
            for service in self._services.values():
                place = self._world.place_of(service.machine)
                if place is None:
                    continue
                # The second of ``place`` is another one too where somebody else has it carried.
                for one in {*place, self._going.get(service.machine, place[0])}:
                    demands.setdefault(one, []).append(self.chooser.needs(service.name).requirements.demand)
            self._used = np.array([fsum(demands.get(name, ())) for name in self.chooser.names])
        return self._used

    def _measured(self, access: str) -> Measured:
        delays, losses, bandwidths = self._world.measured(access)
        if (columns := self._columns) is not None:
            delays, losses, bandwidths = delays[columns], losses[columns], bandwidths[columns]
        return Measured(delays, losses, bandwidths, self._taken())
