"""Who may claim to be on our LAN, and what becomes of who has gone silent."""

from __future__ import annotations

from dataclasses import replace

from followme.lisp import MapRegister
from followme.xtr.outputs import CheckNode, RemoveRoute
from followme.xtr.residents import Resident

from .play import MAC, MAC2, OWN_MAC, POLICY, Stage, eid, packet

ROAMER = "10.4.0.7/32"


def stage() -> Stage:
    made = Stage(POLICY)
    made.settle()
    return made


def test_claims_by_rule() -> None:
    policy = replace(POLICY, macs={eid("10.4.0.5/32"): MAC})
    it = Stage(policy=policy)
    it.settle()
    claim = it.control.appeared
    assert not claim(eid("10.5.0.7/32"), MAC, it.now)
    assert it.refused("claim outside the dynamic ranges") == 1
    assert not claim(eid("10.4.0.5/32"), MAC2, it.now)
    assert it.refused("claim with a wrong MAC") == 1
    assert claim(eid("10.4.0.5/32"), MAC, it.now)
    assert not claim(eid("10.4.0.6/32"), OWN_MAC, it.now)
    assert not claim(eid("10.4.0.6/32"), b"\x01\0\0\0\0\1", it.now)
    assert it.refused("claim from a group address") == 1
    assert claim(eid("10.4.0.6/32"), MAC, it.now)
    assert not claim(eid("10.4.0.7/32"), MAC, it.now)
    assert it.refused("EIDs of one MAC") == 1
    assert claim(eid("10.4.0.7/32"), MAC2, it.now)
    assert claim(eid("10.4.0.8/32"), MAC2, it.now)
    assert not claim(eid("10.4.0.9/32"), b"\x02\0\0\0\0\x33", it.now)
    assert it.refused("EIDs on this LAN") == 1


def test_the_routers_own_address_is_nobodys() -> None:
    it = Stage(policy=replace(POLICY, own_addresses=frozenset({eid(ROAMER)})))
    it.settle()
    assert not it.control.appeared(eid(ROAMER), MAC, it.now)
    assert it.take() == []


def test_two_that_claim_one_eid_in_turns_are_stopped() -> None:
    it = stage()
    taken = [it.control.appeared(eid(ROAMER), (MAC, MAC2)[n % 2], it.now) for n in range(20)]
    assert taken.count(True) == 8
    assert it.refused("EID claimed to and fro") == 6  # the other six are of who has it
    it.wait(61.0)
    assert it.control.appeared(eid(ROAMER), MAC, it.now)


def test_a_user_that_has_gone_silent_is_asked_for_and_withdrawn() -> None:
    it = stage()
    it.control.appeared(eid(ROAMER), MAC, it.now)
    it.control.appeared(eid("10.4.0.8/32"), MAC2, it.now)
    it.control.claim(eid("10.4.0.9/32"), MAC, it.now, pinned=True)
    it.wait(250.0)
    assert it.all(CheckNode) == []
    it.control.appeared(eid("10.4.0.8/32"), MAC2, it.now)  # it was heard
    it.wait(62.0)
    assert it.all(CheckNode) == [CheckNode(eid(ROAMER))] * 3
    it.wait(5.0)
    assert it.all(RemoveRoute) == [RemoveRoute(eid(ROAMER))]
    assert [r.records[0].ttl for r in it.sent(MapRegister) if r.records[0].eid == eid(ROAMER)][:1] == [0]
    assert it.control.local(eid("10.4.0.8/32"))
    assert it.control.local(eid("10.4.0.9/32"))


def test_a_silent_ipv6_eid_gives_its_place_to_who_needs_it() -> None:
    it = Stage(policy=replace(POLICY, ranges=(*POLICY.ranges, eid("fd00:4::/64"))))
    it.settle()
    late, other = eid(ROAMER), b"\x02\0\0\0\0\x33"
    claim = it.control.appeared
    assert all(claim(eid(f"fd00:4::{n}/128"), (MAC, MAC2)[n % 2], it.now + n) for n in range(4))
    it.now += 100.0
    claim(eid("fd00:4::0/128"), MAC, it.now)
    it.now += 200.0
    assert not claim(late, other, it.now)
    assert it.refused("EIDs on this LAN") == 1
    it.take()
    assert not claim(eid("fd00:4::5/128"), MAC, it.now + 1)
    assert it.refused("EIDs of one MAC") == 1
    assert claim(late, other, it.now + 1), "the first one was heard since, the second one goes"
    assert RemoveRoute(eid("fd00:4::1/128")) in it.take()
    assert [r.records[0].ttl for r in it.sent(MapRegister) if r.records[0].eid == eid("fd00:4::1/128")] == [0]
    assert claim(eid("fd00:4::5/128"), MAC, it.now + 2), "of the MAC that has too many"
    assert it.control.residents.here.keys() == {late, *(eid(f"fd00:4::{n}/128") for n in (0, 3, 5))}


def test_an_ipv6_eid_of_before_a_restart_gives_its_place_too() -> None:
    it = Stage(policy=replace(POLICY, ranges=(*POLICY.ranges, eid("fd00:4::/64")), max_eids=1))
    it.control.settle(Resident(eid("fd00:4::1/128"), MAC), it.now)
    it.settle()
    it.wait(299.0)
    assert not it.control.appeared(eid(ROAMER), MAC2, it.now)
    it.wait(10.0)
    assert it.control.appeared(eid(ROAMER), MAC2, it.now)


def test_a_pinned_eid_cannot_be_claimed() -> None:
    it = stage()
    it.control.claim(eid(ROAMER), MAC, it.now, pinned=True)
    assert not it.control.appeared(eid(ROAMER), MAC2, it.now)
    assert it.refused("claim of a pinned EID") == 1


def test_a_miss_for_an_eid_of_ours_is_not_asked_for() -> None:
    it = stage()
    it.control.miss(packet("10.3.0.5", "10.3.0.9"), it.now)
    it.control.miss(packet("10.3.0.5", "172.16.0.9"), it.now)
    assert it.take() == []
    assert it.refused("miss for an EID of ours or of nobody") == 2
