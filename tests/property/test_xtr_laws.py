"""Whatever a tunnel router is sent: it does not fall, forgets nothing that it promised, and stays small."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.xtr.bpf import passes
from tests.unit.xtr.play import FAR, KEY, MAC, MAC2, MS, OTHER, OWN_MAC, STRANGER, Stage, eid, packet, record

from followme.lisp import EidPrefix, MapNotify, MapReply, MapRequest, decode, sign
from followme.lisp.request import EidRecord
from followme.xtr.lan import read_frame
from followme.xtr.lanfilter import Interest, program
from followme.xtr.outputs import Datagram, Encap, RemoveRoute, SetRoute
from followme.xtr.requests import MAX_PENDING, MAX_WAITING_BYTES, Nonces

SOURCES = st.sampled_from([MS, FAR, OTHER, STRANGER])
LENGTHS = st.integers(0, 32)
PREFIXES = st.builds(
    lambda number, length: EidPrefix(0, (number >> 32 - length << 32 - length).to_bytes(4), length),
    st.one_of(st.integers(0, 2**32 - 1), st.integers(0x0A000000, 0x0A0400FF)), LENGTHS,
)  # fmt: skip
HOSTS = st.builds(lambda a, b: f"10.{a}.0.{b}", st.integers(1, 5), st.integers(1, 12))
RECORDS = st.builds(
    lambda host, length, rlocs, ttl: record(
        str(EidPrefix(0, _cut(host, length), length)), *rlocs, ttl=ttl),
    HOSTS, st.sampled_from([8, 16, 24, 32]), st.lists(st.sampled_from([FAR, OTHER]), max_size=2, unique=True),
    st.sampled_from([0, 1, 15, 1440]),
)  # fmt: skip


def _cut(host: str, length: int) -> bytes:
    number = int.from_bytes(eid(f"{host}/32").address)
    return (number >> 32 - length << 32 - length).to_bytes(4)


@given(st.lists(st.tuples(st.binary(max_size=120), SOURCES, st.integers(0, 65535)), max_size=20))
def test_any_bytes(datagrams: list[tuple[bytes, object, int]]) -> None:
    it = Stage()
    it.settle()
    for data, source, port in datagrams:
        it.receive(data, source, port)  # type: ignore[arg-type]
        assert it.all(SetRoute) == []


@given(st.binary(max_size=200))
def test_any_packet_and_any_frame(data: bytes) -> None:
    it = Stage()
    it.control.miss(data, it.now)
    read_frame(data, 0)
    nobody: frozenset[EidPrefix] = frozenset()
    watching = Interest(OWN_MAC, (eid("10.0.0.0/8"),), (), nobody, nobody, frozenset([eid("10.1.0.0/24")]))
    passes(program(watching), data)
    assert it.all(SetRoute) == [], "no packet changes a route by itself"


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_publication_with_one_octet_changed_does_nothing(at: int, value: int) -> None:
    it = Stage()
    it.settle()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    message = sign(MapNotify(it.nonce + 1, (record("10.1.0.9/32", OTHER),), it.site.xtr_id, 3), KEY)
    data = bytearray(message.encode())
    at %= len(data)
    before, data[at] = data[at], value
    it.receive(bytes(data))
    assert bool(it.all(SetRoute)) is (before == value)


MOVES = st.one_of(
    st.tuples(st.just("miss"), HOSTS, HOSTS),
    st.tuples(st.just("reply"), st.lists(RECORDS, max_size=3), SOURCES),
    st.tuples(st.just("notify"), st.lists(RECORDS, min_size=1, max_size=3), st.integers(0, 3)),
    st.tuples(st.just("smr"), HOSTS, SOURCES),
    st.tuples(st.just("ask"), HOSTS, SOURCES),
    st.tuples(st.just("appear"), HOSTS, st.sampled_from([MAC, MAC2])),
    st.tuples(st.just("switch"), HOSTS, st.sampled_from([FAR, OTHER])),
    st.tuples(st.just("erase"), HOSTS, st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 70.0, 900.0]), st.just(0)),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(MOVES, max_size=25))
def test_histories(moves: list[tuple[str, object, object]]) -> None:
    """The routes that were asked for are those of the map-cache and of who is here, and nothing is left over."""
    it = Stage(max_entries=16)
    it.settle()
    routes: dict[EidPrefix, object] = {}
    asked: list[int] = [1]
    for kind, one, other in moves:
        _play(it, kind, one, other, asked)
        for output in it.out:
            if isinstance(output, SetRoute):
                routes[output.eid] = output.way
            elif isinstance(output, RemoveRoute):
                routes.pop(output.eid, None)
            elif isinstance(output, Datagram):
                decode(output.data)  # what we send, others can read
        asked += [request.nonce for request in it.requests()]
        control = it.control
        cache = {key: entry.way for key, entry in control.itr.cache.table.items()}
        here = set(control.residents.here)
        assert {key: way for key, way in routes.items() if key not in here} == cache
        assert here <= set(routes)
        assert not here & set(control.itr.cache.table)
        gone = {key for key, way in cache.items() if it.site.own(key) and isinstance(way, Encap)}
        assert control.itr.cache.away == gone
        pending = control.itr.requests
        assert len(pending.pending) <= MAX_PENDING
        assert 0 <= pending.waiting_bytes <= MAX_WAITING_BYTES
        assert pending.waiting_bytes == sum(len(p) for ask in pending.pending.values() for p in ask.packets)
        assert len(cache) <= 16
    it.wait(30.0)
    assert it.control.itr.requests.waiting_bytes == 0


def _play(it: Stage, kind: str, one: Any, other: Any, asked: list[int]) -> None:
    control, now = it.control, it.now
    if kind == "wait":
        it.wait(one)
        return
    if kind == "miss":
        control.miss(packet(one, other), now)
    elif kind == "reply":
        control.receive(MapReply(asked[-1], tuple(one)).encode(), other, 4342, now)
    elif kind == "notify":
        message = MapNotify(asked[-1] + other, tuple(one), it.site.xtr_id, 3)
        control.receive(sign(message, KEY).encode(), MS, 4342, now)
    elif kind in ("smr", "ask"):
        target = eid(f"{one}/32")
        request = MapRequest(9, (FAR,), (EidRecord(target),), source_eid=target, smr=kind == "smr")
        control.receive(request.encode(), other, 4342, now)
    elif kind == "appear":
        control.appeared(eid(f"{one}/32"), other, now)
    elif kind == "switch":
        control.switch(eid(f"{one}/32"), other, now)
    elif kind == "erase":
        control.erase(eid(f"{one}/32"), now, withdraw=other)
    it.take()


@given(st.lists(st.floats(0, 1e6), max_size=50), st.floats(0, 1e6))
def test_nonces_grow(times: list[float], start: float) -> None:
    earlier = Nonces(1_750_003_600.0, start).next(start)
    nonces = Nonces(1_750_000_000.0, start, earlier)  # an hour back
    assert nonces.next(start) > earlier
    nonces = Nonces(3_800_000_000.0, start)  # in 2090
    drawn = [nonces.next(now) for now in times]
    assert drawn == sorted(set(drawn))
    assert all(0 < nonce < 1 << 64 for nonce in drawn)


@given(
    st.lists(PREFIXES, max_size=6), st.lists(PREFIXES, max_size=6), st.lists(PREFIXES, max_size=6),
    st.lists(PREFIXES, max_size=6), st.lists(PREFIXES, max_size=6), HOSTS, HOSTS,
)  # fmt: skip
def test_the_filter_is_its_description(
    ranges: list[EidPrefix], quiet: list[EidPrefix], loud: list[EidPrefix], known: list[EidPrefix],
    watched: list[EidPrefix], source: str, target: str,
) -> None:  # fmt: skip
    frame = b"\xff" * 6 + MAC + b"\x08\x00" + packet(source, target, 60)
    one, other = eid(f"{source}/32"), eid(f"{target}/32")

    def within(prefixes: list[EidPrefix], what: EidPrefix) -> bool:
        return any(prefix.covers(what) for prefix in prefixes)

    expected = within(watched, other) or (
        not within(known, one)
        and (within(loud, one) or (not within(quiet, one) and within(ranges, one)))
    )
    interest = Interest(
        OWN_MAC, tuple(ranges), tuple(quiet), frozenset(loud), frozenset(known), frozenset(watched)
    )
    assert passes(program(interest), frame) is expected


