"""What happens in the network for a host's machines, in a federation: the domain's controller is told, and asked.

Between agents, over the authenticated channel:

    expect {migration, machine, identifier, mac}    the machine that the caller carries here goes by this identifier

To the own domain's active controller, whichever that is (``federation.hosts``): prepare, flipped, released and
aborted by the source, arrived by the target. A machine that runs here cannot be announced by anybody.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address
from typing import Any

from followme.agent.federated_hooks import ASK_S, FederatedHooks
from followme.agent.hooks import PaperHooks
from followme.agent.machines_network import MachinesNetwork
from followme.domain import Migration
from followme.federation.engine import FederationError
from followme.federation.hosts import HostClient
from followme.migration.host import MachineSpec, MigrationError
from followme.migration.mover import Hooks
from followme.migration.recovery import Verdict
from followme.remote.client import Client
from followme.remote.server import Caller, Handler
from followme.remote.specs import mac_of, machine_name
from followme.store import Store

log = logging.getLogger(__name__)


class HostNetwork(MachinesNetwork):
    """``remote.network.Network`` by way of the domain's controller."""

    def __init__(self, site: str, controller: HostClient, store: Store) -> None:
        super().__init__(site, store)
        self._controller = controller
        self._expected: dict[str, str] = {}

    # ---- asked by peers

    def handlers(self) -> dict[str, Handler]:
        """What other agents may ask."""
        return {"expect": self._expect}

    async def _expect(self, params: Mapping[str, Any], caller: Caller) -> None:
        machine, mac = machine_name(params.get("machine")), mac_of(params.get("mac"))
        identifier, migration = _identifier_of(params), params.get("migration")
        if (held := machine if self.held(machine) else self._holder(identifier)) is not None:
            raise MigrationError(f"{held} is at {self.site} already, so {machine} ({identifier}) cannot come")
        if not isinstance(migration, str) or not self.carried(machine, caller.peer, migration):
            raise MigrationError(f"{caller.peer} is not carrying {machine} to {self.site} in that migration")
        self.know(machine, identifier, mac)
        self._expected[machine] = migration

    # ---- told by the site's machines (``remote.network.Network``)

    def hooks(self, migration: Migration, spec: MachineSpec, client: Client) -> Hooks:
        identifier = self.identifier(spec.name)
        ask = {"migration": migration.id, "machine": spec.name, "identifier": str(identifier),
               "mac": spec.mac.hex(":")}  # fmt: skip
        if migration.mode == "paper":
            return PaperOrder(client, ask)
        return FederatedHooks(self._controller, client, identifier, migration, ask)

    async def settled(self, migration: Migration, spec: MachineSpec, verdict: Verdict) -> None:
        if migration.mode == "paper":
            return  # the target's agent says where it is
        identifier, controller = self.identifier(spec.name), self._controller
        try:
            async with asyncio.timeout(ASK_S):
                if verdict is Verdict.FINISH_AT_TARGET:
                    await controller.flipped(identifier, migration.id)
                    await controller.released(identifier, migration.id)
                else:
                    await controller.aborted(identifier, migration.id)
        except TimeoutError:
            raise MigrationError(f"no controller of the domain has been told within {ASK_S:g} s where "
                                 f"{spec.name} is") from None  # fmt: skip
        except FederationError as error:
            # For good: where it has gone on from there is known by whoever has it now.
            log.warning("%s, settled (%s): %s", spec.name, verdict, error)

    def here(self, spec: MachineSpec) -> None:
        try:
            identifier = self.identifier(spec.name)
        except MigrationError as error:  # it was carried here in some other agent's time
            log.warning("%s", error)
            return
        migration = self._expected.pop(spec.name, None) or f"start-{secrets.token_hex(8)}"
        self._background(self._arrived(spec, identifier, migration))

    async def _arrived(self, spec: MachineSpec, identifier: IPv4Address, migration: str) -> None:
        try:
            await self._controller.arrived(identifier, migration, self.site, spec.mac)
        except FederationError as error:
            log.warning("%s runs here: %s", spec.name, error)

    def gone(self, spec: MachineSpec) -> None:
        self._expected.pop(spec.name, None)


class PaperOrder(PaperHooks):
    """The papers' order: the target is told whom it gets, and says by itself that it has arrived."""

    def __init__(self, client: Client, ask: Mapping[str, str]) -> None:
        self._prepare: Callable[[], Awaitable[Any]] = lambda: client.call("expect", dict(ask), ASK_S)

    async def prepare(self) -> None:
        await self._prepare()


def _identifier_of(params: Mapping[str, Any]) -> IPv4Address:
    value = params.get("identifier")
    try:
        if not isinstance(value, str):
            raise ValueError
        return IPv4Address(value)
    except ValueError:
        raise MigrationError(f"identifier {value!r:.60} is no IPv4 address") from None
