"""What of a message is taken: of an ETR's own answer, of locators, of ITR-RLOCs."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from followme.lisp import EidRecord, EncapsulatedControlMessage, Lcaf, MapReply, MapRequest
from followme.xtr.outputs import Datagram, Drop, Encap, RemoveRoute, SetRoute

from .play import FAR, MS, OTHER, POLICY, STRANGER, Stage, eid, record

HOME = "10.3.0.10/32"
TO_FAR = Encap(((FAR, 100),))


def stage(**changes: float) -> Stage:
    made = Stage(POLICY, **changes)
    made.settle()
    return made


def test_an_etr_that_answers_for_itself_is_believed_for_what_was_asked_alone() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.4.0.94")
    claimed = ("10.0.0.0/8", "10.1.0.0/24", "10.3.0.0/25", "10.4.0.94/32")
    claims = tuple(record(prefix, STRANGER) for prefix in claimed)
    it.receive(MapReply(it.asked().nonce, claims).encode(), STRANGER)
    assert [(route.eid, route.way) for route in it.all(SetRoute)] == [
        (eid("10.4.0.94/32"), Encap(((STRANGER, 100),)))
    ]


def test_an_etr_that_answers_for_itself_is_a_locator_of_the_best_match() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.4.0.94")
    records = (record("10.0.0.0/8", STRANGER), record("10.4.0.94/32", FAR))
    assert it.receive(MapReply(it.asked().nonce, records).encode(), STRANGER) == []
    assert it.refused("Map-Reply from a stranger") == 1


def test_what_an_etr_said_of_an_eid_ends_where_the_map_system_has_only_its_prefix() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.1.0.9")
    it.receive(MapReply(it.asked().nonce, (record("10.1.0.0/24", OTHER),)).encode(), OTHER)
    follow = it.asked()
    assert follow.records == (EidRecord(eid("10.1.0.9/32"), notify=True),)
    out = it.notify(record("10.1.0.0/24", FAR), nonce=follow.nonce)
    assert SetRoute(eid("10.1.0.0/24"), TO_FAR) in out
    assert RemoveRoute(eid("10.1.0.9/32")) in out


@pytest.mark.parametrize(
    "rloc",
    ["127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "169.254.1.1", "10.9.9.9", "::1", "ff02::1", "fe80::"],
)
def test_a_locator_that_cannot_be_one_is_left_out(rloc: str) -> None:
    it = stage(probe_interval_s=10.0)
    it.learn("10.1.0.9", record("10.1.0.0/24", ip_address(rloc), FAR), confirm=False)
    assert SetRoute(eid("10.1.0.0/24"), TO_FAR) in it.out
    it.learn("10.2.0.9", record("10.2.0.0/24", ip_address(rloc)), confirm=False)
    assert SetRoute(eid("10.2.0.0/24"), Drop()) in it.out
    it.wait(60.0)
    assert {str(one.address) for one in it.all(Datagram)} <= {str(MS), str(FAR)}, "nor is it probed"


def test_an_itr_rloc_that_is_not_known_here_leaves_the_others() -> None:
    it = stage()
    asks = MapRequest(77, (Lcaf(10, b"another family"), None, FAR), (EidRecord(eid(HOME)),))
    it.receive(EncapsulatedControlMessage(FAR, eid(HOME).network.network_address, asks).encode(), MS)
    assert it.sent(MapReply, FAR)
    assert it.receive(asks.encode(), FAR), "and asked by itself"
