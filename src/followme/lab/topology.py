"""The papers' figure 1, built: four OpenFlow switches, a router, two hypervisors and a client.

    async with Lab(LabConfig()) as lab:
        ...  # start a controller that listens on lab.controller_address in lab.switch_namespace
        lease = await lab.move_client("wlan2")

Everything lives in namespaces of this run and is removed at the end, however the end comes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface
from pathlib import Path
from types import TracebackType
from typing import Self

from followme.domain import Mac, Network, NetworkKind, mac_text
from followme.lab import plan
from followme.lab.client import Lease, dhcp
from followme.lab.delay import Delay
from followme.lab.ovs import OpenVSwitch
from followme.lab.plan import LabConfig
from followme.lab.rundir import Run, sweep
from followme.lab.signals import cancelled_by_sigterm
from followme.system import needs, netns
from followme.system.process import run

__all__ = ["Host", "Hypervisor", "Lab", "LabConfig", "LabError", "Lease"]

BRIDGE = "br0"
UPLINK = "uplink"
MANAGEMENT = "mgmt"
_AIR = "air"
_MANAGEMENT_ADDRESSES = ("172.31.255.1", "172.31.255.2")
# Groups of the lab's MAC addresses; 1 to 4 are the networks' routers.
_CLIENT_MACS, _HOST_MACS = 0xC0, 0xD0
_ROUTER_SETTINGS = {
    "ipv4/ip_forward": 1,
    # Rewritten addresses come in where the routing table would not expect them.
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    # A machine that was moved is reached through the interface it seems to come from: no redirects.
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
    # Each interface speaks for its own address only.
    "ipv4/conf/all/arp_ignore": 1,
    "ipv4/conf/all/arp_announce": 2,
}


class LabError(RuntimeError):
    """The lab cannot be built on this machine, or was used wrongly; the text says why."""


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """A data centre's host of machines: plug a tap of ``namespace`` into ``bridge`` with ``attach``."""

    name: str
    namespace: str
    bridge: str
    uplink: str
    management_address: str
    run_dir: Path

    async def attach(self, device: str) -> None:
        """Put a machine's tap on the bridge. It floods and never learns: a machine may move at any time."""
        await netns.ip(
            self.namespace,
            [
                f"link set dev {device} master {self.bridge} up",
                f"link set dev {device} type bridge_slave learning off flood on",
            ],
        )

    async def set_hairpin(self, device: str, on: bool) -> None:
        """Whether the bridge may send a frame back out of the device that it came in on."""
        state = "on" if on else "off"
        await netns.ip(self.namespace, [f"link set dev {device} type bridge_slave hairpin {state}"])


@dataclass(frozen=True, slots=True)
class Host:
    """A plain host of the lab (the client is one too): one interface in a namespace of its own."""

    name: str
    namespace: str
    interface: str
    mac: Mac


