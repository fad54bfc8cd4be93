"""Two controllers of the same switches: one writes, and a master that was replaced while it slept does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from followme.continuity.ledger import Ledger
from followme.continuity.pipeline import base_rules
from followme.continuity.roles import older
from followme.continuity.southbound import Handlers, NotMaster, Role, RuleRefused, Southbound
from followme.openflow import EchoReply, EchoRequest, FlowMod, PacketOut, Port, PortStatus, RoleRequest
from followme.openflow.constants import OFPCR_ROLE_EQUAL, OFPCR_ROLE_MASTER, OFPCR_ROLE_NOCHANGE, OFPCR_ROLE_SLAVE
from tests.until import until

from .flowtable import FlowTable, content
from .switch import DC1, DC2, Bench, Shared, Switch, rule


class Instance(Bench):
    """A controller instance, and how often it was deposed."""

    def __init__(self, epoch: int) -> None:
        ledger = Ledger(epoch)
        ledger.set("base", {one.datapath: base_rules(one) for one in (DC1, DC2)})
        handlers = Handlers(packet_in=lambda network, message: None)
        super().__init__(Southbound((DC1, DC2), ledger, handlers, role=Role.STANDBY))
        self.deposed = 0
        handlers.deposed = self._deposed

    def _deposed(self) -> None:
        self.deposed += 1

    async def attended(self, datapath: int, shared: Shared | None, table: FlowTable | None = None) -> Switch:
        switch = Switch(datapath, table)
        switch.shared = shared
        await switch.connect(self.port)
        await until(lambda: switch.closed.is_set() or switch.role != OFPCR_ROLE_EQUAL)
        return switch


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Instance, Instance]]:
    made = Instance(100), Instance(200)
    for one in made:
        await one.start()
    yield made
    for one in made:
        await one.southbound.close()


Pair = tuple[Instance, Instance]


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**63 - 1))
def test_generations_wrap_around(one: int, more: int) -> None:
    assert older(one, (one + more) % 2**64)
    assert not older((one + more) % 2**64, one)
    assert not older(one, one)
    assert older(2**64 - 1, 0), "what a switch without a generation says"


async def test_a_standby_keeps_switches_and_says_nothing_to_them(pair: Pair) -> None:
    standby, shared = pair[0], Shared()
    shared.generation = 41
    switch = await standby.attended(1, shared)
    assert switch.received == [RoleRequest(OFPCR_ROLE_NOCHANGE), RoleRequest(OFPCR_ROLE_SLAVE, 41)]
    switch.packet_in(b"for the master")
    switch.say(PortStatus(0, Port(2, bytes(6), "host")), EchoRequest(b"there?"))
    standby.southbound.apply(standby.southbound.ledger.set("vm", {1: [rule(9)]}))
    standby.southbound.send(1, [PacketOut(b"frame", ())])
    await asyncio.sleep(0.02)
    assert switch.received[2:] == [EchoReply(b"there?")]
    assert (standby.packets, standby.there, standby.ports) == ([], [], [])
    assert standby.southbound.attending(1)
    assert not standby.southbound.attending(2)
    assert not standby.southbound.connected(1)
    for waits in (standby.southbound.barrier([1], 5), standby.southbound.wait_connected([1], 5)):
        with pytest.raises(NotMaster):
            await waits
    await switch.leave()
    await until(lambda: not standby.southbound.attending(1))
    assert standby.gone == []


async def test_a_standby_that_takes_over_brings_each_switch_to_its_ledgers_state(pair: Pair) -> None:
    standby, shared = pair[0], Shared()
    table = FlowTable()
    table.take([rule(7).flow_mod(0, 5)])
    switch = await standby.attended(1, shared, table)
    assert shared.generation == 2**64 - 1, "there was none"
    standby.southbound.apply(standby.southbound.ledger.set("vm", {1: [rule(9)], 2: [rule(9)]}))
    await standby.southbound.take_over(0)
    assert standby.southbound.role is Role.MASTER
    assert (standby.there, standby.ports) == (["dc1"], [("dc1", [1, 2])])
    wanted = content(standby.southbound.ledger.rules(1))
    await until(lambda: table.content() == wanted)
    assert rule(9).key in wanted
    switch.packet_in(b"for the master")
    await until(lambda: standby.packets)
    later = await standby.attended(2, Shared())
    await standby.southbound.wait_connected([1, 2], 5)
    assert later.role == OFPCR_ROLE_MASTER
    assert later.received[0] == RoleRequest(OFPCR_ROLE_MASTER, 0)
    assert rule(9).key in later.table.entries


async def test_an_old_master_that_writes_is_deposed_once_and_writes_no_more(pair: Pair) -> None:
    (old, new), shared, table = pair, Shared(), FlowTable()
    mine, theirs = await old.attended(1, shared, table), await new.attended(1, shared, table)
    other = await old.attended(2, Shared())
    await old.southbound.take_over(5)
    await new.southbound.take_over(6)
    before = table.content()
    assert old.deposed == 0, "it does not know yet"
    old.southbound.apply(old.southbound.ledger.set("vm", {1: [rule(9)], 2: [rule(9)]}))
    with pytest.raises(NotMaster):
        await old.southbound.barrier([1, 2], 5)
    assert (old.deposed, old.southbound.role, sorted(old.gone)) == (1, Role.STANDBY, ["dc1", "dc2"])
    await until(lambda: mine.received[-1] == RoleRequest(OFPCR_ROLE_SLAVE, 6))
    await until(lambda: other.received[-1] == RoleRequest(OFPCR_ROLE_SLAVE, 5))
    told = len(mine.received), len(other.received)
    old.southbound.apply(old.southbound.ledger.set("vm", {1: [rule(8)], 2: [rule(8)]}))
    mine.packet_in(b"late")
    await asyncio.sleep(0.02)
    assert table.content() == before
    assert [len(mine.received) - told[0], len(other.received) - told[1]] == [0, 0]
    assert (old.deposed, old.packets) == (1, [])
    assert old.southbound.attending(1)
    assert old.southbound.attending(2)
    await old.southbound.take_over(7)
    assert mine.role == other.role == OFPCR_ROLE_MASTER
    assert theirs.role == OFPCR_ROLE_SLAVE
    assert rule(8).key in table.entries


async def test_who_comes_too_late_is_told_by_the_first_switch(pair: Pair) -> None:
    old, shared = pair[0], Shared()
    switch = await old.attended(1, shared)
    other = await old.attended(2, Shared())
    shared.generation = 9
    with pytest.raises(NotMaster, match="another controller is master"):
        await old.southbound.take_over(8)
    assert old.deposed == 1
    assert not any(isinstance(message, FlowMod) for message in switch.received)
    await until(lambda: other.role == OFPCR_ROLE_SLAVE)
    assert old.southbound.counters.depositions == 1


async def test_the_newest_generation_is_learnt_from_switches_whoever_has_lost_it(pair: Pair) -> None:
    (standby, late), shared = pair, Shared()
    shared.generation = 41
    await standby.attended(1, shared)
    await until(lambda: standby.southbound.newest.generation == 41)
    await late.southbound.take_over(1)  # no switch has told it yet
    await late.attended(1, shared)
    await until(lambda: late.deposed)
    assert late.southbound.newest.generation == 41
    await late.southbound.take_over(42)
    await late.southbound.wait_connected([1], 5)
    assert shared.generation == 42


@pytest.mark.parametrize("generation", [2**63, 2**62, 2**40 + 5])
async def test_a_switch_with_an_absurd_generation_deposes_nobody(
    pair: Pair, generation: int, caplog: pytest.LogCaptureFixture
) -> None:
    instance, shared = pair[0], Shared()
    shared.generation = generation
    switch = await instance.attended(1, shared)
    other = await instance.attended(2, Shared())
    await instance.southbound.take_over(4)
    await instance.southbound.wait_connected([2], 5)
    assert (instance.deposed, instance.southbound.newest.generation) == (0, 4)
    assert other.table.content() == content(base_rules(DC2))
    assert not any(isinstance(message, FlowMod) for message in switch.received)
    assert not instance.southbound.connected(1)
    (said,) = [record for record in caplog.records if f"a master of generation {generation}" in record.getMessage()]
    assert "restart ovs-vswitchd" in said.getMessage()
    await switch.leave()
    await instance.attended(1, Shared())
    await instance.southbound.wait_connected([1], 5)


async def test_a_switch_that_comes_back_to_an_old_master_deposes_it(pair: Pair) -> None:
    (old, new), shared, table = pair, Shared(), FlowTable()
    first = await old.attended(1, shared, table)
    await old.southbound.take_over(5)
    await first.leave()
    await new.attended(1, shared, table)
    await new.southbound.take_over(6)
    before = table.content()
    await old.attended(1, shared, table)
    await until(lambda: old.deposed)
    assert table.content() == before
    assert shared.generation == 6


async def test_one_that_steps_down_writes_nothing_and_is_not_deposed(pair: Pair) -> None:
    instance = pair[0]
    switch = await instance.attended(1, Shared())
    await instance.southbound.take_over(5)
    switch.confirms = False
    barrier = asyncio.ensure_future(instance.southbound.barrier([1], 5))
    await until(lambda: switch._held)
    instance.southbound.apply(instance.southbound.ledger.set("vm", {1: [rule(9)]}))
    late = asyncio.ensure_future(instance.southbound.flows(1, "vm"))
    instance.southbound.step_down()
    switch.confirm()
    for waiting in (barrier, late):
        with pytest.raises(NotMaster):
            await waiting
    await until(lambda: switch.role == OFPCR_ROLE_SLAVE)
    assert rule(9).key not in switch.table.entries
    assert (instance.deposed, instance.gone) == (0, ["dc1"])


async def test_what_a_switch_refused_once_does_not_count_when_it_is_taken_over_again(pair: Pair) -> None:
    instance = pair[0]
    switch = await instance.attended(1, Shared())
    switch.full = True
    await instance.southbound.take_over(5)
    with pytest.raises(RuleRefused, match="of its rules"):
        await instance.southbound.wait_connected([1], 5)
    instance.southbound.step_down()
    switch.full = False
    await instance.southbound.take_over(6)
    await instance.southbound.wait_connected([1], 5)
    await instance.southbound.barrier([1], 5)


async def test_a_switch_that_hangs_does_not_keep_the_others_and_is_served_when_it_wakes(pair: Pair) -> None:
    instance = pair[0]
    hangs, other = await instance.attended(1, Shared()), await instance.attended(2, Shared())
    hangs.confirms = False
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(instance.southbound.take_over(5), 0.05)
    await instance.southbound.wait_connected([2], 5)
    assert other.table.content() == content(base_rules(DC2))
    hangs.confirm()
    await instance.southbound.wait_connected([1], 5)
    assert instance.southbound.role is Role.MASTER


async def test_a_generation_that_is_no_newer_is_an_error_of_ours(pair: Pair) -> None:
    southbound = pair[0].southbound
    with pytest.raises(ValueError, match="64 bits"):
        await southbound.take_over(2**64)
    await southbound.take_over(2**64 - 1)
    await southbound.take_over(2**64 - 1)
    await southbound.take_over(3)
    with pytest.raises(ValueError, match="older than 3"):
        await southbound.take_over(2)


@pytest.mark.parametrize("master", [False, True])
async def test_a_switch_that_does_not_know_of_roles_is_cut_off(pair: Pair, master: bool) -> None:
    instance = pair[0]
    if master:
        await instance.southbound.take_over(5)
    switch = await instance.attended(1, None)
    await asyncio.wait_for(switch.closed.wait(), 5)
    assert switch.table.entries == {}
    assert instance.deposed == 0
    assert instance.southbound.role is (Role.MASTER if master else Role.STANDBY)


async def test_a_standby_whose_question_is_overtaken_asks_again(pair: Pair) -> None:
    instance, shared = pair[0], Shared()
    switch = Switch(1)
    switch.shared = shared
    asked = switch._asked_role

    def overtaken(message: RoleRequest) -> object:
        if message.role == OFPCR_ROLE_SLAVE and shared.generation in (None, 1, 2):
            shared.generation = (shared.generation or 0) + 1
        return asked(message)

    switch._asked_role = overtaken  # type: ignore[assignment, method-assign]
    shared.generation = 1
    await switch.connect(instance.port)
    await until(lambda: switch.role == OFPCR_ROLE_SLAVE)
    assert shared.generation == 3
    assert instance.deposed == 0
