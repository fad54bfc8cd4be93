"""Any history of the map server: look-ups say what a brute-force model says, and bytes of no meaning do nothing."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.mapsystem.fakes import Router, answer, ask, record, request, server, site

from followme.lisp import EidPrefix, MappingRecord
from followme.mapsystem import MapServer, SitePrefix
from followme.mapsystem.outbox import Unsaved

BASE = int(IPv4Address("10.1.0.0"))
SITE = IPv4Network("10.1.0.0/27")
UNIVERSE = [IPv4Address(BASE + number) for number in range(48)]
"""The site's prefix and what follows it."""
INTERVAL_S = 10.0


@st.composite
def prefixes(draw: st.DrawFn) -> IPv4Network:
    length = draw(st.integers(27, 32))
    return ip_network((BASE + draw(st.integers(0, 31)), length), strict=False)  # type: ignore[return-value]


@dataclass(frozen=True)
class Step:
    kind: str
    prefix: IPv4Network
    rloc: int
    seconds: float


steps = st.builds(
    Step, st.sampled_from(["register", "register", "register", "withdraw", "wait"]), prefixes(), st.integers(1, 3),
    st.sampled_from([0.0, 1.0, 7.0, 29.0, 31.0]),
)  # fmt: skip


def new_server() -> MapServer:
    one = site("dc1", prefixes=(SitePrefix(EidPrefix.of(SITE)),), visitors=())
    return server(one, interval_s=INTERVAL_S)


def model_answer(model: dict[IPv4Network, tuple[str, float]], address: IPv4Address) -> str | None:
    covering = [prefix for prefix in model if address in prefix]
    return model[max(covering, key=lambda prefix: prefix.prefixlen)][0] if covering else None


def check(map_server: MapServer, model: dict[IPv4Network, tuple[str, float]]) -> None:
    for address in UNIVERSE:
        records = answer(map_server, str(address))
        assert any(IPv4Address(record.eid.address) <= address and _covers(record, address) for record in records
                   if isinstance(record.eid, EidPrefix)), "it answers for what was asked"  # fmt: skip
        if model_answer(model, address) is None:
            _check_hole(records, model, address)
            continue
        # What an ITR does with the reply must be right for every address, as it keeps it for all of them.
        for other in UNIVERSE:
            mine = [record for record in records if _covers(record, other)]
            if mine:
                best = max(mine, key=lambda record: record.eid.length)
                assert str(best.locators[0].address) == model_answer(model, other)


def _check_hole(
    records: tuple[MappingRecord, ...], model: dict[IPv4Network, tuple[str, float]], address: IPv4Address
) -> None:
    (one,) = records
    assert one.locators == ()
    assert one.ttl == (1 if address in SITE else 15)
    assert isinstance(one.eid, EidPrefix)
    hole = one.eid.network
    assert isinstance(hole, IPv4Network)
    known = [*model] if address in SITE else [*model, SITE]
    assert not any(hole.overlaps(prefix) for prefix in known)
    if hole != SITE and hole.prefixlen:
        wider = hole.supernet()
        assert any(wider.overlaps(prefix) for prefix in known) or (not wider.subnet_of(SITE) and address in SITE)


def _covers(record: MappingRecord, address: IPv4Address) -> bool:
    return isinstance(record.eid, EidPrefix) and record.eid.covers(EidPrefix.of(address))


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=25))
def test_look_ups_are_what_the_history_says(history: list[Step]) -> None:
    map_server = new_server()
    router = Router(map_server, "dc1")
    model: dict[IPv4Network, tuple[str, float]] = {}
    now = 0.0
    for step in history:
        rloc = f"192.0.2.{step.rloc}"
        if step.kind == "register":
            router.register(record(str(step.prefix), rloc), now=now)
            model[step.prefix] = rloc, now + 3 * INTERVAL_S
        elif step.kind == "withdraw":
            router.register(record(str(step.prefix), ttl=0), now=now)
            model.pop(step.prefix, None)
        else:
            now += step.seconds
            map_server.timer(now)
            model = {prefix: kept for prefix, kept in model.items() if kept[1] > now}
        assert len(map_server.registry.table) == len(model)
        for address in UNIVERSE[::5]:  # what is kept ready must follow each change
            fast = map_server.answers.fast(request(str(address)))
            assert fast is not None
            (slow,) = ask(map_server, str(address)).datagrams
            assert fast.data == slow.data
    check(map_server, model)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.integers(1, 8).flatmap(
    lambda kind: st.binary(max_size=120).map(lambda rest: bytes((kind << 4,)) + rest))))  # fmt: skip
def test_bytes_of_no_meaning_change_nothing(data: bytes) -> None:
    map_server = new_server()
    Router(map_server, "dc1").own(str(SITE))
    before = map_server.registry.table.get(EidPrefix.of(SITE))
    map_server.outbox.unsaved = Unsaved()
    outcome = map_server.receive(data, ("203.0.113.66", 4342), 1.0)
    map_server.answers.fast(data)
    assert outcome.events == []
    assert not map_server.outbox.unsaved
    assert list(map_server.registry.table.items()) == [(EidPrefix.of(SITE), before)]
    assert len(map_server.subscriptions) == 0


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_registration_with_any_bit_changed_does_nothing(data: st.DataObject) -> None:
    map_server = new_server()
    router = Router(map_server, "dc1")
    message = bytearray(router.registration(record("10.1.0.0/27", "192.0.2.1"), record("10.1.0.5/32", "192.0.2.2")))
    at = data.draw(st.integers(0, len(message) - 1))
    message[at] ^= 1 << data.draw(st.integers(0, 7))
    outcome = map_server.receive(bytes(message), router.source, 0.0)
    assert outcome.datagrams == []
    assert outcome.events == []
    assert len(map_server.registry.table) == 0
    assert not map_server.outbox.unsaved
    assert sum(map_server.refusals.counts.values()) == 1
