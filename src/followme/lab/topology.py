"""The papers' figure 1, built: four OpenFlow switches, a router, two hypervisors and a client.

    async with Lab(LabConfig()) as lab:
        ...  # start a controller that listens on lab.controller_address in lab.switch_namespace
        lease = await lab.move_client("wlan2")

Everything lives in namespaces of this run and is removed at the end, however the end comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Interface

from followme.domain import Mac, Network, NetworkKind
from followme.lab import plan
from followme.lab.base import (
    AIR,
    BRIDGE,
    CLIENT_MACS,
    HOST_MACS,
    MANAGEMENT,
    ROUTER_SETTINGS,
    UPLINK,
    Host,
    Hypervisor,
    LabError,
    NetworkLab,
    cable,
    rate_queue,
)
from followme.lab.client import Lease, dhcp
from followme.lab.delay import Delay
from followme.lab.ovs import OpenVSwitch
from followme.lab.plan import LabConfig
from followme.system import needs, netns

__all__ = ["Host", "Hypervisor", "Lab", "LabConfig", "LabError", "Lease"]

_MANAGEMENT_ADDRESSES = ("172.31.255.1", "172.31.255.2")


class Lab(NetworkLab):
    """The networks, switches, hypervisors and the client of one run; an asynchronous context manager."""

    NEEDS = needs.NETWORK_LAB

    def __init__(self, config: LabConfig | None = None) -> None:
        super().__init__()
        self.config = config or LabConfig()
        self.networks: list[Network] = plan.networks(self.config)
        self.client_network: str | None = None
        self._lease: Lease | None = None
        self._hosts_added = 0

    # ---- building

    async def _build(self) -> None:
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
        netns.sysctl(self.router_namespace, ROUTER_SETTINGS)
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
        await cable(self.switch_namespace, namespace, name, switch_end, mac=mac)

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
                await netns.tc(host.namespace, [f"qdisc add dev {MANAGEMENT} root {rate_queue(rate)}"])
        return made

    async def _build_hypervisor(self, name: str, network: Network, address: str) -> Hypervisor:
        host = await self._add_hypervisor(name, address)
        await self._cable(host.namespace, UPLINK, f"{network.name}-hv")
        await host.attach(UPLINK)
        await netns.ip(host.namespace, [f"link set dev {BRIDGE} up"])
        await self.switch.add_port(network.name, f"{network.name}-hv", plan.HYPERVISOR_PORT)
        return host

    async def _build_client(self) -> None:
        namespace = await self._run.add_namespace("client")
        self.client = Host("client", namespace, "wl0", plan.mac(CLIENT_MACS, 1))
        await self._cable(namespace, self.client.interface, AIR, mac=self.client.mac)
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
            await self.switch.del_port(self.client_network, AIR)
            self.client_network = None
        await self.switch.add_port(network, AIR, plan.CLIENT_PORT)
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
        host = Host(name, namespace, "eth0", plan.mac(HOST_MACS, self._hosts_added))
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
