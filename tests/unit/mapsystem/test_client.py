"""``MapClient`` and the real map server's core, with a wire between them that loses, repeats and forges."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest

from followme.lisp import (
    Action,
    EncapsulatedControlMessage,
    MapNotify,
    MapNotifyAck,
    MapReply,
    MapRequest,
    decode,
    sign,
)
from followme.mapsystem import MapServer
from followme.mapsystem.client import MAX_ASKS, REFRESH_S, RETRY_S, Answered, Changed

from .fakes import KEYS, RLOCS, Router, eid, record, server, site
from .wire import AWAY, OURS, SERVER, USER, Wire, changes, client


@pytest.fixture
def wire() -> Wire:
    return Wire(server(), client())


@pytest.fixture
def wlan2(wire: Wire) -> Router:
    return Router(wire.server, "wlan2")


def subscribed(wire: Wire, *prefixes: str) -> None:
    for prefix in prefixes:
        wire.client.subscribe(eid(prefix), wire.now)
    wire.run()
    assert wire.client.confirmed


def is_a(kind: type, data: bytes) -> bool:
    return isinstance(decode(data), kind)


# ---- subscriptions


def test_a_subscription_is_confirmed_and_tells_what_is_so_already(wire: Wire, wlan2: Router) -> None:
    wlan2.own("10.4.0.0/24")
    wlan2.own(USER)
    wire.client.subscribe(eid("10.3.0.0/24"), 0.0)
    assert not wire.client.confirmed
    told = changes(wire.run())
    assert wire.client.confirmed
    assert ("10.3.0.10/32", [AWAY]) in told
    assert len(wire.server.subscriptions) == 1
    assert wire.sent == {"EncapsulatedControlMessage": 1, "MapNotifyAck": 1}


def test_a_users_moves_are_told_once_each_and_acknowledged(wire: Wire, wlan2: Router) -> None:
    subscribed(wire, "10.3.0.0/24")
    wlan1 = Router(wire.server, "wlan1")
    assert changes(wire.tell(wlan2.own(USER))) == [("10.3.0.10/32", [AWAY])]
    assert changes(wire.tell(wlan1.own(USER, now=1.0))) == [("10.3.0.10/32", [RLOCS["wlan1"]])]
    assert changes(wire.run(30.0)) == []
    assert wire.sent["MapNotifyAck"] == 3
    assert not wire.client.refused


def test_what_is_withdrawn_is_told_without_locators_and_then_what_covers_it(wire: Wire, wlan2: Router) -> None:
    wlan1 = Router(wire.server, "wlan1")
    wlan1.own("10.3.0.0/24")
    subscribed(wire, "10.3.0.0/24")
    wire.tell(wlan2.own(USER))
    told = changes(wire.tell(wlan2.register(record(USER, AWAY, ttl=0))))
    assert told == [("10.3.0.10/32", []), ("10.3.0.0/24", [RLOCS["wlan1"]])]


def test_what_lies_elsewhere_is_not_told(wire: Wire, wlan2: Router) -> None:
    subscribed(wire, "10.3.0.0/24")
    assert wire.tell(wlan2.own("10.4.0.0/24")) == []


def test_two_subscriptions_have_nonces_of_their_own(wire: Wire, wlan2: Router) -> None:
    subscribed(wire, "10.3.0.0/24", "10.4.0.0/24", "10.3.0.10/32")
    routers = (wlan2, Router(wire.server, "wlan1"))
    for turn in range(4):
        here, left = routers[turn % 2], routers[(turn + 1) % 2]
        outcome = here.own(USER, now=wire.now)
        for datagram in outcome.datagrams:
            if datagram.host == left.host:
                left.acknowledge(datagram, wire.now)
        # once for the prefix and once for the host's own subscription
        assert changes(wire.tell(outcome)) == [("10.3.0.10/32", [here.host])] * 2
        wire.tell(wlan2.own("10.4.0.0/24" if turn % 2 else "10.4.0.7/32", now=wire.now))
        wire.run(15.0)
    assert not wire.client.refused


def test_lost_requests_and_confirmations_are_made_up_for(wire: Wire, wlan2: Router) -> None:
    count = Counter[str]()

    def lose(host: str, data: bytes) -> bool:
        count[host] += 1
        return count[host] <= 2

    wire.lose = lose
    wlan2.own(USER)
    wire.client.subscribe(eid("10.3.0.0/24"), 0.0)
    wire.run(sum(RETRY_S) + RETRY_S[-1])
    assert wire.client.confirmed
    assert len(wire.server.subscriptions) == 1


def test_a_lost_publication_comes_again_and_is_news_once(wire: Wire, wlan2: Router) -> None:
    subscribed(wire, "10.3.0.0/24")
    wire.lose = lambda host, data: host == OURS[0]
    assert wire.tell(wlan2.own(USER)) == []
    wire.lose = lambda host, data: is_a(MapNotifyAck, data)
    assert changes(wire.run(1.5)) == [("10.3.0.10/32", [AWAY])]
    wire.lose = lambda host, data: False
    assert wire.run(5.0) == []  # the third one is acknowledged, and no news
    assert wire.server.publisher.notices.due() is None


def test_a_map_server_that_is_silent_is_asked_for_ever_but_not_often(wire: Wire) -> None:
    wire.lose = lambda host, data: True
    wire.client.subscribe(eid("10.3.0.0/24"), 0.0)
    wire.run(600.0)
    assert not wire.client.confirmed
    assert 600 / RETRY_S[-1] - 3 <= wire.sent["EncapsulatedControlMessage"] <= 600 / RETRY_S[-1] + 3


def test_it_is_refreshed_so_a_map_server_that_has_forgotten_learns_of_it(wire: Wire) -> None:
    subscribed(wire, "10.3.0.0/24")
    wire.server = MapServer([site(name) for name in KEYS], nonce=1 << 41)
    assert len(wire.server.subscriptions) == 0
    wire.run(REFRESH_S + 1)
    assert len(wire.server.subscriptions) == 1
    router = Router(wire.server, "wlan2")
    assert changes(wire.tell(router.own(USER, now=wire.now))) == [("10.3.0.10/32", [AWAY])]


def test_refreshes_are_no_news_and_go_on_for_hours(wire: Wire, wlan2: Router) -> None:
    subscribed(wire, "10.3.0.0/24", "10.4.0.0/24")
    wlan2.own(USER, now=0.0)
    wire.run(2 * 3600.0)
    assert wire.client.confirmed
    assert not wire.client.refused
    assert sum(wire.server.refusals.counts.values()) == 0
    assert wire.sent["EncapsulatedControlMessage"] <= 2 * (2 * 3600 / REFRESH_S + 1)


def test_what_went_while_nothing_got_through_is_learnt_at_the_next_refresh(wire: Wire, wlan2: Router) -> None:
    wlan1 = Router(wire.server, "wlan1")
    wlan1.own("10.3.0.0/24")
    subscribed(wire, "10.3.0.0/24", "10.4.0.0/24")
    wire.tell(wlan2.own(USER))
    wire.lose = lambda host, data: True
    wire.tell(wlan2.register(record(USER, AWAY, ttl=0), now=wire.now))
    wire.run(20.0)
    wire.lose = lambda host, data: False
    told = changes(wire.run(2 * REFRESH_S))
    assert ("10.3.0.10/32", []) in told, "the user is at home, and nobody says so"
    assert changes(wire.run(3 * REFRESH_S)).count(("10.3.0.10/32", [])) == 0


def test_a_new_life_subscribes_with_greater_nonces(wire: Wire) -> None:
    subscribed(wire, "10.3.0.0/24")
    again = Wire(wire.server, client(wall_s=1.75e9 + 2))
    subscribed(again, "10.3.0.0/24")
    assert len(wire.server.subscriptions) == 1
    assert not wire.server.refusals.counts["subscription-replay"]


# ---- whom it believes


def test_with_the_wrong_key_nothing_is_subscribed_and_nothing_believed(wlan2: Router) -> None:
    wire = Wire(server(), client(key=b"not the key"))
    wire.client.subscribe(eid("10.3.0.0/24"), 0.0)
    assert wire.run(10.0) == []
    assert not wire.client.confirmed
    assert wire.client.refused["wrong key"] >= 1
    assert wire.sent["MapNotifyAck"] == 0
    assert len(wire.server.subscriptions) == 0


@pytest.mark.parametrize("weakest", [1, 2])
@pytest.mark.parametrize("offered", [(1, 2), (2, 1), (2,), (1,)])
@pytest.mark.parametrize("keys", [{1: KEYS["ctl"]}, {1: KEYS["ctl"], 0: b"the old key"}])
def test_any_key_id_and_algorithm_that_both_have_will_do(
    weakest: int, offered: tuple[int, ...], keys: dict[int, bytes]
) -> None:
    wire = Wire(server(site("ctl", keys=keys, algorithms=offered), site("wlan2")),
                client(key_id=1, algorithm_id=weakest))  # fmt: skip
    wire.client.subscribe(eid("10.3.0.0/24"), 0.0)
    wire.run(30.0)
    believed = max(offered) >= weakest
    assert (wire.client.confirmed, wire.client.silent) == (believed, not believed)
    assert set(wire.client.refused) == (set() if believed else {"algorithm of a Map-Notify"})
    told = changes(wire.tell(Router(wire.server, "wlan2").own(USER, now=wire.now)))
    assert told == ([("10.3.0.10/32", [AWAY])] if believed else [])


def test_a_recorded_notify_is_not_news_again_later(wire: Wire, wlan2: Router) -> None:
    subscribed(wire, "10.3.0.0/24")
    wlan1 = Router(wire.server, "wlan1")
    wire.tell(wlan2.own(USER))
    recorded = wire.heard[-1]
    wire.tell(wlan1.own(USER, now=1.0))
    wire.client.receive(recorded, SERVER, wire.now)
    assert not wire.client.events
    assert wire.client.refused == {"replayed Map-Notify": 1}


def forged(nonce: int, key: bytes = KEYS["ctl"], key_id: int = 0, algorithm: int = 2, **changes: object) -> bytes:
    values: dict[str, object] = {
        "nonce": nonce, "records": (record(USER, "203.0.113.66"),), "xtr_id": b"ctl".ljust(16, b"."), "site_id": 5,
    }  # fmt: skip
    return sign(MapNotify(**{**values, **changes}), key, algorithm, key_id=key_id).encode()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (forged(1 << 63, key=b"another key"), "wrong key"),
        (forged(1 << 63, algorithm=1), "algorithm of a Map-Notify"),
        (forged(1 << 63, key_id=1), "key id of a Map-Notify"),
        (forged(1 << 63, xtr_id=bytes(16)), "Map-Notify for another"),
        (forged(1 << 63, xtr_id=None, site_id=0), "Map-Notify for another"),
        (forged(1 << 63, records=(record("10.9.0.1/32", "203.0.113.66"),)), "Map-Notify without a subscription"),
        (MapReply(1, (record(USER, "203.0.113.66"),)).encode(), "nonce of a Map-Reply"),
        (b"", "not LISP"),
        (b"\x40\x00", "not LISP"),
        (bytes(range(256)), "unexpected UnknownMessage"),
        (b"\x10" + bytes(range(255)), "not LISP"),
    ],
)
def test_a_datagram_that_is_not_believed_changes_nothing(wire: Wire, data: bytes, reason: str) -> None:
    subscribed(wire, "10.3.0.0/24")
    wire.client.receive(data, SERVER, wire.now)
    assert not wire.client.events
    assert not wire.client.datagrams
    assert wire.client.refused == {reason: 1}


def test_a_map_notify_of_another_host_is_not_one(wire: Wire) -> None:
    subscribed(wire, "10.3.0.0/24")
    wire.client.receive(forged(1 << 63), ("203.0.113.66", 4342), wire.now)
    assert not wire.client.events
    assert wire.client.refused == {"unexpected MapNotify": 1}


# ---- questions


def test_a_question_is_answered_by_the_mapping_that_covers_it(wire: Wire) -> None:
    dc2 = Router(wire.server, "dc2")
    dc2.own("10.2.0.0/24")
    number = wire.client.ask(eid("10.2.0.0/24"), 0.0)
    (answered,) = wire.run()
    assert isinstance(answered, Answered)
    assert answered.number == number
    assert answered.record is not None
    assert [locator.address for locator in answered.record.locators] == [ip_address(RLOCS["dc2"])]
    assert wire.client.next_timer() is None


def test_nobodys_prefix_is_answered_too(wire: Wire) -> None:
    wire.client.ask(eid("198.51.100.0/24"), 0.0)
    (answered,) = wire.run()
    assert isinstance(answered, Answered)
    assert answered.record is not None
    assert (answered.record.locators, answered.record.action) == ((), Action.NATIVELY_FORWARD)


def test_a_question_is_repeated_and_then_given_up(wire: Wire) -> None:
    wire.lose = lambda host, data: True
    number = wire.client.ask(eid("10.2.0.0/24"), 0.0)
    assert wire.run(sum(RETRY_S) - 0.1) == []
    assert wire.sent["EncapsulatedControlMessage"] == len(RETRY_S)
    assert wire.run(1.0) == [Answered(number, None)]


def test_a_late_answer_to_the_first_attempt_counts(wire: Wire) -> None:
    lost: list[bytes] = []

    def hold(host: str, data: bytes) -> bool:
        lost.append(data)
        return True

    wire.lose = hold
    number = wire.client.ask(eid("10.2.0.0/24"), 0.0)
    wire.run(1.0)
    first = decode(lost[0])
    assert isinstance(first, EncapsulatedControlMessage)
    assert isinstance(first.message, MapRequest)
    reply = MapReply(first.message.nonce, (record("10.2.0.0/24", RLOCS["dc2"]),))
    # The ETR itself may answer: RFC 9301 has its nonce as the only proof.
    wire.client.receive(reply.encode(), (RLOCS["dc2"], 4342), wire.now)
    assert [one.number for one in wire.client.events if isinstance(one, Answered)] == [number]
    wire.client.receive(reply.encode(), (RLOCS["dc2"], 4342), wire.now)
    assert wire.client.refused == {"nonce of a Map-Reply": 1}


def test_an_answer_for_another_eid_is_none(wire: Wire) -> None:
    wire.client.ask(eid("10.2.0.0/24"), 0.0)
    wire.client.timer(0.0)
    message = decode(wire.client.datagrams.popleft()[0])
    assert isinstance(message, EncapsulatedControlMessage)
    assert isinstance(message.message, MapRequest)
    assert not message.message.subscribes
    for other in (record("10.1.0.0/24", "203.0.113.66"), record("10.2.0.5/32", "203.0.113.66")):
        wire.client.receive(MapReply(message.message.nonce, (other,)).encode(), SERVER, wire.now)
    assert not wire.client.events
    assert wire.client.refused == {"Map-Reply for another EID": 2}


def test_questions_are_bounded(wire: Wire) -> None:
    for _ in range(MAX_ASKS):
        wire.client.ask(eid("10.2.0.0/24"), 0.0)
    with pytest.raises(ValueError, match="256 questions wait for the map server"):
        wire.client.ask(eid("10.2.0.0/24"), 0.0)
    wire.run(0.0)
    wire.client.ask(eid("10.2.0.0/24"), 0.0)


def test_a_record_with_ttl_0_has_no_locators_whatever_it_says(wire: Wire) -> None:
    subscribed(wire, "10.3.0.0/24")
    gone = replace(record(USER, "203.0.113.66"), ttl=0)
    nonce = max(decode(data).nonce for data in wire.heard) + 1  # type: ignore[union-attr]
    wire.client.receive(forged(nonce, records=(gone,)), SERVER, wire.now)
    assert changes(list(wire.client.events)) == [("10.3.0.10/32", [])]


def test_any_bytes_are_refused_by_reason(wire: Wire, wlan2: Router) -> None:
    subscribed(wire, "10.3.0.0/24")
    wire.tell(wlan2.own(USER))
    good = wire.heard[-1]
    for cut in range(len(good)):
        wire.client.receive(good[:cut], SERVER, wire.now)
        wire.client.receive(good[:cut] + bytes((good[cut] ^ 0x55,)) + good[cut + 1 :], SERVER, wire.now)
    assert not wire.client.events
    assert sum(wire.client.refused.values()) == 2 * len(good)


def test_the_key_is_in_no_repr() -> None:
    assert KEYS["ctl"].decode() not in repr(client())


@pytest.mark.parametrize("seed", range(20))
def test_after_any_losses_the_client_knows_what_the_server_knows(seed: int) -> None:
    """Whatever was lost: a while after the line is good again, both say the same of each user."""
    import random

    chance = random.Random(seed)
    wire = Wire(server(), client())
    routers = [Router(wire.server, name) for name in ("wlan1", "wlan2")]
    routers[0].own("10.3.0.0/24")
    routers[1].own("10.4.0.0/24")
    for prefix in ("10.3.0.0/24", "10.4.0.0/24"):
        wire.client.subscribe(eid(prefix), 0.0)
    wire.lose = lambda host, data: chance.random() < 0.4
    believed: dict[str, list[str]] = {}
    users = [f"10.3.0.{n}/32" for n in (10, 11)] + ["10.4.0.10/32"]

    def believe(told: list[Changed | Answered]) -> None:
        for name, rlocs in changes(told):
            believed[name] = rlocs

    for _ in range(40):
        router = chance.choice(routers)
        user = chance.choice(users)
        held = wire.server.registry.table.get(eid(user))
        if held is not None and held.holder.id.xtr == router.xtr and chance.random() < 0.5:
            outcome = router.register(record(user, router.host, ttl=0), now=wire.now)
        else:
            outcome = router.own(user, now=wire.now)
        believe(wire.tell(outcome))
        believe(wire.run(chance.choice((0.1, 3.0, 8.0, 20.0))))
        for one in routers:  # they say again what they have, so that nothing expires
            one.own(f"10.{3 + routers.index(one)}.0.0/24", now=wire.now)
    wire.lose = lambda host, data: False
    for _ in range(5):
        for one in routers:
            one.own(f"10.{3 + routers.index(one)}.0.0/24", now=wire.now)
            for user in users:
                held = wire.server.registry.table.get(eid(user))
                if held is not None and held.holder.id.xtr == one.xtr:
                    one.own(user, now=wire.now)
        believe(wire.run(30.0))
    for user in users:
        held = wire.server.registry.table.get(eid(user))
        expected = [] if held is None else [str(locator.address) for locator in held.record.locators]
        assert believed.get(user, []) == expected, user
