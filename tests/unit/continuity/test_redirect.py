"""The redirect, step by step: bindings, locators, the store and the switches agree after each."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from followme.continuity.ledger import Ledger
from followme.continuity.pipeline import Table
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import DatapathGone
from followme.domain import Node, NodeKind, Placement, mac_bytes
from followme.openflow import Match
from followme.store import Store, StoreError

from .fabric import network
from .recorder import Recorder

DC1, DC2, WLAN1, WLAN2 = (
    network("dc1", 1), network("dc2", 2), network("wlan1", 3, access=True), network("wlan2", 4, access=True),
)  # fmt: skip
NETWORKS = {one.name: one for one in (DC1, DC2, WLAN1, WLAN2)}
VM = Node("vm", NodeKind.MACHINE, mac_bytes("02:00:00:00:00:01"), IPv4Address("10.1.0.5"),
          IPv4Address("10.1.0.5"), "dc1", 2)  # fmt: skip
ALICE = Node("alice", NodeKind.USER, mac_bytes("02:00:00:00:00:02"), IPv4Address("10.3.0.10"),
             IPv4Address("10.3.0.10"), "wlan1")  # fmt: skip


class World:
    def __init__(self) -> None:
        self.recorder = Recorder(NETWORKS.values())
        self.store = Store(":memory:")
        self.ledger = Ledger(epoch=1)
        self.redirect = Redirect(NETWORKS, self.ledger, self.recorder.southbound, self.store)
        self.redirect.install_base()
        self.redirect.restore(VM, Placement("vm", "dc1", 2, VM.identifier, 1), ["wlan1"])
        self.redirect.adopt(ALICE, "wlan1", 5)

    def located(self, name: str = "vm") -> set[tuple[str, str]]:
        """All (network, address) under which the index finds the node."""
        return {(net.name, str(address)) for net in NETWORKS.values() for address in net.prefix
                if (found := self.redirect.locate(net.name, address)) and found.node.name == name}  # fmt: skip

    def locators(self) -> dict[tuple[str, str], str]:
        return {key: str(address) for key, address in self.store.locators().items()}


@pytest.fixture
def world() -> World:
    return World()


async def test_there_and_back_with_everything_right_after_each_step(world: World) -> None:
    redirect, home = world.redirect, ("dc1", "10.1.0.5")
    there = ("dc2", "10.2.0.128")
    arriving = await redirect.prepare("vm", "dc2", 2, ["wlan1"])
    assert (arriving.network, str(arriving.locator), arriving.version) == ("dc2", "10.2.0.128", 2)
    assert world.located() == {home, there}
    assert world.store.placement("vm") is None, "it is still where it was"
    assert world.locators() == {("dc2", "vm"): "10.2.0.128"}
    assert redirect.switch("vm") == arriving
    assert world.store.placement("vm") == arriving
    assert world.located() == {home, there}
    (source,) = redirect.release("vm")
    assert source.network == "dc1"
    redirect.retire("vm", source)
    assert redirect.bindings["vm"].old == ()
    assert world.locators() == {("dc2", "vm"): "10.2.0.128"}

    back = await redirect.prepare("vm", "dc1", 2, [])
    assert str(back.locator) == "10.1.0.128", "until the flip its identifier leads to where it was"
    redirect.switch("vm")
    old = redirect.release("vm")
    assert {(place.network, str(place.locator)) for place in old} == {there, ("dc1", "10.1.0.128")}
    assert redirect.bindings["vm"].here.locator == VM.identifier
    placement = world.store.placement("vm")
    assert placement is not None
    assert placement.locator == VM.identifier
    for place in old:
        redirect.retire("vm", place)
    assert world.located() == {home}
    assert world.locators() == {}
    assert world.recorder.agrees_with(world.ledger)


async def test_the_router_hears_of_the_locator_before_the_first_packet(world: World) -> None:
    await world.redirect.prepare("vm", "dc2", 2, [])
    (packet,) = world.recorder.packets(DC2.datapath)
    assert packet.data[6:12] == VM.mac
    assert IPv4Address("10.2.0.128").packed in packet.data


async def test_prepare_returns_when_all_switches_that_changed_have_confirmed(world: World) -> None:
    world.recorder.hold(DC2.datapath)
    preparing = asyncio.ensure_future(world.redirect.prepare("vm", "dc2", 2, ["wlan2"]))
    await asyncio.sleep(0)
    assert not preparing.done()
    assert world.recorder.barriers == [{DC1.datapath, DC2.datapath, WLAN1.datapath, WLAN2.datapath}]
    world.recorder.confirm(DC2.datapath)
    assert (await preparing).network == "dc2"


async def test_a_prepare_that_fails_leaves_nothing_behind_once_it_is_rolled_back(world: World) -> None:
    before = {datapath: table.content() for datapath, table in world.recorder.tables.items()}
    world.recorder.gone = {DC2.datapath}
    with pytest.raises(DatapathGone):
        await world.redirect.prepare("vm", "dc2", 2, [])
    world.recorder.gone = set()
    here = await world.redirect.roll_back("vm")
    assert (here.network, here.locator) == ("dc1", VM.identifier)
    assert world.store.placement("vm") == here
    for place in world.redirect.bindings["vm"].old:
        world.redirect.retire("vm", place)
    assert world.locators() == {}
    assert world.located() == {("dc1", "10.1.0.5")}
    assert {datapath: table.content() for datapath, table in world.recorder.tables.items()} == before


async def test_a_roll_back_behind_the_switch(world: World) -> None:
    await world.redirect.prepare("vm", "dc2", 2, [])
    world.redirect.switch("vm")
    here = await world.redirect.roll_back("vm")
    assert (here.network, here.locator) == ("dc1", VM.identifier)
    assert world.store.placement("vm") == here
    assert await world.redirect.roll_back("vm") == here, "a second one changes nothing"
    assert world.recorder.agrees_with(world.ledger)


async def test_a_store_that_fails_does_not_keep_the_traffic_and_is_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    arriving = await world.redirect.prepare("vm", "dc2", 2, [])
    with monkeypatch.context() as full:
        full.setattr(world.store, "put_placement", full_disk)
        with pytest.raises(StoreError):
            world.redirect.switch("vm")
        assert world.redirect.bindings["vm"].here == arriving
        assert world.recorder.agrees_with(world.ledger)
        with pytest.raises(StoreError):
            world.redirect.switch("vm")
    assert world.redirect.switch("vm") == arriving
    assert world.store.placement("vm") == arriving

    with monkeypatch.context() as full:
        full.setattr(world.store, "put_placement", full_disk)
        with pytest.raises(StoreError):
            await world.redirect.roll_back("vm")
    here = world.redirect.bindings["vm"].here
    assert here.network == "dc1"
    assert world.recorder.agrees_with(world.ledger)
    world.redirect.remember("vm")
    assert world.store.placement("vm") == here


def full_disk(placement: Placement) -> None:
    raise StoreError("database or disk is full")


async def test_the_late_end_of_a_failed_attempt_does_not_free_the_locator_of_the_next(world: World) -> None:
    await world.redirect.prepare("vm", "dc2", 2, [])
    await world.redirect.roll_back("vm")
    (given_up,) = world.redirect.bindings["vm"].old
    arriving = await world.redirect.prepare("vm", "dc2", 2, [])
    assert arriving.locator == given_up.locator
    world.redirect.retire("vm", given_up)
    assert world.locators() == {("dc2", "vm"): str(arriving.locator)}
    world.redirect.switch("vm")
    assert world.redirect.bindings["vm"].here == arriving
    assert ("dc2", str(arriving.locator)) in world.located()


async def test_a_used_up_pool_names_itself_and_changes_nothing() -> None:
    small = replace(DC2, locators=IPv4Network("10.2.0.252/30"))  # two locators, the probe's, the broadcast
    recorder, store = Recorder([DC1, small]), Store(":memory:")
    redirect = Redirect({"dc1": DC1, "dc2": small}, Ledger(1), recorder.southbound, store)
    for number in (1, 2, 3):
        address = DC1.prefix[number + 4]
        mac = bytes([2, 0, 0, 0, 0, number])
        node = replace(VM, name=f"vm{number}", mac=mac, identifier=address, address=address)
        redirect.restore(node, Placement(node.name, "dc1", 2, node.identifier, 1))
    await redirect.prepare("vm1", "dc2", 2, [])
    redirect.move("vm2", "dc2", 7, [])
    before = redirect.bindings["vm3"]
    with pytest.raises(StoreError, match="the pool of locators of dc2 is used up, none for vm3"):
        await redirect.prepare("vm3", "dc2", 2, [])
    with pytest.raises(StoreError):
        redirect.move("vm3", "dc2", 7, [])
    assert redirect.bindings["vm3"] == before
    assert {str(address) for address in store.locators().values()} == {"10.2.0.252", "10.2.0.253"}
    redirect.forget("vm2")
    assert str((await redirect.prepare("vm3", "dc2", 2, [])).locator) == "10.2.0.253"


def test_a_user_who_roams_back_and_forth_keeps_few_places_and_fewer_locators(world: World) -> None:
    redirect = world.redirect
    for _ in range(20):
        for name in ("wlan2", "wlan1"):
            redirect.move("alice", name, 5, ["dc1"])
            binding = redirect.bindings["alice"]
            assert all(place.locator != binding.here.locator for place in binding.old)
    assert len(redirect.bindings["alice"].old) == 1
    assert world.locators() == {("wlan2", "alice"): "10.4.0.128"}
    (old,) = redirect.bindings["alice"].old
    redirect.retire("alice", old)
    assert world.locators() == {}
    assert world.located("alice") == {("wlan1", "10.3.0.10")}
    assert world.recorder.agrees_with(world.ledger)


def test_a_node_that_is_forgotten_leaves_no_rule_no_locator_and_no_index(world: World) -> None:
    world.redirect.move("alice", "wlan2", 5, ["dc1"])
    world.redirect.forget("alice")
    assert world.located("alice") == set()
    assert world.locators() == {}
    assert all(ALICE.mac not in (mod.match.eth_src, mod.match.eth_dst)
               for table in world.recorder.tables.values() for mod in table.entries.values())  # fmt: skip
    world.redirect.forget("alice")
    assert world.recorder.agrees_with(world.ledger)


def test_a_store_that_fails_while_a_node_is_adopted_leaves_the_old_binding(world: World) -> None:
    before = world.redirect.bindings["alice"]
    world.store.close()
    with pytest.raises(StoreError):
        world.redirect.adopt(replace(ALICE, home="wlan2"), "wlan2", 5)
    assert world.redirect.bindings["alice"] == before


def tunnel(world: World, where: int, to: IPv4Network) -> bool:
    """Whether the switch lets the machine's packets to ``to`` into the core."""
    return any(mod.table_id == Table.EGRESS and mod.match.ipv4_dst == to and mod.match.eth_src == VM.mac
               for mod in world.recorder.tables[where].entries.values())  # fmt: skip


