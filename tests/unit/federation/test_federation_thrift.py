"""What a move costs: who is told how often, and what home writes of the answers."""

from __future__ import annotations

from typing import Any

import pytest

from followme.federation import table
from followme.federation.messages import Held, Update
from tests.federations import World, card

USER = card("u", "a1", 10)
KEY = f"n/{int(USER.identifier)}"


def _away() -> World:
    """The user is in beta, and delta knows it."""
    world = World([USER])
    world.feds["beta"].attach(USER.identifier, USER.mac, "b1")
    world.pump("beta")
    world.settle()
    world.feds["alpha"].unaware(USER.identifier, "d1")
    world.pump("alpha")
    world.settle()
    return world


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
    world = _away()
    seen = _to_gamma(world)
    last = max(order.mapping.version for _, order in seen)
    assert [to for to, order in seen if order.mapping.version == last][-1] == "beta", "when all others know"
    assert [order.settled for to, order in seen if to == "beta"] == [False, True]
    assert len(seen) == 2 * 4, "two versions, to home, beta, gamma and delta"
    assert world.feds["beta"].view(USER.identifier) is None


def test_home_writes_only_the_answer_that_lets_something_go_on() -> None:
    world = _away()
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
