"""ARP processing: the controller answers for everybody, so that no end's cache has to change when one moves.

Hosts are told about their gateway and neighbours as at home, wherever they are (openflow-based-implementation,
IV.B.4); for those that only another controller knows the switch itself answers. The router is told about
locators, identifiers at home and the probe address. Answers leave by PACKET_OUT on the port of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address

from followme.continuity.binding import Binding
from followme.continuity.pipeline import edge_mac
from followme.domain import Network, Node
from followme.packets import ARP_REQUEST, Arp, arp_reply_frame, arp_request_frame

Locate = Callable[[str, IPv4Address], Binding | None]


class ArpProxy:
    """Pure answers: a request in, the reply's frame or ``None`` out."""

    def __init__(self, networks: Mapping[str, Network], locate: Locate) -> None:
        self.networks = networks
        self._locate = locate

    def for_router(self, network: Network, request: Arp) -> bytes | None:
        """The first hop asks who has an address that the core routes to ``network``."""
        if request.op != ARP_REQUEST:
            return None
        if request.target == network.probe_address:
            return arp_reply_frame(request, edge_mac(network))
        binding = self._locate(network.name, request.target)
        return arp_reply_frame(request, binding.node.mac) if binding else None

    def for_host(self, node: Node, request: Arp) -> bytes | None:
        """A known host asks: its gateway and neighbours are those of its home."""
        if request.op != ARP_REQUEST or request.tpa in (node.address.packed, request.spa):
            return None  # its own address: a probe or an announcement, to be met with silence
        home = self.networks[node.home]
        target = request.target
        if target == home.gateway and home.ours:
            return arp_reply_frame(request, home.router_mac)
        if target not in home.inside:
            return None
        neighbour = self._locate(home.name, home.outer(target))
        if neighbour is None and not home.ours and (visitor := self._locate(home.name, node.identifier)):
            # Its home is another controller's, which alone knows who is there. Packets go by their addresses.
            return arp_reply_frame(request, edge_mac(self.networks[visitor.here.network]))
        return arp_reply_frame(request, neighbour.node.mac) if neighbour else None


def locator_request(network: Network, node: Node, locator: IPv4Address) -> bytes:
    """Asks the router for its own address in the locator's name: so the router learns the locator (RFC 826:
    the target of a request merges the sender's address), and no packet has to wait for it later."""
    return arp_request_frame(node.mac, locator, network.router)


def alive_request(network: Network, node: Node) -> bytes:
    """Asks whether the node is still at its old port, in its gateway's name."""
    return arp_request_frame(network.router_mac, network.gateway, node.address)
