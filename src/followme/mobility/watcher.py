"""Reads what switches send up (PACKET_IN, PORT_STATUS) as facts of mobility: who is where, who arrived.

Every sender is checked before anything is believed or answered. ``Attachment`` facts go to the controller.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from ipaddress import IPv4Address
from typing import Any

from followme.continuity.arp import ArpProxy, alive_request
from followme.continuity.pipeline import ETH_ARP, ETH_IPV4, ETH_RARP, THROUGH_TABLES, Table
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import Southbound
from followme.domain import Attachment, Mac, Network, Node, NodeKind, mac_text
from followme.mobility.correspondents import Correspondents
from followme.mobility.detector import MoveChecks
from followme.mobility.dhcp import DhcpServer
from followme.mobility.locations import LocationManager, Sighting, usable
from followme.openflow import Output, PacketIn, PacketOut, Port, PortStatus
from followme.openflow.constants import OFPPR_DELETE, OFPPS_LINK_DOWN, OFPR_NO_MATCH
from followme.packets import PacketError, peek
from followme.packets.arp import ARP_REPLY, Arp, parse_arp
from followme.packets.dhcp_frames import is_client_frame, parse_client_frame
from followme.store import StoreError
from followme.system.seldom import Refusals

log = logging.getLogger(__name__)

MAX_TASKS = 4096
MAX_REFUSALS_LOGGED = 100
"""In ``seldom.LOG_EVERY_S``."""


class Watcher:
    """Step 1. ``peers`` names the networks of those who talk to a node (its services' other ends)."""

    def __init__(
        self,
        networks: Mapping[str, Network],
        southbound: Southbound,
        redirect: Redirect,
        locations: LocationManager,
        dhcp: DhcpServer,
        *,
        attached: Callable[[Attachment], None],
        arrived: Callable[[Node, Network], None],
        peers: Callable[[Node], frozenset[str]],
        probe: Callable[[Network, bytes], None],
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.networks = networks
        self.southbound = southbound
        self.redirect = redirect
        self.locations = locations
        self.dhcp = dhcp
        self.arp = ArpProxy(networks, redirect.locate)
        self.refusals = Refusals(log, MAX_REFUSALS_LOGGED)
        self.counts: Counter[str] = Counter()
        self.correspondents = Correspondents(southbound, redirect, locations, self.counts, self._start)
        self._attached, self._arrived = attached, arrived
        self._peers, self._probe, self._clock = peers, probe, clock
        self._checks = MoveChecks(self._ask_alive)
        self._wall = wall  # an attachment's time is read after a restart, when a monotonic one says nothing
        self._gone_ports: set[tuple[str, int]] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._expected: dict[str, tuple[str, int]] = {}

    def expect(self, machine: str, network: str, port: int) -> None:
        """The machine is being carried there without preparation: believe it when it shows up."""
        self._expected[machine] = (network, port)

    def expect_no_more(self, machine: str) -> None:
        """It was not carried after all."""
        self._expected.pop(machine, None)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def ports(self, network: Network, ports: tuple[Port, ...]) -> None:
        """All ports that a switch has, told when it connects."""
        there = {port.port_no for port in ports if not port.state & OFPPS_LINK_DOWN}
        for binding in self.redirect.bindings.values():
            here = binding.here
            if here.network == network.name:
                key = (network.name, here.port)
                (self._gone_ports.discard if here.port in there else self._gone_ports.add)(key)

    def port_status(self, network: Network, message: PortStatus) -> None:
        key = (network.name, message.port.port_no)
        places = {name: binding.here for name, binding in self.redirect.bindings.items()}
        there = {name: (here.network, here.port) for name, here in places.items()}
        self._gone_ports &= set(there.values())  # only ports with nodes matter; a switch may name any number
        if message.reason == OFPPR_DELETE or message.port.state & OFPPS_LINK_DOWN:
            for name, place in there.items():
                if place == key:
                    self._gone_ports.add(key)
                    self._checks.left(name)
        else:
            self._gone_ports.discard(key)

    def packet_in(self, network: Network, message: PacketIn) -> None:
        try:
            _, source, ethertype, ip_source, ip_target, protocol = peek(message.data)
        except PacketError:
            self.counts["malformed"] += 1
            return
        port = message.in_port or 0
        if ethertype == ETH_IPV4:
            table = message.table_id
            if table == Table.INGRESS:
                if port == network.uplink_port:
                    self._probe(network, message.data)
                elif protocol == 17 and is_client_frame(message.data):
                    self._dhcp(network, port, source, message.data)
                else:
                    # A copy has gone on by itself; it must not be sent through the tables once more.
                    missed = message.reason == OFPR_NO_MATCH
                    self._sighted(network, port, source, ip_source, message.data if missed else b"")
            elif table == Table.FORWARD:
                self.correspondents.unaware(IPv4Address(ip_source), IPv4Address(ip_target))
            elif table == Table.EGRESS:
                self.correspondents.intercepted(network, port, source, IPv4Address(ip_target), message.data)
        elif ethertype == ETH_ARP:
            self._arp(network, port, source, message.data)
        elif ethertype == ETH_RARP and port != network.uplink_port:
            # QEMU announces a machine that has just arrived by RARP; it shows no IP address.
            self._sighted(network, port, source, b"", b"")

    def _sighted(self, network: Network, port: int, mac: Mac, address: bytes, frame: bytes) -> None:
        """A packet that no rule lets in, or a copy of a machine's first packets at its new place."""
        sighting, node = self.locations.sight(network.name, port, mac, address)
        if sighting is Sighting.HERE:
            assert node is not None
            binding = self.redirect.bindings[node.name]
            if not binding.seen:
                self.redirect.seen(node.name)
                self._arrived(node, network)
            elif frame and address == node.address.packed:  # with 0.0.0.0 it would come back to us for ever
                out = PacketOut(frame, THROUGH_TABLES, port)
                self.southbound.send(network.datapath, (self.redirect.rebind(node.name), out))
        elif sighting is Sighting.ELSEWHERE:
            assert node is not None
            self._start(self._moved(node, network, port, frame))
        elif sighting is Sighting.NEW_ADDRESS:
            assert node is not None
            self._start(self._renumbered(node, network, port, IPv4Address(address)))
        elif sighting is not Sighting.ARRIVING:
            if sighting is Sighting.STRANGER and self._strange(network, port, mac, address, frame):
                return
            claimed = f" with {IPv4Address(address)}" if address else ""
            self._refuse(sighting.name.lower(), network, port, mac, f"shows up{claimed}: {sighting.value}")

    def _strange(self, network: Network, port: int, mac: Mac, address: bytes, frame: bytes) -> bool:
        """Whether somebody else is asked about a sender that is not known here."""
        return False

    def _arp(self, network: Network, port: int, source: Mac, frame: bytes) -> None:
        try:
            arp = parse_arp(frame, 14)
        except PacketError:
            self.counts["malformed"] += 1
            return
        if port == network.uplink_port:
            if arp.sha != network.router_mac:
                self._refuse("router", network, port, arp.sha, f"says by ARP that it has {arp.sender}, but the "
                             f"router there is {mac_text(network.router_mac)}")  # fmt: skip
                return
            self._reply(network, port, self.arp.for_router(network, arp))
            return
        if arp.sha != source:
            self._refuse("arp", network, port, source, f"speaks by ARP for {mac_text(arp.sha)}")
            return
        sighting, node = self.locations.sight(network.name, port, source, arp.spa)
        if sighting is Sighting.HERE:
            assert node is not None
            if arp.op == ARP_REPLY:
                self._checks.answered(node.name)
            self._reply(network, port, self.arp.for_host(node, arp))
        elif sighting is Sighting.ELSEWHERE:
            assert node is not None
            self._start(self._moved_then_answer(node, network, port, arp))
        elif sighting is Sighting.NEW_ADDRESS:
            assert node is not None
            self._start(self._renumbered(node, network, port, arp.sender))
        elif sighting is Sighting.STRANGER and self._strange(network, port, source, arp.spa, b""):
            pass
        elif sighting is not Sighting.ARRIVING:
            self._refuse("arp", network, port, source, f"claims {arp.sender} by ARP: {sighting.value}")

    def _dhcp(self, network: Network, port: int, source: Mac, frame: bytes) -> None:
        sighting, node = self.locations.sight(network.name, port, source, b"")
        if node is not None and sighting is Sighting.ELSEWHERE:
            if node.kind is NodeKind.MACHINE:
                self._refuse("dhcp", network, port, source, f"asks by DHCP in the name of machine {node.name}")
                return
            self._start(self._checked_dhcp(node, network, port, source, frame))
            return
        self._serve(network, port, source, frame)

    async def _checked_dhcp(self, node: Node, network: Network, port: int, source: Mac, frame: bytes) -> None:
        if await self._believe(node, network, port):
            self._serve(network, port, source, frame)

    def _serve(self, network: Network, port: int, source: Mac, frame: bytes) -> None:
        try:
            message = parse_client_frame(frame)
        except PacketError:
            self.counts["malformed"] += 1
            return
        try:
            result = self.dhcp.handle(network, source, message)
        except PacketError:  # what the client wants back does not fit into an answer
            self.counts["malformed"] += 1
            return
        if result.refused:
            self._refuse("dhcp", network, port, source, result.refused)
        if result.attached:
            node = result.attached
            if result.fresh:
                self._adopt(node, network, port)
            else:
                self._attach(node, network, port, lambda: self._reply(network, port, result.reply))
                return
        if result.released:
            log.info("%s released its address", result.released.name)
        self._reply(network, port, result.reply)

    def _adopt(self, node: Node, network: Network, port: int) -> None:
        """A user who was not known, or whose address is new: its home is here from now on."""
        self.redirect.adopt(node, network.name, port)
        self.locations.add(node)
        binding = self.redirect.bindings[node.name]
        self._attached(Attachment(node.name, network.name, port, binding.here.locator, self._wall()))

    async def _renumbered(self, node: Node, network: Network, port: int, address: IPv4Address) -> None:
        """A known user with a new address of this network (leased by another server, or set by hand)."""
        if node.kind is NodeKind.MACHINE or not usable(network, address):
            self._refuse("address", network, port, node.mac, f"uses {address}, which is not its own")
            return
        if not self.networks[node.home].ours:
            self._refuse("visitor", network, port, node.mac, f"uses {address}, which its home did not give it")
            return
        if not await self._believe(node, network, port):
            return
        if self.locations.holder(network.name, address) is not None:
            return  # given to another meanwhile
        self._adopt(Node(node.name, node.kind, node.mac, network.outer(address), address, network.name),
                    network, port)  # fmt: skip

    async def _moved(self, node: Node, network: Network, port: int, frame: bytes) -> None:
        if await self._believe(node, network, port):
            outs = [PacketOut(frame, THROUGH_TABLES, port)] if frame else []
            self._attach(node, network, port, lambda: self.southbound.send(network.datapath, outs))

    async def _moved_then_answer(self, node: Node, network: Network, port: int, arp: Arp) -> None:
        if await self._believe(node, network, port):
            self._attach(node, network, port, lambda: self._reply(network, port, self.arp.for_host(node, arp)))

    def _attach(self, node: Node, network: Network, port: int, then: Callable[[], None]) -> None:
        """The node is here now: ``then`` go on, unless the network has no locator left for it."""
        here = self.redirect.bindings[node.name].here
        if (here.network, here.port) != (network.name, port):
            try:
                here = self.redirect.move(node.name, network.name, port, self._peers(node))
            except StoreError as error:
                self._refuse("store", network, port, node.mac, f"is {node.name}, but cannot be let in: {error}")
                return
            self._attached(Attachment(node.name, network.name, port, here.locator, self._wall()))
        then()

    async def _believe(self, node: Node, network: Network, port: int) -> bool:
        """Whether the node is really here now; a false claim is refused, counted and logged."""
        binding = self.redirect.bindings.get(node.name)
        if binding is None:
            return False
        here, place = binding.here, (network.name, port)
        if (here.network, here.port) == place:
            return True
        if self._expected.get(node.name) == place:
            del self._expected[node.name]
            return True
        if node.name in self._expected or binding.arriving or binding.leaving:
            # It is paused now or soon, and cannot answer for itself.
            self._refuse("mac", network, port, node.mac, f"claims to be {node.name}, which is being carried")
            return False
        if here.port == 0 or (here.network, here.port) in self._gone_ports:
            return True
        left = await self._checks.has_left(node)
        after = self.redirect.bindings.get(node.name)
        if after is None or after.node != node:
            return False  # forgotten or renumbered meanwhile
        if (after.here.network, after.here.port) == place:
            return True  # another packet of the same move was believed meanwhile
        if left is False:
            self._refuse("mac", network, port, node.mac, f"claims to be {node.name}, which still answers at "
                         f"{here.network} port {here.port}")  # fmt: skip
        return left is True

    async def _ask_alive(self, node: Node) -> None:
        binding = self.redirect.bindings.get(node.name)
        if binding is None:
            return
        here = binding.here
        network = self.networks[here.network]
        request = alive_request(self.networks[node.home], node)
        self._reply(network, here.port, request)

    def _reply(self, network: Network, port: int, frame: bytes | None) -> None:
        if frame is not None:
            out = PacketOut(frame, (Output(port),))
            self.southbound.send(network.datapath, [out])

    def _refuse(self, kind: str, network: Network, port: int, mac: Mac, what: str) -> None:
        self.refusals.refuse(kind, f"{mac_text(mac)} at {network.name} port {port}", self._clock(), what)

    def _start(self, work: Coroutine[Any, Any, object]) -> bool:
        if len(self._tasks) >= MAX_TASKS:
            self.counts["events dropped"] += 1
            work.close()
            return False
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return True

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("handling a packet failed", exc_info=task.exception())
