"""A domain whose bucket is lost begins anew among others who have theirs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from followme.federation.messages import Held, Holds, Refused, Reserve, Reserved, Update
from followme.federation.nouns import Mapping, Place
from followme.federation.outputs import Attached, NotAttached
from tests.federations import QuickSigner, World, away, card, federate

USER, OTHER = card("u", "a1", 10), card("v", "a1", 11)
GIVEN = Place("b1", IPv4Address("10.3.0.252"))
SIGNED = QuickSigner("alpha")


def signed(version: int, here: Place, who: object = USER) -> Mapping:
    mapping = Mapping(USER if who is USER else OTHER, version, here)
    return replace(mapping, signature=SIGNED.sign(mapping.canonical()))


def lose(world: World, domain: str, epoch: int = 1) -> None:
    world.facts[domain].clear()
    world.start(domain)
    world.feds[domain].begin(epoch)
    world.settle()


def go(world: World, network: str) -> list[object]:
    domain = world.owner(network)
    world.effects.clear()
    world.feds[domain].attach(USER.identifier, USER.mac, network)
    world.pump(domain)
    world.settle()
    return [effect for name, effect in world.effects if name == domain and "ttached" in type(effect).__name__]


def mapping(world: World, domain: str) -> Mapping:
    view = world.feds[domain].view(USER.identifier)
    assert view is not None
    assert view.mapping is not None
    return view.mapping


def test_what_home_says_that_a_node_has_is_given() -> None:
    beta = federate("beta")
    assert beta.receive("alpha", Update(signed(7, GIVEN)), 1.0) == Held(7)
    again = federate("beta", [(key, fact) for key, fact in beta.take().writes.items() if fact is not None])
    for fed in (beta, again):
        view = fed.view(USER.identifier)
        assert view is not None
        assert view.reserved == (GIVEN,)
        other = fed.receive("alpha", Reserve(OTHER, "b1", 5), 1.0)
        assert isinstance(other, Reserved)
        assert other.locator != GIVEN.locator
    gone = signed(9, Place("g1", IPv4Address("10.4.0.248")))
    assert again.receive("alpha", Update(gone, (), True), 1.0) == Held(9)
    assert again.view(USER.identifier) is None
    assert isinstance(again.receive("alpha", Reserve(card("w", "a1", 12), "b1", 5), 1.0), Reserved), "of two"


def test_what_another_has_is_not_given() -> None:
    beta = federate("beta")
    given = beta.receive("alpha", Reserve(OTHER, "b1", 5), 1.0)
    assert isinstance(given, Reserved)
    mine = Update(signed(7, Place("b1", given.locator)))
    assert beta.receive("alpha", mine, 1.0) == Refused("a locator that was not given")
    assert beta.view(USER.identifier) is None
    free = next(place for place in (GIVEN, Place("b1", GIVEN.locator + 1)) if place.locator != given.locator)
    both = replace(signed(8, free), old=(Place("b1", given.locator),))
    assert beta.receive("alpha", Update(both), 1.0) == Refused("a locator that was not given")
    assert beta._held.pools.given("b1") == 1
    assert beta.receive("alpha", Update(signed(9, free)), 1.0) == Held(9), "nothing of the refused one stays"


def test_a_foreign_that_has_lost_its_records_serves_the_node_again() -> None:
    world = away(USER)
    had = mapping(world, "alpha").here
    lose(world, "beta", epoch=2)
    assert world.feds["beta"].view(USER.identifier) is None
    other = world.feds["beta"].receive("epsilon", Reserve(card("w", "e1", 5), "b1", 5), 1.0)
    assert isinstance(other, Reserved)
    assert other.locator != had.locator, "delta sends the user's packets there"
    assert go(world, "g1") == [Attached(USER.identifier, USER.mac, "g1")]
    assert mapping(world, "alpha").old == (), "beta has confirmed it"
    assert go(world, "b1") == [Attached(USER.identifier, USER.mac, "b1")]
    assert go(world, "a1") == [Attached(USER.identifier, USER.mac, "a1")]
    assert [fed.view(USER.identifier) for fed in world.feds.values()] == [None] * 5


@pytest.mark.parametrize(("epoch", "believed"), [(1, False), (2, True)])
def test_the_claims_of_a_new_epoch_are_new(epoch: int, believed: bool) -> None:
    world = World([USER])
    world.feds["beta"].begin(1)
    world.settle()
    for network in ("b1", "a1", "b1", "g1"):
        go(world, network)
    lose(world, "beta", epoch)
    (end,) = go(world, "b1")
    assert isinstance(end, Attached if believed else NotAttached)


def test_two_mappings_of_one_version_are_not_taken_for_one() -> None:
    world = away(USER)
    before = mapping(world, "delta")
    lose(world, "alpha")
    go(world, "e1")
    for _ in range(before.version):
        if mapping(world, "alpha").version >= before.version:
            break
        world.feds["alpha"].know(replace(USER, name=f"u{mapping(world, 'alpha').version}"))
        world.pump("alpha")
        world.settle()
    assert mapping(world, "alpha").version == before.version, "else this shows nothing"
    assert mapping(world, "delta") == before
    world.feds["alpha"].unaware(USER.identifier, "d1")
    world.pump("alpha")
    world.settle()
    assert mapping(world, "delta") == mapping(world, "alpha")
    assert mapping(world, "delta").here.network == "e1"
    assert mapping(world, "alpha").version > before.version


def test_of_two_mappings_of_one_version_the_first_stays_until_home_has_made_a_newer_one() -> None:
    delta = federate("delta")
    first = signed(7, GIVEN)
    second = signed(7, Place("g1", IPv4Address("10.4.0.248")))
    assert delta.receive("alpha", Update(first, ("d1",)), 1.0) == Held(7)
    for sender in ("alpha", "gamma"):
        answer = delta.receive(sender, Update(second, ("d1",)), 1.0)
        assert answer == Refused("another mapping of that version is held", again=True)
    assert [order.mapping for _, order in delta.take().orders if isinstance(order, Holds)] == [first]
    forged = replace(second, signature=b"")
    assert delta.receive("gamma", Update(forged, ("d1",)), 1.0) == Refused("bad signature")
    assert delta.receive("alpha", Update(replace(second, version=8), ("d1",)), 1.0) == Held(8)


def test_a_tombstone_of_a_node_at_home_is_not_for_one_that_is_away() -> None:
    delta = federate("delta")
    delta.receive("alpha", Update(signed(7, GIVEN), ("d1",)), 1.0)
    assert delta.receive("alpha", Update(signed(8, Place("a1", USER.identifier)), ("d1",)), 1.0) == Held(8)
    assert delta.view(USER.identifier) is None
    assert delta.receive("alpha", Update(signed(8, GIVEN), ("d1",)), 1.0) == Held(8)
    assert delta.view(USER.identifier) is not None


def test_a_version_that_was_told_by_another_is_no_answer_for_an_older_one() -> None:
    world = away(USER)
    before = mapping(world, "alpha")
    world.feds["alpha"].know(replace(USER, name="renamed"))
    world.pump("alpha")
    (letter,) = [letter for letter in world.letters if letter.to == "delta"]
    alpha = world.feds["alpha"]
    alpha.answered("delta", Update(before, ("d1",)), Held(before.version + 1), world.now)
    record = alpha._home.records.get(int(USER.identifier))
    assert record is not None
    assert record.holders["delta"] == before.version
    world.deliver(letter)
    world.settle()
    assert mapping(world, "delta") == mapping(world, "alpha")


def test_home_hears_of_the_version_that_a_domain_remembers_as_gone() -> None:
    world = World([USER])
    world.settle()
    for network in ("g1", "b1", "g1", "b1", "g1"):
        go(world, network)
    lose(world, "alpha")
    go(world, "e1")
    world.feds["alpha"].unaware(USER.identifier, "b1")
    world.pump("alpha")
    world.settle()
    assert mapping(world, "beta") == mapping(world, "alpha")
