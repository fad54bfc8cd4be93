"""What a host's agent says of a machine when its domain's controller asks whether it has it.

It has what runs here, or does not run and would be started here: paused, ended by itself, or not started yet. It
has let go of what was carried away, and of what neither its file names nor a file in its run directory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from ipaddress import IPv4Address

from followme.domain import Mac
from followme.federation.custody import Custody, decode_question
from followme.remote.machines import SiteMachines
from followme.store import Store


class Custodian:
    """``store`` has who was ever here, and where each was last known to be; ``configured`` are the names of those
    in the agent's file."""

    def __init__(self, machines: SiteMachines, store: Store, configured: Collection[str]) -> None:
        self._machines, self._store, self._configured = machines, store, configured

    async def receive(self, payload: bytes) -> bytes:
        """Its answer to a question of the controller's; ``ValueError`` (not answered) if it is none."""
        return self.of(*decode_question(payload)).encode()

    def of(self, identifier: IPv4Address, mac: Mac) -> Custody:
        """Of the machine with that identifier or MAC address, whatever its name is."""
        found = [self._one(name) for name in sorted(set(self._names(identifier, mac)))]
        for answer in ("yes", "unsettled"):
            for custody in found:
                if custody.has == answer:
                    return custody
        return Custody("no", f"{self._machines.site} does not have {identifier}")

    def _names(self, identifier: IPv4Address, mac: Mac) -> Iterator[str]:
        """The store may be lost, and what runs here is known by its MAC address all the same."""
        yield from (node.name for node in self._store.nodes() if node.identifier == identifier or node.mac == mac)
        hypervisor = self._machines.hypervisor
        yield from (name for name, spec in hypervisor.specs().items() if spec.mac == mac)
        yield from (name for name, qemu in hypervisor.machines.items() if qemu.spec.mac == mac)
        yield from (name for name, guest in hypervisor.guests.items() if guest.spec.mac == mac)

    def _one(self, name: str) -> Custody:
        machines, site = self._machines, self._machines.site
        place = self._store.placement(name)
        elsewhere = place is not None and place.network != site
        if name in machines.carried_to and (name in machines.running or not elsewhere):
            return Custody("unsettled", f"{name} is on its way from {site} to {machines.carried_to[name]}")
        if name in machines.running:
            return Custody("yes", f"{name} runs at {site}")
        if name in machines.hypervisor.guests:
            return Custody("unsettled", f"{name} is on its way to {site}")
        if not elsewhere and (name in self._configured or name in machines.hypervisor.specs()):
            return Custody("yes", f"{name} is at {site}: {machines.problems.get(name, 'not started yet')}")
        return Custody("no", f"{site} does not have {name}")
