"""The roles together, over a bus that loses nothing unless told to."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from followme.domain import NodeKind
from followme.federation.messages import (
    Accepted,
    Attach,
    Held,
    Refused,
    Reserve,
    Reserved,
    Told,
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
from tests.federations import World, card

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
    assert effects(world, "beta") == [Attached(USER.identifier, USER.mac, "b1")]
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
    # The correspondent has asked home to know it as a holder.
    home = world.feds["alpha"].view(USER.identifier)
    assert home is not None
    assert "d1" in home.told - home.telling
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


def test_a_correspondent_cannot_have_others_told(world: World) -> None:
    attach(world, "b1")
    run(world)
    alpha = world.feds["alpha"]
    alpha.unaware(USER.identifier, "d1")
    ((_, order),) = [one for one in alpha.take().orders if one[0] == "delta"]
    alpha.answered("delta", order, Held(order.mapping.version if isinstance(order, Update) else 0, {"e1": 0}), 1.0)
    refused = alpha.receive("delta", Told(USER.identifier, {"e1": 0}), 1.0)
    assert refused == Refused("the node is not with the sender")
    view = alpha.view(USER.identifier)
    assert view is not None
    assert "e1" not in view.told
    assert isinstance(alpha.receive("beta", Told(USER.identifier, {"e1": 0}), 1.0), Accepted)
    assert [to for to, _ in alpha.take().orders] == ["epsilon"]


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
        NotAttached(USER.identifier, USER.mac, "b1", "no locator is free in the network")
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
        IsDenied(MACHINE.identifier, "two", "the node is being moved by alpha"), IsReady(MACHINE.identifier, "one")
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
    beta.detached(USER.identifier, USER.mac, "b1")
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
