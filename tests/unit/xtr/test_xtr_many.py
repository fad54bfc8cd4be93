"""Very much at once: a map-cache behind one RLOC that fails, floods of forged requests, large restarts."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

import pytest

from followme.lisp import EidPrefix, EidRecord, Locator, MappingRecord, MapReply, MapRequest
from followme.remote.channel import MAX_LINE
from followme.xtr import status
from followme.xtr.config import RouterConfig, check
from followme.xtr.correspondents import MAX_RLOCS
from followme.xtr.etr import PEER_PROBES_BURST
from followme.xtr.hearsay import KNOWN_SMRS_PER_S
from followme.xtr.hints import MAX_REMEMBERED, Hints
from followme.xtr.lanfilter import WATCHED
from followme.xtr.mapcache import TURN
from followme.xtr.outputs import Answered, Encap, RemoveRoute, SetRoute
from followme.xtr.paced import MAX_STALE, PER_S, Paced
from followme.xtr.requests import MAX_PENDING
from followme.xtr.watched import Watched

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


def test_probes_in_a_peers_name_do_not_keep_its_own_from_their_answers() -> None:
    """Nor those of other peers from theirs."""
    it = Stage()
    it.settle()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    it.learn("10.2.0.9", record("10.2.0.0/24", OTHER))
    probe = MapRequest(8, (FAR,), (EidRecord(eid("10.3.0.0/24")),), probe=True).encode()
    answered = 0
    for number in range(6000):
        it.now += 0.001
        if number % 1000 == 999:
            it.out = it.receive(probe, OTHER)
            assert it.sent(MapReply, OTHER)
        it.receive(probe, FAR)
        answered += len(it.datagrams(FAR))
    assert answered == 6000
    for _ in range(10_000):
        it.control.receive(probe, FAR, 4342, it.now)
    it.take()
    assert len(it.datagrams(FAR)) <= PEER_PROBES_BURST
    it.receive(probe, OTHER)
    assert it.sent(MapReply, OTHER)


def test_forged_requests_do_not_push_out_whom_we_send_to() -> None:
    it = Stage()
    it.settle()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    for rloc in (FAR, *(IPv4Address(0x0B000000 + number) for number in range(200))):
        it.receive(MapRequest(7, (rloc,), (EidRecord(eid("10.3.0.5/32")),)).encode(), rloc)
    known = it.control.etr.correspondents.of(eid("10.3.0.5/32"), it.now)
    assert FAR in known
    assert len(known) == MAX_RLOCS


# -- solicitations


def solicit(it: Stage, *eids: EidPrefix) -> int:
    """An SMR in FAR's name for each 16 of them; how many Map-Requests follow."""
    asked = 0
    for start in range(0, len(eids), 16):
        records = tuple(map(EidRecord, eids[start : start + 16]))
        it.receive(MapRequest(start, (FAR,), records, smr=True).encode(), FAR)
        asked += len(it.requests())
    return asked


def wide() -> Stage:
    it = Stage()
    it.settle()
    it.control.itr.place(record("10.128.0.0/9", FAR), eid("10.128.0.0/9"), it.now)
    it.take()
    return it


def test_solicitations_beyond_the_rate_are_put_off() -> None:
    """A router that loses many users at once tells of all of them at once."""
    it = Stage()
    it.settle()
    users = [remote(number) for number in range(500)]
    for user in users:
        it.control.itr.place(record(str(user), FAR), user, it.now)
    it.take()
    assert solicit(it, *users) == KNOWN_SMRS_PER_S
    asked = set[object]()
    for _ in range(10):
        it.wait(1.0)
        asked |= {request.records[0].eid for request in it.requests()}
    assert asked >= set(users[int(KNOWN_SMRS_PER_S) :])


def test_solicitations_in_a_locators_name_are_bounded_in_all() -> None:
    it = wide()
    asked = 0
    for second in range(10):
        asked += solicit(it, *(remote(4000 * second + number) for number in range(4000)))
        it.wait(1.0)
    assert KNOWN_SMRS_PER_S / 2 * 9 <= asked <= KNOWN_SMRS_PER_S / 2 * 11
    assert it.refused("rate of SMRs") > 30_000


def test_an_eid_is_asked_about_once_a_second_however_many_there_are() -> None:
    hints, now = Hints(), 1000.0
    eids = [remote(number) for number in range(MAX_REMEMBERED + 500)]
    assert sum(hints.take(one, now) for one in eids) == MAX_REMEMBERED
    assert not any(hints.take(one, now + 0.5) for one in eids)
    assert hints.take(remote(9999), now + 1.0)


def test_solicitations_take_no_place_of_what_we_ask_ourselves() -> None:
    it = wide()
    ours = eid("10.9.0.0/24")
    it.control.itr.ask(ours, it.now)
    for number in range(3 * MAX_PENDING):
        it.control.itr.ask(remote(number), it.now, subscribe=False, smr=True)
    assert ours in it.control.itr.requests.pending
    assert it.refused("too many Map-Requests under way") == 3 * MAX_PENDING + 1 - MAX_PENDING
    it.take()
    assert len([one for one in it.all(Answered) if one.record is None]) == 2 * MAX_PENDING + 1


# -- a large map-cache after a restart


def test_no_adopted_route_ends_before_it_was_asked_about() -> None:
    it = Stage(max_entries=70_000)
    it.settle()
    many = 60_000
    for number in range(many):
        it.control.adopt(remote(number), Encap(((FAR, 1),)), it.now)
    it.take()
    asked: set[object] = set()
    removed: list[RemoveRoute] = []
    started = it.now
    while it.now < started + many / PER_S + 10.0:
        it.control.timer(it.now)
        it.take()
        removed += it.all(RemoveRoute)
        for request in it.requests():
            target = request.records[0].eid
            asked.add(target)
            # As by the answer, but quicker.
            assert isinstance(target, EidPrefix)
            it.control.itr.requests_done(target)
            it.control.itr.cache.put(MappingRecord(target, (Locator(FAR),), 1440), target, it.now)
        it.now += 1.0
    assert removed == []
    assert len(asked) == many


def test_watched_mappings_have_turns() -> None:
    watched = Watched()
    for number in range(1000):
        watched[remote(number)] = None
        watched[EidPrefix(0, bytes([0xFD]) + number.to_bytes(15), 128)] = None
    seen: set[EidPrefix] = set()
    for second in range(40):
        watched.timer(1000.0 + second)
        shown = watched.shown()
        watched.timer(1000.5 + second)
        assert watched.shown() == shown
        assert len(shown) == sum(WATCHED.values())
        seen |= shown
    assert seen == set(watched)
    assert watched.next_timer() == 1040.0
    few = Watched()
    few[remote(1)] = None
    assert few.shown() == {remote(1)}
    assert few.next_timer() is None


def test_those_that_have_left_the_map_cache_take_no_turn_and_little_room() -> None:
    paced, wanted = Paced(), {remote(number) for number in range(10)}
    paced.put(remote(number) for number in range(500, 100_000))
    paced.put(wanted)
    assert set(paced.due(1000.0, wanted)) == wanted
    paced.put(remote(number) for number in range(100))
    paced.put(remote(number) for number in range(100_000))
    every = {remote(number) for number in range(100)}
    assert len(paced.due(1001.0, every)) == PER_S
    assert len(paced._waiting) <= len(every) + MAX_STALE
    assert set(paced.due(1002.0, every)) == {remote(number) for number in range(PER_S, 100)}


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
