"""A fake of the fabric: flow tables that are interpreted, joined by a router. Packets are pushed through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from followme.continuity.ledger import Ledger
from followme.continuity.pipeline import ETH_IPV4, Rule, base_rules
from followme.domain import Network, NetworkKind, mac_bytes
from followme.openflow import ApplyActions, FlowMod, GotoTable, Match, Output, SetField
from followme.openflow.constants import OFPFC_ADD, OFPFC_DELETE_STRICT, OFPP_CONTROLLER, OFPP_IN_PORT

CONTROLLER = "controller"


@dataclass(frozen=True)
class Packet:
    eth_dst: bytes
    eth_src: bytes
    ipv4_src: IPv4Address
    ipv4_dst: IPv4Address
    eth_type: int = ETH_IPV4
    ip_proto: int = 6
    udp_src: int | None = None
    udp_dst: int | None = None


@dataclass(frozen=True)
class Seen:
    """Where a packet came out: (network, port), or (network, CONTROLLER), and how it looked there."""

    network: str
    port: int | str
    packet: Packet


def matches(match: Match, in_port: int, packet: Packet) -> bool:
    for name in ("in_port", "eth_type", "eth_dst", "eth_src", "ip_proto", "ipv4_src", "ipv4_dst", "udp_src",
                 "udp_dst"):  # fmt: skip
        wanted = getattr(match, name)
        if wanted is None:
            continue
        value = in_port if name == "in_port" else getattr(packet, name)
        if isinstance(wanted, IPv4Network):
            if value not in wanted:
                return False
        elif value != wanted:
            return False
    return True


class FakeSwitch:
    """One datapath: entries keyed as a real switch keys them."""

    def __init__(self) -> None:
        self.entries: dict[tuple[int, int, Match], FlowMod] = {}

    def take(self, mods: Iterable[FlowMod]) -> None:
        for mod in mods:
            key = (mod.table_id, mod.priority, mod.match)
            if mod.command == OFPFC_ADD:
                self.entries[key] = mod
            elif mod.command == OFPFC_DELETE_STRICT:
                del self.entries[key]  # KeyError: the ledger deletes what was never there


@dataclass(frozen=True)
class Put:
    """A packet that a switch puts out at ``port``, as an entry of ``table`` says; ``missed``: as no other did."""

    port: int
    packet: Packet
    table: int
    missed: bool


def forward(entries: Mapping[tuple[int, int, Match], FlowMod], in_port: int, packet: Packet) -> list[Put]:
    """What a switch with these entries does with a packet."""
    out: list[Put] = []
    table: int | None = 0
    while table is not None:
        hits = [mod for (number, _, match), mod in entries.items()
                if number == table and matches(match, in_port, packet)]  # fmt: skip
        if not hits:
            break
        top = max(mod.priority for mod in hits)
        (best,) = [mod for mod in hits if mod.priority == top]  # two of one priority would be ambiguous
        table = None
        for instruction in best.instructions:
            if isinstance(instruction, ApplyActions):
                for action in instruction.actions:
                    if isinstance(action, SetField):
                        packet = replace(packet, **{action.field: action.value})  # type: ignore[arg-type]
                    elif isinstance(action, Output) and action.port != in_port:
                        # (A switch never sends back to the ingress port but by IN_PORT.)
                        port = in_port if action.port == OFPP_IN_PORT else action.port
                        out.append(Put(port, packet, best.table_id, top == 0))
            elif isinstance(instruction, GotoTable):
                assert instruction.table_id > best.table_id
                table = instruction.table_id
    return out


class Fabric:
    """Switches around one router that knows prefixes only."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self.networks: Mapping[str, Network] = {network.name: network for network in networks}
        self.switches = {network.datapath: FakeSwitch() for network in self.networks.values()}
        self.ledger = Ledger(epoch=1)
        self.set("base", {network.datapath: base_rules(network) for network in self.networks.values()})

    def set(self, owner: str, rules: Mapping[int, list[Rule]]) -> None:
        for datapath, mods in self.ledger.set(owner, rules).items():
            self.switches[datapath].take(mods)

    def send(self, network: str, port: int, packet: Packet, ttl: int = 8) -> list[Seen]:
        """Push a packet in; returns all places where it came out at a host's port or at the controller."""
        assert ttl > 0, "the packet loops"
        where = self.networks[network]
        seen: list[Seen] = []
        for put in forward(self.switches[where.datapath].entries, port, packet):
            out, changed = put.port, put.packet
            if out == OFPP_CONTROLLER:
                seen.append(Seen(network, CONTROLLER, changed))
            elif out == where.uplink_port:
                assert changed.eth_dst == where.router_mac, "the router would not take this frame"
                for other in self.networks.values():
                    if changed.ipv4_dst in other.prefix:
                        routed = replace(changed, eth_src=other.router_mac, eth_dst=b"\x0e" * 6)
                        seen += self.send(other.name, other.uplink_port, routed, ttl - 1)
            else:
                seen.append(Seen(network, out, changed))
        return seen


def network(name: str, number: int, *, access: bool = False, inside: str | None = None,
            gateway: str | None = None) -> Network:  # fmt: skip
    prefix = IPv4Network(f"10.{number}.0.0/24")
    within = IPv4Network(inside) if inside else prefix
    return Network(
        name=name,
        kind=NetworkKind.ACCESS if access else NetworkKind.DATACENTRE,
        datapath=number,
        uplink_port=1,
        router_mac=mac_bytes(f"02:aa:00:00:00:{number:02x}"),
        prefix=prefix,
        inside=within,
        gateway=IPv4Address(gateway) if gateway else within[1],
        locators=IPv4Network(f"10.{number}.0.128/25"),
    )
