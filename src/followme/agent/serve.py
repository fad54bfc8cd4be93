"""The agent put together: tunnel router, machines, and the service for controllers and other agents."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Self

from followme.agent.config import AgentConfig
from followme.agent.network import SiteNetwork
from followme.agent.parts import AgentError, connect, hypervisor_of, load_keys, only, spec_of, until_told
from followme.lisp import EidPrefix
from followme.migration.host import MachineSpec, MigrationError
from followme.migration.mover import Options
from followme.remote.client import Client
from followme.remote.hypervisor import Hypervisor
from followme.remote.keys import Key
from followme.remote.machines import SiteMachines
from followme.remote.server import Caller, Handler, Server
from followme.store import Store, StoreError
from followme.xtr.outputs import Answered, Departed, Event
from followme.xtr.router import RouterError, TunnelRouter

log = logging.getLogger(__name__)

MAX_WATCHED = 256


class Agent:
    """``async with Agent(config) as agent``: it serves until the block ends. Machines and routes then stay."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.site = config.router.site
        self.router = TunnelRouter(config.router, on_event=self._event)
        self.machines: SiteMachines | None = None
        self._keys: dict[str, Key] = {}
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
        self._keys = load_keys(self.config.control)
        self.store = Store(self.config.store)
        self._opened.callback(self.store.close)
        rloc = self.config.router.rlocs[0].address
        self.network = SiteNetwork(self.site, self.router, rloc, self.store, self.connect)
        self.network.runs, self.network.held, self.network.carried = self._runs, self._held, self._carried
        section = self.config.host
        hypervisor = None if section is None else await hypervisor_of(self.site, section, self.config.machines)
        await self.router.start()
        self._opened.push_async_callback(self.router.close, leave=True)
        self._opened.push_async_callback(self.network.close)
        if hypervisor is not None:
            await self._start_machines(hypervisor)
        control = self.config.control
        try:
            self.server = await Server.start(
                self._handlers(), self._keys, name=self.site, host=str(control.address), port=control.port,
                errors=(MigrationError, StoreError, RouterError, AgentError),
            )  # fmt: skip
        except OSError as error:
            raise AgentError(f"control: {control.address} port {control.port}: {error.strerror or error}") from None
        self._opened.push_async_callback(self.server.close)

    async def connect(self, site: str) -> Client:
        """A new connection to another site's agent; ``ChannelError`` if it does not answer."""
        return await connect(self.config.control, self._keys, self.site, site)

    # ---- start

    async def _start_machines(self, hypervisor: Hypervisor) -> None:
        settings = self.config.migration
        self.machines = SiteMachines(
            self.site, hypervisor, self.store, self.network, self.connect, timeout_s=settings.timeout_s,
            options=Options(max_pause=settings.max_pause_ms / 1e3, survive=True),
        )  # fmt: skip
        self._opened.push_async_callback(self.machines.close)
        for machine in self.config.machines:
            self.network.know(machine.name, machine.address, machine.mac)
        self.network.restore()
        await self.machines.start(spec_of(machine) for machine in self.config.machines)
        residents = list(self.router.control.residents.here.values())
        expected = [ip_address(resident.eid.address) for resident in residents if resident.expected]
        await self.network.started(hypervisor.guests, expected)
        for name, problem in self.machines.problems.items():
            log.error("machine %s: %s", name, problem)

    # ---- service

    def _handlers(self) -> dict[str, Handler]:
        """Who may ask for what: agents carry machines to each other, controllers order it."""
        agents: dict[str, Handler] = {}
        controllers: dict[str, Handler] = {
            "site": self._status, "paths": self._paths, **self.network.controller_handlers(),
        }  # fmt: skip
        if self.machines is not None:
            ordered = {"carry", "cancel", "machines"}
            for method, handler in self.machines.handlers().items():
                (controllers if method in ordered else agents)[method] = handler
            agents |= self.network.handlers()
        peers = self.config.control.peers
        return {**only("agent", peers, agents), **only("controller", peers, controllers)}

    async def _status(self, params: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        problems = {} if self.machines is None else dict(self.machines.problems)
        return {"site": self.site, "router": self.router.status(), "problems": problems}

    async def _paths(self, params: Mapping[str, Any], caller: Caller) -> dict[str, float]:
        """Round trips to the RLOCs of ``watch`` (RLOC: an EID prefix behind it), which are probed from now on."""
        wanted = params.get("watch")
        if not isinstance(wanted, dict) or len(wanted) > MAX_WATCHED:
            raise AgentError(f"watch: at most {MAX_WATCHED} RLOCs, each with an EID prefix")
        try:
            rlocs = {
                ip_address(rloc): EidPrefix.of(str(prefix), self.config.router.instance_id)
                for rloc, prefix in wanted.items()
            }
        except ValueError as error:
            raise AgentError(f"watch: {error}") from None
        self.router.watch(rlocs)
        return {str(rloc): rtt for rloc, rtt in self.router.round_trips().items() if rloc in rlocs}

    def _event(self, event: Event) -> None:
        # Answers are many, and what they change is told as well.
        log.log(logging.DEBUG if isinstance(event, Answered) else logging.INFO, "%s", event)
        if isinstance(event, Departed):
            self.network.departed(ip_address(event.eid.address))

    def _runs(self, machine: str) -> MachineSpec | None:
        """The machine, if it runs here and stays."""
        if self.machines is None or machine in self.machines.carried_to:
            return None
        qemu = self.machines.running.get(machine)
        return None if qemu is None else qemu.spec

    def _held(self, machine: str) -> bool:
        """Whether it runs here, or is being carried from here, or that is being settled."""
        machines = self.machines
        return machines is not None and (machine in machines.running or machine in machines.carried_to)

    def _carried(self, machine: str, peer: str, migration: str) -> bool:
        guest = None if self.machines is None else self.machines.hypervisor.guests.get(machine)
        return guest is not None and (guest.peer, guest.migration) == (peer, migration)


async def serve(config: AgentConfig) -> None:
    """Run until SIGINT or SIGTERM."""
    stop = until_told()
    async with Agent(config) as agent:
        log.info("site %s: serving peers on %s port %d", agent.site, config.control.address, agent.server.port)
        await stop.wait()
        log.info("stopping; machines and routes stay")
