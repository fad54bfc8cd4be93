"""What must not go stale: EIDs that have left, routes of before a restart, registrations confirmed in part."""

from __future__ import annotations

import pytest

from followme.lisp import EidRecord, EncapsulatedControlMessage, MapRegister, MapReply, MapRequest
from followme.xtr.outputs import Datagram, Encap, Registered, RemoveRoute, SetRoute

from .play import FAR, MAC, MAC2, MS, OTHER, POLICY, RLOC, STRANGER, Stage, eid, record

TO_FAR, TO_OTHER = Encap(((FAR, 100),)), Encap(((OTHER, 100),))
HOME, ROAMER = "10.3.0.10/32", "10.4.0.7/32"


def stage(**changes: float) -> Stage:
    made = Stage(POLICY, **changes)
    made.settle()
    return made


def away(ttl: int = 1440) -> Stage:
    """A stage on which an EID of our subnet is behind FAR."""
    it = stage()
    it.notify(record(HOME, FAR, ttl=ttl), nonce=50)
    it.take()
    return it


# -- EIDs of our own subnet that are elsewhere ----------------------------------------------------------------


@pytest.mark.parametrize("ttl", [1, 5, 1440])
def test_who_has_left_is_not_forgotten_while_the_map_system_is_silent(ttl: int) -> None:
    it = away(ttl)
    asked = 0
    for _ in range(50):
        it.wait(60.0)
        assert it.all(RemoveRoute) == []
        asked += sum(request.records[0] == EidRecord(eid(HOME)) for request in it.requests())
    assert asked > 10
    assert not it.control.local(eid(HOME))


def test_who_has_left_is_asked_for_unused_and_found_where_it_went() -> None:
    it = away()
    it.wait(271.0)
    nonce = it.requests()[0].nonce
    out = it.receive(MapReply(nonce, (record(HOME, OTHER),)).encode())
    assert SetRoute(eid(HOME), TO_OTHER) in out
    assert it.requests() == []  # no subscription: the nonces of one are not those of the map server's own word
    out = it.notify(record(HOME, FAR), nonce=51)
    assert SetRoute(eid(HOME), TO_FAR) in out
    assert len(it.acks()) == 1


def test_who_has_left_and_is_nowhere_else_any_more_is_at_home() -> None:
    it = away()
    it.notify(record("10.3.0.11/32", FAR), nonce=50)
    it.wait(271.0)
    nonce = next(r.nonce for r in it.requests() if r.records[0].eid == eid(HOME))
    assert it.receive(MapReply(nonce, (record(HOME),)).encode()) == []  # our registration may be missing too
    assert it.receive(MapReply(nonce, (record("10.3.0.0/24", RLOC),)).encode(), STRANGER) == []
    out = it.receive(MapReply(nonce, (record("10.3.0.0/24", RLOC), record("10.3.0.11/32", OTHER))).encode())
    assert RemoveRoute(eid(HOME)) in out
    assert SetRoute(eid("10.3.0.11/32"), TO_OTHER) in out
    assert it.control.local(eid(HOME))
    assert not it.control.local(eid("10.3.0.11/32"))


def test_who_has_left_is_at_home_if_our_question_comes_back_to_us() -> None:
    """A map server without proxy replies asks the holder of the covering prefix, which is us."""
    it = away()
    it.wait(271.0)
    request = it.requests()[0]
    ecm = EncapsulatedControlMessage(RLOC, eid(HOME).network.network_address, request).encode()
    assert it.receive(ecm, STRANGER) == []
    assert it.receive(ecm) == [RemoveRoute(eid(HOME))]
    assert it.control.local(eid(HOME))


def test_a_full_map_cache_keeps_who_has_left() -> None:
    it = Stage(max_entries=16)
    it.settle()
    it.notify(record(HOME, FAR), nonce=50)
    for n in range(40):
        it.now += 0.1
        it.learn(f"10.9.{n}.1", record(f"10.9.{n}.0/24", FAR), confirm=False)
    assert it.control.itr.cache.evicted > 0
    assert not it.control.local(eid(HOME))


# -- Map-Notifies of no subscription --------------------------------------------------------------------------


def test_a_publication_about_an_adopted_route_is_not_acknowledged_before_it_is_so() -> None:
    it = stage()
    for n in range(120):
        it.control.adopt(eid(f"10.7.0.{n}/32"), TO_FAR, it.now)
    it.control.timer(it.now)
    it.take()
    last = "10.7.0.110/32"  # its turn has not come: 50 each second
    it.notify(record(last, OTHER), nonce=1 << 58)
    assert (it.acks(), it.all(SetRoute)) == ([], [])  # it may be an old one
    request = it.asked()
    assert request.records == (EidRecord(eid(last)),)
    out = it.receive(MapReply(request.nonce, (record(last, OTHER),)).encode())
    assert SetRoute(eid(last), TO_OTHER) in out
    it.notify(record(last, OTHER), nonce=1 << 58)  # sent again: of a subscription that we do not know
    assert it.acks() == []
    it.notify(record("10.7.0.1/32", FAR), nonce=(1 << 58) + 1)  # as we know it
    assert it.acks() == []


