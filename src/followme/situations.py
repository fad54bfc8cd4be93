"""Step 2's questions: for each service, what is known of it now and which data centre is best for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import fsum, isfinite

import numpy as np
from numpy.typing import NDArray

from followme.config import Config
from followme.continuity.redirect import Redirect
from followme.domain import NetworkKind, Service
from followme.machines import Machines
from followme.placement import Situation
from followme.placement.chooser import Choice, Chooser, Measured
from followme.placement.prober import PathProber
from followme.placement.residence import Residence
from followme.placement.uplinks import UplinkMeter


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A service, what its choice is made of, and the situation that a policy is asked about."""

    service: Service
    access: str
    current: str
    choice: Choice
    situation: Situation


class Situations:
    """Puts together what the controller's parts know; keeps who takes what room, and when contents end.

    ``machines`` is asked for the machines' side each time. Times are ``clock``'s, but for the config's
    ``ends_at``, which are ``wall``'s.
    """

    def __init__(
        self,
        config: Config,
        chooser: Chooser,
        redirect: Redirect,
        prober: PathProber,
        uplinks: UplinkMeter,
        machines: Callable[[], Machines],
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.chooser = chooser
        self.residence = Residence()
        self._services = {service.name: service for service in config.services}
        self._kinds = {network.name: network.kind for network in config.networks}
        self._redirect, self._prober, self._uplinks, self._machines = redirect, prober, uplinks, machines
        self._clock, self._wall = clock, wall
        self._ends: dict[str, float | None] = {}
        self._going: dict[str, str] = {}
        self._used: NDArray[np.float64] = np.zeros(len(chooser.names))
        self._used_at = -1
        # The prober measures the way to every data centre, the chooser knows those that can run machines.
        columns = [prober.centres.index(name) for name in chooser.names]
        self._columns = None if columns == list(range(len(prober.centres))) else np.array(columns)

    def of(self, service: Service) -> Question | None:
        """All that a policy may know about the service now; ``None`` while its user or machine has no place."""
        bindings = self._redirect.bindings
        user, machine = bindings.get(service.user), bindings.get(service.machine)
        if user is None or machine is None or self._kinds[user.here.network] is not NetworkKind.ACCESS:
            return None
        access, current = user.here.network, machine.here.network
        choice = self.chooser.choose(
            service.name, access, current, self._measured(access), self.remaining_s(service.name)
        )
        return self.question(service, access, current, choice)

    def question(self, service: Service, access: str, current: str, choice: Choice) -> Question:
        """The question whether to go where ``choice`` says."""
        best, machines = choice.best or current, self._machines()
        bandwidth = machines.bandwidth_bit_s(current, best)
        if bandwidth is None:  # nothing was carried between them yet
            bandwidth = self._uplinks.between(current, best)
        last = machines.results.get(service.machine)
        stay_s, stays = self.residence.of(service.user)
        distance = self.chooser.distance
        return Question(service, access, current, choice, Situation(
            service=service.name,
            current=current,
            best=best,
            distance=distance(access, current),
            delay_current_s=choice.delay_s(current),
            delay_best_s=choice.delay_s(best),
            migration_bytes=machines.expected_bytes(service.machine),
            bandwidth_bit_s=bandwidth,
            rule=choice.verdict,
            distance_best=distance(access, best),
            weighed=choice.ranking is not None,
            gain=choice.gain,
            stay_s=stay_s,
            stays=stays,
            remaining_s=self.remaining_s(service.name),
            stalled_s=None if last is None else max(last.pause_s, last.held_s),
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
        if self._used_at != self._redirect.machine_places:
            self._used_at = self._redirect.machine_places
            demands: dict[str, list[float]] = {}
            for service in self._services.values():
                binding = self._redirect.bindings.get(service.machine)
                if binding is None:
                    continue
                places = {binding.here.network, self._going.get(service.machine, binding.here.network)}
                if binding.arriving is not None:  # somebody else has it carried
                    places.add(binding.arriving.network)
                for place in places:
                    demands.setdefault(place, []).append(self.chooser.needs(service.name).requirements.demand)
            self._used = np.array([fsum(demands.get(name, ())) for name in self.chooser.names])
        return self._used

    def _measured(self, access: str) -> Measured:
        delays, losses = self._prober.measured(access)
        bandwidths, columns = self._uplinks.measured(access), self._columns
        if columns is not None:
            delays, losses, bandwidths = delays[columns], losses[columns], bandwidths[columns]
        return Measured(delays, losses, bandwidths, self._taken())
