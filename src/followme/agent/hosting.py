"""The agent of a data centre in a federation: its machines, and their way to and from other data centres.

It has no router: its domain's controller has the switches, and is asked over the bus by whichever instance serves.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any, Self

from followme.agent.carrying import Carrying
from followme.agent.host_config import HostAgentConfig
from followme.agent.host_network import HostNetwork
from followme.agent.membership import LateHostBus, access_of
from followme.agent.parts import AgentError, connect, hypervisor_of, load_keys, only, spec_of, until_told
from followme.federation.bus import HostBus
from followme.federation.hosts import HostClient
from followme.migration.host import MigrationError
from followme.migration.mover import Options, Result
from followme.remote.client import Client
from followme.remote.machines import SiteMachines
from followme.remote.server import Server
from followme.store import Store, StoreError

log = logging.getLogger(__name__)

_ORDERED = {"carry", "cancel", "machines"}
"""What is asked for over the bus, and not by peers."""


class HostAgent:
    """``async with HostAgent(config) as agent``: it serves until the block ends. Machines then stay."""

    def __init__(self, config: HostAgentConfig, bus: HostBus | None = None) -> None:
        self.config = config
        self.site = config.federation.network
        self._bus = bus
        self._keys: Mapping[str, Any] = {}
        self._opened = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._opened.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    async def _start(self) -> None:
        config = self.config
        self._keys = load_keys(config.control)
        bus = self._bus or LateHostBus(config.federation, access_of(config.federation))
        self._opened.push_async_callback(bus.close)
        self.store = Store(config.store)
        self._opened.callback(self.store.close)
        self.network = HostNetwork(self.site, HostClient(bus), self.store)
        self.network.held, self.network.carried = self._held, self._carried
        self._opened.push_async_callback(self.network.close)
        hypervisor = await hypervisor_of(self.site, config.host, config.machines)
        settings = config.migration
        self.machines = SiteMachines(
            self.site, hypervisor, self.store, self.network, self.connect, timeout_s=settings.timeout_s,
            options=Options(max_pause=settings.max_pause_ms / 1e3, survive=True),
        )  # fmt: skip
        self._opened.push_async_callback(self.machines.close)
        for machine in config.machines:
            self.network.know(machine.name, machine.address, machine.mac)
        await self.machines.start(spec_of(machine) for machine in config.machines)
        for name, problem in self.machines.problems.items():
            log.error("machine %s: %s", name, problem)
        handlers = {
            method: handler for method, handler in self.machines.handlers().items() if method not in _ORDERED
        }  # fmt: skip
        control = config.control
        try:
            self.server = await Server.start(
                only("agent", control.peers, {**handlers, **self.network.handlers()}), self._keys, name=self.site,
                host=str(control.address), port=control.port, errors=(MigrationError, StoreError, AgentError),
            )  # fmt: skip
        except OSError as error:
            raise AgentError(f"control: {control.address} port {control.port}: {error.strerror or error}") from None
        self._opened.push_async_callback(self.server.close)
        carrying = Carrying(self.site, self._carry, lambda: self.machines.running, self.network.identifier)
        self._opened.push_async_callback(carrying.close)
        await bus.serve(carrying.receive)

    async def connect(self, site: str) -> Client:
        """A new connection to another data centre's agent; ``ChannelError`` if it does not answer."""
        return await connect(self.config.control, self._keys, self.site, site)

    async def _carry(self, machine: str, network: str) -> Result:
        return await self.machines.carry(machine, network, self.config.migration.mode)

    def _held(self, machine: str) -> bool:
        return machine in self.machines.running or machine in self.machines.carried_to

    def _carried(self, machine: str, peer: str, migration: str) -> bool:
        guest = self.machines.hypervisor.guests.get(machine)
        return guest is not None and (guest.peer, guest.migration) == (peer, migration)


async def serve(config: HostAgentConfig) -> None:
    """Run until SIGINT or SIGTERM."""
    stop = until_told()
    async with HostAgent(config) as agent:
        log.info("%s: serving peers on %s port %d", agent.site, config.control.address, agent.server.port)
        await stop.wait()
        log.info("stopping; machines stay")
