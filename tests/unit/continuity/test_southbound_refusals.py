"""Rules that a switch refuses: whose barrier fails, and whose does not."""

from __future__ import annotations

import asyncio

import pytest

from followme.continuity.southbound import DatapathGone, RuleRefused
from followme.openflow import BarrierReply, ErrorMsg, Output
from followme.openflow import PacketOut as Packet
from followme.openflow.constants import (
    OFPBAC_BAD_OUT_PORT,
    OFPET_BAD_ACTION,
    OFPET_FLOW_MOD_FAILED,
    OFPFMFC_TABLE_FULL,
)
from tests.until import until

from .switch import Bench, Switch, rule


async def test_a_refused_rule_is_reported_at_the_barrier_once(bench: Bench) -> None:
    switch = await bench.switch(1)
    switch.full = True
    bench.southbound.apply(bench.southbound.ledger.set("vm", {1: [rule(9)]}))
    with pytest.raises(RuleRefused, match=r"switch of dc1 .* refused a rule: .*TABLE_FULL"):
        await bench.southbound.barrier([1], timeout=5)
    await bench.southbound.barrier([1], timeout=5)
    assert bench.southbound.counters.errors == 1


async def test_a_refused_rule_fails_its_owners_barriers_only(bench: Bench) -> None:
    southbound, switch = bench.southbound, await bench.switch(1)
    switch.full = True
    southbound.apply(southbound.ledger.set("bob", {1: [rule(8)]}))
    await until(lambda: southbound.counters.refused_rules)
    switch.full = False
    southbound.apply(southbound.ledger.set("vm", {1: [rule(9)]}))
    await southbound.barrier([1], 5, "vm")
    with pytest.raises(RuleRefused, match="TABLE_FULL"):
        await southbound.barrier([1], 5, "bob")
    await southbound.barrier([1], 5, "bob")


@pytest.mark.parametrize("shows_whose", [True, False])
async def test_of_barriers_under_way_all_of_the_owner_fail_and_no_other(bench: Bench, shows_whose: bool) -> None:
    southbound, switch = bench.southbound, await bench.switch(1)
    switch.confirms = False
    southbound.apply(southbound.ledger.set("bob", {1: [rule(8)]}))
    southbound.apply(southbound.ledger.set("vm", {1: [rule(9)]}))
    owners = ("vm", "bob", "bob", None)
    barriers = [asyncio.ensure_future(southbound.barrier([1], 5, owner)) for owner in owners]
    await until(lambda: len(switch._held) == 4)
    refused = rule(8).flow_mod(0, southbound.ledger.cookie(1, "bob")).pack(7)
    # One that shows less of the rule than it must does not say whose it was: then all are warned.
    size = 64 if shows_whose else 8
    switch.say(ErrorMsg(OFPET_FLOW_MOD_FAILED, OFPFMFC_TABLE_FULL, refused[:size]))
    switch.confirm()
    results = await asyncio.gather(*barriers, return_exceptions=True)
    innocent = type(None) if shows_whose else RuleRefused
    assert [type(one) for one in results] == [innocent, RuleRefused, RuleRefused, RuleRefused]
    await southbound.barrier([1], 5, "bob")


async def test_what_is_refused_behind_a_barrier_is_not_its_business(bench: Bench) -> None:
    southbound, switch = bench.southbound, await bench.switch(1)
    switch.confirms = False
    southbound.apply(southbound.ledger.set("vm", {1: [rule(9)]}))
    first = asyncio.ensure_future(southbound.barrier([1], 5, "vm"))
    await until(lambda: switch._held)
    cookie = southbound.ledger.cookie(1, "vm")
    refused = ErrorMsg(OFPET_BAD_ACTION, OFPBAC_BAD_OUT_PORT, rule(8).flow_mod(0, cookie).pack(7)[:64])
    (xid,) = switch._held
    switch._connection.send(BarrierReply(), xid)
    switch.say(refused)  # both in one read
    switch.confirms = True
    await first
    with pytest.raises(RuleRefused):
        await southbound.barrier([1], 5, "vm")


async def test_a_refusal_that_a_barrier_did_not_live_to_tell_is_told_by_the_next(bench: Bench) -> None:
    southbound, switch = bench.southbound, await bench.switch(1)
    switch.full, switch.confirms = True, False
    southbound.apply(southbound.ledger.set("vm", {1: [rule(9)]}))
    with pytest.raises(DatapathGone):
        await southbound.barrier([1], 0.05, "vm")
    switch.confirms = True
    with pytest.raises(RuleRefused):
        await southbound.barrier([1], 5, "vm")


async def test_a_switch_that_refuses_rules_when_it_connects_does_not_pass_for_whole(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.southbound.ledger.set("vm", {1: [rule(9)]})
    switch = Switch(1)
    switch.full = True
    await switch.connect(bench.port)
    await until(lambda: bench.there)
    wanted = len(bench.southbound.ledger.rules(1))
    # The 16 deletions of other epochs are refused as well.
    assert bench.southbound.counters.refused_rules == wanted + 16
    assert f"refused {wanted + 16} of its rules" in caplog.text
    with pytest.raises(RuleRefused, match=r"switch of dc1 \(datapath 0x1\) refused"):
        await bench.southbound.wait_connected([1], 5)
    with pytest.raises(RuleRefused):
        await bench.southbound.barrier([1], 5, "vm")


async def test_an_error_about_a_packet_is_no_refused_rule(bench: Bench) -> None:
    switch = await bench.switch(1)
    lost = Packet(b"frame", (Output(99),)).pack(77)
    switch.say(ErrorMsg(OFPET_BAD_ACTION, OFPBAC_BAD_OUT_PORT, lost[:64]))
    await until(lambda: bench.southbound.counters.errors)
    await bench.southbound.barrier([1], timeout=5)
    assert bench.southbound.counters.refused_rules == 0
