"""Two access networks, two data centres, alice, bob and a machine, under a watcher whose switches are recorded."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

from followme.config.openflow import DhcpSection
from followme.continuity.ledger import Ledger
from followme.continuity.redirect import Redirect
from followme.domain import Attachment, Mac, Network, Node, NodeKind, Placement, mac_bytes
from followme.mobility.dhcp import DhcpServer
from followme.mobility.locations import LocationManager
from followme.mobility.watcher import Watcher
from followme.openflow import Match, PacketIn, PacketOut, Port, PortStatus
from followme.openflow.constants import OFP_NO_BUFFER, OFPPR_DELETE, OFPPR_MODIFY, OFPPS_LINK_DOWN, OFPR_NO_MATCH
from followme.packets import ARP_REQUEST, BOOTREQUEST, ZERO, Arp, Dhcp, MessageType, pack_arp, parse_arp
from followme.packets.dhcp import OPTION_MESSAGE_TYPE, OPTION_REQUESTED_IP, OPTION_SERVER_ID, parse_dhcp
from followme.packets.dhcp_frames import client_frame
from followme.packets.ethernet import pack_ethernet
from followme.packets.udp import udp_frame
from followme.store import Store

from ..continuity.fabric import network
from ..continuity.recorder import Recorder

DC1, DC2, WLAN1, WLAN2 = (
    network("dc1", 1), network("dc2", 2), network("wlan1", 3, access=True), network("wlan2", 4, access=True),
)  # fmt: skip
NETWORKS = {one.name: one for one in (DC1, DC2, WLAN1, WLAN2)}
UPLINK, ALICE_PORT, BOB_PORT, VM_PORT = 1, 5, 6, 2
STRANGER = mac_bytes("02:00:00:00:00:66")


def user(name: str, number: int, host: int) -> Node:
    address = WLAN1.prefix[host]
    return Node(name, NodeKind.USER, bytes([2, 0, 0, 0, 0, number]), address, address, "wlan1")


ALICE, BOB = user("alice", 2, 10), user("bob", 3, 11)
VM = Node("vm", NodeKind.MACHINE, mac_bytes("02:00:00:00:00:01"), DC1.prefix[5], DC1.prefix[5], "dc1", VM_PORT)
OTHER_VM = Node("vm2", NodeKind.MACHINE, mac_bytes("02:00:00:00:00:07"), DC2.prefix[6], DC2.prefix[6], "dc2", 9)


def pool(first: str, last: str, *, keep_address: bool = True, lease_s: int = 600) -> DhcpSection:
    return DhcpSection.model_validate(
        {"first": first, "last": last, "keep_address": keep_address, "lease_s": lease_s}
    )


POOLS = {"wlan1": pool("10.3.0.20", "10.3.0.23"), "wlan2": pool("10.4.0.20", "10.4.0.21")}


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.store = Store(":memory:")
        self.recorder = Recorder(NETWORKS.values())
        self.ledger = Ledger(epoch=1)
        self.redirect = Redirect(NETWORKS, self.ledger, self.recorder.southbound, self.store)
        self.locations = LocationManager(NETWORKS, self.redirect.bindings)
        self.dhcp = DhcpServer(NETWORKS, POOLS, self.locations, self.store, lambda: self.now)
        self.attachments: list[Attachment] = []
        self.arrivals: list[tuple[str, str]] = []
        self.probes: list[bytes] = []
        self.watcher = Watcher(
            NETWORKS, self.recorder.southbound, self.redirect, self.locations, self.dhcp,
            attached=self.attachments.append,
            arrived=lambda node, where: self.arrivals.append((node.name, where.name)),
            peers=lambda node: frozenset({"dc1"} if node.kind is NodeKind.USER else {"wlan1"}),
            probe=lambda where, frame: self.probes.append(frame), clock=lambda: self.now,
        )  # fmt: skip
        self.redirect.install_base()
        for node, port in ((ALICE, ALICE_PORT), (BOB, BOB_PORT), (VM, VM_PORT), (OTHER_VM, 9)):
            self.store.put_node(node)
            self.redirect.restore(node, Placement(node.name, node.home, port, node.identifier, 1))
            self.locations.add(node)
        self.recorder.sent.clear()

    # ---- what comes up

    def packet_in(self, where: Network, port: int, frame: bytes, table: int = 0) -> None:
        self.watcher.packet_in(
            where, PacketIn(OFP_NO_BUFFER, len(frame), OFPR_NO_MATCH, table, 0, Match(in_port=port), frame)
        )

    async def settle(self) -> None:
        """Let all that the watcher has begun come to its end."""
        while self.watcher._tasks:
            await asyncio.gather(*self.watcher._tasks, return_exceptions=True)

    def port_gone(self, where: Network, port: int) -> None:
        self.watcher.port_status(where, PortStatus(OFPPR_DELETE, Port(port, bytes(6), "p")))

    def link(self, where: Network, port: int, up: bool) -> None:
        state = 0 if up else OFPPS_LINK_DOWN
        self.watcher.port_status(where, PortStatus(OFPPR_MODIFY, Port(port, bytes(6), "p", state=state)))

    # ---- what went down

    def replies(self, where: Network, port: int) -> list[bytes]:
        """Frames sent out of one port."""
        return [packet.data for packet in self.recorder.packets(where.datapath)
                if [getattr(action, "port", None) for action in packet.actions] == [port]]  # fmt: skip

    def arps(self, where: Network, port: int) -> list[Arp]:
        return [parse_arp(frame, 14) for frame in self.replies(where, port) if frame[12:14] == b"\x08\x06"]

    def dhcps(self, where: Network, port: int) -> list[Dhcp]:
        return [parse_dhcp(frame[42:]) for frame in self.replies(where, port) if frame[12:14] == b"\x08\x00"]

    def again(self, where: Network) -> list[PacketOut]:
        """Packets sent through the tables again."""
        return [packet for packet in self.recorder.packets(where.datapath) if packet.in_port < 0xFFFFFF00]

    def place(self, node: Node) -> tuple[str, int]:
        here = self.redirect.bindings[node.name].here
        return here.network, here.port

    @property
    def refused(self) -> dict[str, int]:
        return dict(self.watcher.refusals.counts)


def data(source: Mac, src: IPv4Address | str, dst: IPv4Address | str = "10.1.0.5") -> bytes:
    return udp_frame(WLAN1.router_mac, source, IPv4Address(src), IPv4Address(dst), 4000, 5000, b"hello")


def arp(sha: Mac, spa: IPv4Address | str, tpa: IPv4Address | str, op: int = ARP_REQUEST, *,
        source: Mac | None = None) -> bytes:  # fmt: skip
    packet = Arp(op, sha, IPv4Address(spa).packed, bytes(6), IPv4Address(tpa).packed)
    return pack_ethernet(b"\xff" * 6, source or sha, 0x0806, pack_arp(packet))


def rarp(mac: Mac) -> bytes:
    """What QEMU announces a machine by that has just arrived."""
    return pack_ethernet(b"\xff" * 6, mac, 0x8035, pack_arp(Arp(3, mac, bytes(4), mac, bytes(4))))


def dhcp(kind: MessageType, mac: Mac, *, wanted: str | None = None, server: Network | None = None,
         ciaddr: str | None = None) -> Dhcp:  # fmt: skip
    chosen = {OPTION_MESSAGE_TYPE: bytes([kind])}
    if wanted:
        chosen[OPTION_REQUESTED_IP] = IPv4Address(wanted).packed
    if server:
        chosen[OPTION_SERVER_ID] = server.gateway.packed
    return Dhcp(BOOTREQUEST, 7, mac, ciaddr=IPv4Address(ciaddr) if ciaddr else ZERO, options=chosen)


def dhcp_frame(message: Dhcp) -> bytes:
    return client_frame(message)
