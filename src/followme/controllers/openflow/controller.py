"""The FMC controller: runs mobility -> placement -> migration -> continuity; owns no protocol, no algorithm.

    controller = Controller(config, hosts)
    await controller.start()
    ...
    await controller.close()
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping

from followme.config.openflow import Config
from followme.continuity.ledger import Ledger
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import Handlers, Southbound, SwitchError
from followme.controllers.deciding import Deciding
from followme.controllers.events import Watchers
from followme.controllers.openflow.machines import Machines
from followme.controllers.openflow.world import OpenFlowWorld
from followme.controllers.situations import Situations
from followme.domain import Attachment, Mac, Network, Node, NodeKind, Placement, Service
from followme.migration.host import Host
from followme.mobility.dhcp import DhcpServer
from followme.mobility.locations import LocationManager
from followme.mobility.watcher import Watcher
from followme.openflow import Port, PortStatus
from followme.placement.prober import PathProber
from followme.placement.settings import chooser_of, policy_of
from followme.placement.uplinks import UplinkMeter
from followme.store import Store, StoreError

log = logging.getLogger(__name__)


LEASE_CHECK_S = 30.0
SUMMARY_S = 60.0


class Controller:
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
        self.config = config
        self.clock = clock
        self.store = store or Store(config.file.store)
        self.networks: dict[str, Network] = {network.name: network for network in config.networks}
        self.watchers = Watchers(clock)
        self.ledger = Ledger(secrets.randbits(16))
        handlers = Handlers(packet_in=lambda network, message: None, batch=self._batch)
        self.southbound = Southbound(config.networks, self.ledger, handlers)
        self.redirect = Redirect(self.networks, self.ledger, self.southbound, self.store)
        self.locations = LocationManager(self.networks, self.redirect.bindings)
        pools = {section.name: section.dhcp for section in config.file.networks if section.dhcp}
        self.dhcp = DhcpServer(self.networks, pools, self.locations, self.store, time.time)
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
        handlers.packet_in = self.watcher.packet_in
        handlers.port_status = self._port_status
        handlers.ports = self._ports
        handlers.connected = lambda network: self.watchers.tell("control", f"switch of {network.name} connected")
        handlers.disconnected = self._disconnected
        self._store_behind = False
        self._summary: dict[str, int] = {}
        self._last_seen: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # ---- life

    async def start(self, *, sock: socket.socket | None = None) -> int:
        """Restore what is known, then listen; returns the port. ``sock`` may listen in another namespace."""
        self._restore()
        self.redirect.install_base()
        listen = self.config.file.listen
        port = await self.southbound.listen(str(listen.address), listen.port, sock=sock, tls=self._tls())
        running = (self.prober.run(), self.uplinks.run(), self._expire_leases(), self._summarise())
        self._tasks = [asyncio.create_task(one) for one in running]
        return port

    async def close(self) -> None:
        """Stop; migrations under way are taken back first."""
        await self.machines.close()
        await self.deciding.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.watcher.close()
        await self.southbound.close()
        self._log_summary()
        self.store.close()

    async def wait_for_switches(self, timeout: float) -> None:
        """Return when every switch of the config has its rules; ``DatapathGone`` names one that has not."""
        await self.southbound.wait_connected([network.datapath for network in self.config.networks], timeout)

    def summary(self) -> dict[str, int]:
        """What was counted since the start and is not 0; single lines of the log are rationed, these are not."""
        southbound = dataclasses.asdict(self.southbound.counters)
        counts = {name.replace("_", " "): value for name, value in southbound.items() if isinstance(value, int)}
        counts |= {f"refused ({kind})": count for kind, count in self.watcher.refusals.counts.items()}
        counts |= self.watcher.counts
        counts["forged probes"] = self.prober.forged
        return {name: count for name, count in counts.items() if count}

    async def _summarise(self) -> None:
        while True:
            await asyncio.sleep(SUMMARY_S)
            self._log_summary()

    def _log_summary(self) -> None:
        summary = self.summary()
        if summary != self._summary:
            self._summary = summary
            log.info("counted so far: %s", ", ".join(f"{name} {count}" for name, count in summary.items()))

    def _restore(self) -> None:
        known = {node.name: node for node in self.store.nodes()}
        configured = {node.name: node for node in self.config.nodes}
        for name, node in configured.items():
            if known.get(name) != node:
                # What the file says now beats what it said once; a place is kept if it is still there.
                self.store.put_node(node)
        taken = {one for node in configured.values() for one in (node.mac, (node.home, node.address))}
        for name, node in {**known, **configured}.items():
            gone = None if node.home in self.networks else f"its home {node.home} is not in the config any more"
            if name not in configured and not taken.isdisjoint({node.mac, (node.home, node.address)}):
                gone = "the config gives its MAC or address to another"
            if gone:
                log.warning("forgot %s: %s", name, gone)
                self.store.delete_node(name)
                continue
            place = self.store.placement(name)
            same = known.get(name) in (None, node) or known[name].identifier == node.identifier
            if place is None or place.network not in self.networks or not same:
                place = Placement(name, node.home, node.port or 0, node.identifier, 1)
                self.store.put_placement(place)
            self.redirect.restore(node, place, self.peers_of(node))
            self.locations.add(node)

    @contextlib.contextmanager
    def _batch(self) -> Iterator[None]:
        """One read of a switch's socket: one commit. After one that failed, the store first gets again what
        we believe: else it would, for one, give a locator that is in use to another node."""
        if self._store_behind:
            with contextlib.suppress(StoreError):
                self._store_again()
                self._store_behind = False
        try:
            with self.store.batch():
                yield
        except BaseException:
            self._store_behind = True
            raise

    def _store_again(self) -> None:
        with self.store.transaction():
            for name, binding in self.redirect.bindings.items():
                self.store.put_node(binding.node)
                self.store.put_placement(binding.here)
                for place in (binding.here, binding.arriving, binding.leaving, *binding.old):
                    if place is not None and place.locator != binding.node.identifier:
                        self.store.allocate_locator(place.network, name, [place.locator])
            self.dhcp.store_again()

    async def _expire_leases(self) -> None:
        configured = {node.mac for node in self.config.nodes}
        while True:
            await asyncio.sleep(LEASE_CHECK_S)
            try:
                self._forget_expired(configured)
            except StoreError as error:
                log.error("leases that have run out are kept for now: %s", error)

    def _forget_expired(self, configured: set[Mac]) -> None:
        for mac in self.dhcp.expired():
            node = None if mac in configured else self.locations.node(mac)
            # One commit, and first: a crash leaves both the lease and its holder, or none of them. A holder
            # without a lease would be kept for ever.
            with self.store.transaction():
                self.store.delete_lease(mac)
                if node is not None:
                    self.store.delete_node(node.name)
            self.dhcp.forget(mac)
            if node is None:
                continue
            self.watchers.tell("mobility", f"{node.name}'s lease of {node.address} has run out", node)
            self.locations.remove(node.name)
            self.redirect.forget(node.name)
            self._last_seen.pop(node.name, None)
            if self.deciding.situations is not None:
                self.deciding.situations.residence.forget(node.name)

    def _tls(self) -> ssl.SSLContext | None:
        tls = self.config.file.listen.tls
        if tls is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls.ca))
        context.load_cert_chain(tls.certificate, tls.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _disconnected(self, network: Network, reason: str) -> None:
        self.watchers.tell("control", f"switch of {network.name} is gone ({reason}); its rules wait for it")

    def _ports(self, network: Network, ports: tuple[Port, ...]) -> None:
        self.watcher.ports(network, ports)
        self.uplinks.ports(network, ports)

    def _port_status(self, network: Network, message: PortStatus) -> None:
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
        """As ``peers``, from the store: at a restart not every binding is there yet."""
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
