"""The ETR and the map server's word: registrations, publications, moves, and who may ask what of us."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from followme.lisp import (
    CONTROL_PORT,
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    MapNotify,
    MapRegister,
    MapReply,
    MapRequest,
    sign,
    verify,
)
from followme.lisp.register import OWN_NONCES
from followme.xtr.outputs import (
    Appeared,
    Datagram,
    Departed,
    Encap,
    Registered,
    RemoveRoute,
    SetRoute,
    ToLan,
)

from .play import FAR, KEY, MAC, MS, OTHER, POLICY, RLOC, STRANGER, XTR, Stage, eid, record

TO_FAR, TO_OTHER = Encap(((FAR, 100),)), Encap(((OTHER, 100),))
HOME, ROAMER = "10.3.0.10/32", "10.4.0.7/32"


def stage(**changes: float) -> Stage:
    made = Stage(POLICY, **changes)
    made.settle()
    return made


# -- registrations -------------------------------------------------------------------------------------------


def test_prefixes_are_registered_until_confirmed_with_growing_nonces() -> None:
    it = Stage()
    it.control.timer(it.now)
    registers = it.sent(MapRegister)
    for _ in range(30):
        it.wait(0.25)
        registers += it.sent(MapRegister)
    assert [register.records[0].eid for register in registers] == [eid("10.3.0.0/24")] * len(registers)
    assert len(registers) == 5  # at 0, 0.25, 0.75, 1.75 and 3.75 s
    nonces = [register.nonce for register in registers]
    assert nonces == sorted(set(nonces))
    first = registers[0]
    assert (first.want_map_notify, first.xtr_id, first.site_id, first.key_id) == (True, XTR, 3, 0)
    assert [loc.address for loc in first.records[0].locators] == [RLOC]
    assert verify(first.encode(), KEY)
    it.notify(*first.records, nonce=nonces[-2])
    assert it.all(Registered) == [Registered((eid("10.3.0.0/24"),), MS)]
    assert it.acks() == []  # it is an acknowledgement itself
    it.wait(40.0)
    assert it.sent(MapRegister) == []
    it.wait(20.0)
    assert len(it.sent(MapRegister)) >= 1  # each minute again


def test_a_map_notify_with_a_wrong_key_confirms_nothing() -> None:
    it = Stage()
    it.control.timer(it.now)
    register = it.sent(MapRegister)[0]
    assert it.notify(*register.records, nonce=register.nonce, key=b"another key") == []
    assert it.refused("Map-Notify with a wrong key") == 1
    assert it.notify(*register.records, nonce=register.nonce, source=STRANGER) == []
    assert it.refused("Map-Notify from a stranger") == 1
    weak = sign(MapNotify(register.nonce, register.records), KEY, 1)
    assert it.receive(weak.encode()) == []
    assert it.refused("not a LISP message") == 1  # SHA-1 is not what we agreed on


# -- Map-Requests --------------------------------------------------------------------------------------------


def ask(text: str, *itr: object, probe: bool = False) -> MapRequest:
    return MapRequest(77, itr or (FAR,), (EidRecord(eid(text)),), probe=probe)  # type: ignore[arg-type]


def test_a_forwarded_map_request_is_answered_to_the_itr_and_remembered() -> None:
    it = stage()
    ecm = EncapsulatedControlMessage(FAR, eid(HOME).network.network_address, ask(HOME), 5555)
    it.receive(ecm.encode(), MS)
    reply = it.sent(MapReply)[0]
    assert (it.datagrams()[0].address, it.datagrams()[0].port) == (FAR, 5555)
    assert (reply.nonce, reply.records[0].eid, reply.records[0].authoritative) == (77, eid("10.3.0.0/24"), True)
    assert it.control.etr.targets(eid(HOME), it.now) == (FAR,)
    assert it.receive(ecm.encode(), STRANGER) == []
    assert it.refused("ECM from a stranger") == 1


def test_a_plain_map_request_is_answered_only_to_where_it_came_from() -> None:
    it = stage()
    it.receive(ask(HOME, FAR).encode(), FAR)
    assert it.sent(MapReply, FAR)
    assert it.receive(ask(HOME, FAR).encode(), STRANGER) == []
    assert it.refused("Map-Request for another's answer") == 1
    assert it.receive(ask("10.1.0.1/32", FAR).encode(), FAR) == []
    assert it.refused("Map-Request for an EID that is not ours") == 1


def test_a_probe_is_answered_to_its_source_whoever_has_the_eid() -> None:
    it = stage()
    for asked in (HOME, "10.1.0.0/24"):
        it.receive(ask(asked, FAR, probe=True).encode(), FAR, 4342)
        reply = it.sent(MapReply, FAR)[0]
        assert (reply.probe, reply.nonce, reply.records[0].eid) == (True, 77, eid("10.3.0.0/24"))


def test_an_answer_names_what_has_left_the_prefix() -> None:
    it = stage()
    it.notify(record(HOME, OTHER), nonce=5)
    it.receive(ask("10.3.0.20/32", FAR).encode(), FAR)
    records = it.sent(MapReply)[0].records
    assert [(one.eid, one.locators[0].address) for one in records] == [
        (eid("10.3.0.0/24"), RLOC),
        (eid(HOME), OTHER),
    ]
    assert it.receive(ask(HOME, FAR).encode(), FAR) == []


def test_answers_are_rationed() -> None:
    it = stage()
    for _ in range(300):
        it.receive(ask(HOME, FAR).encode(), FAR)
    assert it.refused("rate of Map-Requests") == 99  # the first was a stranger's
    it.receive(ask(HOME, OTHER).encode(), OTHER)  # another has its own share
    assert it.sent(MapReply, OTHER)
    for n in range(3000):
        source = IPv4Address(n)
        it.receive(ask(HOME, source).encode(), source)
    assert it.refused("rate of Map-Requests") >= 1100
    ecm = EncapsulatedControlMessage(FAR, eid(HOME).network.network_address, ask(HOME), 5555)
    it.receive(ecm.encode(), MS)  # and what our map server vouches for has its own in any case
    assert it.sent(MapReply, FAR)


def test_a_map_request_costs_little_however_many_eids_we_have(monkeypatch: pytest.MonkeyPatch) -> None:
    it = stage()
    for n in range(1024):
        it.control.etr.registrar.eids.put(eid(f"10.4.{n >> 8}.{n & 255}/32"), it.now)
        it.notify(record(f"10.3.0.{n & 255}/32", OTHER), nonce=50)
    work = [0]
    covers = EidPrefix.covers

    def counted(self: EidPrefix, other: EidPrefix) -> bool:
        work[0] += 1
        return covers(self, other)

    monkeypatch.setattr(EidPrefix, "covers", counted)
    forged = tuple(EidRecord(eid(f"10.9.0.{n}/32")) for n in range(16))
    it.receive(MapRequest(1, (STRANGER,), forged).encode(), STRANGER)
    assert it.refused("Map-Request for an EID that is not ours") == 1
    whole = tuple(EidRecord(eid("10.3.0.0/24")) for n in range(16))
    it.receive(MapRequest(1, (STRANGER,), whole).encode(), STRANGER)
    assert len(it.sent(MapReply)[0].records) == 16
    assert work[0] < 100


# -- moves ---------------------------------------------------------------------------------------------------


def test_a_user_that_shows_up_is_routed_and_registered_at_once() -> None:
    it = stage()
    assert it.control.appeared(eid(ROAMER), MAC, it.now)
    it.take()
    assert it.all(SetRoute) == [SetRoute(eid(ROAMER), ToLan())]
    assert it.sent(MapRegister)[0].records[0].eid == eid(ROAMER)
    assert it.all(Appeared) == [Appeared(eid(ROAMER), MAC)]
    assert not it.control.appeared(eid(ROAMER), MAC, it.now)


def test_an_eid_of_ours_that_is_elsewhere_is_sent_on_and_its_correspondents_are_told() -> None:
    it = stage()
    it.receive(ask(HOME, FAR).encode(), FAR)
    it.learn("10.1.0.9", record("10.1.0.0/24", STRANGER))
    out = it.notify(record(HOME, OTHER), nonce=50)
    assert SetRoute(eid(HOME), TO_OTHER) in out
    assert it.all(Departed) == [Departed(eid(HOME), (OTHER,))]
    assert len(it.acks()) == 1
    solicited = {one.address for one in it.datagrams() if one.port == CONTROL_PORT and one.address != MS}
    assert solicited == {FAR, STRANGER}  # who asked, and where we send; not where it is now
    assert all(one.smr for one in it.sent(MapRequest))
    assert not it.control.local(eid(HOME))
    # The same once more (our acknowledgement was lost), and an old one (a replay): nothing moves.
    it.notify(record(HOME, OTHER), nonce=50)
    assert (it.all(SetRoute), len(it.acks())) == ([], 1)
    it.notify(record(HOME, FAR), nonce=49)
    assert (it.all(SetRoute), it.acks()) == ([], [])
    assert it.asked().records[0].eid == eid(HOME)  # nor is it believed to be old


def test_a_young_claim_is_not_given_up_for_an_old_word() -> None:
    it = stage()
    it.control.appeared(eid(ROAMER), MAC, it.now)
    it.take()
    assert it.notify(record(ROAMER, OTHER), nonce=50) == []  # neither believed nor acknowledged
    it.wait(1.0)
    assert SetRoute(eid(ROAMER), TO_OTHER) in it.notify(record(ROAMER, OTHER), nonce=50)
    assert not it.control.local(eid(ROAMER))


def test_our_whole_prefix_is_not_taken_from_us() -> None:
    it = stage()
    it.notify(record("10.3.0.0/24", OTHER), nonce=50)
    assert it.all(SetRoute) == []
    assert eid("10.3.0.0/24") in it.control.etr.registrar.eids


def test_home_again() -> None:
    it = stage()
    assert not it.control.appeared(eid(HOME), MAC, it.now)  # at home nobody needs an entry
    it.notify(record(HOME, OTHER), nonce=50)
    assert it.control.appeared(eid(HOME), MAC, it.now)
    it.take()
    assert it.all(SetRoute) == [SetRoute(eid(HOME), ToLan())]
    assert it.control.local(eid(HOME))


def test_a_machine_carried_away_and_back() -> None:
    it = stage()
    it.control.claim(eid(HOME), MAC, it.now, pinned=True)
    it.take()
    it.control.switch(eid(HOME), OTHER, it.now)
    assert SetRoute(eid(HOME), TO_OTHER) in it.take()
    assert not it.control.appeared(eid(HOME), MAC, it.now)
    assert it.refused("claim of a pinned EID") == 1  # its own last frames are no claim
    it.control.claim(eid(HOME), MAC, it.now, pinned=True)
    assert SetRoute(eid(HOME), ToLan()) in it.take()
    it.control.erase(eid(HOME), it.now, withdraw=True)
    it.take()
    assert it.all(RemoveRoute) == [RemoveRoute(eid(HOME))]
    assert it.sent(MapRegister)[0].records[0].ttl == 0


def test_a_publication_does_not_make_the_map_servers_word_old() -> None:
    """The nonces of a subscription are far above those of the map server's own Map-Notifies."""
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    own = 1 << 50
    assert own < it.nonce
    for number in range(3):
        it.control.claim(eid("10.1.0.9/32"), MAC, it.now, pinned=True)
        it.wait(2.0)
        it.publish(record("10.1.0.9/32", OTHER))
        it.notify(record("10.1.0.9/32", OTHER), nonce=own + number)
        assert len(it.acks()) == 1
        assert not it.control.local(eid("10.1.0.9/32"))


