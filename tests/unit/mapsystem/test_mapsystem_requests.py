"""Map-Requests: longest match, holes, forwarding; and those that a map server does not answer."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from followme.lisp import (
    Action,
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    Lcaf,
    Locator,
    MappingRecord,
    MapRequest,
    decode,
)
from followme.mapsystem import Outcome, Reply, Site, SitePrefix
from followme.mapsystem.answers import Negative
from followme.mapsystem.udp import is_listened_on

from .fakes import Router, answer, ask, eid, record, server, site


def test_plain_and_encapsulated_requests_are_answered_alike() -> None:
    router = Router(server(), "dc1")
    router.own("10.1.0.0/24")
    assert ask(router.server, "10.1.0.9", plain=True) == ask(router.server, "10.1.0.9")
    fast = router.server.answers.fast(_ecm("10.1.0.9"))
    assert fast is not None
    (slow,) = router.server.receive(_ecm("10.1.0.9"), ("198.51.100.7", 9), 0.0).datagrams
    assert (fast.data, str(ip_address(fast.rloc)), fast.port) == slow[:3]


def _ecm(text: str, *rlocs: str) -> bytes:
    source = IPv4Address("198.51.100.7")
    itr = tuple(ip_address(rloc) for rloc in rlocs) or (source,)
    request = MapRequest(7, itr, (EidRecord(eid(text)),))
    return EncapsulatedControlMessage(source, IPv4Address("10.1.0.9"), request, source_port=5000).encode()


def test_the_match_comes_with_what_is_more_specific_in_it_at_one_ttl() -> None:
    router = Router(server(), "dc1")
    router.own("10.1.0.0/24")
    router.register(record("10.1.0.128/25", "192.0.2.2", ttl=60))
    router.register(record("10.1.0.200/32", "192.0.2.3", ttl=90))
    assert answer(router.server, "10.1.0.9") == (
        record("10.1.0.0/24", "192.0.2.1", ttl=60), record("10.1.0.128/25", "192.0.2.2", ttl=60),
        record("10.1.0.200/32", "192.0.2.3", ttl=60),
    )  # fmt: skip
    assert answer(router.server, "10.1.0.130") == (
        record("10.1.0.128/25", "192.0.2.2", ttl=60), record("10.1.0.200/32", "192.0.2.3", ttl=60),
    )  # fmt: skip
    assert answer(router.server, "10.1.0.200") == (record("10.1.0.200/32", "192.0.2.3", ttl=90),)


def test_with_too_many_more_specifics_the_part_around_the_eid_is_answered() -> None:
    router = Router(server(), "dc1")
    router.own("10.1.0.0/24")
    for number in range(0, 40, 2):
        router.register(record(f"10.1.0.{number}/32", "192.0.2.2"))
    assert answer(router.server, "10.1.0.9") == (record("10.1.0.9/32", "192.0.2.1"),)
    assert answer(router.server, "10.1.0.200") == (record("10.1.0.128/25", "192.0.2.1"),)


def test_ipv6_and_instances() -> None:
    prefixes = (SitePrefix(eid("2001:db8:1::/48")), SitePrefix(eid("10.1.0.0/24", 7)))
    router = Router(server(site("dc1", prefixes=prefixes)), "dc1")
    mapped = MappingRecord(eid("10.1.0.0/24", 7), (Locator(IPv4Address("192.0.2.1")),))
    router.register(record("2001:db8:1::/48", "2001:db8:ffff::1"), mapped)
    assert answer(router.server, "2001:db8:1::9") == (record("2001:db8:1::/48", "2001:db8:ffff::1"),)
    assert answer(router.server, "10.1.0.9", iid=7) == (mapped,)
    assert answer(router.server, "10.1.0.9")[0].locators == (), "instance 0 is another world"


@pytest.mark.parametrize(
    ("asked", "hole", "ttl", "action"),
    [
        ("10.1.0.9", "10.1.0.0/25", 1, Action.DROP),  # in a site, but only 10.1.0.128/25 is registered
        ("10.1.0.9/25", "10.1.0.0/25", 1, Action.DROP),
        ("10.2.0.9", "10.2.0.0/24", 1, Action.DROP),
        ("10.5.0.9", "10.5.0.0/16", 15, Action.NATIVELY_FORWARD),
        ("10.9.0.9", "10.8.0.0/13", 15, Action.NATIVELY_FORWARD),
        ("192.0.2.9", "128.0.0.0/1", 15, Action.NATIVELY_FORWARD),
        ("2001:db8::1", "::/0", 15, Action.NATIVELY_FORWARD),
    ],
)
def test_a_negative_reply_covers_the_hole(asked: str, hole: str, ttl: int, action: Action) -> None:
    router = Router(server(negative=Negative(Action.NATIVELY_FORWARD, Action.DROP)), "dc1")
    router.own("10.1.0.128/25")
    asked = asked.replace("10.1.0.9/25", "10.1.0.0/25")
    assert answer(router.server, asked) == (MappingRecord(eid(hole), (), ttl, action),)


def test_a_request_for_a_prefix_is_answered_with_what_is_in_it() -> None:
    router = Router(server(), "dc1")
    router.own("10.1.0.0/24")
    router.own("10.1.0.7/32")
    found = (record("10.1.0.0/24", "192.0.2.1"), record("10.1.0.7/32", "192.0.2.1"))
    assert answer(router.server, "10.0.0.0/8") == found
    assert answer(router.server, "10.1.0.0/28") == found


def test_without_the_p_bit_the_request_goes_on_to_the_etr_as_it_came() -> None:
    router = Router(server(), "dc1")
    router.register(record("10.1.0.0/24", "192.0.2.1", "192.0.2.2"), proxy_map_reply=False)
    assert router.server.answers.fast(_ecm("10.1.0.9")) is None
    (forwarded,) = router.server.receive(_ecm("10.1.0.9"), ("198.51.100.7", 5000), 0.0).datagrams
    assert forwarded[:3] == (_ecm("10.1.0.9"), "192.0.2.1", 4342)
    (forwarded,) = ask(router.server, "10.1.0.9", plain=True).datagrams
    message = decode(forwarded.data)
    assert isinstance(message, EncapsulatedControlMessage)
    assert message.source_port == 5000
    assert isinstance(message.message, MapRequest)
    assert message.message.nonce == 77


@pytest.mark.parametrize(("reply", "proxied"), [(Reply.PROXY, True), (Reply.FORWARD, False)])
def test_a_site_may_say_who_answers(reply: Reply, proxied: bool) -> None:
    router = Router(server(site("dc1", reply=reply)), "dc1")
    router.own("10.1.0.0/24", proxy_map_reply=not proxied)
    assert (router.server.answers.fast(_ecm("10.1.0.9")) is not None) == proxied


def test_an_etr_without_a_usable_locator() -> None:
    router = Router(server(families=(4,)), "dc1")
    router.register(record("10.1.0.0/24", "2001:db8::1"), proxy_map_reply=False)
    assert ask(router.server, "10.1.0.9") == Outcome([], [])
    assert router.server.refusals.counts["no-etr"] == 1


def test_the_first_itr_rloc_that_can_be_reached_is_answered() -> None:
    map_server = server(families=(4,))
    data = _ecm("10.1.0.9", "2001:db8::1", "224.0.0.1", "198.51.100.9")
    (reply,) = map_server.receive(data, ("192.0.2.9", 1), 0.0).datagrams
    assert reply[1:3] == ("198.51.100.9", 5000)
    assert map_server.receive(_ecm("10.1.0.9", "224.0.0.1"), ("192.0.2.9", 1), 0.0) == Outcome([], [])
    assert map_server.refusals.counts["itr-rloc"] == 1


def test_an_itr_rloc_that_is_not_known_here_leaves_the_others() -> None:
    router = Router(server(), "dc1")
    rlocs = (Lcaf(10, b"another family"), None, IPv4Address("198.51.100.9"))
    asks = MapRequest(7, rlocs, (EidRecord(eid("10.1.0.9")),))
    for proxy, to in ((True, "198.51.100.9"), (False, "192.0.2.1")):
        router.own("10.1.0.0/24", proxy_map_reply=proxy)
        (sent,) = router.server.receive(asks.encode(), ("192.0.2.9", 5000), 0.0).datagrams
        assert sent.host == to
    carried = decode(sent.data)
    assert isinstance(carried, EncapsulatedControlMessage)
    assert carried.message == asks, "and they are sent on as they came"
    asks = replace(asks, itr_rlocs=rlocs[:2])
    assert router.server.receive(asks.encode(), ("192.0.2.9", 5000), 0.0) == Outcome([], [])
    assert router.server.refusals.counts["itr-rloc"] == 1


def test_an_etr_at_our_own_address_is_none() -> None:
    ours = IPv4Address("192.0.2.18")
    router = Router(server(ours=lambda rloc: rloc == ours), "dc1")
    router.register(record("10.1.0.0/24", str(ours), "192.0.2.2"), proxy_map_reply=False)
    (sent,) = ask(router.server, "10.1.0.9").datagrams
    assert sent.host == "192.0.2.2"
    router.register(record("10.1.0.0/24", str(ours)), proxy_map_reply=False)
    assert ask(router.server, "10.1.0.9") == Outcome([], [])
    assert router.server.refusals.counts["no-etr"] == 1


@pytest.mark.parametrize(
    ("listened", "port", "address", "ours"),
    [
        ("192.0.2.18", 4342, "192.0.2.18", True),
        ("192.0.2.18", 4343, "192.0.2.18", False),
        ("192.0.2.18", 4342, "127.0.0.1", False),
        ("0.0.0.0", 4342, "127.0.0.1", True),
        ("0.0.0.0", 4342, "127.9.0.1", True),
        ("0.0.0.0", 4342, "192.0.2.18", False),
        ("0.0.0.0", 4342, "::1", False),
        ("::", 4342, "::1", True),
    ],
)
def test_what_would_come_back_to_us(listened: str, port: int, address: str, ours: bool) -> None:
    assert is_listened_on((ip_address(listened),), port, ip_address(address)) == ours


@pytest.mark.parametrize(("flag", "reason"), [("smr", "smr"), ("probe", "probe")])
def test_smrs_and_probes_are_refused(flag: str, reason: str) -> None:
    map_server = server()
    values = {flag: True}
    request = MapRequest(1, (IPv4Address("192.0.2.9"),), (EidRecord(eid("10.1.0.9")),), **values)  # type: ignore[arg-type]
    assert map_server.receive(request.encode(), ("192.0.2.9", 4342), 0.0) == Outcome([], [])
    assert map_server.refusals.counts[reason] == 1


def test_too_many_records() -> None:
    map_server = server()
    request = MapRequest(1, (IPv4Address("192.0.2.9"),), (EidRecord(eid("10.1.0.9")),) * 17)
    assert map_server.receive(request.encode(), ("192.0.2.9", 4342), 0.0) == Outcome([], [])
    assert map_server.refusals.counts["too-many-records"] == 1


def test_a_flood_of_misses_keeps_memory_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("followme.mapsystem.answers.MAX_BODIES", 100)
    one = Site("one", {0: b"k"}, prefixes=tuple(SitePrefix(eid(f"10.0.{n}.0/24")) for n in range(256)))
    map_server = server(one)
    for number in range(1000):
        assert map_server.answers.fast(_ecm(str(EidPrefix.of(IPv4Address(0x0A000000 + number * 61)).network)))
        assert len(map_server.answers._bodies) <= 100
