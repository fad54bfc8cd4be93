"""Four domains in one process, each with its controller on a bus in memory and a switch on a real socket.

The switches' tables are interpreted, a router that knows prefixes stands between them: packets are pushed through,
and what a switch sends up or is told to send goes the real way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from followme.config import federation as config
from followme.controllers.openflow.instance import Instance
from followme.domain import Mac, mac_bytes, mac_text
from followme.federation.custody import Custody, Has, decode_question
from followme.federation.federate import Federate
from followme.federation.hosts import HostClient
from followme.federation.keyfile import make_key_file
from followme.federation.memory import MemoryHub
from followme.openflow import Match, Message, Output, PacketIn, PacketOut
from followme.openflow.constants import (
    OFP_NO_BUFFER,
    OFPP_CONTROLLER,
    OFPP_TABLE,
    OFPR_ACTION,
    OFPR_NO_MATCH,
)
from followme.packets import ARP_REQUEST, Arp, arp_reply_frame, parse_arp, peek
from followme.packets.udp import udp_frame
from tests.until import until

from ..continuity.fabric import Packet, forward
from ..continuity.switch import Switch

UPLINK, HOST_PORT, MACHINE_PORT = 1, 5, 2
DOMAINS = {"alpha": ("dc-a", 1), "beta": ("dc-b", 2), "gamma": ("dc-c", 3), "delta": ("wlan-d", 4)}
VM_MAC = mac_bytes("02:00:00:00:00:01")
VM = IPv4Address("10.1.0.5")


def host_mac(number: int) -> Mac:
    return bytes((2, 0, 0, 0, 9, number))


@dataclass(frozen=True)
class Host:
    """A peer in a network."""

    network: str
    number: int

    @property
    def address(self) -> IPv4Address:
        return IPv4Address(f"10.{self.number}.0.10")

    @property
    def port(self) -> int:
        """In the access network one that the switch says it has, so that the host may be asked there."""
        return MACHINE_PORT if self.network.startswith("wlan") else HOST_PORT

    @property
    def mac(self) -> Mac:
        return host_mac(self.number)


@dataclass(frozen=True)
class Guest(Host):
    """The machine, where it runs."""

    @property
    def address(self) -> IPv4Address:
        return VM

    @property
    def port(self) -> int:
        return MACHINE_PORT

    @property
    def mac(self) -> Mac:
        return VM_MAC


HOSTS = {name: Host(name, number) for name, number in DOMAINS.values()}


def _section(name: str, number: int) -> dict[str, Any]:
    return {
        "name": name, "kind": "access" if name.startswith("wlan") else "datacentre",
        "prefix": f"10.{number}.0.0/24", "gateway": f"10.{number}.0.1", "locators": f"10.{number}.0.128/25",
    }  # fmt: skip


def document(domain: str, directory: Path, public: dict[str, str]) -> dict[str, Any]:
    """The config of one domain, as a file would have it."""
    name, number = DOMAINS[domain]
    own = {**_section(name, number), "datapath": number,
           "uplink": {"port": UPLINK, "router_mac": mac_text(bytes((2, 0xAA, 0, 0, 0, number)))}}  # fmt: skip
    if not name.startswith("wlan"):
        own["hypervisor_port"] = MACHINE_PORT
    host = HOSTS[name]
    made: dict[str, Any] = {
        "federation": {
            "domain": domain, "key_file": str(directory / f"{domain}.key"),
            "domains": [{"name": other, "public_key": public[other], "networks": [_section(*DOMAINS[other])]}
                        for other in DOMAINS if other != domain],
        },
        "networks": [own],
        "listen": {"port": 0},
        "store": str(directory / f"{domain}.db"),
        "users": [{"name": f"host-{name}", "home": name, "mac": mac_text(host.mac), "address": str(host.address),
                   "port": host.port}],
    }  # fmt: skip
    if domain == "alpha":
        made["machines"] = [{"name": "vm", "home": name, "mac": mac_text(VM_MAC), "address": str(VM)}]
    return made


@dataclass(frozen=True)
class Out:
    """A packet that came out at a host's port."""

    network: str
    port: int
    packet: Packet


