"""Home has the last word: about what another has told, and when its own records are lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from followme.federation.doubts import DOUBT_S
from followme.federation.home import MAX_RAISE
from followme.federation.messages import Accepted, Held, Holds, Refused, Update
from followme.federation.nouns import Mapping
from tests.federations import World, card

USER = card("u", "a1", 10)


@pytest.fixture
def world() -> World:
    world = World([USER])
    world.settle()
    return world


def go(world: World, network: str) -> None:
    owner = world.owner(network)
    world.feds[owner].attach(USER.identifier, USER.mac, network)
    world.pump(owner)
    world.settle()


def mapping(world: World, domain: str) -> Mapping | None:
    """What its switches go by; of delta, what d1 does."""
    view = world.feds[domain].view(USER.identifier)
    return None if view is None or (domain == "delta" and "d1" not in view.told) else view.mapping


def stale(world: World) -> Update:
    """What beta may still hand on when the user is not there any more."""
    go(world, "b1")
    old = mapping(world, "beta")
    assert old is not None
    return Update(old, ("d1",))


def hand_on(world: World, order: Update) -> object:
    answer = world.feds["delta"].receive("beta", order, world.now)
    world.pump("delta")
    return answer


def lose_all_to(world: World, domain: str, seconds: float) -> None:
    for _ in range(round(seconds)):
        while world.letters:
            letter = world.letters[0]
            if not letter.back and letter.to == domain:
                world.lose(letter)
            else:
                world.deliver(letter)
        world.tick(1.0)


def test_an_old_mapping_of_a_node_that_is_at_home_again_is_dropped(world: World) -> None:
    old = stale(world)
    go(world, "a1")
    world.tick(7200.0)
    assert hand_on(world, old) == Held(old.mapping.version)
    assert mapping(world, "delta") == old.mapping, "until home has answered"
    world.settle()
    assert [fed.view(USER.identifier) for fed in world.feds.values()] == [None] * 5
    go(world, "g1")
    assert mapping(world, "delta") is None


def test_an_old_mapping_of_a_node_that_has_gone_on_is_replaced(world: World) -> None:
    old = stale(world)
    go(world, "g1")
    hand_on(world, old)
    world.settle()
    assert mapping(world, "delta") == mapping(world, "alpha")
    go(world, "e1")
    assert mapping(world, "delta") == mapping(world, "alpha")
    go(world, "a1")
    assert world.feds["delta"].view(USER.identifier) is None


def test_home_is_told_by_the_correspondent_once(world: World) -> None:
    go(world, "b1")
    world.feds["beta"].speaks(USER.identifier, "d1")
    world.pump("beta")
    seen = []
    while world.letters:
        if not world.letters[0].back:
            seen.append((world.letters[0].sender, type(world.letters[0].order)))
        world.deliver(world.letters[0])
    assert seen == [("beta", Update), ("delta", Holds)]
    assert mapping(world, "delta") is not None


@pytest.mark.parametrize("crashes", [False, True])
def test_without_a_word_of_home_it_serves_for_some_seconds(world: World, crashes: bool) -> None:
    old = stale(world)
    go(world, "a1")
    world.tick(7200.0)
    hand_on(world, old)
    lose_all_to(world, "alpha", DOUBT_S - 2)
    assert mapping(world, "delta") is not None
    lose_all_to(world, "alpha", 3)
    assert mapping(world, "delta") is None
    if crashes:
        world.start("delta")
    assert hand_on(world, old) == Refused("home has not confirmed it", again=True)
    assert mapping(world, "delta") is None
    world.settle()
    assert world.feds["delta"].view(USER.identifier) is None
    assert not [key for key in world.facts["delta"] if key.startswith("h/")]


def test_after_a_crash_the_time_begins_anew(world: World) -> None:
    hand_on(world, stale(world))
    world.start("delta")
    assert mapping(world, "delta") is not None
    lose_all_to(world, "alpha", DOUBT_S + 1)
    assert mapping(world, "delta") is None
    world.settle()
    assert mapping(world, "delta") == mapping(world, "alpha"), "home has made it a holder"


def test_home_believes_of_nobody_that_others_hold_it(world: World) -> None:
    go(world, "b1")
    alpha = world.feds["alpha"]
    refused = Refused("sender does not own the network")
    known = mapping(world, "alpha")
    assert known is not None
    assert alpha.receive("delta", Holds(known, {"e1": 4}), world.now) == refused
    nobody = replace(known, card=card("x", "a1", 99))
    assert isinstance(alpha.receive("delta", Holds(nobody, {"d1": 4}), world.now), Refused)


def test_home_knows_by_its_signature_who_was_really_told(world: World) -> None:
    """Else anybody could become a holder that is waited for, of all nodes that are away."""
    old = stale(world)
    go(world, "a1")
    go(world, "b1")
    alpha, now = world.feds["alpha"], mapping(world, "alpha")
    assert now is not None
    for each in (replace(now, version=now.version + 9), replace(now, signature=b""), replace(now, version=1)):
        assert alpha.receive("delta", Holds(each, {"d1": each.version}), world.now) == Refused("bad signature")
    late = Refused("out of date: the node has been at home since")
    assert alpha.receive("delta", Holds(old.mapping, {"d1": old.mapping.version}), world.now) == late
    assert alpha.take().orders == []
    assert mapping(world, "alpha") == now
    assert isinstance(alpha.receive("delta", Holds(now, {"d1": now.version}), world.now), Accepted)
    assert alpha._home.records.get(int(USER.identifier)).holders["delta"] == now.version  # type: ignore[union-attr]


def lose_records(world: World) -> None:
    world.facts["alpha"].clear()
    world.start("alpha")
    world.settle()


def test_a_home_that_has_lost_its_records_begins_above_what_others_hold(world: World) -> None:
    for network in ("b1", "g1", "b1"):
        go(world, network)
        world.feds["alpha"].unaware(USER.identifier, "d1")
        world.pump("alpha")
        world.settle()
    before = mapping(world, "delta")
    assert before is not None
    lose_records(world)
    go(world, "e1")
    world.feds["alpha"].unaware(USER.identifier, "d1")
    world.pump("alpha")
    world.settle()
    after = mapping(world, "delta")
    assert after is not None
    assert (after.here.network, after == mapping(world, "alpha")) == ("e1", True)
    assert after.version > before.version


def test_a_locator_can_be_had_again_from_who_knows_a_later_version(world: World) -> None:
    for network in ("b1", "g1", "b1", "g1"):
        go(world, network)
    lose_records(world)
    go(world, "b1")
    go(world, "g1")
    for name in ("alpha", "gamma"):
        found = mapping(world, name)
        assert found is not None
        assert found.here.network == "g1"


def test_a_liar_cannot_use_the_versions_up(world: World) -> None:
    go(world, "b1")
    before = mapping(world, "alpha")
    assert before is not None
    world.feds["alpha"].unaware(USER.identifier, "d1")
    world.pump("alpha")
    for _ in range(100):
        for letter in list(world.letters):
            if letter.to == "delta" and not letter.back:
                letter.answer = Held(1 << 52)
                world.letters.remove(letter)
                world.feds["alpha"].answered("delta", letter.order, letter.answer, world.now)
                world.pump("alpha")
        world.tick(0.001)
    after = mapping(world, "alpha")
    assert after is not None
    assert before.version < after.version <= before.version + MAX_RAISE + 1
