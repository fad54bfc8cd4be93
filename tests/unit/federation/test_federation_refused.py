"""What each role refuses, with which reason; and what late copies of old orders do not do."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from followme.domain import NodeKind
from followme.federation.federate import Federate
from followme.federation.messages import (
    Accepted,
    Answer,
    Attach,
    Flipped,
    Held,
    Order,
    Prepare,
    Quiet,
    Ready,
    Refused,
    Reserve,
    Reserved,
    Update,
)
from followme.federation.nouns import Mapping, Place
from tests.federations import QuickSigner, World, card, federate

USER = card("u", "a1", 10)
MACHINE = card("m", "a2", 10, NodeKind.MACHINE)


@pytest.fixture
def world() -> World:
    return World([USER, MACHINE])


def test_no_operator_uses_up_names_of_another(world: World) -> None:
    beta = world.feds["beta"]
    beta.know(card("u", "b1", 30))
    assert isinstance(beta.receive("epsilon", Reserve(card("u", "e1", 5), "b1", 5), 1.0), Reserved)
    assert isinstance(beta.receive("alpha", Reserve(USER, "b1", 5), 1.0), Reserved)


def test_a_late_copy_of_a_reservation_gets_no_second_locator(world: World) -> None:
    beta = world.feds["beta"]
    first = beta.receive("alpha", Reserve(USER, "b1", 5), 1.0)
    assert isinstance(first, Reserved)
    assert beta.receive("alpha", Reserve(USER, "b1", 5), 1.0) == first
    assert beta.receive("alpha", Reserve(USER, "b1", 4), 1.0) == Held(5)


SIGNED = QuickSigner("alpha")


def signed(mapping: Mapping) -> Mapping:
    return replace(mapping, signature=SIGNED.sign(mapping.canonical()))


AWAY = signed(Mapping(USER, 7, Place("g1", IPv4Address("10.4.0.248"))))


@pytest.mark.parametrize(
    ("sender", "order", "reason"),
    [
        ("nobody", Update(AWAY), "unknown operator"),
        ("delta", Update(AWAY, ("b1",)), "sender is neither the node's home nor where it is"),
        ("gamma", Update(replace(AWAY, version=8), ("b1",)), "bad signature"),
        ("gamma", Update(replace(AWAY, signature=b""), ("b1",)), "bad signature"),
        ("gamma", Update(replace(AWAY, here=Place("g2", IPv4Address("10.5.0.248"))), ("b1",)), "bad signature"),
        ("alpha", Update(AWAY, ("d1",)), "not a network of this domain"),
        ("alpha", Update(signed(replace(AWAY, here=Place("g1", IPv4Address("10.4.0.9")))), ("b1",)),
         "a locator outside the pool"),
        ("gamma", Update(signed(replace(AWAY, leaving=Place("b1", IPv4Address("10.3.0.252"))))),
         "a locator that was not given"),
        ("gamma", Update(signed(replace(AWAY, card=replace(USER, identifier=IPv4Address("10.4.0.10")))), ("b1",)),
         "the identifier is not of the home network"),
        ("gamma", Reserve(USER, "b1", 9), "sender is not the node's home"),
        ("alpha", Reserve(USER, "d1", 9), "not a network of this domain"),
        ("alpha", Attach(USER.identifier, USER.mac, "b1", 1), "nobody of that identifier is at home here"),
        ("gamma", Ready(USER.identifier, "m", 3), "sender is not the node's home"),
        ("alpha", Ready(USER.identifier, "m", 3), "that migration is not prepared"),
    ],
)  # fmt: skip
def test_what_is_refused(sender: str, order: Order, reason: str) -> None:
    beta = federate("beta")
    assert beta.receive(sender, order, 1.0) == Refused(reason)
    assert beta.refusals == {reason: 1}
    assert beta.view(USER.identifier) is None
    assert beta.take().writes == {}


@pytest.mark.parametrize(
    ("sender", "order", "reason"),
    [
        ("beta", Prepare(MACHINE.identifier, "b1", "m", 1), "the node is not in the sender's networks"),
        ("alpha", Prepare(MACHINE.identifier, "z9", "m", 1), "no such network"),
        ("alpha", Prepare(MACHINE.identifier, "a2", "m", 1), "the node is there already"),
        ("alpha", Prepare(MACHINE.identifier, "b1", "m", 0), "out of date: the node has moved since"),
        ("alpha", Prepare(IPv4Address("10.1.0.99"), "b1", "m", 0), "nobody of that identifier is at home here"),
        ("gamma", Attach(USER.identifier, USER.mac, "b1", 1), "sender does not own the network"),
        ("beta", Attach(USER.identifier, b"\2\0\0\0\0\1", "b1", 1), "another MAC address than the node's"),
        ("alpha", Flipped(MACHINE.identifier, "m"), "that migration is not prepared"),
        ("beta", Quiet(USER.identifier, Place("g1", IPv4Address("10.4.0.248"))), "sender does not own the network"),
    ],
)  # fmt: skip
def test_what_home_refuses(world: World, sender: str, order: Order, reason: str) -> None:
    alpha = world.feds["alpha"]
    assert alpha.receive(sender, order, 1.0) == Refused(reason)
    assert alpha.take().orders == []


def held(fed: Federate, sender: str, order: Order) -> Answer:
    return fed.receive(sender, order, 1.0)


def test_an_older_version_changes_nothing_and_is_answered_with_the_newer() -> None:
    delta = federate("delta")
    assert held(delta, "alpha", Update(AWAY, ("d1",))) == Held(7)
    older = signed(replace(AWAY, version=6, here=Place("b1", IPv4Address("10.3.0.252"))))
    assert held(delta, "alpha", Update(older, ("d1",))) == Held(7)
    view = delta.view(USER.identifier)
    assert view is not None
    assert view.mapping == AWAY


def test_a_tombstone_keeps_late_copies_away_for_an_hour() -> None:
    delta = federate("delta")
    held(delta, "alpha", Update(AWAY, ("d1",)))
    home = signed(Mapping(USER, 8, Place("a1", USER.identifier)))
    assert held(delta, "alpha", Update(home, ("d1",))) == Held(8)
    assert held(delta, "alpha", Update(AWAY, ("d1",))) == Held(8)
    assert delta.view(USER.identifier) is None
    again = federate("delta", [(key, fact) for key, fact in delta.take().writes.items() if fact is not None])
    assert held(again, "alpha", Update(AWAY, ("d1",))) == Held(8)
    again.timer(2.0)
    again.timer(3700.0)
    again.timer(7400.0)
    assert held(again, "alpha", Update(AWAY, ("d1",))) == Held(7)


def test_an_attachment_is_accepted_with_the_version_that_will_hold_it(world: World) -> None:
    alpha = world.feds["alpha"]
    first = alpha.receive("beta", Attach(USER.identifier, USER.mac, "b1", 3), 1.0)
    assert isinstance(first, Accepted)
    assert alpha.receive("beta", Attach(USER.identifier, USER.mac, "b1", 3), 1.0) == first
    assert alpha.receive("beta", Attach(USER.identifier, USER.mac, "b1", 2), 1.0) == Refused(
        "out of date: the node has gone on"
    )
