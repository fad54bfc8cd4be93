"""The agent of a data centre in a federation: its machines, and their way to and from other data centres.

It has no router: its domain's controller has the switches, and is asked over the bus by whichever instance serves.
"""

from __future__ import annotations

from followme.agent.carrying import Carrying
from followme.agent.custody import Custodian
from followme.agent.host_config import HostAgentConfig
from followme.agent.host_network import HostNetwork
from followme.agent.membership import LateHostBus, access_of
from followme.agent.parts import hypervisor_of, only
from followme.agent.site_agent import SiteAgent
from followme.federation.bus import HostBus
from followme.federation.custody import is_question
from followme.federation.hosts import HostClient
from followme.migration.mover import Result

_ORDERED = {"carry", "cancel", "machines"}
"""What is asked for over the bus, and not by peers."""


class HostAgent(SiteAgent[HostAgentConfig]):
    """``bus``: where it is not to be the one that the config names."""

    def __init__(self, config: HostAgentConfig, bus: HostBus | None = None) -> None:
        super().__init__(config.federation.network, config)
        self._bus = bus

    async def _start(self) -> None:
        config = self.config
        bus = self._bus or LateHostBus(config.federation, access_of(config.federation))
        self._opened.push_async_callback(bus.close)
        self.network = HostNetwork(self.site, HostClient(bus), self.store)
        self.network.held, self.network.carried = self._held, self._carried
        self._opened.push_async_callback(self.network.close)
        hypervisor = await hypervisor_of(self.site, config.host, config.machines)
        machines = self._machines_of(hypervisor, self.network)
        await self._run(machines)
        handlers = {method: handler for method, handler in machines.handlers().items() if method not in _ORDERED}
        await self._listen(only("agent", config.control.peers, {**handlers, **self.network.handlers()}))

        async def carry(machine: str, network: str) -> Result:
            return await machines.carry(machine, network, config.migration.mode)

        carrying = Carrying(self.site, carry, lambda: machines.running, self.network.identifier)
        self._opened.push_async_callback(carrying.close)
        custodian = Custodian(machines, self.store, [machine.name for machine in config.machines])

        async def receive(payload: bytes) -> bytes:
            return await (custodian if is_question(payload) else carrying).receive(payload)

        await bus.serve(receive)