def test_the_word_that_a_machine_is_elsewhere_is_acknowledged_by_who_has_let_it_go() -> None:
    """Else its next claim would be refused: the map server must know that we know."""
    it = stage()
    it.control.claim(eid("10.1.0.9/32"), MAC, it.now, pinned=True)
    it.control.switch(eid("10.1.0.9/32"), OTHER, it.now)
    for _ in range(2):  # the second, as an acknowledgement was lost
        it.notify(record("10.1.0.9/32", OTHER), nonce=OWN_NONCES + 5)
        assert len(it.acks()) == 1


def test_a_confirmation_that_nobody_here_has_asked_for_is_not_acknowledged() -> None:
    """A stranger's Map-Request in our name makes the map server sign it, and our word would make it count."""
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    it.wait(2.0)
    it.notify(record("10.1.0.0/24", FAR), nonce=OWN_NONCES - 1)
    assert (it.acks(), it.all(SetRoute)) == ([], [])
    assert it.asked().records == (EidRecord(eid("10.1.0.0/24"), notify=True),), "subscribed to anew"
    for nonce in (1 << 20, it.nonce + (1 << 20)):
        it.notify(record("10.1.0.0/24", FAR), nonce=nonce)
        assert (it.acks(), it.all(SetRoute)) == ([], [])
    assert it.refused("Map-Notify that nobody asked for") == 3


