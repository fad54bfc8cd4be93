"""The LISP lab's user: a terminal with a static address that roams from one access network to another.

``wl0`` is its interface; the other end of that cable, ``air``, is plugged into the LAN of the network that
it is associated with.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import time
from ipaddress import IPv4Address
from pathlib import Path

from followme.domain import mac_text
from followme.lab.base import AIR, Host, LabError
from followme.lab.lisp_plan import CLIENT_ADDRESS, LispSite
from followme.lab.lisp_site import plug_into_lan
from followme.packets import arp_request_frame
from followme.system import netns

_SIOCGIFFLAGS = 0x8913
_IFF_RUNNING = 0x40
_CARRIER_SECONDS = 5.0


async def add_interface(client: Host, gateway: IPv4Address) -> None:
    """Give the client its interface, its address at home and the default route, for good."""
    await netns.ip(
        client.namespace,
        [f"link add name {client.interface} address {mac_text(client.mac)} type veth peer name {AIR}"],
    )
    # Where a supplicant roams, it asks for this: the new network is the same one, neighbours stay known.
    # Before Linux 5.16 there is nothing to ask; the client then looks for its gateway after each move.
    setting = f"ipv4/conf/{client.interface}/arp_evict_nocarrier"
    if Path("/proc/sys/net/ipv4/conf/all/arp_evict_nocarrier").exists():
        netns.sysctl(client.namespace, {setting: 0})
    await netns.ip(
        client.namespace,
        [
            f"address add {CLIENT_ADDRESS} brd + dev {client.interface}",
            f"link set dev {client.interface} up",
            f"route add default via {gateway}",
        ],
    )


async def associate(client: Host, left: str, site: LispSite) -> None:
    """Plug the client into a site's LAN; ``left`` is the namespace where the other end of its cable is.

    Returns when frames pass; the client has sent none of its own accord.
    """
    await netns.ip(left, [f"link set dev {AIR} down", f"link set dev {AIR} netns {site.namespace}"])
    await plug_into_lan(site, AIR)
    for namespace, device in ((client.namespace, client.interface), (site.namespace, AIR)):
        await _carrier(namespace, device)


async def _carrier(namespace: str, device: str) -> None:
    """Wait until the kernel sends through a device: it notices a cable only a moment after the plug."""
    deadline = time.monotonic() + _CARRIER_SECONDS
    with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as asker:
        while True:
            answer = fcntl.ioctl(asker, _SIOCGIFFLAGS, struct.pack("16s24x", device.encode()))
            if struct.unpack_from("=H", answer, 16)[0] & _IFF_RUNNING:
                return
            if time.monotonic() > deadline:
                raise LabError(f"{device} in {namespace} has no carrier after {_CARRIER_SECONDS:g} s")
            await asyncio.sleep(0.001)


def announce(client: Host) -> None:
    """Send one gratuitous ARP, as terminals do when they have associated (RFC 5227, 2.3 and 3)."""
    frame = arp_request_frame(client.mac, CLIENT_ADDRESS.ip, CLIENT_ADDRESS.ip)
    with netns.socket_in(client.namespace, socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind((client.interface, 0))
        link.send(frame)
