"""The controller: a user attaches, a decision is made, and the machine is carried, or not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from followme.config import openflow as config
from followme.controllers.openflow.controller import Controller
from followme.controllers.openflow.machines import Machines
from followme.domain import Decision
from followme.store import Store

from .world import Carrier, document, running


async def test_the_machine_follows_its_user() -> None:
    async with running("always") as world:
        await world.move_alice("wlan2", 7)
        assert world.carrier.carried == [("vm", "dc2")]
        (decision,) = world.decisions
        assert (decision.migrate, decision.source, decision.target) == (True, "dc1", "dc2")
        steps = [one.step for one in world.told]
        assert steps.index("mobility") < steps.index("placement")
        (attachment,) = world.controller.store.attachments("alice")
        assert attachment.network == "wlan2"
        assert world.carrier.retired == [("alice", "wlan1")], "the place that she left is given up in time"


async def test_a_move_within_the_area_carries_nothing() -> None:
    async with running("always") as world:
        await world.move_alice("wlan1", 9)
        assert [decision.migrate for decision in world.decisions] == [False]
        assert world.carrier.carried == []


async def test_never() -> None:
    async with running("never") as world:
        await world.move_alice("wlan2", 7)
        assert [decision.migrate for decision in world.decisions] == [False]
        assert world.carrier.carried == []


@pytest.mark.parametrize(("network", "goes"), [("wlan2", []), ("wlan3", [("vm", "dc2")])])
async def test_threshold(network: str, goes: list[tuple[str, str]]) -> None:
    async with running("threshold", distance=2) as world:  # wlan2 is one service area away, wlan3 three
        await world.move_alice(network, 7)
        assert world.carrier.carried == goes
        assert len(world.decisions) == 1


async def test_mdp_decides_by_its_table_and_never_goes_where_the_machine_is() -> None:
    async with running("mdp") as world:
        await world.move_alice("wlan2", 7)
        (decision,) = world.decisions
        assert decision.policy == "mdp"
        assert world.carrier.carried == ([("vm", decision.target)] if decision.migrate else [])
        assert decision.migrate == (decision.target != "dc1")


async def test_a_move_while_a_migration_is_under_way_is_decided_when_it_has_ended() -> None:
    async with running("always") as world:
        await world.move_alice("wlan2", 7)
        await world.move_alice("wlan1", 5)
        await world.move_alice("wlan1", 6)
        assert world.carrier.carried == [("vm", "dc2")]
        assert len(world.decisions) == 1
        world.carrier.arrive()
        await world.settle()
        assert world.carrier.carried == [("vm", "dc2"), ("vm", "dc1")]
        world.carrier.arrive()
        await world.settle()
        assert world.machine_at == "dc1"
        assert [decision.migrate for decision in world.decisions] == [True, True, False]


async def test_the_network_that_a_user_enters_is_told_and_the_one_that_it_left_is_forgotten() -> None:
    async with running("always") as world:
        def told() -> frozenset[str]:
            return world.controller.redirect.bindings["vm"].told

        await world.move_alice("wlan2", 7)
        world.carrier.arrive()
        await world.settle()
        assert "wlan2" in told()
        await world.move_alice("wlan3", 7)
        assert "wlan3" in told()
        assert "wlan2" not in told()


async def test_a_migration_that_fails_is_no_end_of_following(caplog: pytest.LogCaptureFixture) -> None:
    async with running("always") as world:
        world.carrier.fails = True
        await world.move_alice("wlan2", 7)
        assert world.machine_at == "dc1"
        world.carrier.fails = False
        await world.move_alice("wlan3", 7)
        assert world.carrier.carried == [("vm", "dc2")] * 2
    assert "failed" not in caplog.text


async def test_a_policy_that_fails_is_logged_and_the_user_is_attached_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running("always") as world:
        class Broken:
            name = "broken"

            def decide(self, situation: object) -> Decision:
                raise ArithmeticError("singular matrix")

        world.controller.deciding.policy = Broken()
        await world.move_alice("wlan2", 7)
        assert world.controller.redirect.bindings["alice"].here.network == "wlan2"
        assert "following a user failed" in caplog.text


async def test_another_policy_from_now_on() -> None:
    async with running("never") as world:
        with pytest.raises(ValueError, match="policy 'sometimes' is unknown"):
            world.controller.deciding.use_policy("sometimes", {})
        world.controller.deciding.use_policy("always", {})
        await world.move_alice("wlan2", 7)
        assert world.carrier.carried == [("vm", "dc2")]


async def test_places_are_known_again_behind_a_restart(tmp_path: Any) -> None:
    settings = config.check(document("never"), "fmc.yaml")
    for turn in range(2):
        controller = Controller(settings, {}, store=Store(tmp_path / "followme.db"))
        controller.machines = cast(Machines, Carrier(controller))
        await controller.start()
        if turn == 0:
            controller.redirect.move("alice", "wlan2", 7, ["dc1"])
        here = controller.redirect.bindings["alice"].here
        assert (here.network, here.port, str(here.locator)) == ("wlan2", 7, "10.3.0.128")
        assert controller.redirect.locate("wlan2", here.locator) is not None
        await controller.close()
