"""The DHCP server (RFC 2131): who gets which address, in which network, and who is refused."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from followme.config.openflow import DhcpSection
from followme.domain import Network, Node
from followme.mobility.dhcp import DECLINED_S, FULL_S, OFFER_S, DhcpResult, DhcpServer
from followme.mobility.locations import LocationManager
from followme.packets import OPTION_CLIENT_ID, OPTION_DNS, OPTION_ROUTER, OPTION_SUBNET_MASK, Dhcp, MessageType
from followme.packets.dhcp import parse_dhcp
from followme.store import Store

from .world import ALICE, BOB, DC1, NETWORKS, POOLS, STRANGER, WLAN1, WLAN2, dhcp, pool

DISCOVER, REQUEST, DECLINE, RELEASE, INFORM = (
    MessageType.DISCOVER, MessageType.REQUEST, MessageType.DECLINE, MessageType.RELEASE, MessageType.INFORM,
)  # fmt: skip
NEW, OTHER = STRANGER, bytes([2, 0, 0, 0, 0, 0x77])


class Server:
    """The server with alice and bob known; who is attached becomes known, as the watcher sees to it."""

    def __init__(self, store: Store | None = None, pools: dict[str, DhcpSection] | None = None) -> None:
        self.now = 1000.0
        self.store = store or Store(":memory:")
        self.locations = LocationManager(NETWORKS, {})
        for node in (ALICE, BOB, *self.store.nodes()):
            self.locations.add(node)
        self.dhcp = DhcpServer(NETWORKS, pools or POOLS, self.locations, self.store, lambda: self.now)

    def handle(self, where: Network, message: Dhcp, source: bytes | None = None) -> DhcpResult:
        result = self.dhcp.handle(where, source or message.chaddr, message)
        if result.attached is not None and result.fresh:
            self.locations.add(result.attached)
            self.store.put_node(result.attached)
        return result

    def lease(self, where: Network, mac: bytes) -> Node:
        """DISCOVER and REQUEST; the node that has its address then."""
        offer = said(self.handle(where, dhcp(DISCOVER, mac)))
        result = self.handle(where, dhcp(REQUEST, mac, wanted=str(offer.yiaddr), server=where))
        assert result.attached is not None
        return result.attached

    def expire(self) -> list[bytes]:
        gone = self.dhcp.expired()
        for mac in gone:
            self.store.delete_lease(mac)
            self.dhcp.forget(mac)
            node = self.locations.node(mac)
            if node is not None and node not in (ALICE, BOB):
                self.locations.remove(node.name)
        return gone


def said(result: DhcpResult) -> Dhcp:
    assert result.reply is not None, result.refused
    return parse_dhcp(result.reply[42:])


@pytest.fixture
def server() -> Server:
    return Server()


def test_a_known_user_keeps_its_address_and_its_homes_mask_and_gateway_in_a_visited_network(server: Server) -> None:
    offer = said(server.handle(WLAN2, dhcp(DISCOVER, ALICE.mac)))
    assert (offer.message_type, offer.yiaddr) == (MessageType.OFFER, ALICE.address)
    result = server.handle(WLAN2, dhcp(REQUEST, ALICE.mac, wanted="10.3.0.10", server=WLAN2))
    ack = said(result)
    assert (ack.message_type, ack.yiaddr, ack.lease_time_s) == (MessageType.ACK, ALICE.address, 600)
    assert ack.options[OPTION_ROUTER] == WLAN1.gateway.packed
    assert ack.options[OPTION_SUBNET_MASK] == IPv4Address("255.255.255.0").packed
    assert ack.server_id == WLAN2.gateway, "renewals come to the network where it is"
    assert (result.attached, result.fresh, result.refused) == (ALICE, False, None)


def test_a_user_that_is_not_known_gets_an_address_of_the_pool_and_is_known_from_then_on(server: Server) -> None:
    node = server.lease(WLAN1, NEW)
    assert (str(node.address), node.home, node.mac) == ("10.3.0.20", "wlan1", NEW)
    (lease,) = server.store.leases()
    assert (lease.mac, lease.identifier, lease.expires_at) == (NEW, node.identifier, 1600.0)
    assert server.lease(WLAN2, NEW) == node, "and keeps it when it moves"


def test_a_lease_is_renewed(server: Server) -> None:
    node = server.lease(WLAN1, NEW)
    server.now += 500
    ack = said(server.handle(WLAN1, dhcp(REQUEST, NEW, ciaddr=str(node.address))))
    assert ack.message_type is MessageType.ACK
    server.now += 500
    assert server.expire() == []
    server.now += 100
    assert server.expire() == [NEW]
    assert server.store.leases() == ()


def test_a_client_that_reboots_asks_for_what_it_had(server: Server) -> None:
    node = server.lease(WLAN1, NEW)
    result = server.handle(WLAN2, dhcp(REQUEST, NEW, wanted=str(node.address)))  # INIT-REBOOT: no server named
    assert said(result).message_type is MessageType.ACK
    assert result.attached == node


@pytest.mark.parametrize(
    ("wanted", "why"),
    [("10.3.0.11", "which is bob's"), ("10.3.0.77", "which is not its own"), ("192.0.2.1", "which is not its own")],
)
@pytest.mark.parametrize("mac", [ALICE.mac, NEW])
def test_a_request_for_an_address_that_is_not_ones_own_gets_a_nak(
    server: Server, mac: bytes, wanted: str, why: str
) -> None:
    result = server.handle(WLAN1, dhcp(REQUEST, mac, wanted=wanted))
    assert said(result).message_type is MessageType.NAK
    assert result.refused == f"asks by DHCP for {wanted}, {why}"
    assert result.attached is None
    assert server.store.leases() == ()


@pytest.mark.parametrize("kind", [DISCOVER, REQUEST, RELEASE, DECLINE, INFORM])
def test_a_message_in_another_hardware_addresss_name_is_refused(server: Server, kind: MessageType) -> None:
    result = server.handle(WLAN1, dhcp(kind, ALICE.mac, wanted="10.3.0.10", ciaddr="10.3.0.10"), source=NEW)
    assert result == DhcpResult(refused="asks by DHCP in another hardware address's name")


def test_a_relay_agent_is_refused(server: Server) -> None:
    message = dhcp(DISCOVER, NEW)
    relayed = Dhcp(message.op, message.xid, NEW, giaddr=IPv4Address("10.9.9.9"), options=message.options)
    result = server.handle(WLAN1, relayed)
    assert result.reply is None
    assert "relay agent, 10.9.9.9" in (result.refused or "")


def test_a_request_to_another_server_is_left_to_it(server: Server) -> None:
    assert server.handle(WLAN1, dhcp(REQUEST, NEW, wanted="10.3.0.20", server=DC1)) == DhcpResult()


def test_a_network_without_a_pool_says_nothing(server: Server) -> None:
    assert server.handle(DC1, dhcp(DISCOVER, NEW)) == DhcpResult()


def test_a_pool_that_is_used_up_says_so_and_has_room_again_when_offers_expire(server: Server) -> None:
    macs = [bytes([2, 0, 0, 0, 1, number]) for number in range(3)]
    offers = [said(server.handle(WLAN2, dhcp(DISCOVER, mac))).yiaddr for mac in macs[:2]]
    assert len(set(offers)) == 2
    result = server.handle(WLAN2, dhcp(DISCOVER, macs[2]))
    assert result.reply is None
    assert result.refused == "asks for an address, but wlan2's pool 10.4.0.20 to 10.4.0.21 has none left"
    refused = server.handle(WLAN2, dhcp(REQUEST, macs[2], wanted=str(offers[0])))
    assert said(refused).message_type is MessageType.NAK, "what is offered to one is not given to another"
    server.now += OFFER_S + FULL_S
    assert said(server.handle(WLAN2, dhcp(DISCOVER, macs[2]))).yiaddr in offers


def test_who_asks_twice_is_offered_the_same(server: Server) -> None:
    first = said(server.handle(WLAN1, dhcp(DISCOVER, NEW))).yiaddr
    said(server.handle(WLAN1, dhcp(DISCOVER, OTHER)))
    assert said(server.handle(WLAN1, dhcp(DISCOVER, NEW))).yiaddr == first


def test_a_free_address_that_is_asked_for_is_given(server: Server) -> None:
    assert str(said(server.handle(WLAN1, dhcp(DISCOVER, NEW, wanted="10.3.0.22"))).yiaddr) == "10.3.0.22"
    assert str(said(server.handle(WLAN1, dhcp(DISCOVER, OTHER, wanted="10.3.0.99"))).yiaddr) == "10.3.0.20"


def test_an_address_that_a_client_found_in_use_is_kept_back_for_a_while(server: Server) -> None:
    node = server.lease(WLAN1, NEW)
    assert server.handle(WLAN1, dhcp(DECLINE, NEW, wanted=str(node.address))) == DhcpResult()
    assert server.expire() == [NEW], "the client has no address now"
    assert said(server.handle(WLAN1, dhcp(DISCOVER, NEW))).yiaddr != node.address
    server.now += DECLINED_S + 1
    server.expire()
    assert str(said(server.handle(WLAN1, dhcp(DISCOVER, OTHER, wanted=str(node.address)))).yiaddr) == "10.3.0.20"


def test_nobody_declines_what_was_not_given_to_it(server: Server) -> None:
    for number in range(1, 200):
        result = server.handle(WLAN1, dhcp(DECLINE, NEW, wanted=f"10.3.0.{number}"))
        assert "which it was not given" in (result.refused or "")
    assert server.dhcp._offers == {}, "a stranger fills no table"
    assert str(server.lease(WLAN1, OTHER).address) == "10.3.0.20"


def test_a_release_gives_the_address_back(server: Server) -> None:
    node = server.lease(WLAN1, NEW)
    refused = server.handle(WLAN1, dhcp(RELEASE, NEW, ciaddr="10.3.0.10"))
    assert refused.refused == "releases 10.3.0.10, which is not its own"
    assert server.handle(WLAN1, dhcp(RELEASE, NEW, ciaddr=str(node.address))).released == node
    assert server.expire() == [NEW], "so that its place, its locators and its rules go as well"
    assert str(said(server.handle(WLAN1, dhcp(DISCOVER, OTHER, wanted="10.3.0.20"))).yiaddr) == "10.3.0.20"


def test_who_asks_again_behind_its_release_keeps_its_address(server: Server) -> None:
    node = server.lease(WLAN1, NEW)
    server.handle(WLAN1, dhcp(RELEASE, NEW, ciaddr=str(node.address)))
    assert server.lease(WLAN1, NEW) == node
    assert server.expire() == []


def test_leases_survive_a_restart(server: Server) -> None:
    node = server.lease(WLAN1, NEW)
    later = Server(server.store)
    later.now += 601
    assert later.dhcp._leases[NEW].identifier == node.identifier
    again = Server(server.store)
    assert said(again.handle(WLAN1, dhcp(DISCOVER, OTHER, wanted=str(node.address)))).yiaddr != node.address
    assert again.lease(WLAN2, NEW) == node
    again.now += 601
    assert again.expire() == [NEW]


def test_inform_gets_the_networks_options_and_no_lease() -> None:
    pools = {"wlan1": DhcpSection.model_validate(
        {"first": "10.3.0.20", "last": "10.3.0.23", "dns": ["192.0.2.53"]})}  # fmt: skip
    ack = said(Server(pools=pools).handle(WLAN1, dhcp(INFORM, ALICE.mac, ciaddr="10.3.0.10")))
    assert ack.options[OPTION_DNS] == IPv4Address("192.0.2.53").packed
    assert (ack.message_type, ack.lease_time_s, ack.yiaddr) == (MessageType.ACK, None, IPv4Address(0))


@pytest.mark.parametrize("kind", [MessageType.OFFER, MessageType.ACK, MessageType.NAK])
def test_what_only_servers_say_is_refused(server: Server, kind: MessageType) -> None:
    result = server.handle(WLAN1, dhcp(kind, NEW))
    assert result.reply is None
    assert "that no client sends" in (result.refused or "")


def test_users_get_an_address_of_each_network_if_the_config_says_so() -> None:
    server = Server(pools={**POOLS, "wlan2": pool("10.4.0.20", "10.4.0.21", keep_address=False)})
    node = server.lease(WLAN2, ALICE.mac)
    assert (node.name, str(node.address), node.home) == ("alice", "10.4.0.20", "wlan2")


def test_the_gateway_is_not_leased_although_it_lies_in_the_pool() -> None:
    server = Server(pools={"wlan1": pool("10.3.0.1", "10.3.0.2")})
    assert str(server.lease(WLAN1, NEW).address) == "10.3.0.2"
    assert server.handle(WLAN1, dhcp(DISCOVER, OTHER)).refused is not None


def test_a_client_identifier_is_sent_back(server: Server) -> None:
    message = dhcp(DISCOVER, NEW)
    message = Dhcp(message.op, message.xid, NEW, options={**message.options, OPTION_CLIENT_ID: b"\x01abc"})
    assert said(server.handle(WLAN1, message)).client_id == b"\x01abc"


def test_a_controller_whose_clock_is_ahead_takes_no_lease_away(server: Server) -> None:
    node = server.lease(WLAN1, NEW)
    ahead = Server(server.store)
    ahead.now = server.now + 3600
    assert list(ahead.dhcp.prolong()) == [NEW]
    assert ahead.expire() == []
    assert ahead.lease(WLAN1, OTHER).address != node.address
    again = Server(server.store)
    again.now = ahead.now + POOLS[WLAN1.name].lease_s - 1
    list(again.dhcp.prolong())
    assert again.expire() == [], "nor does the one after it"
    ahead.now += POOLS[WLAN1.name].lease_s + 1
    assert NEW in ahead.expire()
