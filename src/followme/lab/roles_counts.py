"""Figures 5 and 6 of the scalability paper, counted: entries in switches, and orders between domains.

The scenario, for n nodes and J networks: a machine (or a user) moves from its home network to a foreign one. There
n nodes of the home network, n of the foreign one and one in each of J correspondent networks, all of domains of
their own, talk to it. The node speaks first to the correspondents, so that its foreign controller tells them: the
paper's worst case for it. Then it moves on to a third network, and everybody who was told is told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from followme.analysis.rules import Entries, network
from followme.domain import Node, NodeKind
from followme.federation import nats_server
from followme.federation.bus import Bus
from followme.federation.memory import MemoryHub
from followme.federation.nats import NatsBus
from followme.federation.nats_accounts import Member, generate_logins
from followme.federation.nats_connection import NatsAccess
from followme.lab.ovs import OpenVSwitch
from followme.lab.reporting import Say
from followme.lab.roles_domains import MACHINE_PORT, OpenBus, Realm, host, realms, until
from followme.lab.roles_tally import Sent, entries, orders_of
from followme.lab.rundir import Run, sweep
from followme.system import needs
from followme.system.netns import socket_in

NODES = (1, 2, 5, 10, 20, 50, 100)
QUICK_NODES = (1, 2, 5, 10)
"""As many nodes as correspondent networks. Then as many nodes as in the last of these, and one network."""
SWITCHES = (needs.Need.ROOT, needs.Need.NETWORKS, needs.Need.OPENVSWITCH)
MACHINE = "vm"
FIRST_TCP_PORT = 6700
DOMAIN_BYTES = 8 << 20
_STILL_S = 0.1


def missing(switches: bool = True) -> list[str]:
    """What this machine lacks for counting in real switches and on a real bus; one line each."""
    lines = needs.check(SWITCHES) if switches else []
    if nats_server.program() is None:
        lines.append("missing nats-server: apt-get install nats-server")
    return lines


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders between domains; each has one answer. ``foreign``: sent or received by the foreign domain."""

    foreign: int
    total: int
    kinds: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        return {"foreign_controller": self.foreign, "all": self.total, "kinds": self.kinds}


