"""A store that replicates: nothing is written to switches before others have what it was caused by."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from followme.continuity import channel
from followme.continuity.southbound import Role
from followme.domain import Network
from followme.openflow import Output, PacketIn
from followme.openflow import PacketOut as Packet
from followme.openflow.constants import OFPCR_ROLE_SLAVE
from tests.until import until

from .switch import Bench, Shared, Switch, rule


@dataclass
class Slow:
    """What a replicated store is to the southbound; ``acknowledge`` in the order of the commits."""

    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    uncommitted: bool = False

    def write(self) -> None:
        self.uncommitted = True

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        yield
        self.commit()

    def commit(self) -> None:
        if self.uncommitted:
            self.uncommitted = False
            self.waiting.append(asyncio.get_running_loop().create_future())

    def stored(self) -> asyncio.Future[None] | None:
        return self.waiting[-1] if self.waiting and not self.waiting[-1].done() else None


@pytest.fixture
def slow(bench: Bench) -> Slow:
    """Each packet-in is written down, and answered by a packet-out to both switches."""
    slow, southbound = Slow(), bench.southbound
    southbound.handlers.batch, southbound.handlers.stored = slow.batch, slow.stored

    def packet_in(where: Network, message: PacketIn) -> None:
        bench.packets.append((where.name, message.data))
        if message.data != b"nothing new":
            slow.write()
        for datapath in (1, 2):
            southbound.send(datapath, [Packet(message.data, (Output(2),))])

    southbound.handlers.packet_in = packet_in
    return slow


def frames(switch: Switch) -> list[bytes]:
    return [message.data for message in switch.received if isinstance(message, Packet)]


async def test_what_a_read_caused_leaves_when_its_commit_is_acknowledged_in_order(bench: Bench, slow: Slow) -> None:
    one, two = await bench.switch(1), await bench.switch(2)
    for number, data in enumerate((b"first", b"second", b"nothing new"), start=1):
        one.packet_in(data)
        await until(lambda number=number: len(bench.packets) == number)  # type: ignore[misc]
    await asyncio.sleep(0.01)
    assert len(slow.waiting) == 2
    assert frames(one) == frames(two) == []
    slow.waiting[0].set_result(None)
    await until(lambda: frames(one) == frames(two) == [b"first"])
    await asyncio.sleep(0.01)
    assert frames(two) == [b"first"]
    slow.waiting[1].set_result(None)
    await until(lambda: frames(one) == frames(two) == [b"first", b"second", b"nothing new"])
    two.packet_in(b"nothing new")
    await until(lambda: len(frames(one)) == 4)


async def test_what_a_task_queued_waits_for_its_commit_and_for_what_was_before(bench: Bench, slow: Slow) -> None:
    one, _ = await bench.switch(1), await bench.switch(2)
    one.packet_in(b"first")
    await until(lambda: slow.waiting)
    slow.write()
    slow.commit()
    bench.southbound.apply(bench.southbound.ledger.set("vm", {1: [rule(9)]}))
    barrier = asyncio.ensure_future(bench.southbound.barrier([1], 5))
    await asyncio.sleep(0.01)
    slow.waiting[1].set_result(None)
    await asyncio.sleep(0.01)
    assert rule(9).key not in one.table.entries
    slow.waiting[0].set_result(None)
    await barrier
    assert rule(9).key in one.table.entries
    assert frames(one) == [b"first"]


async def test_what_was_not_stored_is_not_sent_nor_what_followed(bench: Bench, slow: Slow) -> None:
    one, two = await bench.switch(1), await bench.switch(2)
    one.packet_in(b"first")
    await until(lambda: len(slow.waiting) == 1)
    one.packet_in(b"second")
    await until(lambda: len(slow.waiting) == 2)
    slow.waiting[0].set_exception(OSError("the bucket is away"))
    await asyncio.gather(*(asyncio.wait_for(switch.closed.wait(), 5) for switch in (one, two)))
    assert frames(one) == frames(two) == []
    assert bench.southbound.counters.faults == 1
    slow.waiting[1].set_result(None)
    again, _ = await bench.switch(1), await bench.switch(2)
    again.packet_in(b"nothing new")
    await until(lambda: frames(again) == [b"nothing new"])


async def test_a_switch_that_is_gone_when_it_is_stored_costs_the_others_nothing(bench: Bench, slow: Slow) -> None:
    one, two = await bench.switch(1), await bench.switch(2)
    one.packet_in(b"first")
    await until(lambda: slow.waiting)
    await one.leave()
    await until(lambda: bench.gone == ["dc1"])
    slow.waiting[0].set_result(None)
    await until(lambda: frames(two) == [b"first"])
    assert bench.southbound.counters.faults == 0


async def test_what_waits_for_the_store_is_bounded(
    bench: Bench, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "OUTPUT_BOUND", 1 << 18)
    one, two = await bench.switch(1), await bench.switch(2)
    for number in range(8):
        one.packet_in(bytes([number]) * 60_000)
        await until(lambda number=number: len(bench.packets) > number or one.closed.is_set())  # type: ignore[misc]
    await asyncio.wait_for(two.closed.wait(), 5)
    assert frames(two) == []


async def test_who_is_deposed_meanwhile_does_not_send_it(bench: Bench, slow: Slow) -> None:
    southbound = bench.southbound
    southbound.step_down()
    switch = Switch(1)
    switch.shared = Shared()
    await switch.connect(bench.port)
    await until(lambda: southbound.attending(1))
    await southbound.take_over(1)
    switch.packet_in(b"first")
    await until(lambda: slow.waiting)
    southbound.step_down()
    await until(lambda: switch.role == OFPCR_ROLE_SLAVE)  # which waits for no store
    slow.waiting[0].set_result(None)
    await southbound.take_over(2)
    assert southbound.role is Role.MASTER
    assert frames(switch) == []
    switch.packet_in(b"nothing new")
    await until(lambda: frames(switch) == [b"nothing new"])


async def test_a_standby_whose_store_has_failed_keeps_its_switches(bench: Bench, slow: Slow) -> None:
    slow.write()
    slow.commit()
    slow.waiting[0].set_exception(OSError("gone"))
    bench.southbound.handlers.stored = lambda: slow.waiting[0]
    bench.southbound.step_down()
    switch = Switch(1)
    switch.shared = Shared()
    await switch.connect(bench.port)
    await until(lambda: switch.role == OFPCR_ROLE_SLAVE)
    assert bench.southbound.attending(1)