def test_a_word_that_tells_nothing_new_makes_no_later_one_a_replay() -> None:
    """The same Map-Notify can be had by anybody, with a nonce of his choice."""
    it = stage()
    it.notify(record("10.3.0.7/32", FAR), nonce=OWN_NONCES + 1)
    assert len(it.acks()) == 1
    it.notify(record("10.3.0.7/32", FAR), nonce=OWN_NONCES - 1)
    assert it.acks() == []
    it.notify(record("10.3.0.7/32", OTHER), nonce=OWN_NONCES + 2)
    assert (len(it.acks()), it.all(SetRoute)) == (1, [SetRoute(eid("10.3.0.7/32"), TO_OTHER)])


def test_a_subscription_ends_only_if_we_have_asked_for_it() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    it.notify(record("10.1.0.0/24", ttl=0), nonce=it.nonce + 1)
    assert (it.acks(), it.all(RemoveRoute)) == ([], [])
    request = it.asked()
    assert request.records[0].eid == eid("10.1.0.0/24")
    it.receive(MapReply(request.nonce, (record("10.1.0.0/24", FAR),)).encode())
    assert (it.all(SetRoute), it.requests()) == ([], [])
    out = it.publish(record("10.1.0.9/32", OTHER))
    assert SetRoute(eid("10.1.0.9/32"), TO_OTHER) in out, "it is subscribed as before"


