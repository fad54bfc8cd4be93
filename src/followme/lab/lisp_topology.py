"""The LISP lab, built: four sites behind their routers, a core with delays, a map server's and a controller's
host, two hypervisors and a client. No daemon runs in it.

    async with LispLab(LispLabConfig()) as lab:
        ...  # start a map server in lab.map_server_namespace, an agent in each lab.site("dc1").namespace
        await lab.move_client("wlan2")

Everything lives in namespaces of this run and is removed at the end, however the end comes. The core routes
the underlay only (RLOCs and the hosts' own addresses), in IPv4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Interface, IPv6Interface

from followme.domain import NetworkKind, mac_text
from followme.lab import lisp_client, lisp_plan
from followme.lab.base import (
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
    rate_queue,
)
from followme.lab.delay import Delay
from followme.lab.lisp_plan import ANYCAST_LINK_LOCAL, LispLabConfig, LispSite
from followme.lab.lisp_site import HAS_IPV6, build_lan, connect_to_core, connect_uplink, plug_into_lan
from followme.lab.plan import mac
from followme.system import netns
from followme.system.needs import Need
from followme.system.process import run

__all__ = ["Host", "Hypervisor", "LabError", "LispLab", "LispLabConfig", "LispSite"]

_UP = "up"


class LispLab(NetworkLab):
    """The sites, the core and the hosts of one run; an asynchronous context manager."""

    NEEDS = (Need.ROOT, Need.NETWORKS)

    def __init__(self, config: LispLabConfig | None = None) -> None:
        super().__init__()
        self.config = config or LispLabConfig()
        self.map_server_address = lisp_plan.underlay_address(lisp_plan.MAP_SERVER).ip
        self.controller_address = lisp_plan.underlay_address(lisp_plan.CONTROLLER).ip
        self.client_address = lisp_plan.CLIENT_ADDRESS
        self.client_network: str | None = None
        self._hosts_added = 0

    # ---- building

    async def _build(self) -> None:
        self.sites: list[LispSite] = lisp_plan.sites(self._run.namespace)
        self.core_namespace = await self._run.add_namespace("core")
        netns.sysctl(self.core_namespace, ROUTER_SETTINGS)
        for site in self.sites:
            await self._run.add_namespace(f"x-{site.name}")
            await build_lan(site)
            await self._cable(site.namespace, site.uplink, site.name)
            await connect_uplink(site)
        self.map_server_namespace = await self._build_end(lisp_plan.MAP_SERVER)
        self.controller_namespace = await self._build_end(lisp_plan.CONTROLLER)
        self.hosts: Mapping[str, Hypervisor] = {
            centre: await self._build_hypervisor(name, self.site(centre))
            for name, centre in lisp_plan.HYPERVISORS.items()
        }
        await self._build_client()
        self.delay = await Delay.start(self.core_namespace, lisp_plan.delayed_paths(self.config))
        self._exit.push_async_callback(self.delay.stop)
        await self._widen_core()

    async def _cable(self, namespace: str, device: str, place: str) -> None:
        """A cable from a place to the core, whose end goes by the place's name, is up and has its address.

        Segmentation stays the devices' business: no switch of ours reads these frames.
        """
        peer = f"peer name {place} mtu {self.config.core_mtu} netns {self.core_namespace}"
        await netns.ip(namespace, [f"link add name {device} mtu {self.config.core_mtu} type veth {peer}"])
        await netns.ip(
            self.core_namespace,
            [
                f"address add {lisp_plan.core_address(place)} dev {place}",
                f"link set dev {place} up",
            ],
        )
        rate = self.config.rate(place)
        if rate is not None:
            for end, name in ((namespace, device), (self.core_namespace, place)):
                await netns.tc(end, [f"qdisc add dev {name} root {rate_queue(rate)}"])

    async def _build_end(self, name: str) -> str:
        namespace = await self._run.add_namespace(name)
        await self._cable(namespace, _UP, name)
        await connect_to_core(namespace, _UP, name)
        return namespace

    async def _build_hypervisor(self, name: str, site: LispSite) -> Hypervisor:
        host = await self._add_hypervisor(name, str(lisp_plan.underlay_address(name).ip))
        await netns.ip(
            host.namespace, [f"link add name {UPLINK} type veth peer name {name} netns {site.namespace}"]
        )
        await host.attach(UPLINK)
        await netns.ip(host.namespace, [f"link set dev {BRIDGE} up"])
        await plug_into_lan(site, name)
        await self._cable(host.namespace, MANAGEMENT, name)
        await connect_to_core(host.namespace, MANAGEMENT, name)
        return host

    async def _build_client(self) -> None:
        namespace = await self._run.add_namespace("client")
        self.client = Host("client", namespace, "wl0", mac(CLIENT_MACS, 1))
        home = next(site for site in self.sites if self.client_address.ip in site.eid_prefix)
        await lisp_client.add_interface(self.client, home.gateway)

    async def _widen_core(self) -> None:
        """Give the devices that delay the links' MTU, too: packets pass them on their way."""
        links = json.loads(await run(["ip", "-n", self.core_namespace, "-j", "link", "show"]))
        await netns.ip(
            self.core_namespace,
            [
                f"link set dev {link['ifname']} mtu {self.config.core_mtu}"
                for link in links
                if link["ifname"] != "lo" and link["mtu"] != self.config.core_mtu
            ],
        )

    # ---- using

    def site(self, name: str) -> LispSite:
        """The site of that name; ``LabError`` if there is none."""
        for site in self.sites:
            if site.name == name:
                return site
        known = ", ".join(site.name for site in self.sites)
        raise LabError(f"the lab has no site {name!r}; it has {known}")

    async def attach_client(self, network: str) -> None:
        """The radio part of a move: the client leaves its network and associates with another, in silence."""
        site = self.site(network)
        if site.kind is not NetworkKind.ACCESS:
            raise LabError(f"{network} is a data centre: the client can go to an access network only")
        left = self.site(self.client_network).namespace if self.client_network else self.client.namespace
        await lisp_client.associate(self.client, left, site)
        self.client_network = network

    async def move_client(self, network: str) -> None:
        """Associate the client with a network; it announces its address there by one gratuitous ARP."""
        await self.attach_client(network)
        lisp_client.announce(self.client)

    async def add_host(
        self, network: str, name: str, address: IPv4Interface, address6: IPv6Interface | None = None
    ) -> Host:
        """A plain host in a site's LAN with an ``eth0``; its gateway is the first address of ``address``'s
        network, and with ``address6`` the anycast link-local one. An address of another site makes it a node
        that has moved in."""
        site = self.site(network)
        if address6 is not None and not HAS_IPV6:
            raise LabError(f"{name} cannot have {address6}: this kernel has no IPv6")
        self._hosts_added += 1
        port = f"host{self._hosts_added}"
        namespace = await self._run.add_namespace(f"host-{name}")
        host = Host(name, namespace, "eth0", mac(HOST_MACS, self._hosts_added))
        peer = f"peer name {port} netns {site.namespace}"
        await netns.ip(
            namespace, [f"link add name {host.interface} address {mac_text(host.mac)} type veth {peer}"]
        )
        await plug_into_lan(site, port)
        commands = [
            f"address add {address} brd + dev {host.interface}",
            f"link set dev {host.interface} up",
            f"route add default via {address.network[1]}",
        ]
        if address6 is not None:
            own = f"ipv6/conf/{host.interface}"
            netns.sysctl(namespace, {f"{own}/accept_ra": 0, f"{own}/accept_dad": 0, f"{own}/disable_ipv6": 0})
            commands += [
                f"address add {address6} dev {host.interface} nodad",
                f"route add ::/0 via {ANYCAST_LINK_LOCAL} dev {host.interface}",
            ]
        await netns.ip(namespace, commands)
        return host
