"""The watcher: who is believed to have moved, who arrives, and who is refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from followme.domain import Network, Placement
from followme.mobility import watcher as module
from followme.openflow import Message, Output, Port
from followme.openflow.constants import OFPP_TABLE
from followme.packets import ARP_REPLY, MessageType
from followme.packets.ethernet import pack_ethernet
from followme.store import StoreError

from .world import (
    ALICE,
    ALICE_PORT,
    BOB,
    BOB_PORT,
    DC1,
    DC2,
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
    rarp,
)


async def test_the_first_packet_of_a_known_host_gets_its_rule_and_goes_on_its_way(world: World) -> None:
    frame = data(ALICE.mac, ALICE.address)
    world.packet_in(WLAN1, ALICE_PORT, frame)
    (mod,) = world.recorder.flow_mods(WLAN1.datapath)
    assert (mod.match.in_port, mod.match.eth_src, mod.match.ipv4_src) == (ALICE_PORT, ALICE.mac, ALICE.address)
    (packet,) = world.again(WLAN1)
    assert (packet.data, packet.in_port, packet.actions) == (frame, ALICE_PORT, (Output(OFPP_TABLE),))
    assert world.refused == {}


async def test_a_packet_without_an_address_is_not_sent_around_for_ever(world: World) -> None:
    # no rule matches 0.0.0.0: what we send through the tables would come back to us
    world.packet_in(WLAN1, ALICE_PORT, data(ALICE.mac, "0.0.0.0"))
    assert world.again(WLAN1) == []


async def test_a_user_whose_old_port_is_gone_is_believed_at_once(world: World) -> None:
    world.port_gone(WLAN1, ALICE_PORT)
    frame = data(ALICE.mac, ALICE.address)
    world.packet_in(WLAN2, 8, frame)
    await world.settle()
    (attachment,) = world.attachments
    assert (attachment.node, attachment.network, attachment.port) == ("alice", "wlan2", 8)
    assert str(attachment.locator) == "10.4.0.128"
    assert world.store.placement("alice") == world.redirect.bindings["alice"].here
    assert [packet.data for packet in world.again(WLAN2)] == [frame]
    assert world.replies(WLAN1, ALICE_PORT) == [], "nobody needs to be asked"
    assert world.recorder.agrees_with(world.ledger)


async def test_a_user_who_does_not_answer_at_its_old_port_has_moved(world: World) -> None:
    world.packet_in(WLAN2, 8, data(ALICE.mac, ALICE.address))
    await world.settle()
    assert world.place(ALICE) == ("wlan2", 8)
    questions = world.arps(WLAN1, ALICE_PORT)
    assert {(one.sha, one.target) for one in questions} == {(WLAN1.router_mac, ALICE.address)}


async def test_a_user_who_still_answers_is_not_disturbed_by_who_claims_to_be_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    before = {datapath: table.content() for datapath, table in world.recorder.tables.items()}
    send = world.recorder.send

    def answering(datapath: int, messages: list[Message]) -> None:
        send(datapath, messages)
        if datapath == WLAN1.datapath:
            world.packet_in(WLAN1, ALICE_PORT, arp(ALICE.mac, ALICE.address, WLAN1.gateway, ARP_REPLY))

    world.recorder.send = answering  # type: ignore[method-assign,assignment]
    for frame in (data(ALICE.mac, ALICE.address), arp(ALICE.mac, ALICE.address, "10.3.0.1"),
                  dhcp_frame(dhcp(MessageType.DISCOVER, ALICE.mac)),
                  dhcp_frame(dhcp(MessageType.RELEASE, ALICE.mac, ciaddr="10.3.0.10"))):  # fmt: skip
        world.packet_in(WLAN2, 8, frame)
        await world.settle()
    assert world.refused == {"mac": 4}
    assert "claims to be alice, which still answers at wlan1 port 5" in caplog.text
    assert caplog.text.count("claims to be alice") == 1
    assert world.place(ALICE) == ("wlan1", ALICE_PORT)
    assert world.attachments == []
    assert world.replies(WLAN2, 8) == []
    assert {datapath: table.content() for datapath, table in world.recorder.tables.items()} == before


async def test_a_flood_of_claims_is_one_check(world: World) -> None:
    for _ in range(200):
        world.packet_in(WLAN2, 8, data(ALICE.mac, ALICE.address))
    await world.settle()
    assert len(world.arps(WLAN1, ALICE_PORT)) <= 2
    assert len(world.attachments) == 1


async def test_a_user_that_comes_home_goes_by_its_identifier_again(world: World) -> None:
    for where, port in ((WLAN2, 8), (WLAN1, ALICE_PORT)):
        world.port_gone(*((WLAN1, ALICE_PORT) if where is WLAN2 else (WLAN2, 8)))
        world.link(where, port, up=True)
        world.packet_in(where, port, data(ALICE.mac, ALICE.address))
        await world.settle()
    assert [str(one.locator) for one in world.attachments] == ["10.4.0.128", "10.3.0.10"]


async def test_a_user_without_a_known_port_is_believed_where_it_shows_up_first(world: World) -> None:
    carol = replace(ALICE, name="carol", mac=b"\x02\0\0\0\0\x55", address=WLAN1.prefix[12],
                    identifier=WLAN1.prefix[12])  # fmt: skip
    world.redirect.restore(carol, Placement("carol", "wlan1", 0, carol.identifier, 1))
    world.locations.add(carol)
    world.packet_in(WLAN1, 7, arp(carol.mac, carol.address, WLAN1.gateway))
    await world.settle()
    assert world.place(carol) == ("wlan1", 7)
    assert [reply.sha for reply in world.arps(WLAN1, 7)] == [WLAN1.router_mac]
    assert world.recorder.agrees_with(world.ledger)


async def test_a_network_without_locators_lets_nobody_in_and_says_so(world: World) -> None:
    def used_up(*args: object) -> None:
        raise StoreError("the pool of locators of wlan2 is used up")

    world.store.allocate_locator = used_up  # type: ignore[method-assign,assignment]
    world.port_gone(WLAN1, ALICE_PORT)
    world.packet_in(WLAN2, 8, data(ALICE.mac, ALICE.address))
    world.packet_in(WLAN2, 8, dhcp_frame(dhcp(MessageType.REQUEST, ALICE.mac, wanted="10.3.0.10")))
    await world.settle()
    assert world.refused == {"store": 2}
    assert world.place(ALICE) == ("wlan1", ALICE_PORT)
    assert world.again(WLAN2) == []
    assert world.replies(WLAN2, 8) == [], "no address is confirmed where it cannot be used"


async def test_a_node_may_be_forgotten_while_it_is_checked(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.packet_in(WLAN2, 8, data(ALICE.mac, ALICE.address))
    await asyncio.sleep(0)
    world.locations.remove("alice")
    world.redirect.forget("alice")
    await world.settle()
    assert "alice" not in world.redirect.bindings
    assert "failed" not in caplog.text


# ---- machines


async def prepared(world: World) -> None:
    await world.redirect.prepare("vm", "dc2", VM_PORT, ["wlan1"])


@pytest.mark.parametrize("announced_by", ["rarp", "data"])
async def test_a_machine_has_arrived_when_its_first_packet_is_seen(world: World, announced_by: str) -> None:
    frame = rarp(VM.mac) if announced_by == "rarp" else data(VM.mac, VM.address, "10.3.0.10")
    await prepared(world)
    world.packet_in(DC2, VM_PORT, frame)
    assert world.arrivals == [], "it may not be there before the flip"
    world.redirect.switch("vm")
    world.packet_in(DC2, VM_PORT, frame)
    world.packet_in(DC2, VM_PORT, frame)
    assert world.arrivals == [("vm", "dc2")]
    assert world.redirect.bindings["vm"].seen
    assert world.attachments == []


async def test_a_machine_that_is_expected_unprepared_is_believed_there_and_nowhere_else(world: World) -> None:
    world.watcher.expect("vm", "dc2", VM_PORT)
    world.packet_in(DC2, 7, rarp(VM.mac))
    await world.settle()
    assert world.refused == {"mac": 1}
    world.packet_in(DC2, VM_PORT, rarp(VM.mac))
    await world.settle()
    assert world.place(VM) == ("dc2", VM_PORT)
    assert [one.network for one in world.attachments] == ["dc2"]


@pytest.mark.parametrize("phase", ["prepared", "switched"])
async def test_nobody_takes_a_machines_place_while_it_is_carried(world: World, phase: str) -> None:
    await prepared(world)
    if phase == "switched":
        world.redirect.switch("vm")
    before = world.redirect.bindings["vm"]
    for frame in (rarp(VM.mac), data(VM.mac, VM.address), arp(VM.mac, VM.address, DC1.gateway)):
        world.packet_in(WLAN2, 8, frame)
        await world.settle()
    assert world.refused == {"mac": 3}
    assert world.redirect.bindings["vm"] == before


async def test_machines_do_not_ask_by_dhcp_elsewhere(world: World) -> None:
    world.packet_in(WLAN2, 8, dhcp_frame(dhcp(MessageType.DISCOVER, VM.mac)))
    await world.settle()
    assert world.refused == {"dhcp": 1}
    assert world.replies(WLAN2, 8) == []


# ---- ports


async def test_ports_that_no_node_uses_are_not_remembered(world: World) -> None:
    for port in range(100, 1100):
        world.port_gone(WLAN1, port)
    world.port_gone(WLAN1, ALICE_PORT)
    assert world.watcher._gone_ports == {("wlan1", ALICE_PORT)}
    world.link(WLAN1, ALICE_PORT, up=True)
    assert world.watcher._gone_ports == set()
    world.link(WLAN1, BOB_PORT, up=False)
    assert world.watcher._gone_ports == {("wlan1", BOB_PORT)}
    world.packet_in(WLAN2, 8, data(BOB.mac, BOB.address))
    await world.settle()
    world.port_gone(WLAN2, 77)
    assert world.watcher._gone_ports == set(), "the port that bob has left matters no more"


async def test_the_ports_that_a_switch_lists_when_it_connects_say_who_is_gone(world: World) -> None:
    world.port_gone(WLAN1, BOB_PORT)
    up = Port(BOB_PORT, bytes(6), "bob")
    world.watcher.ports(WLAN1, (Port(UPLINK, bytes(6), "up"), up))
    assert world.watcher._gone_ports == {("wlan1", ALICE_PORT)}


# ---- strangers


@pytest.mark.parametrize(
    ("where", "port", "frame", "kind"),
    [
        (WLAN1, 9, data(STRANGER, "10.3.0.77"), "stranger"),
        (WLAN1, 9, data(STRANGER, "10.3.0.10"), "claims_address"),
        (WLAN1, BOB_PORT, data(BOB.mac, "10.3.0.10"), "claims_address"),
        (WLAN1, 9, rarp(STRANGER), "stranger"),
        (WLAN1, BOB_PORT, data(BOB.mac, "10.3.0.1"), "address"),  # the gateway's
        (WLAN1, BOB_PORT, data(BOB.mac, "10.3.0.200"), "address"),  # a locator
        (WLAN1, BOB_PORT, data(BOB.mac, "192.0.2.1"), "address"),
        (DC1, VM_PORT, data(VM.mac, "10.1.0.9"), "address"),  # machines keep their address
    ],
)
async def test_who_uses_what_is_not_its_own_is_refused_and_nothing_changes(
    world: World, where: Network, port: int, frame: bytes, kind: str
) -> None:
    before = dict(world.redirect.bindings)
    world.packet_in(where, port, frame)
    await world.settle()
    assert world.refused == {kind: 1}
    assert world.recorder.sent == []
    assert world.redirect.bindings == before


async def test_a_user_with_a_new_address_of_its_network_is_known_by_it_from_then_on(world: World) -> None:
    world.packet_in(WLAN1, BOB_PORT, data(BOB.mac, "10.3.0.44"))
    await world.settle()
    assert world.redirect.bindings["bob"].node.address == WLAN1.prefix[44]
    assert world.locations.holder("wlan1", BOB.address) is None
    assert [str(one.locator) for one in world.attachments] == ["10.3.0.44"]
    assert world.recorder.agrees_with(world.ledger)


@pytest.mark.parametrize(
    "frame",
    [b"", b"short", bytes(13), pack_ethernet(b"\xff" * 6, ALICE.mac, 0x0800, b"\x45"),
     pack_ethernet(b"\xff" * 6, ALICE.mac, 0x0800, b"\x10" * 40),
     pack_ethernet(b"\xff" * 6, ALICE.mac, 0x0806, bytes(27)),
     dhcp_frame(dhcp(MessageType.DISCOVER, ALICE.mac))[:-200]],
    ids=["empty", "short", "13 bytes", "cut IPv4", "no IPv4", "cut ARP", "cut DHCP"],
)  # fmt: skip
async def test_a_malformed_frame_is_counted_and_dropped(world: World, frame: bytes) -> None:
    world.packet_in(WLAN1, ALICE_PORT, frame)
    await world.settle()
    assert world.watcher.counts["malformed"] == 1
    assert world.recorder.sent == []


async def test_other_protocols_are_passed_over(world: World) -> None:
    world.packet_in(WLAN1, ALICE_PORT, pack_ethernet(b"\xff" * 6, ALICE.mac, 0x86DD, bytes(40)))
    world.packet_in(WLAN1, UPLINK, rarp(VM.mac))
    assert world.recorder.sent == []
    assert world.refused == {}


async def test_probes_come_up_from_the_uplink(world: World) -> None:
    frame = data(WLAN1.router_mac, "10.1.0.254", "10.3.0.254")
    world.packet_in(WLAN1, UPLINK, frame)
    assert world.probes == [frame]


async def test_a_flood_of_work_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TASKS", 3)
    for _ in range(10):
        world.packet_in(WLAN2, 8, data(ALICE.mac, ALICE.address))
    assert len(world.watcher._tasks) == 3
    assert world.watcher.counts["events dropped"] == 7
    await world.settle()
    assert world.place(ALICE) == ("wlan2", 8)
