"""Map-Requests of hosts without a key, in the name of a router that has one: they change nothing (RFC 9437, 7)."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from followme.lisp import EidRecord, MapNotify, MapRequest, decode
from followme.lisp.register import OWN_NONCES
from followme.mapsystem import Datagram, Outcome, Unsubscribed
from followme.mapsystem.answers import MAX_OCTETS
from followme.mapsystem.store import MapStore
from followme.mapsystem.unproven import MAX_UNPROVEN

from .fakes import IDS, RLOCS, Router, eid, notifies, record, server

EVIL = ("203.0.113.66", 5000)
USERS = "10.3.0.0/24"


def forged(router: Router, nonce: int, rloc: str = EVIL[0]) -> Outcome:
    """A stranger's Map-Request in the name of ``router``."""
    asked = (EidRecord(eid(USERS), True),)
    request = MapRequest(nonce, (ip_address(rloc),), asked, xtr_id=router.xtr, site_id=IDS[router.name])
    return router.server.receive(request.encode(), EVIL, 10.0)


def notify(datagram: Datagram) -> MapNotify:
    message = decode(datagram.data)
    assert isinstance(message, MapNotify)
    return message


@pytest.fixture
def dc1() -> Router:
    """A registered router that has subscribed to the users' prefix."""
    router = Router(server(), "dc1")
    Router(router.server, "wlan1").own(USERS)
    router.own("10.1.0.0/24")
    router.subscribe(USERS)
    return router


@pytest.mark.parametrize("nonce", [OWN_NONCES, (1 << 64) - 1])
def test_a_nonce_without_room_above_it_is_refused(dc1: Router, nonce: int) -> None:
    assert notifies(forged(dc1, nonce, dc1.host), dc1.host) == []
    assert dc1.server.refusals.counts["nonce"] == 1


def test_a_subscription_whose_nonces_run_out_ends(dc1: Router) -> None:
    dc1.acknowledge(dc1.send(dc1.subscription(USERS, nonce=OWN_NONCES - 2)).datagrams[0])
    wlan2 = Router(dc1.server, "wlan2")
    (last,) = notifies(wlan2.own("10.3.0.5/32", 20.0), dc1.host)
    assert last.nonce == OWN_NONCES - 1
    outcome = wlan2.own("10.3.0.6/32", 21.0)
    assert notifies(outcome, dc1.host) == []
    assert Unsubscribed(eid(USERS), "dc1", dc1.host, "nonces", 21.0) in outcome.events
    assert len(dc1.server.subscriptions) == 0


def test_the_map_servers_own_word_has_nonces_that_no_subscription_has(dc1: Router) -> None:
    (told,) = notifies(Router(dc1.server, "wlan2").own("10.1.0.5/32"), dc1.host)
    assert told.nonce >= OWN_NONCES


def test_a_stored_nonce_without_room_above_it_is_not_loaded(dc1: Router, tmp_path: Path) -> None:
    (one,) = dc1.server.subscriptions
    one.nonce = (1 << 64) + 7  # what a map server before this one may have made of it
    store = MapStore(tmp_path / "map.db")
    store.save(dc1.server, 0.0, 1.7e9)
    fresh = server()
    store.load(fresh, 0.0, 1.7e9)
    assert len(fresh.subscriptions) == 0
    store.save(fresh, 0.0, 1.7e9)
    again = server()
    store.load(again, 0.0, 1.7e9)
    store.close()
    assert not again.outbox.unsaved.subscriptions, "nor is it there any more"


def test_strangers_are_answered_alike_whatever_the_nonce(dc1: Router) -> None:
    (one,) = dc1.server.subscriptions
    for nonce in (0, one.nonce - 1, one.nonce, one.nonce + 1, 1 << 60):
        (told,) = forged(dc1, nonce).datagrams
        assert (told.host, notify(told).nonce) == (EVIL[0], nonce)
    assert list(dc1.server.subscriptions) == [one]


def test_an_old_nonce_from_another_address_changes_nothing_with_the_key_either(dc1: Router) -> None:
    (one,) = dc1.server.subscriptions
    dc1.host = "192.0.2.99"
    (told,) = dc1.send(dc1.subscription(USERS, nonce=one.nonce)).datagrams
    dc1.acknowledge(told)
    assert list(dc1.server.subscriptions) == [one]
    assert dc1.server.refusals.counts["subscription-replay"] == 1


def test_many_mappings_go_only_to_who_has_the_key(dc1: Router) -> None:
    wlan2 = Router(dc1.server, "wlan2")
    for number in range(100):
        wlan2.own(f"10.3.0.{number}/32")
    (asked,) = forged(dc1, dc1.nonce + 500, dc1.host).datagrams
    assert (asked.host, notify(asked).records) == (dc1.host, ())
    dc1.nonce += 1000
    (asked,) = dc1.send(dc1.subscription(USERS)).datagrams
    assert len(asked.data) < 100
    (whole,) = dc1.acknowledge(asked, 11.0).datagrams
    assert (notify(whole).nonce, len(notify(whole).records)) == (dc1.nonce, 101)
    assert whole in dc1.server.timer(12.0).datagrams, "repeated until it is acknowledged"
    dc1.acknowledge(whole, 12.5)
    assert whole not in dc1.server.timer(13.0).datagrams
    (published,) = notifies(wlan2.register(record("10.3.0.1/32", "192.0.2.1"), now=21.0), dc1.host)
    assert published.nonce == dc1.nonce + 1


def test_no_host_is_sent_more_than_so_many_that_it_did_not_ask_for(dc1: Router) -> None:
    for victim in (dc1.host, "198.51.100.7"):
        told = [one for n in range(500) for one in forged(dc1, dc1.nonce + 1 + n, victim).datagrams]
        assert len(told) == MAX_UNPROVEN
        assert all(one.host == victim and len(one.data) < MAX_OCTETS for one in told)
    dc1.nonce += 1000
    assert dc1.send(dc1.subscription("10.4.0.0/24"), 10.0).datagrams, "its own have their own room"
    told = [one for n in range(500) for one in forged(dc1, dc1.nonce + n, "0.0.0.0").datagrams]
    assert told == [], "nor to end its subscription"
    assert RLOCS["dc1"] == dc1.host


def test_a_strangers_request_does_not_take_the_place_of_one_under_way(dc1: Router) -> None:
    dc1.nonce += 1000
    (asked,) = dc1.send(dc1.subscription("10.3.0.0/24"), 10.0).datagrams
    forged(dc1, dc1.nonce + 1, dc1.host)
    dc1.acknowledge(asked, 10.1)
    (one,) = dc1.server.subscriptions
    assert one.nonce == dc1.nonce
