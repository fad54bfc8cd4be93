"""An EID moves; two routers claim one EID; an EID that will not stay."""

from __future__ import annotations

import pytest

from followme.lisp import verify
from followme.mapsystem import Damped, MapServer, Moved, Registered
from followme.mapsystem.registry import Damping

from .fakes import KEYS, PREFIXES, RLOCS, Router, answer, eid, notifies, record, server


@pytest.fixture
def routers() -> dict[str, Router]:
    map_server = server(damping=Damping(3, 60.0))
    found = {name: Router(map_server, name) for name in PREFIXES}
    for name, router in found.items():
        router.own(PREFIXES[name])
    return found


def move(routers: dict[str, Router], target: str, now: float) -> None:
    """10.3.0.5 shows up at ``target``; who had it acknowledges at once."""
    outcome = routers[target].own("10.3.0.5/32", now)
    assert [type(event) for event in outcome.events] == [Moved]
    for datagram in outcome.datagrams:
        for router in routers.values():
            if router.host == datagram.host != routers[target].host:
                router.acknowledge(datagram, now)


def test_the_router_of_the_covering_prefix_is_told_at_once(routers: dict[str, Router]) -> None:
    outcome = routers["wlan2"].own("10.3.0.5/32", 5.0)
    (event,) = outcome.events
    assert isinstance(event, Moved)
    assert (str(event.from_rlocs[0]), str(event.to_rlocs[0])) == (RLOCS["wlan1"], RLOCS["wlan2"])
    assert (event.eid, event.from_site, event.to_site, event.at) == (eid("10.3.0.5/32"), "wlan1", "wlan2", 5.0)
    (notify,) = notifies(outcome, RLOCS["wlan1"])
    assert notify.records == (record("10.3.0.5/32", RLOCS["wlan2"]),)
    told = next(datagram for datagram in outcome.datagrams if datagram.host == RLOCS["wlan1"])
    assert verify(told.data, KEYS["wlan1"]), "under the key of the router that is told"
    assert answer(routers["dc1"].server, "10.3.0.5") == (record("10.3.0.5/32", RLOCS["wlan2"]),)


def test_a_more_specific_of_the_router_itself_is_no_move(routers: dict[str, Router]) -> None:
    outcome = routers["wlan1"].own("10.3.0.5/32")
    assert [type(event) for event in outcome.events] == [Registered]
    assert notifies(outcome, RLOCS["wlan1"])[0].nonce == routers["wlan1"].nonce, "its own registration's, no other"


def test_the_map_notify_is_repeated_three_times_in_all_until_acknowledged(routers: dict[str, Router]) -> None:
    map_server = routers["dc1"].server
    outcome = routers["wlan2"].own("10.3.0.5/32", 10.0)
    first = [datagram for datagram in outcome.datagrams if datagram.host == RLOCS["wlan1"]]
    assert map_server.next_timer() == 11.0
    assert map_server.timer(10.9).datagrams == []
    assert map_server.timer(11.0).datagrams == first
    assert map_server.timer(12.0).datagrams == first
    assert map_server.timer(13.0).datagrams == []
    assert len(map_server.publisher.notices) == 0, "nothing is kept of it"


def test_an_acknowledgement_ends_the_repetition_only_under_the_key(routers: dict[str, Router]) -> None:
    map_server = routers["dc1"].server
    (told, _) = routers["wlan2"].own("10.3.0.5/32", 10.0).datagrams
    routers["wlan1"].acknowledge(told, 10.1, key=b"a stranger")
    routers["dc2"].acknowledge(told, 10.1, key=KEYS["wlan1"])
    assert (map_server.refusals.counts["wrong-key"], map_server.refusals.counts["unexpected-ack"]) == (1, 1)
    assert len(map_server.timer(11.0).datagrams) == 1
    routers["wlan1"].acknowledge(told, 11.1)
    assert map_server.timer(12.0).datagrams == []


def test_a_refresh_by_a_router_that_does_not_know_yet_is_no_claim(routers: dict[str, Router]) -> None:
    map_server = routers["dc1"].server
    move(routers, "wlan2", 1.0)
    lost = routers["dc1"].own("10.3.0.5/32", 2.0)  # the last claim wins
    outcome = routers["wlan2"].own("10.3.0.5/32", 2.1)  # it has not acknowledged
    assert outcome.events == []
    assert map_server.refusals.counts["lost"] == 1
    (again,) = outcome.datagrams
    assert (again.host, notifies(outcome, RLOCS["wlan2"])[0].records) == (
        RLOCS["wlan2"], (record("10.3.0.5/32", RLOCS["dc1"]),),
    )  # fmt: skip
    assert answer(map_server, "10.3.0.5") == (record("10.3.0.5/32", RLOCS["dc1"]),)
    assert len(lost.datagrams) == 2
    routers["wlan2"].acknowledge(again, 2.2)
    assert isinstance(routers["wlan2"].own("10.3.0.5/32", 2.3).events[0], Moved), "from now on it is a claim"


def test_who_never_acknowledges_gets_it_back_when_the_holder_lets_go(routers: dict[str, Router]) -> None:
    routers["wlan2"].own("10.3.0.5/32", 1.0)
    assert routers["wlan1"].own("10.3.0.5/32", 100.0).events == []
    routers["wlan2"].register(record("10.3.0.5/32", ttl=0), now=101.0)
    assert isinstance(routers["wlan1"].own("10.3.0.5/32", 102.0).events[0], Registered)


def test_the_same_locators_from_another_router_of_the_site_are_no_claim(routers: dict[str, Router]) -> None:
    second = Router(routers["dc1"].server, "wlan1", xtr=b"the second xTR..")
    outcome = second.own("10.3.0.0/24")
    assert outcome.events == []
    assert len(outcome.datagrams) == 1, "its own confirmation"


def test_an_eid_that_changes_hands_too_often_stays_for_a_while(routers: dict[str, Router]) -> None:
    map_server: MapServer = routers["dc1"].server
    for now, target in enumerate(("wlan2", "dc1", "dc2", "wlan2")):
        move(routers, target, float(now))
    outcome = routers["dc1"].own("10.3.0.5/32", 5.0)
    assert outcome.events == [Damped(eid("10.3.0.5/32"), "wlan2", 5.0)]
    assert routers["dc1"].own("10.3.0.5/32", 30.0).events == [], "told once, refused each time"
    assert map_server.refusals.counts["damped"] == 2
    assert routers["wlan2"].own("10.3.0.5/32", 40.0).datagrams, "the holder may refresh"
    assert answer(map_server, "10.3.0.5") == (record("10.3.0.5/32", RLOCS["wlan2"]),)
    move(routers, "dc1", 65.1)
