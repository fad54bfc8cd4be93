"""A domain that is away for long: who moves is not held up by it, and it is told nothing wrong."""

from __future__ import annotations

import logging

import pytest

from followme.domain import NodeKind
from followme.federation import holders
from followme.federation.holders import SILENT_S
from followme.federation.messages import Update
from followme.federation.nouns import MAX_OLD, Card, Mapping
from followme.federation.outputs import Attached, Effect, IsDenied, IsReady
from tests.federations import World, away, card

USER = card("u", "a1", 10)
OTHER = card("v", "a1", 11)
MACHINE = card("m", "a1", 12, NodeKind.MACHINE)


def run(world: World, away: str = "", seconds: float = 30.0) -> None:
    """All that happens within that time; nothing reaches ``away``, which is asked nothing by its switches."""
    end = world.now + seconds
    while world.now < end:
        for name, fed in world.feds.items():
            for one in world.cards if name != away else ():
                view = fed.view(one.identifier)
                for place in view.mapping.old if view is not None and view.mapping is not None else ():
                    if world.owner(place.network) == name:
                        fed.quiet(one.identifier, place)
            world.pump(name)
        while world.letters:
            letter = world.letters[0]
            if not letter.back and letter.sender != letter.to and away in (letter.sender, letter.to):
                world.lose(letter)
            else:
                world.deliver(letter)
        due = [at for fed in world.feds.values() if (at := fed.next_timer()) is not None]
        world.tick(max(min([*due, end, world.now + 1.0]) - world.now, 0.0) + 0.001)


def attach(world: World, network: str, away: str = "", one: Card = USER) -> list[Effect]:
    domain = world.owner(network)
    world.effects.clear()
    world.feds[domain].attach(one.identifier, one.mac, network)
    world.pump(domain)
    run(world, away)
    return [effect for name, effect in world.effects if name == domain and "ttached" in type(effect).__name__]


def mapping(world: World, domain: str, one: Card = USER) -> Mapping:
    view = world.feds[domain].view(one.identifier)
    assert view is not None
    assert view.mapping is not None
    return view.mapping


def test_who_commutes_while_a_correspondent_is_away_takes_two_places() -> None:
    world = away(USER)
    for _ in range(8):
        for network in ("g1", "b1"):
            assert attach(world, network, "delta") == [Attached(USER.identifier, USER.mac, network)]
            assert len(mapping(world, "alpha").old) == 1
    assert mapping(world, "delta").here.locator == mapping(world, "alpha").here.locator
    assert attach(world, "a1", "delta") == [Attached(USER.identifier, USER.mac, "a1")]
    assert world.feds["delta"].view(USER.identifier) is not None, "it does not know better"
    run(world)
    assert [fed.view(USER.identifier) for fed in world.feds.values()] == [None] * 5


@pytest.mark.parametrize("network", ["a1", "b1"])
def test_home_and_places_that_it_has_are_open_however_many_there_are(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("moves", "holders"):
        monkeypatch.setattr(f"followme.federation.{module}.MAX_OLD", 3)
    world = away(USER)
    for each in ("g1", "g2"):
        attach(world, each, "delta")
    assert attach(world, "e1", "delta") == []
    assert mapping(world, "alpha").here.network == "g2"
    world.feds["epsilon"].detached(USER.identifier, USER.mac, "e1")
    assert attach(world, network, "delta") == [Attached(USER.identifier, USER.mac, network)]


def test_a_machine_is_denied_at_first_and_not_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    world = World([MACHINE])
    world.settle()
    attach(world, "b1", one=MACHINE)
    world.feds["alpha"].unaware(MACHINE.identifier, "d1")
    world.pump("alpha")
    run(world)

    def prepare(migration: str) -> list[type[Effect]]:
        world.effects.clear()
        world.feds["beta"].prepare(MACHINE.identifier, "g1", migration)
        world.pump("beta")
        run(world, "delta")
        return [type(effect) for name, effect in world.effects if name == "beta" and "Is" in type(effect).__name__]

    assert prepare("m1") == [IsDenied]
    run(world, "delta", SILENT_S)
    assert prepare("m2") == [IsReady]
    assert "delta has confirmed nothing of 10.1.0.12 for 180 s: it is not waited for" in caplog.text
    beta = world.feds["beta"]
    for phase in (beta.flipped, beta.released):
        phase(MACHINE.identifier, "m2")
        world.pump("beta")
        run(world, "delta")
    view = world.feds["gamma"].view(MACHINE.identifier)
    assert view is not None
    assert "d1" not in view.told - view.telling, "it may not speak to whom does not know its new place"
    assert mapping(world, "delta", MACHINE).here in mapping(world, "alpha", MACHINE).old, "beta still sends on"
    run(world)
    assert mapping(world, "delta", MACHINE) == mapping(world, "alpha", MACHINE)
    assert mapping(world, "alpha", MACHINE).old == ()


def test_old_places_make_room_and_their_locators_are_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "ROOM", MAX_OLD - 1)
    world = away(USER)
    world.cards.append(OTHER)
    world.feds["alpha"].know(OTHER)
    first = mapping(world, "delta").here
    attach(world, "g1", "delta")
    run(world, "delta", SILENT_S)
    attach(world, "e1", "delta")
    attach(world, "g2", "delta")
    assert first not in mapping(world, "alpha").places
    assert first in mapping(world, "delta").places, "it has not heard of anything"
    view = world.feds["beta"].view(USER.identifier)
    assert view is not None
    assert view.reserved == (first,), "what delta sends there reaches nobody else"
    attach(world, "b1", "delta", OTHER)
    assert mapping(world, "alpha", OTHER).here.locator != first.locator
    attach(world, "b1", "delta")
    assert mapping(world, "alpha").here == first, "it gets the same again"
    attach(world, "g1", "delta")
    run(world)
    assert mapping(world, "delta") == mapping(world, "alpha")
    assert world.feds["beta"].view(USER.identifier) is None


def test_a_domain_that_has_the_node_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([MACHINE])
    world.settle()
    attach(world, "b1", one=MACHINE)
    world.feds["beta"].prepare(MACHINE.identifier, "g1", "m1")
    world.pump("beta")
    while world.letters[0].to != "gamma":
        world.deliver(world.letters[0])
    world.deliver(world.letters[0])  # it gives a locator
    world.deliver(world.letters[-1])
    monkeypatch.setattr(holders, "SILENT_S", 1.0)
    world.effects.clear()
    run(world, "gamma", 2.0)
    world.feds["alpha"].unaware(MACHINE.identifier, "e1")  # something that makes home look what can go on
    world.pump("alpha")
    run(world, "gamma", 10.0)
    assert [type(effect) for _, effect in world.effects if "Is" in type(effect).__name__] == [IsDenied]


def test_an_order_that_another_replaced_makes_nobody_silent() -> None:
    """Its answer comes to nothing long after the newer one was confirmed."""
    world = away(USER)
    alpha = world.feds["alpha"]
    alpha.unaware(USER.identifier, "g1")
    world.pump("alpha")
    (slow,) = [letter for letter in world.letters if isinstance(letter.order, Update) and letter.to == "gamma"]
    alpha.unaware(USER.identifier, "g2")
    world.pump("alpha")
    while others := [letter for letter in world.letters if letter is not slow]:
        world.deliver(others[0])
    world.lose(slow)
    run(world)
    world.tick(SILENT_S)
    assert not alpha._home.holders.silent(int(USER.identifier), "gamma")
