"""What both kinds of agents are: a site's machines, and a service for their peers, until they are told to stop."""

from __future__ import annotations

import contextlib
import logging
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Generic, Self, TypeVar

from followme.agent.machines_network import MachinesNetwork
from followme.agent.parts import AgentError, connect, load_keys, spec_of
from followme.agent.sections import SiteConfig
from followme.migration.host import MigrationError
from followme.migration.mover import Options
from followme.remote.client import Client
from followme.remote.hypervisor import Hypervisor
from followme.remote.keys import Key
from followme.remote.machines import SiteMachines
from followme.remote.server import Handler, Server
from followme.store import Store, StoreError
from followme.system.signals import until_told

log = logging.getLogger(__name__)

C = TypeVar("C", bound=SiteConfig)


class SiteAgent(ABC, Generic[C]):
    """``async with agent``: it serves until the block ends. Machines and routes then stay.

    ``AgentError``, ``StoreError`` or ``OSError`` where it cannot."""

    def __init__(self, site: str, config: C) -> None:
        self.site, self.config = site, config
        self.machines: SiteMachines | None = None
        self._keys: Mapping[str, Key] = {}
        self._opened = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            self._keys = load_keys(self.config.control)
            self._bind()
            self.store = Store(self.config.store)
            self._opened.callback(self.store.close)
            await self._start()
        except BaseException:
            await self._opened.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._opened.aclose()

    @abstractmethod
    async def _start(self) -> None:
        """Open all that this kind has, and put on ``_opened`` what closes it."""

    def _machines_of(self, hypervisor: Hypervisor, network: MachinesNetwork) -> SiteMachines:
        """What the hypervisor will run, once it is started; ``network`` knows who is at home here."""
        settings = self.config.migration
        self.machines = SiteMachines(
            self.site, hypervisor, self.store, network, self.connect, timeout_s=settings.timeout_s,
            options=Options(max_pause=settings.max_pause_ms / 1e3, survive=True),
        )  # fmt: skip
        self._opened.push_async_callback(self.machines.close)
        for machine in self.config.machines:
            network.know(machine.name, machine.address, machine.mac)
        return self.machines

    async def _run(self, machines: SiteMachines) -> None:
        await machines.start(spec_of(machine) for machine in self.config.machines)
        for name, problem in machines.problems.items():
            log.error("machine %s: %s", name, problem)

    def _bind(self) -> None:
        """Have the control port before anything is changed or said to others; peers are answered later."""
        control = self.config.control
        family = socket.AF_INET if control.address.version == 4 else socket.AF_INET6
        self._socket = self._opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            self._socket.bind((str(control.address), control.port))
        except OSError as error:
            raise self._not_bound(error) from None

    def _not_bound(self, error: OSError) -> AgentError:
        control = self.config.control
        return AgentError(f"control: {control.address} port {control.port}: {error.strerror or error}")

    async def _listen(self, handlers: Mapping[str, Handler], *errors: type[Exception]) -> None:
        """For peers, who are told of ``errors`` what they say, too."""
        try:
            self.server = await Server.start(
                handlers, self._keys, name=self.site, sock=self._socket,
                errors=(MigrationError, StoreError, AgentError, *errors),
            )  # fmt: skip
        except OSError as error:
            raise self._not_bound(error) from None
        self._opened.push_async_callback(self.server.close)

    async def connect(self, site: str) -> Client:
        """A new connection to another site's agent; ``ChannelError`` if it does not answer."""
        return await connect(self.config.control, self._keys, self.site, site)

    def _held(self, machine: str) -> bool:
        """Whether it runs here, or is being carried from here, or that is being settled."""
        machines = self.machines
        return machines is not None and (machine in machines.running or machine in machines.carried_to)

    def _carried(self, machine: str, peer: str, migration: str) -> bool:
        guest = None if self.machines is None else self.machines.hypervisor.guests.get(machine)
        return guest is not None and (guest.peer, guest.migration) == (peer, migration)

    async def serve(self) -> None:
        """Run until SIGINT or SIGTERM."""
        stop = until_told()
        async with self:
            log.info("%s: serving peers on %s port %d", self.site, self.config.control.address, self.server.port)
            await stop.wait()
            log.info("stopping; machines and routes stay")
