"""Very much at once: a map-cache behind one RLOC that fails, a flood of forged requests beside real probes."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

import pytest

from followme.lisp import EidPrefix, EidRecord, Locator, MappingRecord, MapReply, MapRequest
from followme.remote.channel import MAX_LINE
from followme.xtr import status
from followme.xtr.config import RouterConfig, check
from followme.xtr.mapcache import TURN
from followme.xtr.outputs import Encap, SetRoute
from followme.xtr.paced import PER_S

from .play import FAR, MAC, OTHER, STRANGER, Stage, eid, record

MANY = 5000


def remote(number: int) -> EidPrefix:
    return EidPrefix(0, (0x0A800000 + number).to_bytes(4), 32)


def full(*rlocs: IPv4Address, probe_s: float = 1.0) -> Stage:
    it = Stage(probe_interval_s=probe_s)
    it.settle()
    for number in range(MANY):
        mapping = MappingRecord(remote(number), tuple(map(Locator, rlocs)), 1440)
        it.control.itr.place(mapping, remote(number), it.now)
    it.take()
    return it


def test_an_rloc_with_a_large_map_cache_goes_down() -> None:
    """The agent must not stand still, nor the map server be flooded; those that nobody tells us of come first."""
    it = full(FAR)
    subscribed = {remote(number) for number in range(0, MANY, 2)}
    for one in subscribed:
        entry = it.control.itr.cache.table.get(one)
        assert entry is not None
        entry.nonce = 7
    asked: list[EidPrefix] = []
    while len(asked) < MANY:
        # The timer as often as it likes to be called, and then a tenth of a second.
        for _ in range(50):
            it.control.timer(it.now)
        assert len(it.take()) <= 4 * PER_S + 8
        new = [r.records[0].eid for r in it.requests() if r.records[0].eid not in asked[-8 * PER_S :]]
        asked += [one for one in new if isinstance(one, EidPrefix)]
        it.now += 0.1
        assert it.now < 1000.0 + 2 * MANY / PER_S
    first = asked[: MANY // 2 - 4 * PER_S]
    assert not subscribed.intersection(first)
    assert set(asked) == {remote(number) for number in range(MANY)}


def test_an_rloc_of_two_goes_down_and_routes_follow_in_turns() -> None:
    it = full(FAR, OTHER)
    changed: dict[EidPrefix, object] = {}
    for _ in range(200):
        it.control.timer(it.now)
        out = it.take()
        routes = it.all(SetRoute)
        assert len(routes) <= TURN + PER_S
        changed |= {route.eid: route.way for route in routes}
        for request in it.sent(MapRequest, OTHER):  # this one answers its probes
            it.receive(MapReply(request.nonce, (), probe=True).encode(), OTHER)
        it.out = out
        it.now += 0.1
    assert changed == {remote(number): Encap(((OTHER, 100),)) for number in range(MANY)}


@pytest.mark.parametrize("known", [True, False])
def test_forged_requests_do_not_keep_probes_from_their_answers(known: bool) -> None:
    it = Stage()
    it.settle()
    if known:
        it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    junk = MapRequest(7, (STRANGER,), (EidRecord(eid("10.9.0.1/32")),)).encode()
    probe = MapRequest(8, (FAR,), (EidRecord(eid("10.3.0.0/24")),), probe=True).encode()
    for number in range(5000):
        it.control.receive(junk, IPv4Address(0x0B000000 + number), 4342, it.now)
    assert it.refused("rate of Map-Requests") >= 3000
    it.take()
    it.receive(probe, FAR)
    assert [reply.nonce for reply in it.sent(MapReply, FAR)] == [8]


def test_forged_probes_do_not_keep_known_rlocs_from_theirs() -> None:
    it = Stage()
    it.settle()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    probe = MapRequest(8, (FAR,), (EidRecord(eid("10.3.0.0/24")),), probe=True).encode()
    for number in range(3000):
        it.control.receive(probe, IPv4Address(0x0B000000 + number), 4342, it.now)
    it.take()
    it.receive(probe, FAR)
    assert it.sent(MapReply, FAR)


def test_what_operators_see_fits_into_a_line_of_the_channel() -> None:
    it = full(FAR, OTHER, STRANGER)
    for number in range(1000):
        one = EidPrefix(0, (0x0A010000 + number).to_bytes(4), 32)
        it.control.claim(one, MAC[:4] + number.to_bytes(2), it.now, pinned=False)
        it.control.itr.prober.use([IPv4Address(0xC6336400 + number)], it.now)
    config: RouterConfig = check({
        "site": "dc1", "rlocs": [{"address": "192.0.2.2"}], "space": ["10.0.0.0/8"], "state_dir": "/var/lib/x",
        "map_servers": [{"address": "192.0.2.18", "key": "a key for the stage"}],
    }, "test")  # fmt: skip
    shown = status.describe(config, it.control, 0, it.now)
    assert shown["map_cache_entries"] == MANY
    assert len(json.dumps(shown, separators=(",", ":"))) < MAX_LINE - 1024
    assert min(len(shown[key]) for key in ("map_cache", "registrations", "dynamic_eids", "locators")) > 300
