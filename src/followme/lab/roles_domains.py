"""A federation in one process: domains of one network each, their engines, their switches if there are any.

The controllers' own parts do the work: ``Federate`` and ``Engine`` speak over a real bus, ``SharedRedirect`` makes
the rules, ``Southbound`` has them confirmed. What a mobility watcher does with packets is here in its shortest
form: an intercepted packet of a node says to whom it speaks, and one that passed by way of home who does not know
where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from followme.continuity.ledger import Ledger
from followme.continuity.pipeline import Table
from followme.continuity.southbound import Handlers, Southbound, SwitchError
from followme.controllers.openflow.shared import SharedRedirect, card_of
from followme.domain import NO_DATAPATH, Mac, Network, Node, NodeKind, Placement
from followme.federation.bus import Bus
from followme.federation.engine import Engine
from followme.federation.federate import Federate
from followme.federation.messages import Refused
from followme.federation.outputs import Effect
from followme.federation.registry import Domain, Registry
from followme.federation.signing import Ed25519Signer, generate_key
from followme.lab.roles_tally import CountedBus
from followme.openflow import Output, PacketIn, PacketOut
from followme.openflow.constants import OFPP_TABLE
from followme.packets.errors import PacketError
from followme.packets.ethernet import ETHERTYPE_IPV4, pack_ethernet, parse_ethernet
from followme.packets.ipv4 import PROTO_UDP, pack_ipv4, parse_ipv4
from followme.store import Store

CONFIRM_S = 20.0
MACHINE_PORT, FIRST_PORT = 2, 10

OpenBus = Callable[[str], Awaitable[Bus]]


class Realm:
    """One domain: its network, engine, redirect and southbound. An ``EdgeNetwork`` of its own engine."""

    def __init__(self, network: Network, registry: Registry, signer: Ed25519Signer, bus: CountedBus) -> None:
        self.name, self.network, self.bus = registry.domain, network, bus
        self.registry = registry
        self.store = Store(":memory:")
        self.ledger = Ledger(1)
        self.southbound = Southbound([network], self.ledger, Handlers(packet_in=self._packet_in))
        networks = {one.name: one if one.name == network.name else replace(one, datapath=NO_DATAPATH)
                    for one in registry.networks.values()}  # fmt: skip
        self.redirect = SharedRedirect(networks, self.ledger, self.southbound, self.store,
                                       {network.name: MACHINE_PORT}, self._tell, self._known,
                                       lambda node: self.engine.forget(node.identifier))  # fmt: skip
        self.federate = Federate(registry, signer)
        self.engine = Engine(self.federate, bus, self.store, self)
        self.switched = False

    async def start(self) -> None:
        self.redirect.install_base()
        await self.engine.start()

    async def connect(self, listening: socket.socket) -> None:
        """Accept the switch; ``settled`` waits for it."""
        self.switched = True
        await self.southbound.listen("", 0, sock=listening)

    async def settled(self) -> None:
        await self.southbound.wait_connected([self.network.datapath], CONFIRM_S)

    async def close(self) -> None:
        await self.engine.close()
        await self.southbound.close()
        await self.bus.close()
        self.store.close()

    def house(self, node: Node) -> None:
        """A node that is at home here."""
        self.redirect.restore(node, Placement(node.name, node.home, node.port or 0, node.identifier, 1))

    def called(self, node: Node) -> str:
        """Its name in this domain."""
        return self.redirect.called(card_of(node))

    def entries(self, node: Node) -> int:
        """As the ledger has them; a switch that has confirmed holds the same."""
        return self.ledger.count(self.called(node), self.network.datapath)

    def packet(self, port: int, mac: Mac, source: IPv4Address, destination: IPv4Address) -> None:
        """Let the switch handle a packet as if it had come in at ``port``."""
        payload = pack_ipv4(source, destination, PROTO_UDP, bytes(8))
        frame = pack_ethernet(self.network.router_mac, mac, ETHERTYPE_IPV4, payload)
        out = PacketOut(frame, (Output(OFPP_TABLE),), port)
        self.southbound.send(self.network.datapath, [out])

    # The engine's network

    async def apply(self, identifiers: Collection[IPv4Address]) -> Mapping[IPv4Address, Refused]:
        failed = {}
        touched: set[int] = set()
        for identifier in identifiers:
            try:
                touched |= self.redirect.show(identifier, self.federate.view(identifier))[1]
            except SwitchError as error:
                failed[identifier] = Refused(str(error), again=True)
        if self.switched:
            await self.southbound.barrier(touched, CONFIRM_S)
        return failed

    async def still_here(self, identifier: IPv4Address) -> bool:
        return False

    def effect(self, effect: Effect) -> None:
        """Nobody waits for packets that are parked here."""

    def _packet_in(self, network: Network, message: PacketIn) -> None:
        """The two that tell who speaks to a node that has moved."""
        try:
            head = parse_ethernet(message.data)
            packet = parse_ipv4(message.data, head.payload_offset, verify=False)
        except PacketError:
            return
        speaker, addressed = (self.registry.network_of(address) for address in (packet.src, packet.dst))
        if speaker is None or addressed is None:
            return
        if message.table_id == Table.EGRESS and packet.src in self._identifiers():
            self.engine.speaks(packet.src, addressed.name)
        elif message.table_id == Table.FORWARD and packet.dst in self._identifiers():
            self.engine.unaware(packet.dst, speaker.name)

    def _identifiers(self) -> Collection[IPv4Address]:
        return {binding.node.identifier for binding in self.redirect.bindings.values()}

    async def _tell(self, identifier: IPv4Address, network: str) -> None:
        await self.engine.tell(identifier, network)

    def _known(self, node: Node) -> None:
        self.engine.know(card_of(node))


async def realms(
    networks: Collection[Network], open_bus: OpenBus, exit_: contextlib.AsyncExitStack
) -> dict[str, Realm]:
    """A started domain for each network, by its name; they end with ``exit_``."""
    keys = {network.name: generate_key() for network in networks}
    domains = {network.name: Domain(network.name, (network,), keys[network.name][1]) for network in networks}
    public = {name: domain.public_key for name, domain in domains.items()}
    made = {}
    for network in networks:
        signer = Ed25519Signer(keys[network.name][0], public)
        bus = CountedBus(await open_bus(network.name))
        made[network.name] = Realm(network, Registry(network.name, domains), signer, bus)
        exit_.push_async_callback(made[network.name].close)
    for realm in made.values():
        await realm.start()
    return made


def host(network: Network, number: int, name: str, kind: NodeKind = NodeKind.USER) -> Node:
    """Host ``number`` (from 0) of a network, which is its home."""
    port = MACHINE_PORT if kind is NodeKind.MACHINE else FIRST_PORT + number
    address = network.prefix[16 + number]
    mac = b"\x52\x54" + int(address).to_bytes(4, "big")
    return Node(name, kind, mac, address, address, network.name, port)


async def until(what: str, reached: Callable[[], bool], timeout: float = CONFIRM_S) -> None:
    """Poll; ``TimeoutError`` that says ``what`` was waited for."""
    deadline = time.monotonic() + timeout
    while not reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        await asyncio.sleep(0.005)