def test_doubts_are_rationed_and_not_lost() -> None:
    it = stage()
    it.control.adopt(eid("10.1.0.0/24"), TO_FAR, it.now)
    sent = 0
    for n in range(20):
        it.notify(record("10.1.0.9/32", STRANGER), nonce=(1 << 58) + n)
        sent += len(it.requests())
        for request in it.requests():
            it.receive(MapReply(request.nonce, (record("10.1.0.0/24", FAR),)).encode())
    assert sent == 1
    it.wait(1.1)
    assert [r.records[0].eid for r in it.requests() if not r.subscribes][-1:] == [eid("10.1.0.9/32")]


def test_the_end_of_a_mapping_that_we_have_is_doubted_too() -> None:
    it = stage()
    it.control.adopt(eid("10.1.0.9/32"), TO_FAR, it.now)
    it.notify(record("10.1.0.9/32", ttl=0), nonce=1 << 58)
    assert it.acks() == []
    assert it.asked().records[0].eid == eid("10.1.0.9/32")


def test_a_word_against_what_is_ours_is_not_acknowledged_unless_it_is_believed() -> None:
    """With an acknowledgement, our next Map-Register would take the EID from its new holder."""
    it = stage()
    it.control.claim(eid(ROAMER), MAC, it.now, pinned=False)
    it.wait(2.0)
    it.notify(record(ROAMER, FAR), nonce=1 << 50)
    assert len(it.acks()) == 1
    it.control.claim(eid(ROAMER), MAC, it.now, pinned=False)
    it.wait(5.0)
    it.notify(record(ROAMER, FAR), nonce=(1 << 50) - 1)  # a map server with an earlier clock, or a replay
    assert (it.acks(), it.all(SetRoute)) == ([], [])
    assert it.refused("Map-Notify against what is ours") == 1
    it.notify(record(ROAMER, FAR), nonce=(1 << 50) + 1)
    assert (len(it.acks()), it.all(SetRoute)) == (1, [SetRoute(eid(ROAMER), TO_FAR)])


# -- confirmations --------------------------------------------------------------------------------------------


def test_what_a_map_notify_does_not_name_is_not_confirmed() -> None:
    it = stage()
    for text, mac in ((ROAMER, MAC), ("10.4.0.8/32", MAC2)):
        it.control.claim(eid(text), mac, it.now, pinned=False)
        for register in it.sent(MapRegister):
            it.notify(*register.records, nonce=register.nonce)
        it.take()
    it.now += 61.0
    it.control.timer(it.now)
    register = it.sent(MapRegister)[-1]
    first, *others = register.records
    assert len(others) == 2
    it.notify(first, nonce=register.nonce)
    assert it.all(Registered) == [Registered((first.eid,), MS)]  # type: ignore[arg-type]
    it.wait(0.3)
    again = it.sent(MapRegister)
    assert [[one.eid for one in each.records] for each in again] == [[one.eid for one in others]]
    it.notify(first, nonce=again[0].nonce)  # it names none of these
    assert it.all(Registered) == []
    it.notify(*others, nonce=register.nonce)
    assert len(it.all(Registered)) == 1
    it.wait(30.0)
    assert it.sent(MapRegister) == []


# -- SMRs that come too soon ----------------------------------------------------------------------------------


def smrs(it: Stage) -> list[Datagram]:
    """The SMRs among what came out last."""
    messages = zip(it.datagrams(FAR), it.sent(MapRequest, FAR), strict=True)
    return [datagram for datagram, message in messages if message.smr]


def test_a_second_solicitation_is_sent_later_and_not_to_who_has_the_eid() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    it.control.claim(eid(ROAMER), MAC, it.now, pinned=True)
    it.wait(10.0)
    solicit = it.control.etr.solicit
    assert solicit(eid(ROAMER), it.now) == 1
    it.take()
    assert solicit(eid(ROAMER), it.now + 0.1) == 0
    assert solicit(eid(ROAMER), it.now + 0.2) == 0
    it.wait(0.5)
    assert it.out == []
    it.wait(0.2)
    assert len(smrs(it)) == 1
    it.wait(5.0)
    assert it.out == []
    solicit(eid(ROAMER), it.now)
    solicit(eid(ROAMER), it.now)
    it.take()
    it.control.switch(eid(ROAMER), FAR, it.now)
    it.wait(1.0)
    assert it.datagrams(FAR) == []


def test_an_smr_that_comes_too_soon_is_followed_later() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    smr = MapRequest(7, (FAR,), (EidRecord(eid("10.1.0.9/32")),), source_eid=eid("10.1.0.9/32"), smr=True).encode()
    it.receive(smr, FAR)
    it.receive(MapReply(it.asked().nonce, (record("10.1.0.0/24", FAR),)).encode())
    assert it.receive(smr, FAR) == []
    it.wait(1.1)
    assert it.asked().records[0].eid == eid("10.1.0.9/32")
