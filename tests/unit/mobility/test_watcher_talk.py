"""The watcher: what it answers (ARP, DHCP), and how correspondents learn where a node is."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import pytest

from followme.continuity.pipeline import Table
from followme.mobility import correspondents
from followme.mobility import watcher as module
from followme.openflow import FlowMod, PacketOut
from followme.packets import ARP_REPLY, OPTION_CLIENT_ID, Dhcp, MessageType

from .world import (
    ALICE,
    ALICE_PORT,
    BOB,
    BOB_PORT,
    DC1,
    DC2,
    OTHER_VM,
    STRANGER,
    UPLINK,
    VM,
    VM_PORT,
    WLAN1,
    WLAN2,
    World,
    arp,
    data,
    dhcp,
    dhcp_frame,
)

DISCOVER, REQUEST = MessageType.DISCOVER, MessageType.REQUEST


# ---- ARP


async def test_a_host_is_told_its_gateway_on_its_own_port(world: World) -> None:
    world.packet_in(WLAN1, ALICE_PORT, arp(ALICE.mac, ALICE.address, WLAN1.gateway))
    (reply,) = world.arps(WLAN1, ALICE_PORT)
    assert (reply.sha, reply.sender, reply.tha) == (WLAN1.router_mac, WLAN1.gateway, ALICE.mac)


async def test_a_host_that_moved_is_told_the_gateway_of_its_home(world: World) -> None:
    world.port_gone(WLAN1, ALICE_PORT)
    world.packet_in(WLAN2, 8, arp(ALICE.mac, ALICE.address, WLAN1.gateway))
    await world.settle()
    (reply,) = world.arps(WLAN2, 8)
    assert (reply.sha, reply.sender) == (WLAN1.router_mac, WLAN1.gateway)
    assert world.place(ALICE) == ("wlan2", 8)


async def test_the_router_is_told_who_has_an_identifier_or_a_locator(world: World) -> None:
    world.redirect.move("alice", "wlan2", 8, [])
    world.recorder.sent.clear()
    for where, address in ((WLAN1, "10.3.0.10"), (WLAN2, "10.4.0.128"), (WLAN2, "10.4.0.129")):
        world.packet_in(where, UPLINK, arp(where.router_mac, where.router, address))
    assert [reply.sha for reply in world.arps(WLAN1, UPLINK)] == [ALICE.mac]
    assert [reply.sha for reply in world.arps(WLAN2, UPLINK)] == [ALICE.mac]


@pytest.mark.parametrize(
    ("port", "frame", "kind"),
    [
        # from the uplink, somebody who is not the router claims the gateway's address, or alice's
        (UPLINK, arp(STRANGER, "10.3.0.1", "10.3.0.10"), "router"),
        (UPLINK, arp(STRANGER, "10.3.0.10", "10.3.0.1", ARP_REPLY), "router"),
        # from a host's port
        (9, arp(STRANGER, "10.3.0.10", "10.3.0.1"), "arp"),
        (9, arp(STRANGER, "10.3.0.1", "10.3.0.10", ARP_REPLY), "arp"),
        (9, arp(STRANGER, "10.3.0.77", "10.3.0.1"), "arp"),
        (BOB_PORT, arp(BOB.mac, "10.3.0.10", "10.3.0.10"), "arp"),
        (BOB_PORT, arp(BOB.mac, "10.3.0.1", "10.3.0.10", ARP_REPLY), "address"),
        (BOB_PORT, arp(ALICE.mac, "10.3.0.10", "10.3.0.1", source=BOB.mac), "arp"),
        (BOB_PORT, arp(ALICE.mac, "10.3.0.11", "10.3.0.1", source=BOB.mac), "arp"),
    ],
)
async def test_a_claim_by_arp_is_refused_counted_logged_and_without_effect(
    world: World, caplog: pytest.LogCaptureFixture, port: int, frame: bytes, kind: str
) -> None:
    places = dict(world.redirect.bindings)
    world.packet_in(WLAN1, port, frame)
    await world.settle()
    assert world.refused == {kind: 1}
    assert f"refused ({kind})" in caplog.text
    assert world.recorder.sent == [], "the victim hears nothing of it"
    assert world.redirect.bindings == places


# ---- DHCP


async def test_an_unknown_user_gets_an_address_and_is_attached(world: World) -> None:
    world.packet_in(WLAN2, 8, dhcp_frame(dhcp(DISCOVER, STRANGER)))
    (offer,) = world.dhcps(WLAN2, 8)
    world.packet_in(WLAN2, 8, dhcp_frame(dhcp(REQUEST, STRANGER, wanted=str(offer.yiaddr), server=WLAN2)))
    assert [one.message_type for one in world.dhcps(WLAN2, 8)] == [MessageType.OFFER, MessageType.ACK]
    (attachment,) = world.attachments
    assert (attachment.node, attachment.network, attachment.port) == (f"user-{STRANGER.hex()}", "wlan2", 8)
    world.packet_in(WLAN2, 8, data(STRANGER, offer.yiaddr))
    assert len(world.again(WLAN2)) == 1
    assert attachment.node in {node.name for node in world.store.nodes()}


async def test_a_known_user_moves_by_its_dhcp_exchange_and_keeps_its_address(world: World) -> None:
    world.port_gone(WLAN1, ALICE_PORT)
    world.packet_in(WLAN2, 8, dhcp_frame(dhcp(DISCOVER, ALICE.mac)))
    await world.settle()
    assert world.attachments == [], "it has not taken the address yet"
    world.packet_in(WLAN2, 8, dhcp_frame(dhcp(REQUEST, ALICE.mac, wanted="10.3.0.10", server=WLAN2)))
    await world.settle()
    assert [one.yiaddr for one in world.dhcps(WLAN2, 8)] == [ALICE.address] * 2
    assert world.place(ALICE) == ("wlan2", 8)


async def test_a_renewal_at_the_same_place_is_no_move(world: World) -> None:
    world.packet_in(WLAN1, ALICE_PORT, dhcp_frame(dhcp(REQUEST, ALICE.mac, ciaddr="10.3.0.10")))
    assert [one.message_type for one in world.dhcps(WLAN1, ALICE_PORT)] == [MessageType.ACK]
    assert world.attachments == []


async def test_who_asks_for_somebody_elses_address_is_refused(world: World) -> None:
    world.packet_in(WLAN1, 9, dhcp_frame(dhcp(REQUEST, STRANGER, wanted="10.3.0.10")))
    assert [one.message_type for one in world.dhcps(WLAN1, 9)] == [MessageType.NAK]
    assert world.refused == {"dhcp": 1}
    assert world.place(ALICE) == ("wlan1", ALICE_PORT)


async def test_a_relayed_message_and_one_whose_answer_does_not_fit_harm_nobody(world: World) -> None:
    plain = dhcp(DISCOVER, STRANGER)
    relayed = Dhcp(plain.op, 1, STRANGER, giaddr=IPv4Address("10.9.9.9"), options=plain.options)
    world.packet_in(WLAN1, 9, dhcp_frame(relayed))
    assert world.refused == {"dhcp": 1}
    long = Dhcp(plain.op, 1, STRANGER, options={**plain.options, OPTION_CLIENT_ID: bytes(1195)})
    world.packet_in(WLAN1, 9, dhcp_frame(long))
    assert world.watcher.counts["malformed"] == 1
    assert world.recorder.sent == []


async def test_pools_that_strangers_use_up_are_still_there_for_those_who_have_an_address(world: World) -> None:
    for number in range(200):
        mac = b"\x02\x01\0\0\0" + bytes([number])
        world.packet_in(WLAN2, 8, dhcp_frame(dhcp(DISCOVER, mac)))
        world.packet_in(WLAN2, 8, dhcp_frame(dhcp(REQUEST, mac, wanted="10.4.0.20")))
    assert len(world.redirect.bindings) <= 4 + 2
    assert world.refused["dhcp"] > 300
    world.port_gone(WLAN1, ALICE_PORT)
    world.recorder.sent.clear()
    world.packet_in(WLAN2, 7, dhcp_frame(dhcp(REQUEST, ALICE.mac, wanted="10.3.0.10")))
    await world.settle()
    assert [one.message_type for one in world.dhcps(WLAN2, 7)] == [MessageType.ACK]


# ---- intercept, tell, release


async def away(world: World) -> None:
    """The machine has been carried to dc2, and nobody was told."""
    await world.redirect.prepare("vm", "dc2", VM_PORT, [])
    world.redirect.switch("vm")
    world.redirect.release("vm")
    world.recorder.sent.clear()


def speak(world: World, to: str, count: int = 1) -> None:
    """The machine's packets to ``to``, as the foreign switch shows them."""
    for _ in range(count):
        world.packet_in(DC2, VM_PORT, data(VM.mac, VM.address, to), Table.EGRESS)


