"""The roles together, over a bus that loses nothing unless told to."""

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
from followme.federation.outputs import (
    Attached,
    CannotPass,
    Changed,
    Done,
    Effect,
    IsDenied,
    IsReady,
    NotAttached,
    Passes,
)
from followme.federation.steps import PREPARE_WAIT_S
from tests.federations import QuickSigner, World, card, federate

USER = card("u", "a1", 10)
MACHINE = card("m", "a2", 10, NodeKind.MACHINE)
OTHERS = [card(f"v{number}", "a1", 20 + number) for number in range(4)]


@pytest.fixture
def world() -> World:
    return World([USER, MACHINE, *OTHERS])


def run(world: World, away: str = "") -> None:
    """Deliver all; what goes to ``away`` is lost."""
    while world.letters:
        letter = world.letters[0]
        if not letter.back and letter.to == away:
            world.lose(letter)
        else:
            world.deliver(letter)


def attach(world: World, network: str) -> None:
    owner = world.owner(network)
    world.feds[owner].attach(USER.identifier, USER.mac, network)
    world.pump(owner)


def view_mapping(world: World, domain: str, identifier: IPv4Address) -> Mapping:
    view = world.feds[domain].view(identifier)
    assert view is not None
    assert view.mapping is not None
    return view.mapping


def effects(world: World, domain: str) -> list[Effect]:
    found: list[Effect] = [
        effect for name, effect in world.effects if name == domain and not isinstance(effect, Changed)
    ]
    world.effects.clear()
    return found


def test_a_machine_goes_to_two_networks_and_home(world: World) -> None:
    where = "a2"
    identifier = MACHINE.identifier
    for number, target in enumerate(("b1", "g1", "a2")):
        source, migration = world.owner(where), f"m{number}"
        fed = world.feds[source]
        fed.prepare(identifier, target, migration)
        world.pump(source)
        run(world)
        assert effects(world, source) == [IsReady(identifier, migration)]
        for domain in {"alpha", world.owner(where), world.owner(target)}:
            mapping = view_mapping(world, domain, identifier)
            assert mapping.here.network == where
            assert mapping.arriving is not None
            assert mapping.arriving.network == target
        fed.flipped(identifier, migration)
        world.pump(source)
        run(world)
        mapping = view_mapping(world, "alpha", identifier)
        assert mapping.leaving is not None
        assert (mapping.here.network, mapping.leaving.network) == (target, where)
        assert mapping.here.locator != identifier
        fed.released(identifier, migration)
        world.pump(source)
        run(world)
        assert effects(world, source) == [Done(identifier, migration, one) for one in ("flipped", "released")]
        assert where in {place.network for place in view_mapping(world, "alpha", identifier).old}
        world.settle()
        where = target
    assert [fed.view(identifier) for fed in world.feds.values()] == [None] * 5
    assert not any(key[0] in "hm" for facts in world.facts.values() for key in facts)


def test_a_user_is_told_to_a_correspondent_that_speaks_first(world: World) -> None:
    attach(world, "b1")
    run(world)
    assert effects(world, "beta") == [Attached(USER.identifier, "b1")]
    assert world.feds["delta"].view(USER.identifier) is None
    world.feds["alpha"].unaware(USER.identifier, "d1")
    world.pump("alpha")
    run(world)
    view = world.feds["delta"].view(USER.identifier)
    assert view is not None
    assert view.told == {"d1"}
    assert view.mapping == view_mapping(world, "alpha", USER.identifier)


def test_a_user_that_speaks_first_is_let_through_when_the_correspondent_knows(world: World) -> None:
    attach(world, "b1")
    run(world)
    effects(world, "beta")
    beta = world.feds["beta"]
    beta.speaks(USER.identifier, "d1")
    world.pump("beta")
    view = beta.view(USER.identifier)
    assert view is not None
    assert "d1" in view.telling
    run(world)
    assert effects(world, "beta") == [Passes(USER.identifier, "d1")]
    view = beta.view(USER.identifier)
    assert view is not None
    assert "d1" in view.told - view.telling
    # Home does not know of it, and learns it with the next move.
    home = world.feds["alpha"].view(USER.identifier)
    assert home is not None
    assert "d1" not in home.told
    attach(world, "g1")
    run(world)
    assert view_mapping(world, "delta", USER.identifier).here.network == "g1"


