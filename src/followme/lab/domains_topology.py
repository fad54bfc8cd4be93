"""The networks of the lab of several domains: a bridge of Open vSwitch for each, a router, hypervisors, hosts.

    async with DomainsLab(DomainsLabConfig()) as lab:
        ...  # a bus in lab.bus_namespace, controllers in lab.switch_namespace, agents in the hypervisors'

Hypervisors, switches and bus share a management network beside the networks that are switched.
"""

from __future__ import annotations

from ipaddress import IPv4Interface

from followme.lab import domains_plan, plan
from followme.lab.base import (
    BRIDGE,
    HOST_MACS,
    MANAGEMENT,
    ROUTER_SETTINGS,
    UPLINK,
    Host,
    Hypervisor,
    LabError,
    NetworkLab,
    bypass_packet_filters,
    cable,
    plug,
)
from followme.lab.delay import Delay
from followme.lab.domains_plan import DomainsLabConfig, LabDomain
from followme.lab.ovs import OpenVSwitch
from followme.system import needs, netns


class DomainsLab(NetworkLab):
    """The networks of one run; an asynchronous context manager."""

    NEEDS = needs.NETWORK_LAB

    def __init__(self, config: DomainsLabConfig | None = None) -> None:
        super().__init__()
        self.config = config or DomainsLabConfig()
        self.domains = domains_plan.domains(self.config)
        self.hosts: dict[str, Hypervisor] = {}
        """By network."""
        self._ports: dict[str, int] = {}

    async def _build(self) -> None:
        self.switch_namespace = await self._run.add_namespace("switch")
        self.router_namespace = await self._run.add_namespace("router")
        self.bus_namespace = await self._run.add_namespace("bus")
        self.switch = OpenVSwitch(self.switch_namespace, self.directory / "ovs")
        self._exit.push_async_callback(self.switch.stop)
        await self.switch.start()
        await self._build_management()
        netns.sysctl(self.router_namespace, ROUTER_SETTINGS)
        for domain in self.domains:
            await self._build_network(domain)
            if domain.has_centre:
                await self._build_hypervisor(domain)
        self.delay = await Delay.start(self.router_namespace, domains_plan.delayed_paths(self.config))
        self._exit.push_async_callback(self.delay.stop)

    async def _build_management(self) -> None:
        bypass_packet_filters(self.bus_namespace)
        await netns.ip(self.bus_namespace, [
            f"link add name {BRIDGE} type bridge stp_state 0 mcast_snooping 0",
            f"address add {domains_plan.bus_address()} dev {BRIDGE}",
            f"link set dev {BRIDGE} up",
        ])  # fmt: skip
        await self._manage(self.switch_namespace, "switches", domains_plan.switches_address())

    async def _manage(self, namespace: str, name: str, address: IPv4Interface) -> None:
        peer = f"peer name {name} netns {self.bus_namespace}"
        await netns.ip(namespace, [
            f"link add name {MANAGEMENT} type veth {peer}", f"address add {address} dev {MANAGEMENT}",
            f"link set dev {MANAGEMENT} up",
        ])  # fmt: skip
        await netns.ip(self.bus_namespace, [f"link set dev {name} master {BRIDGE} up"])

    async def _build_network(self, domain: LabDomain) -> None:
        network = domain.network
        router_end = f"{network.name}-router"
        await cable(self.switch_namespace, self.router_namespace, network.name, router_end, mac=network.router_mac)
        address = f"{network.prefix[1]}/{network.prefix.prefixlen}"
        await netns.ip(self.router_namespace, [
            f"address add {address} brd + dev {network.name}", f"link set dev {network.name} up",
        ])  # fmt: skip
        await self.switch.add_bridge(network.name, network.datapath)
        ports = [domains_plan.controller_port(domain.number, one + 1) for one in range(self.config.instances)]
        await self.switch.set_controllers(network.name, [f"tcp:127.0.0.1:{port}" for port in ports])
        await self.switch.add_port(network.name, router_end, network.uplink_port)

    async def _build_hypervisor(self, domain: LabDomain) -> None:
        address = domains_plan.management_address(domain.number)
        host = await self._add_hypervisor(f"hv{domain.number}", str(address.ip))
        switch_end = f"{domain.network.name}-hv"
        await cable(self.switch_namespace, host.namespace, UPLINK, switch_end)
        await plug(host.namespace, BRIDGE, UPLINK)
        await netns.ip(host.namespace, [f"link set dev {BRIDGE} up"])
        await self.switch.add_port(domain.network.name, switch_end, plan.HYPERVISOR_PORT)
        await self._manage(host.namespace, host.name, address)
        self.hosts[domain.network.name] = host

    # ---- using

    def domain(self, name: str) -> LabDomain:
        """The domain of that name, or with the network of that name."""
        for domain in self.domains:
            if name in (domain.name, domain.network.name):
                return domain
        raise LabError(f"the lab has no domain or network {name!r}")

    async def add_host(self, network: str, name: str, number: int) -> Host:
        """A plain host at the next port of a network's switch, with the network's host address ``number``. The
        first of each network is the one that its controller's file knows (``domains_plan.peer_mac``)."""
        domain = self.domain(network)
        port = self._ports.get(network, plan.FIRST_HOST_PORT)
        self._ports[network] = port + 1
        namespace = await self._run.add_namespace(f"host-{name}")
        host = Host(name, namespace, "eth0", plan.mac(HOST_MACS + port - plan.FIRST_HOST_PORT, domain.number))
        switch_end = f"{network}-{port}"
        await cable(self.switch_namespace, namespace, host.interface, switch_end, mac=host.mac)
        await netns.ip(namespace, [
            f"link set dev {host.interface} up",
            f"address add {domain.host(number)} brd + dev {host.interface}",
            f"route add default via {domain.network.gateway}",
        ])  # fmt: skip
        await self.switch.add_port(network, switch_end, port)
        return host
