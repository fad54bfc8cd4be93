"""What each controller of OpenFlow edge switches has, alone or in a federation: switches, rules, who is where.

``Controller`` decides and carries by itself on top of it; ``FederatedController`` shares the mapping of each node
with the controllers of other networks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Iterator

from followme.config.federation import FederatedFile
from followme.config.openflow import ConfigFile, ListenSection
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import Southbound
from followme.controllers.events import Watchers
from followme.domain import Mac, Network, Node, Placement
from followme.mobility.dhcp import DhcpServer
from followme.mobility.locations import LocationManager
from followme.openflow import Port, PortStatus
from followme.store import StoreError

log = logging.getLogger(__name__)

LEASE_CHECK_S = 30.0
SUMMARY_S = 60.0


class Edge(ABC):
    """The switches of ``file``'s networks. ``networks`` may hold more: those of other controllers."""

    def __init__(
        self,
        file: ConfigFile | FederatedFile,
        nodes: Iterable[Node],
        redirect: Redirect,
        clock: Callable[[], float],
    ) -> None:
        """``redirect`` with its southbound, which has no handlers yet; ``nodes`` are those of the config."""
        self.file = file
        self.clock = clock
        self.nodes = tuple(nodes)
        self.redirect = redirect
        self.networks, self.store = redirect.networks, redirect.store
        self.ledger, self.southbound = redirect.ledger, redirect.southbound
        self.watchers = Watchers(clock)
        self.locations = LocationManager(self.networks, self.redirect.bindings)
        pools = {section.name: section.dhcp for section in file.networks if section.dhcp}
        self.dhcp = DhcpServer(self.networks, pools, self.locations, self.store, time.time)
        handlers = self.southbound.handlers
        handlers.batch = self._batch
        handlers.connected, handlers.disconnected = self._connected, self._disconnected
        handlers.port_status, handlers.ports = self.port_status, self.ports
        self._store_behind = False
        self._summary: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # ---- of each kind of controller

    @abstractmethod
    def counted(self) -> dict[str, int]:
        """What the controller itself has counted, by what it is."""

    @abstractmethod
    def ports(self, network: Network, ports: tuple[Port, ...]) -> None:
        """All ports that a switch has, told when it connects."""

    @abstractmethod
    def port_status(self, network: Network, message: PortStatus) -> None:
        """A port has changed."""

    @abstractmethod
    def peers_of(self, node: Node) -> frozenset[str]:
        """The networks of those who talk to the node, as far as the store knows: at a restart not every binding
        is there yet."""

    @abstractmethod
    def served_elsewhere(self, node: Node) -> bool:
        """Whether this node of ours, whose lease is over, is in another controller's network, which renews it."""

    @abstractmethod
    def forgotten(self, node: Node) -> None:
        """The node's lease has run out, and nothing of it is left here."""

    # ---- life

    async def listen(self, sock: socket.socket | None = None) -> int:
        """Accept switches; returns the port. ``sock`` may listen in another namespace."""
        return await listen(self.southbound, self.file.listen, sock)

    def run(self, *work: Coroutine[object, object, None]) -> None:
        """Do this until the end, beside what each controller does."""
        running = (*work, self._expire_leases(), self._summarise())
        self._tasks = [asyncio.create_task(one) for one in running]

    async def stop_running(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for_switches(self, timeout: float) -> None:
        """Return when every switch of the config has its rules; ``DatapathGone`` names one that has not."""
        await self.southbound.wait_connected(self.southbound.networks, timeout)

    def summary(self) -> dict[str, int]:
        """What was counted since the start and is not 0; single lines of the log are rationed, these are not."""
        southbound = dataclasses.asdict(self.southbound.counters)
        counts = {name.replace("_", " "): value for name, value in southbound.items() if isinstance(value, int)}
        counts |= self.counted()
        return {name: count for name, count in counts.items() if count}

    async def _summarise(self) -> None:
        while True:
            await asyncio.sleep(SUMMARY_S)
            self.log_summary()

    def log_summary(self) -> None:
        summary = self.summary()
        if summary != self._summary:
            self._summary = summary
            log.info("counted so far: %s", ", ".join(f"{name} {count}" for name, count in summary.items()))

    def _restore(self) -> None:
        for _ in self._restoring():
            pass

    def _restoring(self) -> Iterator[Node]:
        """What the config and the store say of nodes, one by one: tens of thousands take seconds."""
        known = {node.name: node for node in self.store.nodes()}
        configured = {node.name: node for node in self.nodes}
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
            yield node

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
                if self.networks[binding.node.home].ours:  # in a federation others' nodes are not ours to restore
                    self.store.put_node(binding.node)
                self.store.put_placement(binding.here)
                for place in (binding.here, binding.arriving, binding.leaving, *binding.old):
                    if place is not None and place.locator != binding.node.identifier:
                        self.store.allocate_locator(place.network, name, [place.locator])
            self.dhcp.store_again()

    async def _expire_leases(self) -> None:
        configured = {node.mac for node in self.nodes}
        while True:
            await asyncio.sleep(LEASE_CHECK_S)
            try:
                self._forget_expired(configured)
            except StoreError as error:
                log.error("leases that have run out are kept for now: %s", error)

    def _forget_expired(self, configured: set[Mac]) -> None:
        for mac in self.dhcp.expired():
            node = None if mac in configured else self.locations.node(mac)
            if node is not None and not self.networks[node.home].ours:
                node = None  # a visitor: its home says when it is no more
            elif node is not None and self.served_elsewhere(node):
                self.dhcp.keep(mac)
                continue
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
            self.forgotten(node)

    def _connected(self, network: Network) -> None:
        self.watchers.tell("control", f"switch of {network.name} connected")

    def _disconnected(self, network: Network, reason: str) -> None:
        self.watchers.tell("control", f"switch of {network.name} is gone ({reason}); its rules wait for it")


async def listen(southbound: Southbound, section: ListenSection, sock: socket.socket | None = None) -> int:
    """Accept switches; returns the port. ``sock`` may listen in another namespace."""
    tls = None
    if section.tls is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(section.tls.ca))
        tls.load_cert_chain(section.tls.certificate, section.tls.key)
        tls.verify_mode = ssl.CERT_REQUIRED
    return await southbound.listen(str(section.address), section.port, sock=sock, tls=tls)
