"""Subscriptions and publications (RFC 9437)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from followme.lisp import Action, EidRecord, MapNotify, MapReply, MapRequest, decode, verify
from followme.mapsystem import Outcome, Subscribed, Unsubscribed
from followme.mapsystem.publisher import MAX_UNCONFIRMED

from .fakes import KEYS, RLOCS, Router, eid, notifies, record, server


@pytest.fixture
def routers() -> dict[str, Router]:
    map_server = server()
    return {name: Router(map_server, name) for name in KEYS}


def test_a_subscription_is_confirmed_with_the_mapping_and_counts_once_acknowledged(
    routers: dict[str, Router],
) -> None:
    routers["wlan1"].own("10.3.0.0/24")
    ctl = routers["ctl"]
    (confirmation,) = ctl.send(ctl.subscription("10.3.0.0/24")).datagrams
    notify = decode(confirmation.data)
    assert isinstance(notify, MapNotify)
    assert (confirmation.host, confirmation.port) == ctl.source
    assert (notify.nonce, notify.xtr_id) == (ctl.nonce, ctl.xtr)
    assert notify.records == (record("10.3.0.0/24", RLOCS["wlan1"]),)
    assert verify(confirmation.data, KEYS["ctl"])
    assert len(ctl.server.subscriptions) == 0, "the Map-Request proves nothing"
    outcome = ctl.acknowledge(confirmation, 1.0)
    assert outcome == Outcome([], [Subscribed(eid("10.3.0.0/24"), "ctl", RLOCS["ctl"], 1.0)])
    assert len(ctl.server.subscriptions) == 1


def test_nothing_is_subscribed_without_the_key(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    (confirmation,) = ctl.send(ctl.subscription("10.3.0.0/24"), 0.0).datagrams
    ctl.acknowledge(confirmation, 0.1, key=b"a stranger")
    assert len(ctl.server.subscriptions) == 0
    assert ctl.server.refusals.counts["wrong-key"] == 1
    assert ctl.server.timer(10.0).datagrams == [], "a host that never registered is told once"
    ctl.acknowledge(confirmation, 10.0)
    assert len(ctl.server.subscriptions) == 0, "too late"


def test_a_registered_router_is_told_three_times(routers: dict[str, Router]) -> None:
    dc1 = routers["dc1"]
    dc1.own("10.1.0.0/24")
    (first,) = dc1.send(dc1.subscription("10.3.0.0/24"), 0.0).datagrams
    assert [dc1.server.timer(now).datagrams for now in (1.0, 2.0, 3.0)] == [[first], [first], []]


def test_changes_inside_and_around_the_prefix_are_published(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    ctl.subscribe("10.3.0.5/32")
    inside = notifies(routers["wlan2"].own("10.3.0.5/32"), RLOCS["ctl"])
    assert [one.records for one in inside] == [(record("10.3.0.5/32", RLOCS["wlan2"]),)]
    assert notifies(routers["wlan1"].own("10.3.0.0/24"), RLOCS["ctl"]) == [], "the EID has a longer match"
    routers["wlan2"].register(record("10.3.0.5/32", ttl=0))
    around = notifies(routers["wlan1"].register(record("10.3.0.0/24", "192.0.2.10")), RLOCS["ctl"])
    assert [one.records for one in around] == [(record("10.3.0.0/24", "192.0.2.10"),)]
    assert notifies(routers["wlan1"].own("10.3.0.6/32"), RLOCS["ctl"]) == [], "another EID"


def test_each_publication_has_the_next_nonce_and_is_signed(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    ctl.subscribe("10.3.0.0/24")
    begin = ctl.nonce
    for number in (1, 2, 3):
        outcome = routers["wlan1"].register(record("10.3.0.0/24", f"192.0.2.{number}"))
        (notify,) = notifies(outcome, RLOCS["ctl"])
        assert notify.nonce == begin + number
        (datagram,) = (one for one in outcome.datagrams if one.host == RLOCS["ctl"])
        assert verify(datagram.data, KEYS["ctl"])


def test_a_refresh_is_not_published(routers: dict[str, Router]) -> None:
    routers["wlan1"].own("10.3.0.0/24")
    routers["ctl"].subscribe("10.3.0.0/24")
    assert notifies(routers["wlan1"].own("10.3.0.0/24"), RLOCS["ctl"]) == []


def test_a_withdrawal_is_published_with_ttl_0_and_what_covers_the_eid_now(routers: dict[str, Router]) -> None:
    routers["wlan1"].own("10.3.0.0/24")
    routers["wlan2"].own("10.3.0.5/32")
    routers["ctl"].subscribe("10.3.0.0/24")
    outcome = routers["wlan2"].register(record("10.3.0.5/32", ttl=0))
    (notify,) = notifies(outcome, RLOCS["ctl"])
    assert notify.records == (record("10.3.0.5/32", ttl=0), record("10.3.0.0/24", RLOCS["wlan1"]))


def test_publications_are_repeated_and_a_silent_subscriber_is_dropped(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    ctl.subscribe("10.3.0.0/24")
    now = 0.0
    ended = []
    for number in (1, 2, 3):
        outcome = routers["wlan1"].register(record("10.3.0.0/24", f"192.0.2.{number}"), now=now)
        (sent,) = (one for one in outcome.datagrams if one.host == RLOCS["ctl"])
        assert ctl.server.timer(now + 1.0).datagrams == [sent]
        assert ctl.server.timer(now + 2.0).datagrams == [sent]
        ended += ctl.server.timer(now + 3.0).events
        now += 10.0
    assert ended == [Unsubscribed(eid("10.3.0.0/24"), "ctl", RLOCS["ctl"], "silent", 23.0)]
    assert notifies(routers["wlan1"].own("10.3.0.0/24", now), RLOCS["ctl"]) == []


def test_one_acknowledgement_makes_up_for_those_that_were_lost(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    ctl.subscribe("10.3.0.0/24")
    now = 0.0
    for number in range(1, 9):
        outcome = routers["wlan1"].register(record("10.3.0.0/24", f"192.0.2.{number}"), now=now)
        (sent,) = (one for one in outcome.datagrams if one.host == RLOCS["ctl"])
        if number % 2:
            ctl.acknowledge(sent, now + 0.1)
        for _ in range(4):
            now += 1.0
            assert ctl.server.timer(now).events == []
    assert len(ctl.server.subscriptions) == 1


def test_only_the_newest_state_of_an_eid_is_repeated(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    ctl.subscribe("10.3.0.0/24")
    for number in range(1, 50):
        routers["wlan1"].register(record("10.3.0.0/24", f"192.0.2.{number}"), now=1.0)
    assert len(ctl.server.publisher.notices) == 1
    (again,) = ctl.server.timer(2.0).datagrams
    notify = decode(again.data)
    assert isinstance(notify, MapNotify)
    assert notify.records == (record("10.3.0.0/24", "192.0.2.49"),)


def test_what_changed_before_the_acknowledgement_is_published_after_it(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    (confirmation,) = ctl.send(ctl.subscription("10.3.0.0/24")).datagrams
    assert notifies(routers["wlan1"].own("10.3.0.0/24"), RLOCS["ctl"]) == []
    outcome = ctl.acknowledge(confirmation)
    (notify,) = notifies(outcome, RLOCS["ctl"])
    assert notify.records == (record("10.3.0.0/24", RLOCS["wlan1"]),)
    assert notify.nonce == ctl.nonce + 1


def test_an_old_nonce_changes_nothing(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    ctl.subscribe("10.3.0.0/24")
    assert ctl.send(ctl.subscription("10.3.0.0/24", nonce=ctl.nonce)) == Outcome([], [])
    assert ctl.server.refusals.counts["subscription-replay"] == 1


def test_a_strangers_request_does_not_redirect_a_subscription(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    ctl.subscribe("10.3.0.0/24")
    forged = ctl.subscription("10.3.0.0/24", rloc="203.0.113.66", nonce=1 << 60)
    (bait,) = ctl.server.receive(forged, ("203.0.113.66", 4342), 0.0).datagrams
    assert bait.host == "203.0.113.66"
    assert notifies(routers["wlan1"].own("10.3.0.0/24"), "203.0.113.66") == []
    (notify,) = notifies(routers["wlan2"].own("10.3.0.7/32"), RLOCS["ctl"])
    assert notify.nonce < 1 << 60, "nor does it move its nonces"


def test_a_subscriber_may_move_its_own_subscription(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    ctl.subscribe("10.3.0.0/24")
    ctl.nonce += 1000
    ctl.host = "192.0.2.99"
    ctl.subscribe("10.3.0.0/24")
    outcome = routers["wlan1"].own("10.3.0.0/24")
    assert len(notifies(outcome, "192.0.2.99")) == 1
    assert notifies(outcome, RLOCS["ctl"]) == []
    assert len(ctl.server.subscriptions) == 1


@pytest.mark.parametrize("nowhere", [None, "0.0.0.0"])
def test_unsubscribing_needs_the_key_too(routers: dict[str, Router], nowhere: str | None) -> None:
    ctl = routers["ctl"]
    ctl.subscribe("10.3.0.0/24")
    ctl.nonce += 10
    (told,) = ctl.server.receive(
        ctl.subscription("10.3.0.0/24", rloc=nowhere), ("203.0.113.66", 1), 0.0
    ).datagrams
    assert (told.host, told.port) == ctl.source, "the subscriber is asked, whoever sent it"
    assert len(ctl.server.subscriptions) == 1
    ended = Unsubscribed(eid("10.3.0.0/24"), "ctl", RLOCS["ctl"], "asked", 2.0)
    assert ctl.acknowledge(told, 2.0).events == [ended]
    assert len(ctl.server.subscriptions) == 0


def test_unsubscribing_what_was_not_subscribed_is_confirmed(routers: dict[str, Router]) -> None:
    ctl = routers["ctl"]
    (told,) = ctl.send(ctl.subscription("10.3.0.0/24", rloc="0.0.0.0")).datagrams
    notify = decode(told.data)
    assert isinstance(notify, MapNotify)
    assert (notify.nonce, told.host, len(ctl.server.publisher.notices)) == (ctl.nonce, ctl.host, 0)


def test_an_unknown_subscriber_is_told_that_it_is_not_known(routers: dict[str, Router]) -> None:
    map_server = routers["ctl"].server
    request = MapRequest(
        5, (IPv4Address("203.0.113.66"),), (EidRecord(eid("10.3.0.0/24"), True),), xtr_id=bytes(16), site_id=99
    )
    (told,) = map_server.receive(request.encode(), ("203.0.113.66", 4342), 0.0).datagrams
    reply = decode(told.data)
    assert isinstance(reply, MapReply)
    assert [one.action for one in reply.records] == [Action.DROP_AUTH_FAILURE]
    assert map_server.refusals.counts["unknown-subscriber"] == 1


def test_a_subscription_without_an_xtr_id_is_refused(routers: dict[str, Router]) -> None:
    map_server = routers["ctl"].server
    request = MapRequest(5, (IPv4Address("203.0.113.66"),), (EidRecord(eid("10.3.0.0/24"), True),))
    map_server.receive(request.encode(), ("203.0.113.66", 4342), 0.0)
    assert map_server.refusals.counts["subscription"] == 1


def test_a_subscriber_has_only_so_many_subscriptions(
    routers: dict[str, Router], monkeypatch: pytest.MonkeyPatch
) -> None:
    ctl = routers["ctl"]
    monkeypatch.setattr(ctl.server.subscriptions, "_per_xtr", 3)
    for number in range(5):
        outcome = ctl.send(ctl.subscription(f"10.3.0.{number}/32"))
        if isinstance(decode(outcome.datagrams[0].data), MapNotify):
            ctl.acknowledge(outcome.datagrams[0])
    assert len(ctl.server.subscriptions) == 3
    assert ctl.server.refusals.counts["too-many-subscriptions"] == 2


def test_a_flood_of_strangers_is_bounded_and_shuts_out_nobody_who_answers(routers: dict[str, Router]) -> None:
    ctl, stranger = routers["ctl"], replace(routers["ctl"])
    for number in range(2 * MAX_UNCONFIRMED):
        stranger.host, stranger.port = f"198.51.{number // 50}.7", 1024 + number
        stranger.send(stranger.subscription("10.4.0.0/24", nonce=1), 0.0)
        if number == MAX_UNCONFIRMED:
            (told,) = ctl.send(ctl.subscription("10.3.0.0/24"), 0.0).datagrams
    ctl.acknowledge(told)
    assert len(ctl.server.subscriptions) == 1, "though all places were taken, before and after it"
    assert len(ctl.server.publisher.notices) == MAX_UNCONFIRMED - 1, "the others go on waiting"
    ctl.server.timer(1.0)
    assert len(ctl.server.publisher.notices) == 0
    ctl.subscribe("10.1.0.0/24", now=2.0)
    assert len(ctl.server.subscriptions) == 2