async def test_a_correspondent_learns_before_the_packet_goes_on(world: World) -> None:
    await away(world)
    world.recorder.hold(WLAN2.datapath)
    speak(world, "10.4.0.20", count=3)
    await asyncio.sleep(0)
    assert {datapath for datapath, _ in world.recorder.sent} == {WLAN2.datapath}
    assert world.again(DC2) == []
    world.recorder.confirm(WLAN2.datapath)
    await world.settle()
    order = [(datapath, type(message)) for datapath, message in world.recorder.sent]
    correspondent = max(index for index, one in enumerate(order) if one == (WLAN2.datapath, FlowMod))
    foreign = min(index for index, one in enumerate(order) if one == (DC2.datapath, FlowMod))
    packet = min(index for index, one in enumerate(order) if one == (DC2.datapath, PacketOut))
    assert correspondent < foreign < packet
    assert len(world.again(DC2)) == 3
    assert world.watcher.correspondents._parked == {}


async def test_packets_that_wait_for_a_correspondent_are_bounded(world: World) -> None:
    await away(world)
    world.recorder.hold(WLAN2.datapath)
    speak(world, "10.4.0.20", count=correspondents.MAX_PARKED + 36)
    assert world.watcher.counts["parked packets dropped"] == 36
    world.recorder.confirm(WLAN2.datapath)
    await world.settle()
    assert len(world.again(DC2)) == correspondents.MAX_PARKED


