"""The tables of an edge switch, their priorities, and the rules that every switch has.

A packet walks through four tables (OpenFlow 1.3.5, section 5.1)::

    INGRESS   who is it?   uplink -> FROM_CORE; a host bound to its port -> FORWARD;
                           ARP, DHCP, probes and everybody unknown -> controller (the table miss)
    FROM_CORE restore      source locator -> identifier
    FORWARD   where to?    local node -> its port (locator -> its own address); moved node -> its locator
    EGRESS    to the core  source identifier -> locator; then out of the uplink

Two rewrites may fall on one packet (both ends have moved), hence two tables for them. Numbers are in one
place, here, so that nobody has to compare priorities across files.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from followme.domain import Mac, Network
from followme.openflow import (
    Action,
    ApplyActions,
    FlowMod,
    GotoTable,
    Instruction,
    Match,
    Output,
    set_eth_dst,
    set_eth_src,
)
from followme.openflow.constants import OFPCML_NO_BUFFER, OFPP_CONTROLLER, OFPP_IN_PORT, OFPP_TABLE

ETH_IPV4, ETH_ARP, ETH_RARP = 0x0800, 0x0806, 0x8035
UDP = 17
DHCP_SERVER, DHCP_CLIENT = 67, 68
PROBE_PORT = 6654
"""UDP port of the path monitor's probes; only packets to a network's probe address are taken for one."""

SIGNAL_BYTES = 128
"""Bytes of a packet that is copied to the controller as a signal (it flows on): headers are enough."""

THROUGH_TABLES = (Output(OFPP_TABLE),)
"""Of a packet that goes back to the switch: as if it had come in."""


class Table(IntEnum):
    INGRESS = 0
    FROM_CORE = 1
    FORWARD = 2
    EGRESS = 3


class Priority(IntEnum):
    MISS = 0
    UPLINK = 10
    DELIVER = 20
    HAIRPIN = 25
    REDIRECT = 30
    INTERCEPT = 30
    TUNNEL = 40
    BIND = 40
    NEIGHBOUR = 45
    LATE = 50
    REFUSED = 60
    CONTROL = 100


@dataclass(frozen=True, slots=True)
class Rule:
    """A flow entry that should be in a switch. Its key is (table, priority, match), as in the switch."""

    table: Table
    priority: Priority
    match: Match
    instructions: tuple[Instruction, ...] = ()

    @property
    def key(self) -> tuple[int, int, Match]:
        return self.table, self.priority, self.match

    def flow_mod(self, command: int, cookie: int = 0) -> FlowMod:
        return FlowMod(
            command=command, table_id=self.table, priority=self.priority, cookie=cookie,
            match=self.match, instructions=self.instructions,
        )  # fmt: skip


def edge_mac(network: Network) -> Mac:
    """The locally administered MAC under which the switch itself sends packets back to the router."""
    return b"\x02" + (network.datapath & 0xFFFFFFFFFF).to_bytes(5, "big")


def to_router(network: Network) -> tuple[Action, ...]:
    """Actions that hand a packet from a local port to the first hop."""
    return set_eth_dst(network.router_mac), Output(network.uplink_port)


def base_rules(network: Network) -> list[Rule]:
    """What a switch needs before it knows any node (12 rules, once for each switch)."""
    uplink = network.uplink_port
    ask = (ApplyActions((Output(OFPP_CONTROLLER, OFPCML_NO_BUFFER),)),)
    back = (set_eth_src(edge_mac(network)), set_eth_dst(network.router_mac), Output(OFPP_IN_PORT))
    probe = Match(
        in_port=uplink, eth_type=ETH_IPV4, ip_proto=UDP, ipv4_dst=network.probe_address, udp_dst=PROBE_PORT
    )
    from_client = Match(eth_type=ETH_IPV4, ip_proto=UDP, udp_src=DHCP_CLIENT, udp_dst=DHCP_SERVER)
    from_server = Match(eth_type=ETH_IPV4, ip_proto=UDP, udp_src=DHCP_SERVER)
    return [
        Rule(Table.INGRESS, Priority.CONTROL, Match(eth_type=ETH_ARP), ask),
        Rule(Table.INGRESS, Priority.CONTROL, probe, ask),
        # DHCP is the controller's, on every port: a host must not play the server for others.
        Rule(Table.INGRESS, Priority.CONTROL, from_client, ask),
        Rule(Table.INGRESS, Priority.REFUSED, from_server),
        Rule(Table.INGRESS, Priority.DELIVER, Match(in_port=uplink, eth_type=ETH_IPV4), _goto(Table.FROM_CORE)),
        Rule(Table.INGRESS, Priority.UPLINK, Match(in_port=uplink)),
        Rule(Table.INGRESS, Priority.MISS, Match(), ask),
        Rule(Table.FROM_CORE, Priority.MISS, Match(), _goto(Table.FORWARD)),
        # From the core, for nobody here: it must not go back to the core and loop.
        Rule(Table.FORWARD, Priority.UPLINK, Match(in_port=uplink)),
        Rule(Table.FORWARD, Priority.MISS, Match(), _goto(Table.EGRESS)),
        Rule(Table.EGRESS, Priority.UPLINK, Match(in_port=uplink), (ApplyActions(back),)),
        Rule(Table.EGRESS, Priority.MISS, Match(), (ApplyActions(to_router(network)),)),
    ]


def _goto(table: Table) -> tuple[Instruction, ...]:
    return (GotoTable(table),)
