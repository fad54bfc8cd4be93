"""What happens in the network for a host's machines, in a federation: the domain's controller is told, and asked.

Between agents, over the authenticated channel:

    expect {migration, machine, identifier, mac}    the machine that the caller carries here goes by this identifier

To the own domain's active controller, whichever that is (``federation.hosts``): prepare, flipped, released and
aborted by the source, arrived by the target. A machine that runs here cannot be announced by anybody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from ipaddress import IPv4Address
from typing import Any

from followme.agent.federated_hooks import ASK_S, FederatedHooks
from followme.agent.hooks import PaperHooks
from followme.domain import Migration, Node, NodeKind
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


class HostNetwork:
    """``remote.machines.Network`` by way of the domain's controller."""

    def __init__(self, site: str, controller: HostClient, store: Store) -> None:
        self.site = site
        self._controller, self._store = controller, store
        self._identifiers: dict[str, IPv4Address] = {node.name: node.identifier for node in store.nodes()}
        self._expected: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.held: Callable[[str], bool] = lambda machine: False
        """Whether it runs here, or is being carried from here, or that is being settled."""
        self.carried: Callable[[str, str, str], bool] = lambda machine, peer, migration: True
        """Whether a guest of that name waits here, carried by that peer in the migration of that id."""

    def know(self, machine: str, identifier: IPv4Address, mac: bytes) -> None:
        """A machine's identifier; kept in the store, for a machine from elsewhere is in no file of ours."""
        node = Node(machine, NodeKind.MACHINE, mac, identifier, identifier, self.site)
        if node not in self._store.nodes():
            self._store.put_node(node)
        self._identifiers[machine] = identifier

    def identifier(self, machine: str) -> IPv4Address:
        """``MigrationError`` if nobody told."""
        try:
            return self._identifiers[machine]
        except KeyError:
            raise MigrationError(f"{self.site} does not know the identifier of {machine}") from None

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- asked by peers

    def handlers(self) -> dict[str, Handler]:
        """What other agents may ask."""
        return {"expect": self._expect}

    async def _expect(self, params: Mapping[str, Any], caller: Caller) -> None:
        machine, mac = machine_name(params.get("machine")), mac_of(params.get("mac"))
        identifier, migration = _identifier_of(params), params.get("migration")
        named = [machine, *(name for name, known in self._identifiers.items() if known == identifier)]
        if (held := next((name for name in named if self.held(name)), None)) is not None:
            raise MigrationError(f"{held} is at {self.site} already, so {machine} ({identifier}) cannot come")
        if not isinstance(migration, str) or not self.carried(machine, caller.peer, migration):
            raise MigrationError(f"{caller.peer} is not carrying {machine} to {self.site} in that migration")
        self.know(machine, identifier, mac)
        self._expected[machine] = migration

    # ---- told by the site's machines (``remote.machines.Network``)

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

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            with contextlib.suppress(asyncio.CancelledError):
                if (error := task.exception()) is not None:
                    log.error("telling the controller: %s", error)

        task.add_done_callback(done)


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
