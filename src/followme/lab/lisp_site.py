"""A LISP site's router as the xTR finds it: an uplink to the core and a LAN with the anycast gateway.

What a node that has moved in sees is what it saw at home: one gateway MAC everywhere, and an answer to each
ARP request for what is not in this LAN.
"""

from __future__ import annotations

from pathlib import Path

from followme.domain import mac_text
from followme.lab.base import ROUTER_SETTINGS, bypass_packet_filters, plug
from followme.lab.lisp_plan import ANYCAST_LINK_LOCAL, LAN, LispSite, core_address, underlay_address
from followme.system import netns

HAS_IPV6 = Path("/proc/sys/net/ipv6").exists()
_IPV6_SETTINGS = {
    "ipv6/conf/all/disable_ipv6": 0,
    "ipv6/conf/default/disable_ipv6": 0,
    "ipv6/conf/all/forwarding": 1,
}
_LAN_SETTINGS = {
    # The home gateway of a node that moved in, and neighbours that moved away, are behind this router.
    f"ipv4/conf/{LAN}/proxy_arp": 1,
    # At once, not after the kernel's random 0 to 0.8 s.
    f"ipv4/neigh/{LAN}/proxy_delay": 0,
    # proxy_arp would answer a newcomer's announcement of its own address, which it has to take for a conflict
    # (RFC 5227, 2.4). Packet sockets see the announcement all the same.
    f"ipv4/conf/{LAN}/drop_gratuitous_arp": 1,
}
# A LAN without a node has a carrier all the same, as behind an access point: else its routes come and go.
_KEEPER = "carrier"


async def build_lan(site: LispSite) -> None:
    """Make the site's namespace a router and give it its LAN."""
    netns.sysctl(site.namespace, ROUTER_SETTINGS)
    if HAS_IPV6:
        netns.sysctl(site.namespace, _IPV6_SETTINGS)
    bypass_packet_filters(site.namespace)
    bridge = f"address {mac_text(site.gateway_mac)} type bridge stp_state 0 mcast_snooping 0"
    await netns.ip(
        site.namespace,
        [
            f"link add name {site.lan_device} {bridge}",
            f"link add name {_KEEPER} type veth peer name {_KEEPER}-end",
        ],
    )
    netns.sysctl(site.namespace, _LAN_SETTINGS)
    addresses = [f"{site.gateway}/{site.eid_prefix.prefixlen} brd +"]
    if HAS_IPV6:
        # The anycast addresses are the only ones: none is made from the MAC.
        own = {f"ipv6/conf/{LAN}/addr_gen_mode": 1, f"ipv6/conf/{_KEEPER}-end/disable_ipv6": 1}
        netns.sysctl(site.namespace, own)
        addresses += [f"{site.gateway6}/{site.eid_prefix6.prefixlen} nodad", f"{ANYCAST_LINK_LOCAL}/64 nodad"]
    await netns.ip(
        site.namespace,
        [
            *(f"address add {address} dev {site.lan_device}" for address in addresses),
            f"link set dev {site.lan_device} up",
            f"link set dev {_KEEPER}-end arp off up",
        ],
    )
    await plug_into_lan(site, _KEEPER)
    quiet = "flood off mcast_flood off bcast_flood off"
    await netns.ip(site.namespace, [f"link set dev {_KEEPER} type bridge_slave {quiet}"])


async def connect_uplink(site: LispSite) -> None:
    """Address and default route of the site's cable to the core, which is there."""
    if HAS_IPV6:
        netns.sysctl(site.namespace, {f"ipv6/conf/{site.uplink}/disable_ipv6": 1})
    await connect_to_core(site.namespace, site.uplink, site.name)


async def connect_to_core(namespace: str, device: str, place: str) -> None:
    """Give a place's end of its cable to the core its underlay address, and the default route."""
    address = underlay_address(place)
    await netns.ip(
        namespace,
        [
            f"address add {address} dev {device}",
            f"link set dev {device} up",
            f"route add default via {core_address(place).ip}",
        ],
    )


async def plug_into_lan(site: LispSite, device: str) -> None:
    """Make a device of the site's namespace a port of its LAN."""
    if HAS_IPV6:  # a port has nothing to say of its own
        netns.sysctl(site.namespace, {f"ipv6/conf/{device}/disable_ipv6": 1})
    await plug(site.namespace, site.lan_device, device)
