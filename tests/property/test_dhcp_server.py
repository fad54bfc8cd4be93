"""Whatever clients say in whatever order: no address is ever held by two of them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from followme.config.openflow import DhcpSection
from followme.domain import Network, NetworkKind, Node, NodeKind
from followme.mobility.dhcp import DhcpResult, DhcpServer
from followme.mobility.locations import LocationManager, usable
from followme.packets import BOOTREQUEST, ZERO, Dhcp, MessageType
from followme.packets.dhcp import OPTION_MESSAGE_TYPE, OPTION_REQUESTED_IP, OPTION_SERVER_ID, parse_dhcp
from followme.store import Store


def network(name: str, number: int) -> Network:
    prefix = IPv4Network(f"10.{number}.0.0/24")
    router, locators = bytes([2, 0xAA, 0, 0, 0, number]), IPv4Network(f"10.{number}.0.128/25")
    return Network(name, NetworkKind.ACCESS, number, 1, router, prefix, prefix, prefix[1], locators)


NETWORKS = {"one": network("one", 1), "two": network("two", 2)}
POOLS = {
    # two and three addresses; the first pool's range holds the gateway
    "one": DhcpSection.model_validate({"first": "10.1.0.1", "last": "10.1.0.3"}),
    "two": DhcpSection.model_validate({"first": "10.2.0.5", "last": "10.2.0.7", "keep_address": False}),
}
STATIC = Node("static", NodeKind.USER, bytes([2, 0, 0, 0, 0, 0]), IPv4Address("10.1.0.3"), IPv4Address("10.1.0.3"),
              "one")  # fmt: skip
MACS = [bytes([2, 0, 0, 0, 0, number]) for number in range(5)]
ADDRESSES = [IPv4Address(f"10.{n}.0.{host}") for n in (1, 2) for host in range(9)]

macs = st.sampled_from(MACS)
addresses = st.none() | st.sampled_from(ADDRESSES)


class Clients(RuleBasedStateMachine):
    """Five clients, four free addresses, two networks; ``held`` is what each was last acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.store = Store(":memory:")
        self.store.put_node(STATIC)
        self.start()
        self.offers: dict[bytes, IPv4Address] = {}
        self.held: dict[bytes, IPv4Address] = {STATIC.mac: STATIC.address}

    def start(self) -> None:
        self.locations = LocationManager(NETWORKS, {})
        for node in self.store.nodes():
            self.locations.add(node)
        self.server = DhcpServer(NETWORKS, POOLS, self.locations, self.store, lambda: self.now)

    @rule(where=st.sampled_from(sorted(NETWORKS)), kind=st.sampled_from(MessageType), mac=macs,
          source=st.none() | macs, wanted=addresses, ciaddr=addresses, server=addresses,
          take_offer=st.booleans())  # fmt: skip
    def say(self, where: str, kind: MessageType, mac: bytes, source: bytes | None, wanted: IPv4Address | None,
            ciaddr: IPv4Address | None, server: IPv4Address | None, take_offer: bool) -> None:  # fmt: skip
        if kind is MessageType.REQUEST and take_offer and mac in self.offers:
            wanted, ciaddr, server, source = self.offers[mac], None, None, None
        options = {OPTION_MESSAGE_TYPE: bytes([kind])}
        if wanted is not None:
            options[OPTION_REQUESTED_IP] = wanted.packed
        if server is not None:
            options[OPTION_SERVER_ID] = server.packed
        message = Dhcp(BOOTREQUEST, 1, mac, ciaddr=ciaddr or ZERO, options=options)
        result = self.server.handle(NETWORKS[where], source or mac, message)
        if source is not None and source != mac:
            assert result.reply is None
            assert result.attached is None
            assert result.refused is not None
        self.note(mac, result)

    def note(self, mac: bytes, result: DhcpResult) -> None:
        answer = parse_dhcp(result.reply[42:]) if result.reply else None
        node = result.attached
        if node is not None:
            assert answer is not None
            assert answer.message_type is MessageType.ACK
            assert answer.yiaddr == node.address
            assert node.mac == mac
            assert mac == STATIC.mac or usable(NETWORKS[node.home], node.address)
            if result.fresh:
                self.locations.add(node)
                self.store.put_node(node)
            self.held[mac] = node.address
        elif answer is not None and answer.message_type is MessageType.OFFER:
            assert answer.yiaddr not in [address for other, address in self.held.items() if other != mac]
            self.offers[mac] = answer.yiaddr

    @rule(seconds=st.sampled_from([1.0, 61.0, 601.0, 3601.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for mac in self.server.expired():
            self.store.delete_lease(mac)
            self.server.forget(mac)
            node = self.locations.node(mac)
            if node is not None and mac != STATIC.mac:
                self.locations.remove(node.name)
                self.store.delete_node(node.name)
                del self.held[mac]

    @rule()
    def restart(self) -> None:
        """Offers are forgotten, leases are not."""
        self.start()

    @invariant()
    def no_address_has_two_holders(self) -> None:
        assert len(set(self.held.values())) == len(self.held)
        leased = [lease.identifier for lease in self.store.leases()]
        assert len(set(leased)) == len(leased)

    @invariant()
    def tables_are_bounded_by_the_pools(self) -> None:
        assert len(self.server._offers) <= 6
        assert len(self.server._leases) <= len(MACS)


TestClients = Clients.TestCase
TestClients.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
