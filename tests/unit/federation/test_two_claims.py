"""Two that say they are the same node, of whom one has its MAC address; and one domain's orders beside others'."""

from __future__ import annotations

import asyncio

import pytest

from followme.federation import engine as engines
from followme.federation.bus import BusError
from followme.federation.codec import encode_orders
from followme.federation.messages import Attach
from followme.federation.outputs import Attached, NotAttached
from tests.federations import World, card

from .domains import Four

USER = card("u1", "a1", 5)
EVIL = b"\2evil!"
REFUSED = NotAttached(USER.identifier, EVIL, "g1", "another MAC address than the node's")


def _ends(world: World) -> list[object]:
    return [effect for domain, effect in world.effects
            if domain == "gamma" and isinstance(effect, Attached | NotAttached)]  # fmt: skip


@pytest.mark.parametrize("crashes", [False, True])
def test_who_has_another_mac_address_does_not_take_the_nodes_place_in_the_queue(crashes: bool) -> None:
    world = World([USER])
    world.settle()
    gamma = world.feds["gamma"]
    for mac in (EVIL, USER.mac, EVIL):
        gamma.attach(USER.identifier, mac, "g1")
        world.pump("gamma")
    if crashes:
        world.start("gamma")
    world.settle()
    assert sorted(_ends(world), key=str) == [Attached(USER.identifier, USER.mac, "g1"), REFUSED]
    view = world.feds["alpha"].view(USER.identifier)
    assert view is not None
    assert view.mapping is not None
    assert view.mapping.here.network == "g1"
    assert not [key for key in world.facts["gamma"] if key.startswith("a/")]


def test_the_nodes_own_going_is_not_said_by_another() -> None:
    world = World([USER])
    gamma = world.feds["gamma"]
    gamma.attach(USER.identifier, USER.mac, "g1")
    gamma.detached(USER.identifier, EVIL, "g1")
    world.pump("gamma")
    world.settle()
    assert _ends(world) == [Attached(USER.identifier, USER.mac, "g1")]


async def test_orders_of_one_domain_that_wait_for_an_answer_leave_room_for_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "MAX_WAITING", 4)
    async with Four() as four:
        (node,) = four.cards
        four.alpha.switches.look = 0.2
        orders = [Attach(node.identifier, node.mac, "n3", claim) for claim in range(4)]
        waiting = asyncio.ensure_future(four.alpha.engine.receive("gamma", encode_orders(1, orders)))
        await asyncio.sleep(0.01)
        with pytest.raises(BusError, match="a frame of gamma: 4 orders are waiting already"):
            await four.alpha.engine.receive("gamma", encode_orders(1, orders[:1]))
        await four.alpha.engine.receive("delta", encode_orders(1, [Attach(node.identifier, node.mac, "n4", 1)] * 4))
        await waiting
        await four.alpha.engine.receive("gamma", encode_orders(1, orders))