async def test_packets_to_a_correspondent_that_does_not_confirm_are_not_sent_around(world: World) -> None:
    await away(world)
    world.recorder.gone = {WLAN2.datapath}
    speak(world, "10.4.0.20", count=2)
    await world.settle()
    assert world.again(DC2) == []
    assert world.watcher.counts["parked packets dropped"] == 2
    world.recorder.gone = set()
    speak(world, "10.4.0.20")
    await world.settle()
    assert len(world.again(DC2)) == 1, "the next packet tells again"


async def test_a_packet_that_comes_while_somebody_else_tells_waits_as_well(world: World) -> None:
    await away(world)
    world.recorder.hold(WLAN2.datapath)
    telling = asyncio.ensure_future(world.redirect.tell("vm", "wlan2"))
    await asyncio.sleep(0)
    speak(world, "10.4.0.20")
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.again(DC2) == [], "the way is not open yet: it would come back at once"
    world.recorder.confirm(WLAN2.datapath)
    await telling
    await world.settle()
    assert len(world.again(DC2)) == 1


async def test_too_much_work_drops_the_packet_and_blocks_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await away(world)
    monkeypatch.setattr(module, "MAX_TASKS", 0)
    speak(world, "10.4.0.20")
    assert world.watcher.counts["events dropped"] == 1
    monkeypatch.undo()
    speak(world, "10.4.0.20")
    await world.settle()
    assert len(world.again(DC2)) == 1


