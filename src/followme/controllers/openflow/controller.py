"""The FMC controller: runs mobility -> placement -> migration -> continuity; owns no protocol, no algorithm.

    controller = Controller(config, hosts)
    await controller.start()
    ...
    await controller.close()
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import time
from collections.abc import Callable, Mapping

from followme.config.openflow import Config
from followme.continuity.ledger import Ledger
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import Handlers, Southbound, SwitchError
from followme.controllers.deciding import Deciding
from followme.controllers.openflow.edge import Edge
from followme.controllers.openflow.machines import Machines
from followme.controllers.openflow.world import OpenFlowWorld
from followme.controllers.situations import Situations
from followme.domain import Attachment, Network, Node, NodeKind, Service
from followme.migration.host import Host
from followme.mobility.watcher import Watcher
from followme.openflow import Port, PortStatus
from followme.placement.prober import PathProber
from followme.placement.settings import chooser_of, policy_of
from followme.placement.uplinks import UplinkMeter
from followme.store import Store

log = logging.getLogger(__name__)


class Controller(Edge):
    """One controller for all networks of ``config``; ``hosts`` are the hypervisors by data centre."""

    def __init__(
        self,
        config: Config,
        hosts: Mapping[str, Host],
        *,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        networks = {network.name: network for network in config.networks}
        ledger = Ledger(secrets.randbits(16))
        southbound = Southbound(config.networks, ledger, Handlers(packet_in=lambda network, message: None))
        redirect = Redirect(networks, ledger, southbound, store or Store(config.file.store))
        super().__init__(config.file, config.nodes, redirect, clock)
        self.config = config
        self.prober = PathProber(self.networks, self.southbound, config.file.probe.interval_s, clock)
        self.watcher = Watcher(
            self.networks, self.southbound, self.redirect, self.locations, self.dhcp,
            attached=self._attached, arrived=self._arrived, peers=self.peers,
            probe=self.prober.received, clock=clock,
        )  # fmt: skip
        speeds = {one.name: one.uplink_bit_s for one in config.file.networks if one.uplink_bit_s is not None}
        self.uplinks = UplinkMeter(self.networks, self.southbound, speeds, clock, self.prober.centres)
        chooser = chooser_of(config)
        world = OpenFlowWorld(self.networks, self.redirect, self.prober, self.uplinks, lambda: self.machines)
        self.deciding = Deciding(
            None if chooser is None else Situations(config.services, chooser, world, clock, wall),
            policy_of(config), self.watchers, ready=self._ready, carry=self._carry, place=self._place_of,
        )  # fmt: skip
        self.machines = Machines(
            config, hosts, self.redirect, self.store, self.watchers, peers=self.peers,
            expect=self.watcher.expect, expect_no_more=self.watcher.expect_no_more,
        )  # fmt: skip
        self.southbound.handlers.packet_in = self.watcher.packet_in
        self._last_seen: dict[str, str] = {}

    # ---- life

    async def start(self, *, sock: socket.socket | None = None) -> int:
        """Restore what is known, then listen; returns the port. ``sock`` may listen in another namespace."""
        self._restore()
        self.redirect.install_base()
        port = await self.listen(sock)
        self.run(self.prober.run(), self.uplinks.run())
        return port

    async def close(self) -> None:
        """Stop; migrations under way are taken back first."""
        await self.machines.close()
        await self.deciding.close()
        await self.stop_running()
        await self.watcher.close()
        await self.southbound.close()
        self.log_summary()
        self.store.close()

    def counted(self) -> dict[str, int]:
        counts = {f"refused ({kind})": count for kind, count in self.watcher.refusals.counts.items()}
        return counts | dict(self.watcher.counts) | {"forged probes": self.prober.forged}

    def served_elsewhere(self, node: Node) -> bool:
        return False

    def forgotten(self, node: Node) -> None:
        self._last_seen.pop(node.name, None)
        if self.deciding.situations is not None:
            self.deciding.situations.residence.forget(node.name)

    def ports(self, network: Network, ports: tuple[Port, ...]) -> None:
        self.watcher.ports(network, ports)
        self.uplinks.ports(network, ports)

    def port_status(self, network: Network, message: PortStatus) -> None:
        self.watcher.port_status(network, message)
        self.uplinks.ports(network, (message.port,))

    # ---- 1: who moved

    def peers(self, node: Node) -> frozenset[str]:
        """The networks where the other ends of the node's services are now."""
        bindings = self.redirect.bindings
        return frozenset(
            bindings[other].here.network for other in self._other_ends(node) if other in bindings
        )

    def peers_of(self, node: Node) -> frozenset[str]:
        places = (self.store.placement(other) for other in self._other_ends(node))
        return frozenset(place.network for place in places if place and place.network in self.networks)

    def _other_ends(self, node: Node) -> list[str]:
        if node.kind is NodeKind.USER:
            return [service.machine for service in self.config.services if service.user == node.name]
        return [service.user for service in self.config.services if service.machine == node.name]

    def _attached(self, attachment: Attachment) -> None:
        self.store.put_attachment(attachment)
        node = self.redirect.bindings[attachment.node].node
        where = "" if attachment.locator == node.identifier else f", locator {attachment.locator}"
        self.watchers.tell(
            "mobility", f"{node.name} ({node.identifier}) is at {attachment.network}{where}", attachment
        )
        for name in (attachment.node, *self._other_ends(node)):
            self.redirect.warm(name)
        self.machines.retire(attachment.node, self.redirect.bindings[attachment.node].old)
        left = self._last_seen.get(attachment.node)
        self._last_seen[attachment.node] = attachment.network
        if self.deciding.situations is not None and node.kind is NodeKind.USER:
            self.deciding.situations.residence.seen(attachment.node, attachment.network, self.clock())
        for service in self.config.services:
            if service.user == attachment.node:
                self.deciding.follow(service, left)

    def _arrived(self, node: Node, network: Network) -> None:
        text = f"{node.name} has arrived at {network.name}: its first packet was seen"
        self.watchers.tell("mobility", text, node)

    # ---- 2 and 3: stay or go, and carry it

    async def _ready(self, service: Service, left: str | None) -> None:
        """The network that the user is at now knows the machine, the one that it has left forgets it."""
        user = self.redirect.bindings.get(service.user)
        if user is not None and service.machine in self.redirect.bindings:
            with contextlib.suppress(SwitchError):  # the first packet between them will tell it then
                await self.redirect.tell(service.machine, user.here.network)
            machine = self.redirect.bindings[service.machine].node
            if left is not None and left not in self.peers(machine):
                self.redirect.untell(service.machine, left)
        await self.machines.settled(service.machine)

    async def _carry(self, machine: str, target: str) -> None:
        await self.machines.carry(machine, target)

    def _place_of(self, machine: str) -> str:
        return self.redirect.bindings[machine].here.network
