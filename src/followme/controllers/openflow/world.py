"""What decisions may know of OpenFlow networks: bindings, probes through the switches, and their port counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from followme.continuity.redirect import Redirect
from followme.controllers.openflow.machines import Machines
from followme.controllers.situations import Floats
from followme.domain import Network, NetworkKind
from followme.placement.prober import PathProber
from followme.placement.uplinks import UplinkMeter


class OpenFlowWorld:
    """``situations.World``; ``machines`` is asked for the machines' side each time."""

    def __init__(
        self,
        networks: Mapping[str, Network],
        redirect: Redirect,
        prober: PathProber,
        uplinks: UplinkMeter,
        machines: Callable[[], Machines],
    ) -> None:
        self.centres: Sequence[str] = prober.centres
        self._access = {name for name, network in networks.items() if network.kind is NetworkKind.ACCESS}
        self._redirect, self._prober, self._uplinks, self._machines = redirect, prober, uplinks, machines

    @property
    def moves(self) -> int:
        return self._redirect.machine_places

    def access_of(self, user: str) -> str | None:
        binding = self._redirect.bindings.get(user)
        return binding.here.network if binding is not None and binding.here.network in self._access else None

    def place_of(self, machine: str) -> tuple[str, str] | None:
        binding = self._redirect.bindings.get(machine)
        if binding is None:
            return None
        return binding.here.network, (binding.arriving or binding.here).network

    def measured(self, access: str) -> tuple[Floats, Floats, Floats]:
        return *self._prober.measured(access), self._uplinks.measured(access)

    def expected_bytes(self, machine: str) -> int:
        return self._machines().expected_bytes(machine)

    def bandwidth_bit_s(self, source: str, target: str) -> float | None:
        """As the last migration measured it; before there was one, what the uplinks have free."""
        measured = self._machines().bandwidth_bit_s(source, target)
        return self._uplinks.between(source, target) if measured is None else measured

    def stalled_s(self, machine: str) -> float | None:
        last = self._machines().results.get(machine)
        return None if last is None else max(last.pause_s, last.held_s)