def test_the_true_end_of_a_subscribed_mapping_is_asked_about_and_then_acknowledged() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.9/32", FAR))
    end = (record("10.1.0.9/32", ttl=0), record("10.1.0.0/24", OTHER))
    it.notify(*end, nonce=it.nonce + 1)
    assert it.acks() == []
    request = it.asked()
    out = it.receive(MapReply(request.nonce, (record("10.1.0.0/24", OTHER),)).encode())
    assert out.index(SetRoute(eid("10.1.0.0/24"), TO_OTHER)) < out.index(RemoveRoute(eid("10.1.0.9/32")))
    assert it.asked().records == (EidRecord(eid("10.1.0.0/24"), notify=True),)
    it.notify(*end, nonce=it.nonce + 1)
    assert len(it.acks()) == 1


def test_a_confirmation_without_records_asks_whether_it_was_us() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR), confirm=False)
    nonce = it.control.itr.requests.pending[eid("10.1.0.0/24")].nonces[-1]
    it.notify(nonce=nonce)
    assert [(ack.nonce, ack.records) for ack in it.acks()] == [(nonce, ())]
    assert SetRoute(eid("10.1.0.9/32"), TO_OTHER) in it.notify(
        record("10.1.0.0/24", FAR), record("10.1.0.9/32", OTHER), nonce=nonce
    )
    assert len(it.acks()) == 1
    it.notify(nonce=nonce + (1 << 40))
    assert it.acks() == []


# -- publications --------------------------------------------------------------------------------------------


def test_a_publication_moves_an_eid_at_once_and_is_acknowledged() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    out = it.publish(record("10.1.0.9/32", OTHER))
    assert SetRoute(eid("10.1.0.9/32"), TO_OTHER) in out
    ack = it.acks()[0]
    assert (ack.nonce, ack.records, ack.xtr_id) == (it.nonce, (record("10.1.0.9/32", OTHER),), XTR)
    assert verify(ack.encode(), KEY)
    out = it.publish(record("10.1.0.9/32", ttl=0), record("10.1.0.0/24", FAR))
    assert RemoveRoute(eid("10.1.0.9/32")) in out
    found = it.control.itr.cache.find(eid("10.1.0.9/32"))
    assert found is not None
    assert found[1].way == TO_FAR


def test_a_publication_needs_a_growing_nonce_and_a_subscription() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    first = it.nonce + 1
    it.publish(record("10.1.0.9/32", OTHER))
    it.publish(record("10.1.0.9/32", STRANGER))
    it.notify(record("10.1.0.9/32", OTHER), nonce=first)
    assert it.all(Datagram) == []
    assert it.refused("Map-Notify that nobody asked for") == 1
    it.notify(record("10.5.0.9/32", OTHER), nonce=it.nonce + 1)
    assert it.all(SetRoute) == []
    it.notify(record("10.1.0.9/32", OTHER), nonce=it.nonce + (1 << 30))
    assert it.all(SetRoute) == []
    assert it.notify(record("10.1.0.9/32", OTHER), nonce=it.nonce + 1, key=b"another key") == []


def test_the_last_publication_twice_is_acknowledged_twice_and_done_once() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    it.publish(record("10.1.0.9/32", OTHER))
    it.notify(record("10.1.0.9/32", OTHER), nonce=it.nonce)
    assert len(it.acks()) == 1
    assert it.all(SetRoute) == []


def test_a_publication_for_another_xtr_is_refused() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    message = sign(MapNotify(it.nonce + 1, (record("10.1.0.9/32", OTHER),), bytes(16), 3), KEY)
    assert it.receive(message.encode()) == []
    assert it.refused("Map-Notify for another xTR") == 1


def test_a_publication_about_an_eid_that_is_here_does_not_take_it() -> None:
    it = stage()
    it.learn("10.4.0.9", record("10.4.0.0/24", FAR))
    it.control.appeared(eid(ROAMER), MAC, it.now)
    it.take()
    it.publish(record(ROAMER, RLOC))
    assert it.all(SetRoute) == []
    assert it.control.local(eid(ROAMER))