def test_a_correspondent_that_does_not_answer_cannot_be_spoken_to(world: World) -> None:
    attach(world, "b1")
    run(world)
    effects(world, "beta")
    world.feds["beta"].speaks(USER.identifier, "d1")
    world.pump("beta")
    for _ in range(4):
        run(world, away="delta")
        world.tick(1.0)
    (effect,) = effects(world, "beta")
    assert isinstance(effect, CannotPass)
    # It may have heard of it all the same: home is told of it in the end.
    attach(world, "g1")
    world.settle()
    assert view_mapping(world, "delta", USER.identifier).here.network == "g1"


def test_a_quiet_place_stays_until_all_who_sent_there_know_better(world: World) -> None:
    attach(world, "b1")
    run(world)
    world.feds["alpha"].unaware(USER.identifier, "d1")
    world.pump("alpha")
    run(world)
    attach(world, "g1")
    run(world, away="delta")
    old = view_mapping(world, "delta", USER.identifier).here
    world.feds["beta"].quiet(USER.identifier, old)
    world.pump("beta")
    run(world, away="delta")
    assert old in view_mapping(world, "alpha", USER.identifier).old
    assert old in view_mapping(world, "beta", USER.identifier).old
    world.settle()
    assert world.feds["beta"].view(USER.identifier) is None
    assert view_mapping(world, "delta", USER.identifier).old == ()


def test_where_the_node_is_not_nobody_is_told(world: World) -> None:
    world.feds["gamma"].speaks(USER.identifier, "d1")
    world.feds["gamma"].take()
    world.feds["alpha"].speaks(USER.identifier, "d1")
    (effect,) = world.feds["alpha"].take().effects
    assert isinstance(effect, CannotPass)


def test_an_exhausted_pool_denies(world: World) -> None:
    for one in OTHERS[:2]:
        world.feds["beta"].attach(one.identifier, one.mac, "b1")
    world.pump("beta")
    run(world)
    effects(world, "beta")
    attach(world, "b1")
    run(world)
    assert effects(world, "beta") == [
        NotAttached(USER.identifier, "b1", "no locator is free in the network")
    ]
    world.feds["alpha"].prepare(MACHINE.identifier, "b1", "m")
    world.pump("alpha")
    run(world)
    assert effects(world, "alpha") == [IsDenied(MACHINE.identifier, "m", "no locator is free in the network")]
    assert world.feds["beta"].refusals["no locator is free in the network"] == 2


def test_a_holder_that_cannot_be_reached_holds_a_move_up_and_it_is_rolled_back(world: World) -> None:
    world.feds["alpha"].prepare(MACHINE.identifier, "b1", "m0")
    world.pump("alpha")
    run(world)
    for phase in (world.feds["alpha"].flipped, world.feds["alpha"].released):
        phase(MACHINE.identifier, "m0")
        world.pump("alpha")
        run(world)
    world.feds["alpha"].unaware(MACHINE.identifier, "d1")
    world.pump("alpha")
    run(world)
    world.effects.clear()
    world.feds["beta"].prepare(MACHINE.identifier, "g1", "m1")
    world.pump("beta")
    for _ in range(30):
        run(world, away="delta")
        world.tick(PREPARE_WAIT_S / 20)
    (effect,) = effects(world, "beta")
    assert isinstance(effect, IsDenied)
    mapping = view_mapping(world, "alpha", MACHINE.identifier)
    assert (mapping.here.network, mapping.arriving) == ("b1", None)
    world.settle()
    for domain in ("beta", "delta"):
        assert view_mapping(world, domain, MACHINE.identifier) == view_mapping(world, "alpha", MACHINE.identifier)
    assert world.feds["gamma"].view(MACHINE.identifier) is None


def test_a_second_migration_is_refused_while_one_is_under_way(world: World) -> None:
    world.feds["alpha"].prepare(MACHINE.identifier, "b1", "one")
    world.feds["alpha"].prepare(MACHINE.identifier, "g1", "two")
    world.pump("alpha")
    run(world)
    assert effects(world, "alpha") == [
        IsDenied(MACHINE.identifier, "two", "the node is being moved"), IsReady(MACHINE.identifier, "one")
    ]
    mapping = view_mapping(world, "alpha", MACHINE.identifier)
    assert mapping.arriving is not None
    assert mapping.arriving.network == "b1"


def test_an_aborted_migration_goes_back_even_after_the_flip(world: World) -> None:
    alpha = world.feds["alpha"]
    alpha.prepare(MACHINE.identifier, "b1", "m")
    world.pump("alpha")
    run(world)
    alpha.flipped(MACHINE.identifier, "m")
    alpha.aborted(MACHINE.identifier, "m")
    world.pump("alpha")
    run(world)
    assert view_mapping(world, "alpha", MACHINE.identifier).here == Place("a2", MACHINE.identifier)
    world.settle()
    assert [fed.view(MACHINE.identifier) for fed in world.feds.values()] == [None] * 5