class Domains:
    """All of it. ``out`` is what came out at hosts' ports."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hub = MemoryHub()
        self.instances: dict[str, Instance] = {}
        self.switches: dict[str, Switch] = {}
        self.out: list[Out] = []
        self.at = "dc-a"
        """Where the machine is."""
        self.answering: dict[str, Host] = {}
        """Hosts that answer when they are asked by ARP, by network."""
        self.asked: list[tuple[str, IPv4Address, Mac]] = []
        """Of agents, whether they have it."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._pumped: dict[str, int] = {}
        self.public = {domain: make_key_file(directory / f"{domain}.key") for domain in DOMAINS}

    async def start(self, domain: str) -> None:
        checked = config.check(document(domain, self.directory, self.public), "a test's config")
        instance = self.instances[domain] = Instance(checked, watch=lambda happening: None, hub=self.hub)
        task = self._tasks[domain] = asyncio.ensure_future(instance.run())
        active = asyncio.ensure_future(instance.active.wait())
        await asyncio.wait([task, active], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        name, number = DOMAINS[domain]
        table = self.switches[name].table if name in self.switches else None
        self.switches[name] = await Switch(number, table).connect(instance.port)
        self._pumped[name] = 0
        assert instance.controller is not None
        await instance.controller.wait_for_switches(5)

    async def host_agent(self, network: str, has: Has) -> HostClient:
        """The network's host's agent, which says from now on whether it has the machine."""
        bus = self.hub.host_bus(self._domain(network), network)

        async def answer(payload: bytes) -> bytes:
            self.asked.append((network, *decode_question(payload)))
            return Custody(has, f"so says {network}").encode()

        await bus.serve(answer)
        return HostClient(bus)

    async def stop(self, domain: str) -> None:
        """As by a kill: nothing is said to anybody."""
        self._tasks[domain].cancel()
        await asyncio.gather(self._tasks[domain], return_exceptions=True)

    async def close(self) -> None:
        for domain in self._tasks:
            await self.stop(domain)

    # ---- packets

    def send(self, network: str, port: int, packet: Packet, ttl: int = 12) -> None:
        """Push a packet in at a port of a switch."""
        assert ttl > 0, f"{packet} loops"
        number = next(number for name, number in DOMAINS.values() if name == network)
        for put in forward(self.switches[network].table.entries, port, packet):
            out, changed = put.port, put.packet
            if out == OFPP_CONTROLLER:
                frame, reason = _frame(changed), OFPR_NO_MATCH if put.missed else OFPR_ACTION
                up = PacketIn(OFP_NO_BUFFER, len(frame), reason, put.table, 0, Match(in_port=port), frame)
                self.switches[network].say(up)
            elif out == UPLINK:
                assert changed.eth_dst == bytes((2, 0xAA, 0, 0, 0, number)), "the router would not take this frame"
                for other, there in DOMAINS.values():
                    if changed.ipv4_dst.packed[1] == there:
                        routed = replace(changed, eth_src=bytes((2, 0xAA, 0, 0, 0, there)), eth_dst=b"\x0e" * 6)
                        self.send(other, UPLINK, routed, ttl - 1)
            elif out == MACHINE_PORT and network.startswith("dc") and network != self.at:
                self.send(network, out, changed, ttl - 1)  # the host that it has left sends it back
            else:
                self.out.append(Out(network, out, changed))

    def pump(self) -> None:
        """What controllers have told the switches to send through their tables."""
        for name, switch in self.switches.items():
            messages: list[Message] = switch.received
            start, self._pumped[name] = self._pumped[name], len(messages)
            for message in messages[start:]:
                if not isinstance(message, PacketOut):
                    continue
                if message.actions == (Output(OFPP_TABLE),):
                    self.send(name, message.in_port, _packet(message.data))
                elif name in self.answering and message.data[12:14] == b"\x08\x06":
                    self._answer(self.answering[name], parse_arp(message.data, 14))

    async def comes_out(self) -> None:
        """Wait until a packet does."""
        async with asyncio.timeout(5):
            while not self.out:
                await asyncio.sleep(0.001)
                self.pump()

    def _answer(self, host: Host, asked: Arp) -> None:
        if asked.op == ARP_REQUEST and asked.target == host.address:
            frame = arp_reply_frame(asked, host.mac)
            up = PacketIn(OFP_NO_BUFFER, len(frame), OFPR_ACTION, 0, 0, Match(in_port=host.port), frame)
            self.switches[host.network].say(up)

    async def talks(self, host: Host, where: str, *, first: str = "host") -> None:
        """The host at home and the machine at ``where`` reach each other, and each sees only identifiers."""
        to_vm = Packet(b"\x0e" * 6, host.mac, host.address, VM)
        to_host = Packet(b"\x0e" * 6, VM_MAC, VM, host.address)
        both = [
            (host.network, host.port, to_vm, where, MACHINE_PORT, VM_MAC),
            (where, MACHINE_PORT, to_host, host.network, host.port, host.mac),
        ]
        for network, port, packet, end, out, mac in both if first == "host" else reversed(both):
            self.out.clear()
            self.send(network, port, packet)
            await self.comes_out()
            (came,) = self.out
            assert (came.network, came.port, came.packet.eth_dst) == (end, out, mac), came
            assert (came.packet.ipv4_src, came.packet.ipv4_dst) == (packet.ipv4_src, packet.ipv4_dst)

    # ---- the machine

    async def carry(self, source: str, target: str, migration: str, *, release: bool = True) -> None:
        """As the source's host does it."""
        engine = self.instances[self._domain(source)].engine
        controller = self.instances[self._domain(source)].controller
        assert engine is not None
        assert controller is not None
        await engine.prepare(VM, target, migration)
        self.at = target
        await engine.flipped(VM, migration)
        if release:
            await controller.left(VM)
            await engine.released(VM, migration)

    async def settled(self, where: str) -> None:
        """Wait until all controllers that know the machine have it at ``where``, and nothing old is left."""

        def good() -> bool:
            views = [instance.controller.federate.view(VM) for instance in self.instances.values()
                     if instance.controller is not None]  # fmt: skip
            known = [view.mapping for view in views if view is not None and view.mapping is not None]
            return all(one.here.network == where and not (one.arriving or one.leaving or one.old) for one in known)

        await until(good)

    def federate(self, domain: str) -> Federate:
        controller = self.instances[domain].controller
        assert controller is not None
        return controller.federate

    def entries(self, network: str) -> int:
        """Rules of the machine in a network's switch."""
        controller = self.instances[self._domain(network)].controller
        assert controller is not None
        datapath = next(number for name, number in DOMAINS.values() if name == network)
        return controller.ledger.count("vm", datapath)

    def _domain(self, network: str) -> str:
        return next(domain for domain, (name, _) in DOMAINS.items() if name == network)


@contextlib.asynccontextmanager
async def domains(directory: Path) -> AsyncIterator[Domains]:
    made = Domains(directory)
    try:
        for domain in DOMAINS:
            await made.start(domain)
        yield made
    finally:
        await made.close()


def _frame(packet: Packet) -> bytes:
    return udp_frame(packet.eth_dst, packet.eth_src, packet.ipv4_src, packet.ipv4_dst, 1000, 2000, b"x")


def _packet(frame: bytes) -> Packet:
    destination, source, _, ip_source, ip_target, _ = peek(frame)
    return Packet(destination, source, IPv4Address(ip_source), IPv4Address(ip_target))
