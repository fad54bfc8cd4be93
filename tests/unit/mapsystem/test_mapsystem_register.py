"""Map-Registers: who may register what, and what is refused, by which reason."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from followme.lisp import HMAC_SHA_1_96, Action, Lcaf, LcafEid, Locator, MappingRecord, decode, sign, verify
from followme.lisp.register import MapNotify, MapRegister
from followme.mapsystem import Gone, Outcome, Registered, SitePrefix

from .fakes import IDS, KEYS, Router, answer, ask, eid, record, server, site

MISSING = (MappingRecord(eid("10.1.0.0/24"), (), 1, Action.NATIVELY_FORWARD),)


def test_a_registration_is_answered_by_a_map_notify_under_the_key_and_looked_up() -> None:
    router = Router(server(), "dc1")
    (reply,) = router.own("10.1.0.0/24").datagrams
    notify = decode(reply.data)
    assert isinstance(notify, MapNotify)
    assert notify.nonce == router.nonce
    assert notify.records == (record("10.1.0.0/24", "192.0.2.1"),)
    assert (reply.host, reply.port) == router.source
    assert verify(reply.data, KEYS["dc1"])
    assert not verify(reply.data, KEYS["dc2"])
    assert answer(router.server, "10.1.0.9") == (record("10.1.0.0/24", "192.0.2.1"),)


def test_no_map_notify_without_the_m_bit() -> None:
    router = Router(server(), "dc1")
    assert router.own("10.1.0.0/24", want_map_notify=False).datagrams == []
    assert len(router.server.registry.table) == 1


def test_sha_1_for_old_peers_is_answered_with_its_length() -> None:
    router = Router(server(), "dc1")
    router.nonce += 1
    message = MapRegister(router.nonce, (record("10.1.0.0/24", "192.0.2.1"),), want_map_notify=True)
    (reply,) = router.send(sign(message, KEYS["dc1"], HMAC_SHA_1_96, length=12).encode()).datagrams
    notify = decode(reply.data)
    assert isinstance(notify, MapNotify)
    assert (notify.algorithm_id, len(notify.authentication)) == (HMAC_SHA_1_96, 12)
    assert verify(reply.data, KEYS["dc1"])


def refused(router: Router, data: bytes, reason: str) -> None:
    outcome = router.send(data)
    assert outcome == Outcome([], [])
    assert dict(router.server.refusals.counts) == {reason: 1}
    assert len(router.server.registry.table) == 0
    assert answer(router.server, "10.1.0.9") == MISSING


def test_a_wrong_key() -> None:
    router = Router(server(), "dc1")
    refused(router, router.registration(record("10.1.0.0/24", "192.0.2.1"), key=KEYS["dc2"]), "wrong-key")


def test_an_unknown_key_id() -> None:
    router = Router(server(), "dc1")
    refused(router, router.registration(record("10.1.0.0/24", "192.0.2.1"), key_id=9), "unknown-key-id")


def test_each_key_id_has_its_own_key() -> None:
    router = Router(server(site("dc1", keys={0: b"old secret", 7: b"new secret"})), "dc1")
    data = router.registration(record("10.1.0.0/24", "192.0.2.1"), key=b"old secret", key_id=7)
    refused(router, data, "wrong-key")
    data = router.registration(record("10.1.0.0/24", "192.0.2.1"), key=b"new secret", key_id=7)
    (reply,) = router.send(data).datagrams
    assert verify(reply.data, b"new secret")


def test_an_algorithm_that_the_site_does_not_take() -> None:
    router = Router(server(site("dc1", algorithms=(2,))), "dc1")
    message = MapRegister(router.nonce, (record("10.1.0.0/24", "192.0.2.1"),))
    refused(router, sign(message, KEYS["dc1"], HMAC_SHA_1_96).encode(), "algorithm")
    assert router.send(message.encode()).datagrams == [], "no authentication at all"
    assert router.server.refusals.counts["algorithm"] == 2


def test_an_unknown_site() -> None:
    router = Router(server(), "dc1")
    refused(router, router.registration(record("10.99.0.0/24", "192.0.2.1"), site_id=99), "unknown-site")


@pytest.mark.parametrize("prefix", ["10.0.0.0/8", "10.2.0.0/24", "10.2.0.0/25", "10.99.0.1/32", "2001:db8::1/128"])
def test_outside_the_sites_prefixes(prefix: str) -> None:
    router = Router(server(), "dc1")
    refused(router, router.registration(record(prefix, "192.0.2.1")), "outside-prefixes")


def test_the_same_prefix_in_another_instance_is_another_prefix() -> None:
    router = Router(server(), "dc1")
    other = MappingRecord(eid("10.1.0.0/24", 7), (Locator(None),))
    refused(router, router.registration(other), "outside-prefixes")


def test_more_specifics_only_where_they_are_accepted() -> None:
    closed = site("dc1", prefixes=(SitePrefix(eid("10.1.0.0/24"), False),))
    router = Router(server(closed), "dc1")
    refused(router, router.registration(record("10.1.0.5/32", "192.0.2.1")), "outside-prefixes")
    assert router.own("10.1.0.0/24").datagrams


def test_a_visitor_is_one_eid() -> None:
    router = Router(server(), "dc1")
    refused(router, router.registration(record("10.2.0.0/31", "192.0.2.1")), "outside-prefixes")
    assert router.own("10.2.0.4/32").datagrams


def test_a_locator_that_is_not_the_sites() -> None:
    router = Router(server(site("dc1", rlocs=(ip_network("192.0.2.0/30"),))), "dc1")
    refused(router, router.registration(record("10.1.0.0/24", "192.0.2.1", "198.51.100.1")), "rloc")
    assert router.own("10.1.0.0/24").datagrams


@pytest.mark.parametrize(
    "rloc", ["127.0.0.1", "0.0.0.0", "255.255.255.255", "224.0.0.1", "169.254.1.1", "::1", "ff02::1", "fe80::1"]
)
def test_a_locator_that_cannot_be_one(rloc: str) -> None:
    router = Router(server(), "dc1")
    refused(router, router.registration(record("10.1.0.0/24", "192.0.2.1", rloc)), "rloc")


def test_an_eid_that_is_no_address() -> None:
    router = Router(server(), "dc1")
    refused(router, router.registration(MappingRecord(LcafEid(Lcaf(9, b"x"), 0))), "unsupported-eid")


def test_a_refused_record_does_not_take_the_others_with_it() -> None:
    router = Router(server(), "dc1")
    good, bad = record("10.1.0.0/24", "192.0.2.1"), record("10.99.0.0/24", "192.0.2.1")
    (reply,) = router.register(good, bad).datagrams
    notify = decode(reply.data)
    assert isinstance(notify, MapNotify)
    assert notify.records == (good,), "only what was registered is confirmed"
    assert dict(router.server.refusals.counts) == {"outside-prefixes": 1}


def test_replayed_and_reordered_registers() -> None:
    router = Router(server(), "dc1")
    first = router.registration(record("10.1.0.0/24", "192.0.2.1"))
    second = router.registration(record("10.1.0.0/24", "192.0.2.2"))
    assert router.send(second).datagrams
    assert router.send(first) == Outcome([], [])
    assert router.send(second) == Outcome([], [])
    assert dict(router.server.refusals.counts) == {"replay": 2}
    assert answer(router.server, "10.1.0.9") == (record("10.1.0.0/24", "192.0.2.2"),)


def test_nonces_are_kept_for_each_xtr_and_only_moved_by_the_key() -> None:
    map_server = server()
    one, other = Router(map_server, "dc1", nonce=1000), Router(map_server, "dc1", nonce=5, xtr=b"another xtr-id..")
    one.own("10.1.0.0/24")
    assert other.own("10.1.0.0/24").datagrams, "its own nonces"
    one.send(one.registration(record("10.1.0.0/24", "192.0.2.1"), key=b"a stranger", nonce=1 << 60))
    assert one.own("10.1.0.0/24").datagrams, "a forged one has moved nothing"


def test_a_replay_from_another_address_is_one_too() -> None:
    map_server = server()
    router = Router(map_server, "dc1")
    data = router.registration(record("10.1.0.0/24", "192.0.2.1"), xtr_id=None, site_id=0)
    assert router.send(data).datagrams
    assert map_server.receive(data, ("203.0.113.66", 4342), 0.0) == Outcome([], [])
    assert map_server.refusals.counts["replay"] == 1
    assert len(map_server.registry.routers) == 1
    other = Router(map_server, "dc1", host="192.0.2.2", nonce=router.nonce)
    assert other.register(record("10.1.0.0/24", "192.0.2.1"), xtr_id=None, site_id=0).datagrams


def test_without_replay_protection_an_old_peer_may_send_nonce_0() -> None:
    router = Router(server(site("dc1", replay_protection=False)), "dc1")
    for _ in range(2):
        assert router.own("10.1.0.0/24", nonce=0).datagrams
    assert not router.server.refusals.counts


def test_a_registration_ends_after_three_intervals() -> None:
    router = Router(server(interval_s=10.0), "dc1")
    router.own("10.1.0.0/24", now=100.0)
    router.own("10.1.0.0/24", now=110.0)
    assert router.server.next_timer() is not None
    assert router.server.timer(139.9).events == []
    assert router.server.timer(140.0).events == [Gone(eid("10.1.0.0/24"), "expired", 140.0)]
    assert answer(router.server, "10.1.0.9") == MISSING
    assert router.server.next_timer() is None


def test_with_the_t_bit_it_ends_after_the_records_ttl() -> None:
    router = Router(server(interval_s=10.0), "dc1")
    router.register(record("10.1.0.0/24", "192.0.2.1", ttl=2), use_ttl=True)
    assert router.server.timer(119.0).events == []
    assert len(router.server.timer(120.0).events) == 1


def test_withdrawal_by_the_holder_only() -> None:
    map_server = server()
    holder, other = Router(map_server, "dc1"), Router(map_server, "dc2")
    holder.own("10.1.0.4/32")
    gone = record("10.1.0.4/32", ttl=0)
    assert other.register(gone).events == []
    assert map_server.refusals.counts["not-holder"] == 1
    assert holder.register(gone).events == [Gone(eid("10.1.0.4/32"), "withdrawn", 0.0)]
    assert len(map_server.registry.table) == 0
    assert holder.register(gone).datagrams, "once more does no harm and is confirmed"


def test_a_site_has_only_so_many_registrations() -> None:
    router = Router(server(site("dc1", max_registrations=3)), "dc1")
    for number in range(5):
        router.own(f"10.1.0.{number}/32")
    assert len(router.server.registry.table) == 3
    assert router.server.refusals.counts["full"] == 2
    router.register(record("10.1.0.0/32", ttl=0))
    assert isinstance(router.own("10.1.0.4/32").events[0], Registered)


def test_a_site_has_only_so_many_routers() -> None:
    map_server = server()
    for number in range(300):
        Router(map_server, "dc1", xtr=number.to_bytes(16, "big")).own("10.1.0.0/24")
    assert len(map_server.registry.routers) == 256
    assert map_server.refusals.counts["too-many-routers"] == 44


def test_a_lying_record_count_and_a_truncated_message() -> None:
    router = Router(server(), "dc1")
    data = bytearray(router.registration(record("10.1.0.0/24", "192.0.2.1")))
    for cut in range(len(data)):
        router.send(bytes(data[:cut]))
    data[3] = 200
    router.send(bytes(data))
    assert router.server.refusals.counts["malformed"] == len(data) + 1
    assert len(router.server.registry.table) == 0


def test_messages_that_a_map_server_does_not_get() -> None:
    router = Router(server(), "dc1")
    (reply,) = ask(router.server, "10.1.0.1").datagrams
    notify = router.own("10.1.0.0/24").datagrams[0]
    for data in (reply.data, notify.data, b"\x60" + bytes(11)):
        assert router.send(data) == Outcome([], [])
    assert router.server.refusals.counts["unexpected"] == 3


def test_keys_are_not_shown() -> None:
    shown = repr(site("dc1"))
    assert "secret" not in shown
    assert f"site_id={IDS['dc1']}" in shown


def test_routers_without_xtr_id_of_one_site_update_each_other() -> None:
    """It may be one router whose address changes, there and back again: it sends no Map-Notify-Ack, maybe never."""
    map_server = server()
    there, back = Router(map_server, "dc1"), Router(map_server, "dc1", host="192.0.2.2")
    for router in (there, back, there, back):
        router.nonce = max(there.nonce, back.nonce)
        outcome = router.register(record("10.1.0.0/24", router.host), xtr_id=None, site_id=0)
        assert [one.host for one in outcome.datagrams] == [router.host], "confirmed, and nobody else is told"
        assert answer(map_server, "10.1.0.9") == (record("10.1.0.0/24", router.host),)
    there.nonce = back.nonce
    there.register(record("10.1.0.5/32", there.host), xtr_id=None, site_id=0)
    assert map_server.refusals.counts["lost"] == 0
    there.register(record("10.1.0.0/24", ttl=0), xtr_id=None, site_id=0)
    assert map_server.registry.table.get(eid("10.1.0.0/24")) is None
    named = Router(map_server, "dc1", nonce=there.nonce, host="192.0.2.3")
    assert len(named.own("10.1.0.5/32").datagrams) == 2, "by its xTR-ID it is another: the former hears of it"
