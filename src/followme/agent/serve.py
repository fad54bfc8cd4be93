"""The agent put together: tunnel router, machines, and the service for controllers and other agents."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from followme.agent.config import AgentConfig
from followme.agent.network import SiteNetwork
from followme.agent.parts import AgentError, hypervisor_of, only
from followme.agent.site_agent import SiteAgent
from followme.lisp import EidPrefix
from followme.migration.host import MachineSpec
from followme.remote.hypervisor import Hypervisor
from followme.remote.server import Caller, Handler
from followme.xtr.outputs import Answered, Departed, Event
from followme.xtr.router import RouterError, TunnelRouter

log = logging.getLogger(__name__)

MAX_WATCHED = 256


class Agent(SiteAgent[AgentConfig]):
    """A LISP site's: its tunnel router and, where there is a hypervisor, its machines."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__(config.router.site, config)
        self.router = TunnelRouter(config.router, on_event=self._event)

    async def _start(self) -> None:
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
        await self._listen(self._handlers(), RouterError)

    async def _start_machines(self, hypervisor: Hypervisor) -> None:
        machines = self._machines_of(hypervisor, self.network)
        self.network.restore()
        await self._run(machines)
        residents = list(self.router.control.residents.here.values())
        expected = [ip_address(resident.eid.address) for resident in residents if resident.expected]
        await self.network.started(hypervisor.guests, expected)

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
