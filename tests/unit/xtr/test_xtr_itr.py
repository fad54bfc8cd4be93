"""The ITR: what it asks, whom it believes, how long, and what a flood can take from others."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from followme.lisp import (
    Action,
    EidRecord,
    EncapsulatedControlMessage,
    Locator,
    MappingRecord,
    MapReply,
    MapRequest,
)
from followme.xtr import requests as bounds
from followme.xtr.hearsay import SMRS_BURST
from followme.xtr.outputs import Answered, Drop, Encap, LocatorState, Native, Release, RemoveRoute, SetRoute

from .play import FAR, MS, OTHER, POLICY, RLOC, STRANGER, Stage, eid, packet, record

TO_FAR, TO_OTHER = Encap(((FAR, 100),)), Encap(((OTHER, 100),))


def stage(**changes: float) -> Stage:
    made = Stage(POLICY, **changes)
    made.settle()
    return made


def test_a_miss_is_asked_for_and_its_packets_follow_the_answer() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.1.0.9")
    request = it.asked()
    assert request.records == (EidRecord(eid("10.1.0.9/32")),)
    assert (request.itr_rlocs, request.source_eid) == ((RLOC,), eid("10.3.0.5/32"))
    ecm = it.sent(EncapsulatedControlMessage, MS)[0]
    assert (str(ecm.source), str(ecm.destination)) == (str(RLOC), "10.1.0.9")
    assert it.miss("10.3.0.5", "10.1.0.9") == []  # waits with the first
    out = it.receive(MapReply(request.nonce, (record("10.1.0.0/24", FAR),)).encode())
    waiting = packet("10.3.0.5", "10.1.0.9")
    released = Release(eid("10.1.0.9/32"), (waiting, waiting))
    assert out.index(SetRoute(eid("10.1.0.0/24"), TO_FAR)) < out.index(released)
    follow = it.asked()
    assert follow.records == (EidRecord(eid("10.1.0.0/24"), notify=True),)
    assert (follow.xtr_id, follow.site_id, follow.nonce > request.nonce) == (it.site.xtr_id, 3, True)


def test_a_map_reply_needs_the_right_nonce_source_and_eid() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.1.0.9")
    nonce = it.asked().nonce
    good = (record("10.1.0.0/24", FAR),)
    assert it.receive(MapReply(nonce ^ 1, good).encode()) == []
    assert it.refused("Map-Reply with a wrong nonce") == 1
    assert it.receive(MapReply(nonce, good).encode(), STRANGER) == []
    assert it.refused("Map-Reply from a stranger") == 1
    assert it.receive(MapReply(nonce, (record("10.2.0.0/24", FAR),)).encode()) == []
    assert it.refused("Map-Reply for another EID") == 1
    assert SetRoute(eid("10.1.0.9/32"), TO_FAR) in it.receive(MapReply(nonce, good).encode(), FAR)
    assert it.receive(MapReply(nonce, good).encode(), FAR) == []
    assert it.refused("late Map-Reply") == 1


def test_an_answer_takes_neither_our_own_prefix_nor_more_than_the_eid_space() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.1.0.9")
    records = (record("0.0.0.0/0", FAR), record("10.3.0.0/24", FAR), record("10.1.7.0/24", OTHER))
    it.receive(MapReply(it.asked().nonce, records).encode())
    assert [(route.eid, route.way) for route in it.all(SetRoute)] == [
        (eid("10.0.0.0/8"), TO_FAR),
        (eid("10.1.7.0/24"), TO_OTHER),
    ]


def test_a_mapping_to_ourselves_is_no_loop() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.1.0.9")
    it.receive(MapReply(it.asked().nonce, (record("10.1.0.9/32", RLOC),)).encode())
    assert it.all(SetRoute) == [SetRoute(eid("10.1.0.9/32"), Drop())]
    assert it.refused("mapping to ourselves") == 1
    assert RemoveRoute(eid("10.1.0.9/32")) in it.wait(2.0)


@pytest.mark.parametrize(
    ("action", "way"),
    [(Action.NATIVELY_FORWARD, Native()), (Action.DROP, Drop()), (Action.DROP_AUTH_FAILURE, Drop())],
)
def test_a_negative_answer_holds_for_its_ttl(action: Action, way: object) -> None:
    it = stage()
    it.learn("10.9.0.9", record("10.9.0.0/16", ttl=1, action=action), confirm=False)
    assert SetRoute(eid("10.9.0.0/16"), way) in it.out  # type: ignore[arg-type]
    assert RemoveRoute(eid("10.9.0.0/16")) not in it.wait(59.0)
    assert RemoveRoute(eid("10.9.0.0/16")) in it.wait(2.0)


def test_an_unanswered_miss_is_repeated_and_given_up() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.1.0.9")
    times = []
    start, nonces = it.now, {it.asked().nonce}
    for _ in range(100):
        it.wait(0.1)
        for request in it.requests():
            times.append(round(it.now - start, 1))
            nonces.add(request.nonce)
        if it.all(Answered):
            break
    assert times == [0.5, 1.5, 3.5]
    assert len(nonces) == 4
    assert it.all(Answered) == [Answered(eid("10.1.0.9/32"), None)]
    assert it.all(SetRoute) == [SetRoute(eid("10.1.0.9/32"), Drop())]  # for a second nobody asks
    assert it.control.itr.requests.waiting_bytes == 0


def test_an_answer_to_the_first_attempt_counts_after_the_second() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.1.0.9")
    nonce = it.asked().nonce
    it.wait(0.6)
    assert it.all(SetRoute) == []
    it.receive(MapReply(nonce, (record("10.1.0.0/24", FAR),)).encode())
    assert SetRoute(eid("10.1.0.0/24"), TO_FAR) in it.out


def test_a_flood_of_one_source_leaves_room_for_others() -> None:
    it = stage()
    for n in range(3000):
        it.miss("10.3.0.66", f"10.200.{n >> 8}.{n & 255}")
    assert len(it.control.itr.requests.pending) == bounds.MAX_PER_SOURCE
    assert it.refused("misses of one source") == 3000 - bounds.MAX_PER_SOURCE
    it.miss("10.3.0.5", "10.1.0.9")
    assert it.asked().records[0].eid == eid("10.1.0.9/32")


def test_where_all_places_are_taken_the_greediest_source_loses() -> None:
    it = stage()
    requests = it.control.itr.requests
    for source in range(20):
        for n in range(bounds.MAX_PER_SOURCE):
            it.miss(f"10.3.0.{100 + source}", f"10.20.{source}.{n}")
        it.now += 1.0 / 16
    assert len(requests.pending) <= bounds.MAX_PENDING
    it.now += 1.0
    it.miss("10.3.0.5", "10.1.0.9")
    assert eid("10.1.0.9/32") in requests.pending
    assert len(requests.pending) <= bounds.MAX_PENDING


def test_packets_that_wait_are_bounded() -> None:
    it = stage()
    for _ in range(100):
        it.miss("10.3.0.5", "10.1.0.9")
    assert it.refused("queue of misses") == 100 - bounds.MAX_PACKETS
    requests = it.control.itr.requests
    assert requests.waiting_bytes == bounds.MAX_PACKETS * 28


def test_a_mapping_in_use_is_asked_for_before_its_end_and_one_not_in_use_ends() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR, ttl=2))
    it.learn("10.2.0.9", record("10.2.0.0/24", OTHER, ttl=2))
    it.wait(80.0)
    assert set(it.control.itr.cache.watched) == set()
    it.wait(15.0)
    assert set(it.control.itr.cache.watched) == {eid("10.1.0.0/24"), eid("10.2.0.0/24")}
    it.control.saw(eid("10.1.0.77/32"), it.now)
    it.take()
    request = it.asked()
    assert request.records[0].eid == eid("10.1.0.0/24")
    it.notify(record("10.1.0.0/24", FAR, ttl=2), nonce=request.nonce)
    assert it.all(SetRoute) == []  # the same way: the route is not touched
    out = it.wait(60.0)
    assert RemoveRoute(eid("10.2.0.0/24")) in out
    assert RemoveRoute(eid("10.1.0.0/24")) not in out


def test_a_mapping_in_use_outlives_a_silent_map_system_for_a_while() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR, ttl=1))
    it.wait(50.0)
    it.control.saw(eid("10.1.0.9/32"), it.now)
    assert RemoveRoute(eid("10.1.0.0/24")) not in it.wait(300.0)
    assert RemoveRoute(eid("10.1.0.0/24")) in it.wait(500.0)


def smr(text: str) -> bytes:
    return MapRequest(7, (FAR,), (EidRecord(eid(text)),), source_eid=eid(text), smr=True).encode()


def test_an_smr_from_a_new_locator_asks_the_map_system_only_and_seldom() -> None:
    """A peer whose RLOC has changed solicits from the new one; so may anybody."""
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    it.receive(smr("10.1.0.9/32"), OTHER)
    request = it.asked()
    assert (request.records, request.smr_invoked) == ((EidRecord(eid("10.1.0.9/32")),), True)
    assert len(it.datagrams()) == len(it.datagrams(MS)) == 1
    out = it.receive(MapReply(request.nonce, (record("10.1.0.0/24", OTHER),)).encode())
    assert SetRoute(eid("10.1.0.0/24"), TO_OTHER) in out
    it.wait(5.0)
    sent = 0
    for n in range(200):
        it.receive(smr(f"10.1.0.{n}/32"), STRANGER)
        sent += len(it.requests())
    assert sent == SMRS_BURST
    assert it.all(SetRoute) == []


def test_an_smr_of_a_locator_of_the_mapping_is_followed() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    assert it.receive(smr("10.7.0.9/32"), FAR) == []
    assert it.refused("SMR from a stranger") == 1
    it.receive(smr("10.1.0.9/32"), FAR)
    request = it.asked()
    assert (request.smr_invoked, request.smr) == (True, False)
    assert it.all(SetRoute) == []  # nothing is believed of it
    out = it.receive(MapReply(request.nonce, (record("10.1.0.9/32", OTHER),)).encode())
    assert SetRoute(eid("10.1.0.9/32"), TO_OTHER) in out
    assert it.requests() == []  # the covering subscription will tell of it


def test_what_is_to_be_asked_for_with_each_packet_has_no_entry() -> None:
    """ACT 2, Send-Map-Request (RFC 9301, 5.4); a miss is asked for within its bounds."""
    it = stage()
    for _ in range(2):
        it.miss("10.3.0.5", "10.9.0.9")
        request = it.asked()
        answer = MapReply(request.nonce, (record("10.9.0.0/16", action=Action.SEND_MAP_REQUEST),))
        it.receive(answer.encode())
        assert (it.all(SetRoute), it.all(Release), it.requests()) == ([], [], [])
    it.miss("10.3.0.5", "10.9.0.9")
    out = it.receive(MapReply(it.asked().nonce, (record("10.9.0.9/32", FAR),)).encode())
    assert SetRoute(eid("10.9.0.9/32"), TO_FAR) in out


def test_an_smr_from_a_locator_that_the_mapping_had_tells_nothing_new() -> None:
    """The router at the source solicits those who have heard of the move by publication already."""
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    it.publish(record("10.1.0.9/32", OTHER))
    it.take()
    assert it.receive(smr("10.1.0.9/32"), FAR) == []
    assert (it.refused("SMR about what is known"), it.refused("SMR from a stranger")) == (1, 0)
    it.receive(smr("10.1.0.9/32"), OTHER)  # the locator that it has now is heeded
    assert it.asked().records[0].eid == eid("10.1.0.9/32")
    it.wait(60.0)
    it.receive(smr("10.1.0.9/32"), FAR)
    assert it.refused("SMR from a new locator") == 1


def test_an_smr_from_a_former_locator_is_followed_where_nothing_is_subscribed() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.9/32", FAR), confirm=False)
    for request in it.requests():
        it.receive(MapReply(request.nonce, (record("10.1.0.9/32", OTHER),)).encode())
    found = it.control.itr.cache.find(eid("10.1.0.9/32"))
    assert found is not None
    assert found[1].way == TO_OTHER
    it.receive(smr("10.1.0.9/32"), FAR)
    assert it.asked().records[0].eid == eid("10.1.0.9/32")


def test_smrs_are_rationed() -> None:
    it = stage()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    it.receive(smr("10.1.0.9/32"), FAR)
    it.receive(MapReply(it.asked().nonce, (record("10.1.0.0/24", FAR),)).encode())
    for _ in range(50):
        assert it.receive(smr("10.1.0.9/32"), FAR) == []
    assert it.refused("SMR too soon") == 50


def test_locators_by_priority_and_weight() -> None:
    it = stage()
    locators = (
        Locator(FAR, 2, 50),
        Locator(OTHER, 1, 30),
        Locator(STRANGER, 1, 70),
        Locator(IPv4Address("192.0.2.77"), 255),
        Locator(IPv4Address("192.0.2.78"), 1, reachable=False),
    )
    it.learn("10.1.0.9", MappingRecord(eid("10.1.0.0/24"), locators))
    entry = it.control.itr.cache.table.get(eid("10.1.0.0/24"))
    assert entry is not None
    assert entry.way == Encap(((OTHER, 30), (STRANGER, 70)))


def test_a_locator_goes_down_after_three_probes_and_the_next_one_serves() -> None:
    it = stage(probe_interval_s=10.0)
    locators = (Locator(FAR, 1, 100), Locator(OTHER, 2, 100))
    it.learn("10.1.0.9", MappingRecord(eid("10.1.0.0/24"), locators))

    def answer(*alive: IPv4Address) -> None:
        for datagram, request in zip(it.datagrams(), it.sent(MapRequest), strict=False):
            if datagram.address in alive:
                it.control.receive(
                    MapReply(request.nonce, (record("10.1.0.0/24", FAR),), probe=True).encode(),
                    datagram.address, 4342, it.now,
                )  # fmt: skip

    def play(seconds: float, *alive: IPv4Address) -> list[object]:
        events: list[object] = []
        for _ in range(int(seconds / 0.25)):
            it.wait(0.25)
            events += [one for one in it.out if isinstance(one, LocatorState | SetRoute)]
            probes = [d for d in it.datagrams() if d.address in (FAR, OTHER)]
            it.out = list(probes)
            answer(*alive)
        return events + [one for one in it.take() if isinstance(one, LocatorState | SetRoute)]

    assert play(25.0, FAR, OTHER) == []
    events = play(15.0, OTHER)
    assert events == [LocatorState(FAR, False), SetRoute(eid("10.1.0.0/24"), TO_OTHER)]
    assert it.refused("probe's answer that nobody waits for") == 0
    assert play(25.0, OTHER, FAR) == [LocatorState(FAR, True), SetRoute(eid("10.1.0.0/24"), TO_FAR)]


def test_with_no_locator_left_the_mapping_is_asked_for_again() -> None:
    it = stage(probe_interval_s=1.0)
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    asked = []
    for _ in range(40):
        it.wait(0.25)
        asked += [r for r in it.requests() if r.records[0].eid == eid("10.1.0.0/24")]
        assert it.all(RemoveRoute) == []
    assert asked
    entry = it.control.itr.cache.table.get(eid("10.1.0.0/24"))
    assert entry is not None
    assert entry.way == TO_FAR


def test_a_full_map_cache_gives_up_negative_entries_first() -> None:
    it = stage(max_entries=16)
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    for n in range(40):
        it.now += 0.1
        it.learn(f"10.9.{n}.1", record(f"10.9.{n}.0/24", action=Action.DROP), confirm=False)
    cache = it.control.itr.cache
    assert len(cache.table) == 16
    assert eid("10.1.0.0/24") in cache.table
    assert cache.evicted > 0


def test_an_adopted_route_stays_and_is_asked_about() -> None:
    it = stage()
    it.control.adopt(eid("10.1.0.0/24"), TO_FAR, it.now)
    it.wait(0.1)
    assert it.all(SetRoute) == []
    it.notify(record("10.1.0.0/24", FAR), nonce=it.asked().nonce)
    assert it.all(SetRoute) == []
    assert it.all(RemoveRoute) == []