async def away(world: World) -> None:
    await world.redirect.prepare("vm", "dc2", 2, [])
    world.redirect.switch("vm")
    world.redirect.release("vm")


async def test_a_correspondent_has_its_rules_confirmed_before_the_foreign_switch_lets_packets_through(
    world: World,
) -> None:
    await away(world)
    world.recorder.hold(WLAN2.datapath)
    world.recorder.sent.clear()
    telling = asyncio.ensure_future(world.redirect.tell("vm", "wlan2"))
    await asyncio.sleep(0)
    assert {datapath for datapath, _ in world.recorder.sent} == {WLAN2.datapath}
    # what else happens to the binding meanwhile must not open the way too early
    world.redirect.watch("vm", False)
    await world.redirect.tell("vm", "wlan1")
    assert not tunnel(world, DC2.datapath, WLAN2.prefix)
    world.recorder.confirm(WLAN2.datapath)
    await telling
    assert tunnel(world, DC2.datapath, WLAN2.prefix)
    assert world.recorder.agrees_with(world.ledger)


async def test_who_asks_while_another_is_telling_waits_as_well(world: World) -> None:
    await away(world)
    world.recorder.hold(WLAN2.datapath)
    first, second = (asyncio.ensure_future(world.redirect.tell("vm", "wlan2")) for _ in range(2))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()
    world.recorder.confirm(WLAN2.datapath)
    await asyncio.gather(first, second)
    assert tunnel(world, DC2.datapath, WLAN2.prefix)


