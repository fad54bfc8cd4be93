"""``MapClient`` where others send Map-Requests in its name, and where the map server asks first whether it did."""

from __future__ import annotations

import pytest

from .fakes import RLOCS, Router, eid, record, server
from .wire import OURS, USER, Wire, changes, client


@pytest.fixture
def wire() -> Wire:
    return Wire(server(), client())


@pytest.fixture
def wlan2(wire: Wire) -> Router:
    return Router(wire.server, "wlan2")


def test_a_confirmation_of_many_mappings_comes_after_the_key(wire: Wire, wlan2: Router) -> None:
    for number in range(100):
        wlan2.own(f"10.3.0.{number}/32")
    wire.client.subscribe(eid("10.3.0.0/24"), 0.0)
    assert len(changes(wire.run())) == 100
    assert wire.client.confirmed
    wire.run(50.0)
    wlan2.register(record("10.3.0.7/32", ttl=0), now=wire.now)  # and its publications are lost
    wire.lose = lambda host, data: host == OURS[0] and b"\x0a\x03\x00\x07" in data
    wire.run(5.0)
    wire.lose = lambda host, data: False
    assert ("10.3.0.7/32", []) in changes(wire.run(60.0)), "the next confirmation does not list it"


def test_what_others_had_signed_for_us_moves_no_nonces(wire: Wire, wlan2: Router) -> None:
    """A stranger's Map-Request in our name is confirmed to us, with his nonce."""
    wire.client.subscribe(eid("10.3.0.0/24"), 0.0)
    wire.run()
    for nonce in ((3 << 62) - 1, 1 << 63):
        forged = Router(wire.server, "ctl").subscription("10.3.0.0/24", nonce=nonce)
        wire.tell(wire.server.receive(forged, ("203.0.113.66", 4342), wire.now))
    assert wire.client.refused["nonce of a Map-Notify"] == 2
    assert all(one.nonce < 1 << 63 for one in wire.server.subscriptions)
    assert changes(wire.tell(wlan2.own(USER))) == [(USER, [RLOCS["wlan2"]])]
