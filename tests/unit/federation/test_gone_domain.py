"""A domain that is gone for good, and was taken out of the configuration: what waited for it goes on without it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from followme.domain import NodeKind
from followme.federation.federate import Federate
from followme.federation.moves import MAX_DENIALS
from followme.federation.nouns import Card, Mapping, Place
from followme.federation.outputs import IsDenied, IsReady
from followme.federation.records import HomeRecord
from followme.federation.registry import Registry
from tests.federations import NETWORKS, QuickSigner, World, away, card, domains

USER = card("u", "a1", 10)
MACHINE = card("m", "a2", 10, NodeKind.MACHINE)
HOME = Place("a2", MACHINE.identifier)


def without(world: World, gone: str) -> None:
    """All others start again, with a configuration that does not name it. What is sent to it, or to nobody, after
    that is an error."""
    del world.feds[gone]
    world.letters.clear()
    for name in world.feds:
        registry = Registry(name, {one: domain for one, domain in domains().items() if one != gone})
        facts = world.facts[name]
        world.feds[name] = Federate(registry, QuickSigner(name), list(facts.items()), facts.get)
        for one in world.cards:
            if one.home in NETWORKS[name]:
                world.feds[name].know(one)
        world.pump(name)
    for letter in [letter for letter in world.letters if letter.to not in world.feds]:
        world.lose(letter)  # what was under way is asked once more


def mapping(world: World, one: Card = MACHINE) -> Mapping | None:
    """As home has it; ``None``: it is at home, and nobody holds anything."""
    view = world.feds["alpha"].view(one.identifier)
    return None if view is None else view.mapping


def prepared(world: World, source: str, target: str, migration: str) -> bool:
    """Whether the machine may flip."""
    world.feds[source].prepare(MACHINE.identifier, target, migration)
    world.pump(source)
    world.settle()
    return (source, IsReady(MACHINE.identifier, migration)) in world.effects


def flipped(world: World, source: str, migration: str) -> None:
    world.feds[source].flipped(MACHINE.identifier, migration)
    world.pump(source)
    world.settle()


def carried(world: World, source: str, target: str, migration: str) -> None:
    assert prepared(world, source, target, migration)
    flipped(world, source, migration)
    world.feds[source].released(MACHINE.identifier, migration)
    world.pump(source)
    world.settle()


def test_one_that_was_told_holds_up_no_move() -> None:
    world = away(USER)
    without(world, "delta")
    world.settle()
    world.feds["gamma"].attach(USER.identifier, USER.mac, "g1")
    world.pump("gamma")
    world.settle()
    found = mapping(world, USER)
    assert found is not None
    assert (found.here.network, found.old) == ("g1", ())


def test_a_machine_that_was_there_is_at_home_until_it_shows_up() -> None:
    world = World([MACHINE])
    carried(world, "alpha", "g1", "m1")
    world.feds["alpha"].unaware(MACHINE.identifier, "d1")
    world.pump("alpha")
    world.settle()
    without(world, "gamma")
    world.settle()
    assert mapping(world) is None
    assert world.feds["delta"].view(MACHINE.identifier) is None
    carried(world, "alpha", "b1", "m2")
    found = mapping(world)
    assert found is not None
    assert (found.here.network, found.old) == ("b1", ())


def test_an_old_place_there_is_not_waited_for() -> None:
    world = World([MACHINE])
    carried(world, "alpha", "g1", "m1")
    assert prepared(world, "gamma", "b1", "m2")
    flipped(world, "gamma", "m2")
    world.feds["gamma"].released(MACHINE.identifier, "m2")
    world.pump("gamma")
    while world.letters:
        world.deliver(world.letters[0])  # it is released, but not quiet yet
    found = mapping(world)
    assert found is not None
    assert [place.network for place in found.old] == ["g1"]
    without(world, "gamma")
    found = mapping(world)
    assert found is not None
    assert (found.here.network, found.old) == ("b1", ())
    world.settle()
    carried(world, "beta", "a2", "m3")
    assert mapping(world) is None


def test_a_migration_from_there_that_has_flipped_is_released() -> None:
    world = World([MACHINE])
    carried(world, "alpha", "g1", "m1")
    assert prepared(world, "gamma", "b1", "m2")
    flipped(world, "gamma", "m2")
    without(world, "gamma")
    world.settle()
    found = mapping(world)
    assert found is not None
    assert (found.here.network, found.leaving, found.old) == ("b1", None, ())
    carried(world, "beta", "d1", "m3")


def test_one_home_from_there_that_has_flipped_is_at_home() -> None:
    world = World([MACHINE])
    carried(world, "alpha", "g1", "m1")
    assert prepared(world, "gamma", "a2", "m2")
    flipped(world, "gamma", "m2")
    without(world, "gamma")
    world.settle()
    assert mapping(world) is None
    carried(world, "alpha", "b1", "m3")


def test_a_migration_from_there_that_was_only_prepared_is_taken_back() -> None:
    world = World([MACHINE])
    carried(world, "alpha", "g1", "m1")
    assert prepared(world, "gamma", "b1", "m2")
    without(world, "gamma")
    world.settle()
    assert mapping(world) is None
    carried(world, "alpha", "b1", "m3")


def _asked(world: World) -> None:
    world.feds["alpha"].prepare(MACHINE.identifier, "g1", "m1")
    world.pump("alpha")
    (prepare,) = world.letters
    world.deliver(prepare)


def _ready(world: World) -> None:
    assert prepared(world, "alpha", "g1", "m1")


def _went(world: World) -> None:
    _ready(world)
    flipped(world, "alpha", "m1")


@pytest.mark.parametrize("begin", [_asked, _ready, _went])
def test_a_migration_to_there_is_over(begin: Callable[[World], None]) -> None:
    world = World([MACHINE])
    begin(world)
    without(world, "gamma")
    world.settle()
    if begin is _asked:
        assert ("alpha", IsDenied(MACHINE.identifier, "m1", "no such network")) in world.effects
    assert mapping(world) is None
    carried(world, "alpha", "b1", "m2")


def test_what_it_was_to_be_told_is_not_told_any_more() -> None:
    world = World([MACHINE])
    denials = [("gamma", f"p{number}", "late") for number in range(MAX_DENIALS)]
    record = HomeRecord(Mapping(MACHINE, 4, HOME), 4, told={"g2"}, owed={"gamma": 4}, denials=denials)
    world.facts["alpha"][f"n/{int(MACHINE.identifier)}"] = record.encode()
    without(world, "gamma")
    world.settle()
    carried(world, "alpha", "b1", "m2")
    found = mapping(world)
    assert found is not None
    assert (found.here.network, found.old) == ("b1", ())
