"""What a move costs: who is told how often, and what home writes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from followme.federation import table
from followme.federation.messages import Held, Update
from tests.federations import World, away, card

USER = card("u", "a1", 10)
KEY = f"n/{int(USER.identifier)}"


def _to_gamma(world: World) -> list[tuple[str, Update]]:
    """It goes on; the Updates that were delivered, each with its receiver."""
    seen: list[tuple[str, Update]] = []
    original = world.deliver

    def noted(letter: Any) -> Any:
        if not letter.back and isinstance(letter.order, Update):
            seen.append((letter.to, letter.order))
        return original(letter)

    world.deliver = noted  # type: ignore[method-assign]
    world.feds["gamma"].attach(USER.identifier, USER.mac, "g1")
    world.pump("gamma")
    world.settle()
    return seen


@pytest.mark.parametrize("live", [table.MAX_LIVE, 0], ids=["kept decoded", "read again each time"])
def test_who_had_the_node_hears_once_that_its_place_is_gone_and_free(
    live: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "MAX_LIVE", live)
    world = away(USER)
    seen = _to_gamma(world)
    last = max(order.mapping.version for _, order in seen)
    assert [to for to, order in seen if order.mapping.version == last][-1] == "beta", "when all others know"
    assert [order.settled for to, order in seen if to == "beta"] == [False, True]
    assert len(seen) == 2 * 4, "two versions, to home, beta, gamma and delta"
    assert world.feds["beta"].view(USER.identifier) is None


def test_home_writes_only_the_answer_that_lets_something_go_on() -> None:
    world = away(USER)
    world.feds["gamma"].attach(USER.identifier, USER.mac, "g1")
    world.pump("gamma")
    written: list[bytes | None] = []
    open_ones = 3  # of the version that says where it is: alpha, beta, gamma, delta; the last answer may be written
    while open_ones:
        letter = world.letters[0]
        before = world.facts["alpha"].get(KEY)
        world.deliver(letter)
        if letter.back and letter.to == "alpha" and isinstance(letter.answer, Held):
            written.append(world.facts["alpha"].get(KEY) if world.facts["alpha"].get(KEY) != before else None)
            open_ones -= 1
    assert written == [None] * 3
    world.start("alpha")  # what was not written is asked again
    world.settle()
    for name in ("alpha", "gamma", "delta"):
        view = world.feds[name].view(USER.identifier)
        assert view is not None
        assert view.mapping is not None
        assert (view.mapping.here.network, view.mapping.old) == ("g1", ())


def test_of_two_whose_places_go_at_once_one_may_still_be_a_correspondent() -> None:
    """Then its answer is waited for, and lets the other hear that its locator is free."""
    world = World([USER])
    world.settle()

    def run(*later: str) -> None:
        while letters := [one for one in world.letters if not (one.back and one.sender in later)]:
            world.deliver(letters[0])

    def attach(network: str, *later: str) -> None:
        domain = world.owner(network)
        world.feds[domain].attach(USER.identifier, USER.mac, network)
        world.pump(domain)
        run(*later)

    attach("g1")
    for network in ("b1", "g2"):
        world.feds["alpha"].unaware(USER.identifier, network)
    world.pump("alpha")
    run()
    attach("d1", "beta")
    world.letters.clear()  # beta's answer, which the next is in place of
    attach("e1", "beta")
    for domain in ("gamma", "delta"):
        view = world.feds[domain].view(USER.identifier)
        assert view is not None
        assert view.mapping is not None
        for place in view.mapping.old:
            if world.owner(place.network) == domain:
                world.feds[domain].quiet(USER.identifier, place)
        world.pump(domain)
    run("beta")
    run("gamma")  # what beta has confirmed lets both places go
    run()
    assert world.feds["delta"].view(USER.identifier) is None
    assert not world.letters
