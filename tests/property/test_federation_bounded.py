"""Bytes of anybody are read or refused with ``MessageError``; what home has not signed changes no view."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.federations import NETWORKS, away, card, federate

from followme.domain import NodeKind
from followme.federation.codec import (
    MAX_FRAME,
    MAX_ORDERS,
    MessageError,
    decode_answers,
    decode_orders,
    encode_answers,
    encode_orders,
    order_size,
)
from followme.federation.messages import (
    Aborted,
    Accepted,
    Answer,
    Attach,
    Denied,
    Flipped,
    Held,
    Holds,
    Left,
    Order,
    Prepare,
    Quiet,
    Ready,
    Refused,
    Released,
    Reserve,
    Reserved,
    Told,
    Update,
)
from followme.federation.nouns import (
    MAX_OLD,
    MAX_VERSION,
    Card,
    Mapping,
    NounError,
    Place,
    mapping_of,
    mapping_text,
)

LETTERS = "-_azAZ09"
names = st.text(LETTERS + ".", min_size=1, max_size=12)
reasons = st.text(max_size=40).filter(str.isprintable)
ids = st.text(LETTERS, min_size=1, max_size=40) | st.integers(0, MAX_VERSION).map("attach {}".format)
versions = st.integers(0, MAX_VERSION)
addresses = st.integers(0, (1 << 32) - 1).map(IPv4Address)
macs = st.binary(min_size=6, max_size=6)
places = st.builds(Place, names, addresses)
cards = st.builds(Card, names, st.sampled_from(NodeKind), macs, addresses, addresses, names)
mappings = st.builds(
    Mapping, cards, versions, places, st.none() | places, st.none() | places,
    st.lists(places, max_size=MAX_OLD).map(tuple), st.binary(max_size=64),
)  # fmt: skip
some_names = st.lists(names, max_size=5).map(tuple)
tolds = st.dictionaries(names, versions, max_size=5)
orders: st.SearchStrategy[Order] = st.one_of(
    st.builds(Prepare, addresses, names, ids, versions), st.builds(Reserve, cards, names, versions),
    st.builds(Update, mappings, some_names, st.booleans(), some_names), st.builds(Ready, addresses, ids, versions),
    st.builds(Denied, addresses, ids, reasons), st.builds(Flipped, addresses, ids),
    st.builds(Released, addresses, ids), st.builds(Aborted, addresses, ids),
    st.builds(Attach, addresses, macs, names, versions), st.builds(Left, addresses),
    st.builds(Told, addresses, tolds),
    st.builds(Holds, mappings, tolds),
    st.builds(Quiet, addresses, places),
)  # fmt: skip
answers: st.SearchStrategy[Answer] = st.one_of(
    st.builds(Accepted, versions), st.builds(Refused, reasons, st.booleans()), st.builds(Reserved, addresses),
    st.builds(Held, versions, tolds),
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["update", "reserve", "held", "prepare", "attach", "quiet", "told", "refused"]),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=30,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(versions, st.lists(orders, max_size=4))
def test_orders_come_back_as_they_were(epoch: int, some: list[Order]) -> None:
    data = encode_orders(epoch, some)
    assert decode_orders(data) == (epoch, some)
    frame = len(encode_orders(epoch, []))
    assert len(data) <= frame + sum(map(order_size, some)) <= len(data) + 1


@settings(max_examples=100, deadline=None)
@given(versions, st.lists(answers, max_size=4))
def test_answers_come_back_as_they_were(epoch: int, some: list[Answer]) -> None:
    assert decode_answers(encode_answers(epoch, some)) == (epoch, some)


@settings(max_examples=100, deadline=None)
@given(mappings)
def test_equal_octets_are_signed_only_for_equal_mappings(mapping: Mapping) -> None:
    assert mapping_of(json.loads(mapping_text(mapping))) == mapping
    assert replace(mapping, signature=b"").canonical() == mapping.canonical()
    assert replace(mapping, version=mapping.version ^ 1).canonical() != mapping.canonical()
    if mapping.arriving != mapping.leaving:
        turned = replace(mapping, arriving=mapping.leaving, leaving=mapping.arriving)
        assert turned.canonical() != mapping.canonical()


CODECS: tuple[tuple[Callable[[bytes], Any], Callable[..., bytes]], ...] = (
    (decode_orders, encode_orders), (decode_answers, encode_answers),
)  # fmt: skip


def read(data: bytes) -> None:
    """What is not refused is read again from what is written of it."""
    for decode, encode in CODECS:
        try:
            found = decode(data)
        except MessageError:
            continue
        assert decode(encode(*found)) == found


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read(data)


@settings(max_examples=300, deadline=None)
@given(values)
def test_any_json_is_read_or_refused(value: Any) -> None:
    read(json.dumps(value).encode())
    read(json.dumps([1, [value]]).encode())
    try:
        mapping = mapping_of(value)
    except NounError:
        return
    assert mapping_of(json.loads(mapping_text(mapping))) == mapping


@settings(max_examples=200, deadline=None)
@given(orders, st.data())
def test_a_frame_with_another_octet_is_read_or_refused(order: Order, data: st.DataObject) -> None:
    frame = bytearray(encode_orders(3, [order]))
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(frame))
    read(bytes(frame[: data.draw(st.integers(0, len(frame)))]))


@pytest.mark.parametrize(
    "data",
    [
        b" " * (MAX_FRAME + 1),
        b"[" * 100_000,
        b"[1,[" + b",".join([b'["flipped",1,"m"]'] * (MAX_ORDERS + 1)) + b"]]",
        b'[-1,[]]',
        b'[1,[["flipped",1,""]]]',
        b'[1,[["flipped",4294967296,"m"]]]',
        b'[1,[["flipped",true,"m"]]]',
        b'[1,[["flipped",1.0,"m"]]]',
        b'[9007199254740992,[]]',
        b'[NaN,[]]',
        b"\xff",
    ],
)  # fmt: skip
def test_what_is_too_large_or_of_another_kind_is_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode_orders(data)


USER = card("u", "a1", 10)
names_here = [name for networks in NETWORKS.values() for name in networks]
hosts = st.sampled_from([9, 10, 248, 249, 252])
near = st.builds(lambda n, h: IPv4Address(f"10.{n}.0.{h}"), st.integers(1, 7), hosts)
near_places = st.builds(Place, st.sampled_from(names_here), near)
near_cards = st.builds(
    Card, st.sampled_from(["u", "v"]), st.just(NodeKind.USER), st.just(USER.mac), near, near,
    st.sampled_from(names_here),
) | st.just(USER)  # fmt: skip
forged = st.builds(
    Mapping, near_cards, st.integers(0, 12), near_places, st.none() | near_places, st.none() | near_places,
    st.lists(near_places, max_size=2).map(tuple), st.binary(max_size=64),
)  # fmt: skip
near_networks = st.lists(st.sampled_from(names_here), max_size=2).map(tuple)
AWAY = away(USER)
FACTS = {name: list(facts.items()) for name, facts in AWAY.facts.items()}


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(NETWORKS)), st.sampled_from([*NETWORKS, "nobody"]), forged, near_networks,
       st.booleans(), near_networks)  # fmt: skip
def test_no_forged_update_changes_a_view(
    domain: str, sender: str, mapping: Mapping, networks: tuple[str, ...], settled: bool, told: tuple[str, ...]
) -> None:
    fed = federate(domain, FACTS[domain])
    identifiers = {USER.identifier, mapping.identifier}
    fed.take()
    before = {one: fed.view(one) for one in identifiers}
    if sender == "alpha" and domain != "alpha" and mapping.identifier == USER.identifier:
        told, settled = (), False  # home may say these without a new mapping
    if sender in (domain, fed._registry.home_of(mapping.identifier)):
        return  # what comes from oneself is not from outside, and what home says is so
    fed.receive(sender, Update(mapping, networks, settled, told), 1.0)
    assert {one: fed.view(one) for one in identifiers} == before


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(NETWORKS)), st.sampled_from(sorted(NETWORKS)), st.data())
def test_a_signed_mapping_that_was_changed_changes_no_view(domain: str, sender: str, data: st.DataObject) -> None:
    view = AWAY.feds["alpha"].view(USER.identifier)
    assert view is not None
    assert view.mapping is not None
    mapping = view.mapping
    other = data.draw(st.sampled_from([
        replace(mapping, version=mapping.version + 1),
        replace(mapping, here=Place("e1", IPv4Address("10.7.0.248"))),
        replace(mapping, arriving=Place("e1", IPv4Address("10.7.0.248")), version=mapping.version + 1),
        replace(mapping, card=replace(USER, mac=b"\2\0\0\0\0\1"), version=mapping.version + 1),
        replace(mapping, version=mapping.version - 1),
    ]))  # fmt: skip
    fed = federate(domain, FACTS[domain])
    before = fed.view(USER.identifier)
    networks = data.draw(near_networks)
    if "alpha" not in (domain, sender):  # there the mapping is made
        fed.receive(sender, Update(other, networks), 1.0)
        assert fed.view(USER.identifier) == before


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(NETWORKS)), st.sampled_from([*NETWORKS, "nobody"]), st.lists(orders, max_size=3))
def test_no_order_of_anybody_breaks_a_domain(domain: str, sender: str, some: list[Order]) -> None:
    fed = federate(domain, FACTS[domain])
    before = fed.view(USER.identifier)
    for order in some:
        answer = fed.receive(sender, order, 1.0)
        assert decode_answers(encode_answers(1, [answer])) == (1, [answer])
    assert fed.view(USER.identifier) == before
    fed.timer(10.0)
    fed.take()
