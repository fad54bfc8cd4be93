"""The southbound against switches on real sockets: right ones, strange ones, and ones that come back empty."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from followme.continuity import channel
from followme.continuity.ledger import EPOCH_SHIFT
from followme.continuity.pipeline import base_rules
from followme.continuity.southbound import DatapathGone
from followme.domain import Network
from followme.openflow import (
    EchoRequest,
    ErrorMsg,
    FlowMod,
    Match,
    Output,
    PacketIn,
    PortStats,
)
from followme.openflow import PacketOut as Packet
from followme.openflow.constants import OFPBAC_BAD_OUT_PORT, OFPET_BAD_ACTION
from tests.until import until

from .flowtable import FlowTable, content
from .switch import DC1, Bench, Switch, rule


async def test_a_switch_gets_the_base_rules_before_it_counts_as_connected(bench: Bench) -> None:
    switch = await bench.switch(1)
    assert switch.table.content() == content(base_rules(DC1))
    assert bench.southbound.connected(1)
    assert bench.ports == [("dc1", [1, 2])]
    await bench.southbound.wait_connected([1], timeout=1)
    with pytest.raises(DatapathGone, match=r"switch of dc2 \(datapath 0x2\) did not connect within"):
        await bench.southbound.wait_connected([1, 2], timeout=0.01)


async def test_a_switch_that_has_not_confirmed_is_waited_for(bench: Bench) -> None:
    switch = Switch(1)
    switch.confirms = False
    await switch.connect(bench.port)
    await until(lambda: len(switch.table.entries) == len(base_rules(DC1)))
    waiting = asyncio.ensure_future(bench.southbound.wait_connected([1], timeout=5))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    switch.confirm()
    await waiting


async def test_a_datapath_that_is_not_in_the_config_is_refused_logged_and_closed(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = await Switch(0xBAD).connect(bench.port)
    await asyncio.wait_for(stranger.closed.wait(), 5)
    assert stranger.received == [], "it is told nothing"
    assert bench.southbound.counters.refused_datapaths == 1
    assert bench.southbound.counters.failed_peers == 0, "counted once"
    assert "refused datapath 0xbad" in caplog.text
    for _ in range(5):
        stranger = await Switch(0xBAD).connect(bench.port)
        await asyncio.wait_for(stranger.closed.wait(), 5)
    assert bench.southbound.counters.refused_datapaths == 6
    assert caplog.text.count("refused datapath") == 1, "one that tries again and again does not fill the log"


async def test_the_same_datapath_again_replaces_the_connection_that_was_there(bench: Bench) -> None:
    old = await bench.switch(1)
    new = await bench.switch(1)
    await asyncio.wait_for(old.closed.wait(), 5)
    assert bench.gone == ["dc1"]
    bench.southbound.apply(bench.southbound.ledger.set("vm", {1: [rule(9)]}))
    await bench.southbound.barrier([1], timeout=5)
    assert rule(9).key in new.table.entries
    assert rule(9).key not in old.table.entries


async def test_an_unknown_message_and_a_stray_reply_are_passed_over(bench: Bench) -> None:
    switch = await bench.switch(1)
    switch.write(b"\x04\x63\x00\x0c\x00\x00\x00\x07oops" + b"\x04\x15\x00\x08\x00\x00\xff\xff")
    switch.packet_in(b"next")
    await until(lambda: bench.packets)
    assert bench.southbound.connected(1)


async def test_a_barrier_waits_for_a_switch_that_drops_and_comes_back_empty(bench: Bench) -> None:
    switch = await bench.switch(1)
    switch.confirms = False
    bench.southbound.apply(bench.southbound.ledger.set("vm", {1: [rule(9)]}))
    barrier = asyncio.ensure_future(bench.southbound.barrier([1], timeout=5))
    await until(lambda: rule(9).key in switch.table.entries)
    await switch.leave()
    await until(lambda: bench.gone)
    assert not barrier.done()
    again = await bench.switch(1)
    await barrier
    assert again.table.content() == content(bench.southbound.ledger.rules(1))
    assert rule(9).key in again.table.entries


async def test_rules_changed_while_a_switch_was_away_are_there_when_it_is_back(bench: Bench) -> None:
    ledger = bench.southbound.ledger
    bench.southbound.apply(ledger.set("vm", {1: [rule(7), rule(8)]}))
    switch = await bench.switch(1)
    assert rule(7).key in switch.table.entries
    await switch.leave()
    await until(lambda: bench.gone)
    bench.southbound.apply(ledger.set("vm", {1: [rule(8), rule(9)]}))
    again = await bench.switch(1, switch.table)  # it kept its table
    await until(lambda: again.table.content() == content(ledger.rules(1)))


async def test_stale_rules_go_and_no_wanted_rule_is_missing_for_a_moment(bench: Bench) -> None:
    table = FlowTable()
    kept = [replace(one.flow_mod(0), cookie=5 << EPOCH_SHIFT) for one in base_rules(DC1)]
    stale = [replace(rule(port).flow_mod(0), cookie=5 << EPOCH_SHIFT | 3) for port in range(40, 60)]
    table.take([*kept, *stale])
    table.history.clear()
    await bench.switch(1, table)
    wanted = content(base_rules(DC1))
    await until(lambda: table.content() == wanted)
    assert all(set(wanted) <= moment for moment in table.history)


async def test_a_barrier_that_nobody_answers_names_the_switch(bench: Bench) -> None:
    switch = await bench.switch(1)
    switch.confirms = False
    with pytest.raises(DatapathGone, match=r"switch of dc1 \(datapath 0x1\) did not confirm within 0.05 s"):
        await bench.southbound.barrier([1], timeout=0.05)


async def test_a_flood_of_errors_is_counted_and_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    switch = await bench.switch(1)
    switch.say(*[ErrorMsg(OFPET_BAD_ACTION, OFPBAC_BAD_OUT_PORT, b"\x04\x0d") for _ in range(500)])
    await until(lambda: bench.southbound.counters.errors == 500)
    assert caplog.text.count("refuses a message") == 1
    assert len(bench.southbound.counters.last_errors) <= 64


async def test_a_handler_that_fails_costs_one_packet_and_not_the_switch(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    switch = await bench.switch(1)
    handle = bench.southbound.handlers.packet_in

    def packet_in(where: Network, message: PacketIn) -> None:
        if message.data == b"poison":
            raise KeyError("poison")
        handle(where, message)

    bench.southbound.handlers.packet_in = packet_in
    for data in (b"one", b"poison", b"two"):
        switch.packet_in(data)
    await bench.southbound.barrier([1], timeout=5)
    assert [data for _, data in bench.packets] == [b"one", b"two"]
    assert bench.southbound.counters.faults == 1
    assert "handling a switch's message failed" in caplog.text
    assert bench.gone == []


async def test_a_store_that_cannot_commit_does_not_cut_off_the_switches(bench: Bench) -> None:
    switch = await bench.switch(1)

    @contextlib.contextmanager
    def batch() -> Iterator[None]:
        yield
        raise OSError("no space left on device")

    bench.southbound.handlers.batch = batch
    switch.packet_in(b"one")
    await bench.southbound.barrier([1], timeout=5)
    assert bench.packets == [("dc1", b"one")]
    assert bench.southbound.counters.faults >= 1
    assert bench.gone == []


@pytest.mark.parametrize("fails", [False, True])
async def test_what_could_not_be_stored_is_not_sent_and_the_switches_get_their_rules_anew(
    bench: Bench, fails: bool
) -> None:
    southbound = bench.southbound
    one, two = await bench.switch(1), await bench.switch(2)
    answers = 0

    @contextlib.contextmanager
    def batch() -> Iterator[None]:
        yield
        if answers and fails:
            raise OSError("no space left on device")

    def packet_in(where: Network, message: PacketIn) -> None:
        nonlocal answers
        answers += 1
        southbound.apply(southbound.ledger.set("vm", {2: [rule(9)]}))
        southbound.send(2, [Packet(b"you have a lease", (Output(2),))])

    southbound.handlers.batch, southbound.handlers.packet_in = batch, packet_in
    one.packet_in(b"ask")
    await until(lambda: answers)
    if not fails:
        await southbound.barrier([2], timeout=5)
        assert rule(9).key in two.table.entries
        assert [packet.data for packet in two.received if isinstance(packet, Packet)] == [b"you have a lease"]
        return
    await asyncio.wait_for(two.closed.wait(), 5)
    assert rule(9).key not in two.table.entries
    assert not any(isinstance(message, Packet) for message in two.received)
    assert bench.gone == ["dc2"], "the one that asked was told nothing, and stays"
    answers = 0
    again = await bench.switch(2, two.table)
    assert rule(9).key in again.table.entries


async def test_what_waited_before_a_read_that_cannot_be_stored_is_sent(bench: Bench) -> None:
    switch = await bench.switch(1)

    @contextlib.contextmanager
    def batch() -> Iterator[None]:
        yield
        raise OSError("no space left on device")

    bench.southbound.handlers.batch = batch
    bench.southbound.send(1, [Packet(b"stored before", (Output(2),))])
    bench.southbound._channels[1].data_received(b"")
    await until(lambda: any(isinstance(message, Packet) for message in switch.received))
    assert bench.gone == []


async def test_all_answers_of_one_read_leave_in_one_batch_after_the_commit(bench: Bench) -> None:
    switch = await bench.switch(1)
    story: list[str] = []

    @contextlib.contextmanager
    def batch() -> Iterator[None]:
        yield
        story.append("commit")

    def packet_in(where: Network, message: PacketIn) -> None:
        story.append("packet")
        bench.southbound.send(where.datapath, [Packet(message.data, (Output(2),))])
        assert not [one for one in switch.received if isinstance(one, Packet)]

    bench.southbound.handlers.batch = batch
    bench.southbound.handlers.packet_in = packet_in
    message = PacketIn(0xFFFFFFFF, 1, 0, 0, 0, Match(in_port=2), b"x")
    switch.say(message, message, message)
    await until(lambda: len([one for one in switch.received if isinstance(one, Packet)]) == 3)
    assert story[:4] == ["packet", "packet", "packet", "commit"]


async def test_a_switch_that_does_not_read_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "OUTPUT_BOUND", 1 << 20)
    switch = await bench.switch(1)
    switch.stop_reading()
    packet = Packet(bytes(60_000), (Output(2),))
    async with asyncio.timeout(5):
        while bench.southbound.connected(1):
            bench.southbound.send(1, [packet])
            await asyncio.sleep(0)
    assert bench.gone == ["dc1"]
    again = await bench.switch(1)
    assert again.table.content() == content(base_rules(DC1))


async def test_the_switch_itself_is_asked_for_an_owners_entries(bench: Bench) -> None:
    bench.southbound.apply(bench.southbound.ledger.set("vm", {1: [rule(9)]}))
    await bench.switch(1)
    (flow,) = await bench.southbound.flows(1, "vm")
    assert flow.match == Match(in_port=9)


async def test_a_port_is_asked_for_its_counters(bench: Bench) -> None:
    assert await bench.southbound.port_stats(1, 1) is None, "it is not connected"
    switch = await bench.switch(1)
    assert await bench.southbound.port_stats(1, 1) is None, "it does not know the question"
    switch.port_stats = (PortStats(1, rx_bytes=7, tx_bytes=8), PortStats(2))
    assert await bench.southbound.port_stats(1, 1) == PortStats(1, rx_bytes=7, tx_bytes=8)
    assert await bench.southbound.port_stats(1, 3) is None, "it has no such port"
    assert bench.southbound.connected(1)


async def test_who_does_not_answer_is_not_waited_for_long(bench: Bench) -> None:
    switch = await bench.switch(1)
    switch.port_stats = (PortStats(1),)
    assert await bench.southbound.port_stats(1, 1, timeout=0.0) is None
    assert await bench.southbound.port_stats(1, 1) == PortStats(1)


async def test_echo_requests_are_answered_and_messages_to_an_absent_switch_are_dropped(bench: Bench) -> None:
    bench.southbound.send(2, [FlowMod()])
    switch = await bench.switch(1)
    switch.say(EchoRequest(b"hello"))
    await bench.southbound.barrier([1], timeout=5)
    assert bench.southbound.half_round_trip(2) == 0.0


async def test_more_connections_than_there_may_be_are_closed_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("followme.continuity.southbound.MAX_CONNECTIONS", 1)
    await bench.switch(1)
    one_more = await Switch(2).connect(bench.port)
    await asyncio.wait_for(one_more.closed.wait(), 5)
    assert not bench.southbound.connected(2)
    assert bench.southbound.connected(1)