@dataclass(frozen=True, slots=True)
class Counted:
    """One run. ``move``: the migration itself, ``telling``: whom the machine speaks to then, ``onward``: its next
    migration, with all who know it."""

    nodes: int
    networks: int
    entries: Entries
    move: Orders
    telling: Orders
    onward: Orders

    @property
    def foreign_orders(self) -> int:
        return self.move.foreign + self.telling.foreign

    def as_json(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes, "correspondent_networks": self.networks,
            "entries": {"home": self.entries.home, "foreign": self.entries.foreign,
                        "each_correspondent": self.entries.correspondent, "most_loaded": self.entries.most,
                        "all": self.entries.total(self.networks)},
            "orders": {"move": self.move.as_json(), "telling": self.telling.as_json(),
                       "next_move": self.onward.as_json()},
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Counts:
    """``switches`` and ``bus`` say in what it was counted. ``runs`` have as many networks as nodes, ``few`` one."""

    runs: Sequence[Counted]
    few: Counted
    switches: str
    bus: str

    def as_json(self) -> dict[str, Any]:
        return {"switches": self.switches, "bus": self.bus, "runs": [run.as_json() for run in self.runs],
                "one_network": self.few.as_json()}  # fmt: skip


async def count(
    nodes: Sequence[int], say: Say, *, switches: bool, nats: bool, kind: NodeKind = NodeKind.MACHINE
) -> Counts:
    """The scenario with each number of nodes, in Open vSwitch or only in the ledgers, over NATS or in memory. A
    machine is carried, a user shows up."""
    if switches:
        await sweep()
    found = []
    for number, networks in (*((one, one) for one in nodes), (max(nodes), 1)):
        async with contextlib.AsyncExitStack() as exit_:
            found.append(await _count(number, networks, exit_, switches, nats, kind))
        one = found[-1]
        say(f"{number} nodes at home and abroad, {networks} correspondent networks: "
            f"entries at home {one.entries.home}, foreign {one.entries.foreign}, each "
            f"correspondent {one.entries.correspondent}; orders of the foreign controller {one.foreign_orders}, "
            f"at the next move {one.onward.foreign}")  # fmt: skip
    where = "Open vSwitch, by flow statistics" if switches else "the controllers' ledgers"
    return Counts(found[:-1], found[-1], where, "NATS" if nats else "memory")


async def _count(
    nodes: int, networks: int, exit_: contextlib.AsyncExitStack, switches: bool, nats: bool, kind: NodeKind
) -> Counted:
    names = ("home", "foreign", "next", *(f"peer{number}" for number in range(networks)))
    open_bus = await _nats(names, exit_) if nats else _memory()
    found = await realms([network(name, number) for number, name in enumerate(names, start=1)], open_bus, exit_)
    if switches:
        await _switches(found, exit_)
    return await _Scenario(found, nodes, switches, kind).run()


class _Scenario:
    def __init__(self, found: dict[str, Realm], nodes: int, switches: bool, kind: NodeKind) -> None:
        self.realms, self.nodes, self.switches = found, nodes, switches
        self.home, self.foreign, self.next = found["home"], found["foreign"], found["next"]
        self.peers = [realm for name, realm in found.items() if name.startswith("peer")]
        self.machine = host(self.home.network, 0, MACHINE, kind)
        self._before: Counter[Sent] = Counter()

    async def run(self) -> Counted:
        self.home.house(self.machine)
        local, abroad = ([host(realm.network, 1 + number, f"{realm.name}{number}") for number in range(self.nodes)]
                         for realm in (self.home, self.foreign))  # fmt: skip
        for node in local:
            self.home.house(node)
        for node in abroad:
            self.foreign.house(node)
        await self._still()
        self._orders()
        await self._move(self.home, "foreign", "first")
        move = self._orders()
        await self._talk(local, abroad)
        telling = self._orders()
        held = await self._entries()
        await self._move(self.foreign, "next", "second")
        return Counted(self.nodes, len(self.peers), held, move, telling, self._orders())

    async def _move(self, source: Realm, target: str, migration: str) -> None:
        identifier = self.machine.identifier
        if self.machine.kind is NodeKind.MACHINE:
            await source.engine.prepare(identifier, target, migration)
            await source.engine.flipped(identifier, migration)
            await source.engine.released(identifier, migration)
        else:
            there = self.realms[target]
            there.redirect.at_port(there.called(self.machine), target, MACHINE_PORT)
            there.engine.attach(identifier, self.machine.mac, target)
            await until(f"the user is in {target}", lambda: self._where() == target)
        for _ in range(3):
            await self._still()
            view = self.home.federate.view(identifier)
            old = view.mapping.old if view is not None and view.mapping is not None else ()
            for place in old:
                self.realms[place.network].engine.quiet(identifier, place)
            if not old:
                return
        raise TimeoutError(f"{target}: old places are still in the mapping")

    def _where(self) -> str | None:
        view = self.home.federate.view(self.machine.identifier)
        return None if view is None or view.mapping is None else view.mapping.here.network

    async def _talk(self, local: Sequence[Node], abroad: Sequence[Node]) -> None:
        """Everybody talks to the machine; the correspondents answer only."""
        machine = self.machine
        where = self.foreign
        if self.switches:
            for node in local:
                self.home.packet(node.port or 0, node.mac, node.identifier, machine.identifier)
                where.packet(MACHINE_PORT, machine.mac, machine.identifier, node.identifier)
            for node in abroad:
                # It leaves by its own switch, which knows nothing of the machine, and comes to the machine's home.
                where.packet(node.port or 0, node.mac, node.identifier, machine.identifier)
                self.home.packet(1, self.home.network.router_mac, node.identifier, machine.identifier)
            for peer in self.peers:
                where.packet(MACHINE_PORT, machine.mac, machine.identifier, peer.network.prefix[16])
        else:
            for _ in abroad:
                self.home.engine.unaware(machine.identifier, where.name)
            for peer in self.peers:
                where.engine.speaks(machine.identifier, peer.name)
        told = {"home", "foreign", *(peer.name for peer in self.peers)}
        await until("correspondents are told", lambda: told <= self._knowing())
        await self._still()

    def _knowing(self) -> frozenset[str]:
        view = self.foreign.federate.view(self.machine.identifier)
        return frozenset() if view is None else view.told - view.telling

    async def _entries(self) -> Entries:
        if self.switches:
            found = await entries({name: (realm.southbound, realm.network.datapath, realm.called(self.machine))
                                   for name, realm in self.realms.items()})  # fmt: skip
        else:
            found = {name: realm.entries(self.machine) for name, realm in self.realms.items()}
        others = {found[peer.name] for peer in self.peers}
        if len(others) != 1 or found["next"]:
            raise RuntimeError(f"entries of correspondents differ: {found}")
        return Entries(found["home"], found["foreign"], others.pop())

    def _sum(self) -> Counter[Sent]:
        return sum((realm.bus.orders for realm in self.realms.values()), Counter())

    def _orders(self) -> Orders:
        """Since the last call."""
        now = self._sum()
        found, self._before = now - self._before, now
        kinds: Counter[str] = Counter()
        for (_, _, kind), number in found.items():
            kinds[kind] += number
        return Orders(orders_of(found, "foreign"), orders_of(found), dict(sorted(kinds.items())))

    async def _still(self) -> None:
        """Until nothing has been asked for a while."""
        while True:
            before = self._sum()
            await asyncio.sleep(_STILL_S)
            if self._sum() == before:
                return


def _memory() -> OpenBus:
    hub = MemoryHub()

    async def open_bus(domain: str) -> Bus:
        return hub.bus(domain)

    return open_bus


async def _nats(domains: Sequence[str], exit_: contextlib.AsyncExitStack) -> OpenBus:
    directory = Path(exit_.enter_context(TemporaryDirectory(prefix="followme-")))
    logins = generate_logins(dict.fromkeys(domains, ()))
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    # Nothing is kept in it here, but each account reserves what it may keep.
    members = [Member("n1", listen)]
    (server,) = await nats_server.start_servers(members, directory, logins, domain_bytes=DOMAIN_BYTES)
    exit_.push_async_callback(server.stop)

    async def open_bus(domain: str) -> Bus:
        login = logins[domain].controller
        return await NatsBus.open(NatsAccess((server.url,), login.user, login.password), domain, "one")

    return open_bus


async def _switches(found: dict[str, Realm], exit_: contextlib.AsyncExitStack) -> None:
    """One Open vSwitch with a bridge for each domain, in a namespace of its own."""
    run = Run.open()
    exit_.push_async_callback(run.close)
    namespace = await run.add_namespace("switch")
    switch = OpenVSwitch(namespace, run.directory / "ovs")
    exit_.push_async_callback(switch.stop)
    await switch.start()
    for number, realm in enumerate(found.values()):
        listening = socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
        listening.bind(("127.0.0.1", FIRST_TCP_PORT + number))
        listening.listen(4)
        await realm.connect(listening)
        target = f"tcp:127.0.0.1:{FIRST_TCP_PORT + number}"
        await switch.add_bridge(realm.name, realm.network.datapath, target)
    for realm in found.values():
        exit_.push_async_callback(realm.southbound.close)  # before its switch goes
        await realm.settled()