async def test_a_correspondent_that_does_not_confirm_counts_as_not_told(world: World) -> None:
    await away(world)
    world.recorder.gone = {WLAN2.datapath}
    with pytest.raises(DatapathGone):
        await world.redirect.tell("vm", "wlan2")
    assert "wlan2" not in world.redirect.bindings["vm"].told
    assert not tunnel(world, DC2.datapath, WLAN2.prefix)
    world.recorder.gone = set()
    await world.redirect.tell("vm", "wlan2")
    assert tunnel(world, DC2.datapath, WLAN2.prefix)


async def test_a_node_may_go_away_while_a_correspondent_is_told(world: World) -> None:
    await away(world)
    world.recorder.hold(WLAN2.datapath)
    telling = asyncio.ensure_future(world.redirect.tell("vm", "wlan2"))
    await asyncio.sleep(0)
    world.redirect.forget("vm")
    world.recorder.confirm(WLAN2.datapath)
    await telling
    await world.redirect.tell("vm", "wlan1")
    assert world.located() == set()
    assert world.recorder.agrees_with(world.ledger)


async def test_untold_networks_lose_their_rules(world: World) -> None:
    await away(world)
    await world.redirect.tell("vm", "wlan2")
    world.redirect.untell("vm", "wlan2")
    assert not tunnel(world, DC2.datapath, WLAN2.prefix)
    assert all(mod.match != Match(eth_type=0x0800, ipv4_dst=VM.identifier)
               for mod in world.recorder.tables[WLAN2.datapath].entries.values())  # fmt: skip


async def test_peers_beyond_all_edges_are_reached_for_a_while_from_where_the_packet_came_in(world: World) -> None:
    await away(world)
    world.recorder.sent.clear()
    world.redirect.pass_outside("vm", DC2, IPv4Address("192.0.2.1"))
    ((datapath, mod),) = world.recorder.sent
    assert datapath == DC2.datapath
    assert (mod.match.ipv4_dst, mod.idle_timeout > 0) == (IPv4Address("192.0.2.1"), True)  # type: ignore[attr-defined]