class Lab:
    """The networks, switches, hypervisors and the client of one run; an asynchronous context manager."""

    def __init__(self, config: LabConfig | None = None) -> None:
        self.config = config or LabConfig()
        self.networks: list[Network] = plan.networks(self.config)
        self.client_network: str | None = None
        self._lease: Lease | None = None
        self._hosts_added = 0
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        problems = needs.check(needs.NETWORK_LAB)
        if problems:
            raise LabError("this machine cannot run the lab: " + "; ".join(problems))
        await sweep()
        self._exit.enter_context(cancelled_by_sigterm())
        try:
            await self._build()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        # A second Ctrl-C must not stop the removal half way: it is noted and passed on afterwards.
        closing = asyncio.ensure_future(self._exit.aclose())
        cancelled = False
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError:
                cancelled = True
        closing.result()
        if cancelled:
            raise asyncio.CancelledError

    # ---- building

    async def _build(self) -> None:
        self._run = Run.open()
        self._exit.push_async_callback(self._run.close)
        self.run_id = self._run.id
        self.directory = self._run.directory
        self.switch_namespace = await self._run.add_namespace("switch")
        self.router_namespace = await self._run.add_namespace("router")
        self.controller_address = ("127.0.0.1", self.config.controller_port)
        self.switch = OpenVSwitch(self.switch_namespace, self.directory / "ovs")
        self._exit.push_async_callback(self.switch.stop)
        await self.switch.start()
        await self._build_router()
        self.hosts: Mapping[str, Hypervisor] = await self._build_hypervisors()
        await self._build_client()
        self.delay = await Delay.start(self.router_namespace, plan.delayed_paths(self.config))
        self._exit.push_async_callback(self.delay.stop)

    async def _build_router(self) -> None:
        netns.sysctl(self.router_namespace, _ROUTER_SETTINGS)
        host, port = self.controller_address
        for network in self.networks:
            await self._cable(
                self.router_namespace, network.name, f"{network.name}-router", mac=network.router_mac
            )
            address = f"{network.prefix[1]}/{network.prefix.prefixlen}"
            await netns.ip(
                self.router_namespace,
                [
                    f"address add {address} brd + dev {network.name}",
                    f"link set dev {network.name} up",
                ],
            )
            await self.switch.add_bridge(network.name, network.datapath, f"tcp:{host}:{port}")
            await self.switch.add_port(network.name, f"{network.name}-router", network.uplink_port)

    async def _cable(self, namespace: str, name: str, switch_end: str, *, mac: Mac | None = None) -> None:
        """A cable from a namespace to the switch's; the switch's end is up, the other is not yet."""
        address = f"address {mac_text(mac)} " if mac else ""
        peer = f"peer name {switch_end} netns {self.switch_namespace}"
        await netns.ip(namespace, [f"link add name {name} {address}type veth {peer}"])
        # The switch reads frames as they are: their checksums must be complete, and none longer than the MTU.
        await run(["ethtool", "-K", name, "tx", "off"], namespace=namespace)
        await netns.ip(self.switch_namespace, [f"link set dev {switch_end} up"])

    async def _build_hypervisors(self) -> dict[str, Hypervisor]:
        centres = [network for network in self.networks if network.kind is NetworkKind.DATACENTRE]
        made = {}
        for number, (network, address) in enumerate(zip(centres, _MANAGEMENT_ADDRESSES, strict=True), start=1):
            made[network.name] = await self._build_hypervisor(f"hv{number}", network, address)
        first, second = made.values()
        await netns.ip(
            first.namespace,
            [f"link add name {MANAGEMENT} type veth peer name {MANAGEMENT} netns {second.namespace}"],
        )
        for host in (first, second):
            await netns.ip(
                host.namespace,
                [
                    f"address add {host.management_address}/30 dev {MANAGEMENT}",
                    f"link set dev {MANAGEMENT} up",
                ],
            )
            rate = self.config.management_rate_bit_s
            if rate is not None:
                queue = f"tbf rate {rate}bit burst {max(65536, rate // 2000)} latency 100ms"
                await netns.tc(host.namespace, [f"qdisc add dev {MANAGEMENT} root {queue}"])
        return made

    async def _build_hypervisor(self, name: str, network: Network, address: str) -> Hypervisor:
        namespace = await self._run.add_namespace(name)
        if Path("/proc/sys/net/bridge").exists():
            netns.sysctl(namespace, {f"bridge/bridge-nf-call-{kind}tables": 0 for kind in ("arp", "ip", "ip6")})
        host = Hypervisor(name, namespace, BRIDGE, UPLINK, address, self.directory / name)
        host.run_dir.mkdir()
        await netns.ip(namespace, [f"link add name {BRIDGE} type bridge stp_state 0 mcast_snooping 0"])
        await self._cable(namespace, UPLINK, f"{network.name}-hv")
        await host.attach(UPLINK)
        await netns.ip(namespace, [f"link set dev {BRIDGE} up"])
        await self.switch.add_port(network.name, f"{network.name}-hv", plan.HYPERVISOR_PORT)
        return host

    async def _build_client(self) -> None:
        namespace = await self._run.add_namespace("client")
        self.client = Host("client", namespace, "wl0", plan.mac(_CLIENT_MACS, 1))
        await self._cable(namespace, self.client.interface, _AIR, mac=self.client.mac)
        await netns.ip(namespace, [f"link set dev {self.client.interface} up"])

    # ---- using

    def network(self, name: str) -> Network:
        """The network of that name."""
        for network in self.networks:
            if network.name == name:
                return network
        known = ", ".join(network.name for network in self.networks)
        raise LabError(f"the lab has no network {name!r}; it has {known}")

    async def attach_client(self, network: str) -> None:
        """The radio part of a move: the client leaves its WLAN and associates with another (no DHCP)."""
        if self.network(network).kind is not NetworkKind.ACCESS:
            raise LabError(f"{network} is a data centre: the client can go to an access network only")
        if self.client_network is not None:
            await self.switch.del_port(self.client_network, _AIR)
            self.client_network = None
        await self.switch.add_port(network, _AIR, plan.CLIENT_PORT)
        self.client_network = network

    async def move_client(self, network: str) -> Lease:
        """Associate the client with a WLAN, then let it ask DHCP for the address that it had last."""
        await self.attach_client(network)
        request = self._lease.address.ip if self._lease else None
        self._lease = await dhcp(self.client.namespace, self.client.interface, request=request)
        return self._lease

    async def add_host(
        self, network: str, name: str, *, port: int, address: IPv4Interface | None = None
    ) -> Host:
        """A plain host at a port (10 or more) of a network's switch.

        ``address`` None leaves its ``eth0`` without one: run ``client.dhcp`` on it.
        """
        if port < plan.FIRST_HOST_PORT:
            raise LabError(f"port {port} of {network} is the lab's own: hosts have {plan.FIRST_HOST_PORT} or more")
        where = self.network(network)
        self._hosts_added += 1
        switch_end = f"{network}-{port}"
        namespace = await self._run.add_namespace(f"host-{name}")
        host = Host(name, namespace, "eth0", plan.mac(_HOST_MACS, self._hosts_added))
        await self._cable(namespace, host.interface, switch_end, mac=host.mac)
        commands = [f"link set dev {host.interface} up"]
        if address is not None:
            commands += [
                f"address add {address} brd + dev {host.interface}",
                f"route add default via {where.gateway}",
            ]
        await netns.ip(namespace, commands)
        await self.switch.add_port(network, switch_end, port)
        return host
