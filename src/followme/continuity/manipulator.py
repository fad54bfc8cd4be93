"""The papers' Packet Manipulator: the rules of a node's virtual tunnel, as a pure function of its binding.

At the edges the node goes by its identifier, in the core by its locator (openflow-based-implementation,
IV.B.5; scalability paper, section 3). Rules of one moved node, by role of the switch:

==============  =====================================================================  ==================
role            rules                                                                  papers (eqs. 2-4)
==============  =====================================================================  ==================
home            identifier -> locator; source locator -> identifier                    3 + H
foreign         ingress; deliver; ask about peers not told; one per told network       6 + F
                (and two if nodes of the foreign network itself talk to it)
correspondent   identifier -> locator; source locator -> identifier                    3 + C
==============  =====================================================================  ==================

None depends on the number of nodes that talk to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

from followme.continuity.binding import Binding
from followme.continuity.pipeline import (
    ETH_IPV4,
    SIGNAL_BYTES,
    Priority,
    Rule,
    Table,
    edge_mac,
    to_router,
)
from followme.domain import Network, Placement
from followme.openflow import (
    Action,
    ApplyActions,
    GotoTable,
    Match,
    Output,
    set_eth_dst,
    set_eth_src,
    set_ipv4_dst,
    set_ipv4_src,
)
from followme.openflow.constants import OFPCML_NO_BUFFER, OFPP_CONTROLLER, OFPP_IN_PORT

Networks = Mapping[str, Network]


def node_rules(binding: Binding, networks: Networks) -> dict[int, list[Rule]]:
    """All rules that ``binding`` needs in switches of ours, by datapath id."""
    rules: dict[int, list[Rule]] = {}
    for network_name, rule in _all(binding, networks):
        if (network := networks[network_name]).ours:
            rules.setdefault(network.datapath, []).append(rule)
    return rules


def ingress_rule(binding: Binding, place: Placement) -> Rule:
    """The node at its port: only this port, MAC and address together may send (an IP source guard)."""
    node = binding.node
    actions: tuple[Action, ...] = ()
    if place is binding.arriving or (place is binding.here and not binding.seen):
        # Packets flow at once; a copy of the first tells the controller that the machine has really arrived.
        actions = (Output(OFPP_CONTROLLER, SIGNAL_BYTES),)
    if node.address != node.identifier:
        # A private address that other networks use too: from here on the node goes by its identifier.
        actions = (*actions, set_ipv4_src(node.identifier))
    goto = GotoTable(Table.FORWARD)
    match = Match(in_port=place.port, eth_src=node.mac, eth_type=ETH_IPV4, ipv4_src=node.address)
    return Rule(Table.INGRESS, Priority.BIND, match, (ApplyActions(actions), goto) if actions else (goto,))


def _all(binding: Binding, networks: Networks) -> Iterator[tuple[str, Rule]]:
    for place in (binding.here, binding.arriving, binding.leaving):
        if place is None or place.port == 0:
            continue  # port 0: a user at home that was not seen yet, nobody knows at which port it will be
        # Also where it is leaving: from the flip to its stop the machine runs on there, and what it sends counts.
        yield place.network, ingress_rule(binding, place)
        yield from _egress(binding, place, networks)
        if place is not binding.leaving:
            yield from _deliver(binding, place)
    yield from _neighbours(binding, networks)
    yield from _late(binding, networks)
    yield from _redirect(binding)
    yield from _restore(binding)


def _deliver(binding: Binding, place: Placement) -> Iterator[tuple[str, Rule]]:
    node = binding.node
    settled_home = place.network == node.home
    # Packets may still be under way to locators that it had here before.
    addresses = {place.locator, *(old.locator for old in binding.old if old.network == place.network)}
    if place is binding.here and (settled_home or place.network in binding.told):
        addresses.add(node.identifier)
    for address in sorted(addresses):
        rewrite: tuple[Action, ...] = (set_eth_dst(node.mac),)
        if address != node.address:
            rewrite = (set_ipv4_dst(node.address), *rewrite)
        match = Match(eth_type=ETH_IPV4, ipv4_dst=address)
        out = ApplyActions((*rewrite, Output(place.port)))
        yield place.network, Rule(Table.FORWARD, Priority.DELIVER, match, (out,))
        if address != place.locator or place.network == node.home:
            # A peer behind the same port (an access point, a hypervisor): only IN_PORT leads back there.
            back = ApplyActions((*rewrite, Output(OFPP_IN_PORT)))
            match = replace(match, in_port=place.port)
            yield place.network, Rule(Table.FORWARD, Priority.HAIRPIN, match, (back,))


def _neighbours(binding: Binding, networks: Networks) -> Iterator[tuple[str, Rule]]:
    """Where a network's private range is not its prefix, its own hosts talk to each other by private addresses.

    Only while both are at home: a guest with the same private address must never be mixed up with them.
    """
    node, here = binding.node, binding.here
    if here.network != node.home or node.address == node.identifier or here.port == 0:
        return
    inside = networks[node.home].inside
    own = Match(in_port=here.port, eth_src=node.mac, eth_type=ETH_IPV4, ipv4_src=node.address, ipv4_dst=inside)
    yield node.home, Rule(Table.INGRESS, Priority.NEIGHBOUR, own, (GotoTable(Table.FORWARD),))
    match = Match(eth_type=ETH_IPV4, ipv4_src=inside, ipv4_dst=node.address)
    deliver = ApplyActions((set_eth_dst(node.mac), Output(here.port)))
    yield node.home, Rule(Table.FORWARD, Priority.DELIVER, match, (deliver,))


def _egress(binding: Binding, place: Placement, networks: Networks) -> Iterator[tuple[str, Rule]]:
    node, network = binding.node, networks[place.network]
    if place.network == node.home:
        return
    own = Match(eth_src=node.mac, eth_type=ETH_IPV4, ipv4_src=node.identifier)
    tunnel = (ApplyActions((set_ipv4_src(place.locator), *to_router(network))),)
    for name in sorted(binding.told - binding.telling - {place.network}):
        match = replace(own, ipv4_dst=networks[name].prefix)
        yield place.network, Rule(Table.EGRESS, Priority.TUNNEL, match, tunnel)
    # A peer's network that does not know the locator yet would see a stranger: tell it first.
    ask = (ApplyActions((Output(OFPP_CONTROLLER, OFPCML_NO_BUFFER),)),)
    yield place.network, Rule(Table.EGRESS, Priority.INTERCEPT, own, ask)


def _late(binding: Binding, networks: Networks) -> Iterator[tuple[str, Rule]]:
    """Frames for the machine that its host sends back, since the machine has left: on to where it is."""
    here, arriving, leaving = binding.here, binding.arriving, binding.leaving
    armed: list[tuple[Placement, Placement]] = []
    if arriving:
        armed += [(here, arriving), (arriving, here)]
    elif leaving:
        # Until the release the machine may still go back, and what is parked at the target must find the way:
        # this is the rule that `arriving` had and that `old` will have, so it is never taken out in between.
        armed += [(here, leaving)]
    armed += [(place, here) for place in (leaving, *binding.old) if place and not _same_port(place, here)]
    node = binding.node
    for place, to in armed:
        network = networks[place.network]
        actions = (set_ipv4_dst(to.locator), set_eth_src(edge_mac(network)), *to_router(network))
        yield place.network, Rule(
            Table.INGRESS, Priority.LATE,
            Match(in_port=place.port, eth_dst=node.mac, eth_type=ETH_IPV4, ipv4_dst=node.address),
            (ApplyActions(actions),),
        )  # fmt: skip


def _same_port(one: Placement, other: Placement) -> bool:
    return (one.network, one.port) == (other.network, other.port)


def _redirect(binding: Binding) -> Iterator[tuple[str, Rule]]:
    node, here = binding.node, binding.here
    if here.locator != node.identifier and here.network != node.home:
        report: tuple[Action, ...] = (Output(OFPP_CONTROLLER, SIGNAL_BYTES),) if binding.watched else ()
        yield node.home, _rewrite(binding, node.identifier, report)
    if here.locator != node.identifier:
        for name in sorted(binding.told - {here.network, node.home}):
            yield name, _rewrite(binding, node.identifier)
    for place in (*binding.old, *((binding.leaving,) if binding.leaving else ())):
        if place.locator not in (node.identifier, here.locator) and place.network != here.network:
            yield place.network, _rewrite(binding, place.locator)


def _rewrite(binding: Binding, address: IPv4Address, report: tuple[Action, ...] = ()) -> Rule:
    actions = (*report, set_ipv4_dst(binding.here.locator))
    return Rule(
        Table.FORWARD, Priority.REDIRECT, Match(eth_type=ETH_IPV4, ipv4_dst=address),
        (ApplyActions(actions), GotoTable(Table.EGRESS)),
    )  # fmt: skip


def _restore(binding: Binding) -> Iterator[tuple[str, Rule]]:
    node = binding.node
    places = [binding.here, binding.arriving, binding.leaving, *binding.old]
    done: set[object] = set()
    for place in places:
        if place is None or place.locator == node.identifier or place.locator in done:
            continue
        if place.network == node.home:
            continue  # a locator at home only leads packets in; the node speaks as its identifier there
        done.add(place.locator)
        restore = (ApplyActions((set_ipv4_src(node.identifier),)), GotoTable(Table.FORWARD))
        for name in sorted((binding.told | {node.home}) - {place.network}):
            match = Match(eth_type=ETH_IPV4, ipv4_src=place.locator)
            yield name, Rule(Table.FROM_CORE, Priority.TUNNEL, match, restore)