def test_a_newer_place_of_a_user_wins_while_the_last_is_being_told(world: World) -> None:
    for network in ("b1", "g1", "d1"):
        attach(world, network)
        run(world, away="epsilon")
    assert view_mapping(world, "alpha", USER.identifier).here.network == "d1"
    world.settle()
    assert world.feds["beta"].view(USER.identifier) is None


def test_a_user_that_has_gone_before_home_answers_is_not_claimed(world: World) -> None:
    beta = world.feds["beta"]
    beta.attach(USER.identifier, USER.mac, "b1")
    beta.detached(USER.identifier, "b1")
    world.pump("beta")
    for letter in list(world.letters):
        world.lose(letter)
    world.settle()
    assert world.feds["alpha"].view(USER.identifier) is None


def test_a_node_that_is_no_more_is_forgotten_everywhere(world: World) -> None:
    attach(world, "b1")
    run(world)
    world.feds["alpha"].forget(USER.identifier)
    world.pump("alpha")
    world.settle()
    assert [fed.view(USER.identifier) for fed in world.feds.values()] == [None] * 5
    answer = world.feds["alpha"].receive("beta", Attach(USER.identifier, USER.mac, "b1", 9), 1.0)
    assert answer == Refused("nobody of that identifier is at home here")


def test_after_a_restart_what_was_promised_is_kept(world: World) -> None:
    alpha = world.feds["alpha"]
    alpha.prepare(MACHINE.identifier, "b1", "m")
    world.pump("alpha")
    run(world)
    alpha.flipped(MACHINE.identifier, "m")
    world.pump("alpha")
    world.letters.clear()  # it dies before anything has left
    world.start("alpha")
    run(world)
    assert view_mapping(world, "beta", MACHINE.identifier).here.network == "b1"
    assert Done(MACHINE.identifier, "m", "flipped") in effects(world, "alpha")


def test_a_name_that_another_node_has_is_refused(world: World) -> None:
    beta = world.feds["beta"]
    beta.know(card("u", "b1", 30))
    answer = beta.receive("alpha", Reserve(USER, "b1", 5), 1.0)
    assert answer == Refused("another node has this name")


def test_a_late_copy_of_a_reservation_gets_no_second_locator(world: World) -> None:
    beta = world.feds["beta"]
    first = beta.receive("alpha", Reserve(USER, "b1", 5), 1.0)
    assert isinstance(first, Reserved)
    assert beta.receive("alpha", Reserve(USER, "b1", 5), 1.0) == first
    assert beta.receive("alpha", Reserve(USER, "b1", 4), 1.0) == Refused("out of date")


def test_locators_outside_the_pool_are_not_believed(world: World) -> None:
    attach(world, "b1")
    while not isinstance(world.letters[0].order, Reserve):
        world.deliver(world.letters[0])
    order = world.letters[0].order
    world.feds["alpha"].answered("beta", order, Reserved(IPv4Address("10.4.0.249")), 1.0)
    world.letters.clear()
    world.pump("alpha")
    assert world.feds["alpha"].refusals["a locator outside the pool"] == 1
    run(world)
    assert any(isinstance(effect, NotAttached) for effect in effects(world, "beta"))


SIGNED = QuickSigner("alpha")


def signed(mapping: Mapping) -> Mapping:
    return replace(mapping, signature=SIGNED.sign(mapping.canonical()))


AWAY = signed(Mapping(USER, 7, Place("g1", IPv4Address("10.4.0.248"))))


@pytest.mark.parametrize(
    ("sender", "order", "reason"),
    [
        ("nobody", Update(AWAY), "unknown operator"),
        ("delta", Update(AWAY, ("b1",)), "sender is neither the node's home nor where it is"),
        ("alpha", Update(replace(AWAY, version=8), ("b1",)), "bad signature"),
        ("alpha", Update(replace(AWAY, signature=b""), ("b1",)), "bad signature"),
        ("gamma", Update(replace(AWAY, here=Place("g2", IPv4Address("10.5.0.248"))), ("b1",)), "bad signature"),
        ("alpha", Update(AWAY, ("d1",)), "not a network of this domain"),
        ("alpha", Update(signed(replace(AWAY, here=Place("g1", IPv4Address("10.4.0.9")))), ("b1",)),
         "a locator outside the pool"),
        ("alpha", Update(signed(replace(AWAY, here=Place("b1", IPv4Address("10.3.0.252"))))),
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