@pytest.mark.parametrize("target", ["192.0.2.1", "10.2.0.1", "10.2.0.77"])
async def test_packets_to_outside_or_to_the_visited_network_itself_pass_and_do_not_loop(
    world: World, target: str
) -> None:
    await away(world)
    speak(world, target)
    await world.settle()
    ((datapath, mod), (_, packet)) = world.recorder.sent
    assert isinstance(mod, FlowMod)
    assert isinstance(packet, PacketOut)
    assert (datapath, mod.table_id, mod.match.ipv4_dst) == (DC2.datapath, Table.EGRESS, IPv4Address(target))
    assert mod.idle_timeout > 0
    told = world.redirect.bindings["vm"].told
    assert told == frozenset()


async def test_a_packet_from_where_the_node_is_not_any_more_is_dropped(world: World) -> None:
    await away(world)
    world.packet_in(WLAN2, VM_PORT, data(VM.mac, VM.address, "10.3.0.10"), Table.EGRESS)
    world.packet_in(DC2, VM_PORT, data(STRANGER, VM.address, "10.3.0.10"), Table.EGRESS)
    await world.settle()
    assert world.recorder.sent == []


# ---- the home switch reports


async def test_the_network_of_a_peer_that_does_not_know_the_locator_is_told(world: World) -> None:
    await away(world)
    copy = data(WLAN1.router_mac, ALICE.identifier, VM.identifier)
    for _ in range(5):
        world.packet_in(DC1, UPLINK, copy, Table.FORWARD)
    assert not world.redirect.bindings["vm"].watched, "the home switch is silenced for a while"
    await world.settle()
    assert world.redirect.bindings["vm"].told == {"wlan1"}
    assert world.recorder.agrees_with(world.ledger)


async def test_a_peer_that_has_moved_itself_is_told_where_it_is(world: World) -> None:
    await away(world)
    world.redirect.move("alice", "wlan2", 8, [])
    for source in ("10.3.0.10", "10.4.0.128"):
        world.packet_in(DC1, UPLINK, data(DC1.router_mac, source, VM.identifier), Table.FORWARD)
        await world.settle()
        assert world.redirect.bindings["vm"].told == {"wlan2"}
        world.redirect.watch("vm", True)


async def test_peers_beyond_our_edges_and_packets_for_nobody_tell_nobody(world: World) -> None:
    await away(world)
    world.packet_in(DC1, UPLINK, data(DC1.router_mac, "192.0.2.1", VM.identifier), Table.FORWARD)
    world.packet_in(DC1, UPLINK, data(DC1.router_mac, ALICE.identifier, "10.1.0.99"), Table.FORWARD)
    world.packet_in(DC1, UPLINK, data(DC1.router_mac, ALICE.identifier, "192.0.2.1"), Table.FORWARD)
    await world.settle()
    assert world.redirect.bindings["vm"].told == frozenset()


async def test_a_neighbour_in_the_visited_network_reaches_the_machine_without_the_detour(world: World) -> None:
    await away(world)
    world.packet_in(DC1, UPLINK, data(DC1.router_mac, OTHER_VM.identifier, VM.identifier), Table.FORWARD)
    await world.settle()
    assert world.redirect.bindings["vm"].told == {"dc2"}
    assert any(mod.table_id == Table.FORWARD and mod.match.ipv4_dst == VM.identifier
               for mod in world.recorder.tables[DC2.datapath].entries.values())  # fmt: skip


async def test_a_handler_that_fails_is_logged_and_the_rest_goes_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("no disk")

    world.watcher._attached = fails
    world.port_gone(WLAN1, ALICE_PORT)
    world.packet_in(WLAN2, 8, data(ALICE.mac, ALICE.address))
    await world.settle()
    await asyncio.sleep(0)
    assert "handling a packet failed" in caplog.text
    world.packet_in(WLAN2, 8, data(ALICE.mac, ALICE.address))
    assert len(world.again(WLAN2)) == 1
