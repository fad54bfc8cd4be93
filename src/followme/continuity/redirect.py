"""The redirect over OpenFlow: prepare, switch, release (and roll back) for one node at a time.

Make before break: what the target needs is in its switch and confirmed before the machine pauses; from the
flip on, packets that still reach the source are sent on to the target; correspondents are told at once.
Each change is a new ``Binding``; the ledger turns it into the fewest flow-mods, the southbound sends them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from followme.continuity.arp import alive_request, locator_request
from followme.continuity.binding import Binding
from followme.continuity.ledger import Ledger
from followme.continuity.manipulator import ingress_rule, node_rules
from followme.continuity.pipeline import ETH_IPV4, Priority, Table, base_rules, to_router
from followme.continuity.southbound import Southbound, SwitchError
from followme.domain import Network, Node, NodeKind, Placement
from followme.openflow import ApplyActions, FlowMod, Match, Output, PacketOut
from followme.store import Store, StoreError

log = logging.getLogger(__name__)

CONFIRM_S = 10.0
"""How long a switch may take to confirm rules (a reconnect included) before a step is given up."""


OUTSIDE_IDLE_S = 60
"""Seconds after the last packet for which the rule of a peer beyond our edges stays."""


class Redirect:
    """Keeps every node's binding, in memory and in the store, and the switches in step with it."""

    def __init__(
        self, networks: Mapping[str, Network], ledger: Ledger, southbound: Southbound, store: Store
    ) -> None:
        self.networks = networks
        self.ledger = ledger
        self.southbound = southbound
        self.store = store
        self.bindings: dict[str, Binding] = {}
        self.machine_places = 0
        """Counts the changes of where machines are or arrive: who sums over them need not look again before."""
        self._by_address: dict[tuple[str, IPv4Address], str] = {}

    def install_base(self) -> None:
        """The rules that every switch has."""
        rules = {one.datapath: base_rules(one) for one in self.networks.values() if one.ours}
        self.southbound.apply(self.ledger.set("base", rules))

    def restore(self, node: Node, here: Placement, told: Iterable[str] = ()) -> None:
        """A node whose place is known (from the config or the store): home rules are proactive."""
        self.become(Binding(node, here, told=frozenset(told)))

    def forget(self, name: str) -> None:
        """The node is no longer ours: its rules and locators go."""
        binding = self.bindings.pop(name, None)
        if binding is None:
            return
        for address in _addresses(binding):
            self._by_address.pop(address, None)
        self.southbound.apply(self.ledger.set(name, {}))
        with self.store.transaction():
            for place in _places(binding):
                self._free(name, place, binding.node)

    def adopt(self, node: Node, network: str, port: int) -> None:
        """A node that was not known, or whose home and address are new."""
        before = self.bindings.get(node.name)
        version = before.here.version + 1 if before else 1
        here = Placement(node.name, network, port, node.identifier, version)
        # Written first: a store that fails must not leave half a node behind.
        with self.store.transaction():
            self.store.put_node(node)
            self.store.put_placement(here)
        if before:
            self.forget(node.name)
        self.become(Binding(node, here))

    def pass_outside(self, name: str, network: Network, target: IPv4Address) -> None:
        """Let a moved node speak to a peer beyond all our edges, as its identifier; for a while."""
        node = self.bindings[name].node
        match = Match(eth_src=node.mac, eth_type=ETH_IPV4, ipv4_src=node.identifier, ipv4_dst=target)
        mod = FlowMod(
            match, (ApplyActions(to_router(network)),), table_id=Table.EGRESS,
            priority=Priority.TUNNEL, idle_timeout=OUTSIDE_IDLE_S,
            cookie=self.ledger.cookie(network.datapath, name),
        )  # fmt: skip
        self.southbound.send(network.datapath, [mod])

    def seen(self, name: str) -> None:
        """The node's own traffic came from where it should be: no more copies to the controller."""
        binding = self.bindings[name]
        if not binding.seen:
            self.become(replace(binding, seen=True))

    def rebind(self, name: str) -> FlowMod:
        """One quick flow-mod: let the node's packets in at its place (the answer to its first packet)."""
        binding = self.bindings[name]
        datapath = self.networks[binding.here.network].datapath
        return self.ledger.put(name, datapath, ingress_rule(binding, binding.here))

    def move(self, name: str, network: str, port: int, told: Iterable[str]) -> Placement:
        """The node has gone to ``network`` by itself; returns its new place. Nothing is lost in the store:
        the place is written in the same commit that precedes the flow-mods."""
        binding = self.bindings[name]
        before = binding.here
        locator = self._locator(binding.node, network)
        here = Placement(name, network, port, locator, before.version + 1)
        self.store.put_placement(here)
        self.become(binding.move(here, frozenset(told)))
        if locator != binding.node.identifier:
            self._prime(here, binding.node)
        return here

    async def prepare(self, name: str, network: str, port: int, told: Iterable[str]) -> Placement:
        """Everything at the target, and both ends armed; returns when all switches have confirmed."""
        binding = self.bindings[name]
        locator = self._locator(binding.node, network, transient=True)
        arriving = Placement(name, network, port, locator, binding.here.version + 1)
        touched = self.become(binding.prepare(arriving, frozenset(told)))
        await self.southbound.barrier(touched, CONFIRM_S, owner=name)
        self._prime(arriving, binding.node)
        return arriving

    def switch(self, name: str) -> Placement:
        """The machine stops at the source now. Told at once; nobody waits for an answer.

        Idempotent. A store that fails does not keep the traffic: the rules are out when ``StoreError`` is
        raised, and a second call writes the place again. (Where it does not fail it is first, as always: the
        flow-mods leave at the end of this turn.)
        """
        binding = self.bindings[name]
        if binding.arriving is not None or binding.leaving is None:
            binding = binding.switch()
            self.become(binding)
        self.remember(name)
        return binding.here

    def remember(self, name: str) -> None:
        """Write the node's place, as it is now, into the store."""
        if (binding := self.bindings.get(name)) is not None:
            self.store.put_placement(binding.here)

    async def roll_back(self, name: str) -> Placement:
        """The machine stays at (or returns to) the source: rules of where it is, confirmed.

        The rules go out whatever the store says; ``StoreError`` comes after them, and ``remember`` mends it.
        """
        binding = self.bindings[name].roll_back()
        touched = self.become(binding)
        failed: StoreError | None = None
        try:
            self.store.put_placement(binding.here)
        except StoreError as error:
            failed = error
        touched.add(self.networks[binding.here.network].datapath)
        await self.southbound.barrier(touched, CONFIRM_S, owner=name)
        if failed is not None:
            raise failed
        return binding.here

    def release(self, name: str) -> tuple[Placement, ...]:
        """The source is empty; returns the old places to ``retire`` once their packets are through."""
        binding = self.bindings[name].release()
        self.store.put_placement(binding.here)
        self.become(binding)
        return binding.old

    def retire(self, name: str, place: Placement) -> None:
        """No packet with the old locator is under way any more: its rules go, the locator is free again."""
        binding = self.bindings.get(name)
        if binding is None or place not in binding.old:
            return
        after = binding.forget(place)
        self.become(after)
        if (place.network, place.locator) not in _addresses(after):
            self._free(name, place, binding.node)

    def free_unused(self) -> None:
        """Give back locators of places that nobody remembers: they were being retired when we ended."""
        used = {(place.network, name) for name, binding in self.bindings.items() for place in _places(binding)}
        for network, name in self.store.locators():
            if (network, name) not in used:
                self.store.free_locator(network, name)

    def watch(self, name: str, watched: bool) -> None:
        """Silence (or resume) the home switch's reports about peers that do not know the locator."""
        binding = self.bindings.get(name)
        if binding is not None and binding.watched != watched:
            self.become(replace(binding, watched=watched))

    async def tell(self, name: str, network: str) -> None:
        """A correspondent's network learns the mapping; returns when its switch has confirmed.

        The correspondent gets its rules first; only then the foreign switch may let packets through. One that
        does not confirm counts as not told: the next packet tries again.
        """
        binding = self.bindings.get(name)
        if binding is None or network not in self.networks or network in binding.told - binding.telling:
            return
        just = frozenset((network,))
        touched = self.become(replace(binding, told=binding.told | just, telling=binding.telling | just))
        try:
            # Who asks while another is telling waits as well: hence not only what this call has touched.
            await self.southbound.barrier(touched | {self.networks[network].datapath}, CONFIRM_S, owner=name)
        except SwitchError:
            if (now := self.bindings.get(name)) is not None and network in now.telling:
                self.become(replace(now, told=now.told - just, telling=now.telling - just))
            raise
        # The node may have moved on, or gone, while the correspondent confirmed.
        if (now := self.bindings.get(name)) is not None:
            self.become(replace(now, telling=now.telling - just))

    def untell(self, name: str, network: str) -> None:
        """Nobody in ``network`` talks to the node any more, as far as its services know. If somebody does,
        the first packet tells it again."""
        binding = self.bindings[name]
        if network in binding.told:
            self.become(replace(binding, told=binding.told - {network}, telling=binding.telling - {network}))

    def locate(self, network: str, address: IPv4Address) -> Binding | None:
        """Whose address is it that the core knows in ``network``: a locator there, or an identifier at home."""
        name = self._by_address.get((network, address))
        return self.bindings[name] if name is not None else None

    def become(self, binding: Binding) -> set[int]:
        """Make the binding true; returns the datapaths that changed."""
        self._index(binding)
        changes = self.ledger.set(binding.node.name, node_rules(binding, self.networks))
        self.southbound.apply(changes)
        return set(changes)

    def _index(self, binding: Binding) -> None:
        name = binding.node.name
        before, after = self.bindings.get(name), _addresses(binding)
        for address in _addresses(before) - after if before else ():
            self._by_address.pop(address, None)
        for address in after:
            self._by_address[address] = name
        self.bindings[name] = binding
        machine = binding.node.kind is NodeKind.MACHINE
        if machine and (before is None or (before.here, before.arriving) != (binding.here, binding.arriving)):
            self.machine_places += 1

    def _locator(self, node: Node, network: str, transient: bool = False) -> IPv4Address:
        """At home a node is its own locator, except while it arrives there: until the flip its identifier
        still leads to where it was."""
        if network == node.home and not transient:
            return node.identifier
        where = self.networks[network]
        first, end = int(where.locators.network_address), int(where.probe_address)
        candidates = (IPv4Address(number) for number in range(first, end))
        return self.store.allocate_locator(network, node.name, candidates)

    def _free(self, name: str, place: Placement, node: Node) -> None:
        if place.locator != node.identifier:
            self.store.free_locator(place.network, name)

    def warm(self, name: str) -> None:
        """Make the node and its router know each other before their first packet: each is asked, by ARP, in
        the other's name, and learns the sender from the question (RFC 826)."""
        binding = self.bindings.get(name)
        if binding is None or binding.here.port == 0:
            return
        here, node = binding.here, binding.node
        network, home = self.networks[here.network], self.networks[node.home]
        packet = PacketOut(alive_request(home, node), (Output(here.port),))
        self.southbound.send(network.datapath, [packet])
        self._prime(here, node)

    def _prime(self, place: Placement, node: Node) -> None:
        """Make the router know the locator before the first packet: an ARP request in the locator's name."""
        network = self.networks[place.network]
        frame = locator_request(network, node, place.locator)
        packet = PacketOut(frame, (Output(network.uplink_port),))
        self.southbound.send(network.datapath, [packet])


def _places(binding: Binding) -> list[Placement]:
    return [place for place in (binding.here, binding.arriving, binding.leaving, *binding.old) if place]


def _addresses(binding: Binding) -> set[tuple[str, IPv4Address]]:
    node = binding.node
    return {(place.network, place.locator) for place in _places(binding)} | {(node.home, node.identifier)}
