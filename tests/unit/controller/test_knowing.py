"""What the controller knows at a decision: ends of contents, stays of users, free bandwidth, what was said."""

from __future__ import annotations

import dataclasses
from math import inf, nan
from typing import Any

import pytest

from followme.config import openflow as config
from followme.controllers.openflow.controller import Controller
from followme.domain import Decision
from followme.migration.mover import Result
from followme.openflow import Port, PortStatus
from followme.openflow.constants import OFPPR_MODIFY
from followme.placement.chooser import Choice
from followme.store import Store

from .world import controlled, document, section


def of(policy: str = "always", **needs: object) -> dict[str, Any]:
    """alice at wlan1, her machine at dc1; dc2 is beside wlan2."""
    data = document(policy)
    if needs:
        data["services"][0]["needs"] = needs
    return data


class Clocks:
    def __init__(self) -> None:
        self.now, self.wall = 1000.0, 1_900_000_000.0


def controller(data: dict[str, Any], clocks: Clocks) -> Controller:
    one = Controller(config.check(data, "fmc.yaml"), {}, store=Store(":memory:"), clock=lambda: clocks.now,
                     wall=lambda: clocks.wall)  # fmt: skip
    one._restore()
    one.redirect.move("alice", "wlan2", 7, [])
    return one


def decided(one: Controller) -> Decision:
    decision = one.deciding.decide(one.config.services[0])
    assert decision is not None
    return decision


async def test_content_that_ends_at_a_time_runs_out() -> None:
    clocks = Clocks()
    one = controller(of(ends_at="2030-03-17T17:50:00+00:00"), clocks)  # 200 s after 1.9e9
    situation = one.deciding.situation(one.config.services[0])
    assert situation is not None
    assert situation.remaining_s == pytest.approx(200.0)
    assert decided(one).migrate
    clocks.wall += 150.0
    assert "nearly over: 50 s remain" in decided(one).why
    clocks.wall += 1e6
    assert not decided(one).migrate, "it is over"


async def test_the_end_may_become_known_and_change_while_it_runs() -> None:
    clocks = Clocks()
    one = controller(of(), clocks)
    assert decided(one).migrate
    one.deciding.content_ends("desktop", 90.0)
    assert decided(one).migrate
    clocks.now += 31.0
    assert not decided(one).migrate
    one.deciding.content_ends("desktop", 3600.0)
    assert decided(one).migrate
    one.deciding.content_ends("desktop", 0.0)
    assert not decided(one).migrate
    one.deciding.content_ends("desktop", None)
    assert decided(one).migrate


async def test_an_end_that_is_none_is_refused() -> None:
    one = controller(of(), Clocks())
    for time_ in (-1.0, nan, inf):
        with pytest.raises(ValueError, match=r"remaining_s .* must be finite and not negative"):
            one.deciding.content_ends("desktop", time_)
    with pytest.raises(ValueError, match="no service 'film'; known: desktop"):
        one.deciding.content_ends("film", 1.0)


async def test_how_long_a_user_stays_is_learned_from_its_handoffs() -> None:
    async with controlled(of("never")) as world:
        now = [0.0]
        world.controller.clock = lambda: now[0]
        for turn, network in enumerate(("wlan2", "wlan1", "wlan2", "wlan3")):
            now[0] = 100.0 + 40.0 * turn
            await world.move_alice(network, 7 + turn)
        situation = world.controller.deciding.situation(world.controller.config.services[0])
        assert situation is not None
        assert situation.stay_s == pytest.approx(40.0)
        assert situation.stays == 3


async def test_the_carry_is_of_what_was_measured() -> None:
    one = controller(of(), Clocks())
    service = one.config.services[0]
    before = one.deciding.situation(service)
    assert before is not None
    assert (before.bandwidth_bit_s, before.stalled_s) == (None, None)
    for name, free in (("dc1", 3e8), ("dc2", 2e8)):
        one.uplinks._know(one.networks[name], free)
    one.machines.results["vm"] = Result("live", 0.013, 2.0, 0.021, 97_000_000, 3, 0)
    after = one.deciding.situation(service)
    assert after is not None
    assert (after.bandwidth_bit_s, after.stalled_s, after.migration_bytes) == (2e8, 0.021, 97_000_000)
    one.machines._bandwidth[frozenset(("dc1", "dc2"))] = 5e8
    carried = one.deciding.situation(service)
    assert carried is not None
    assert carried.bandwidth_bit_s == 5e8, "a migration's own measure is of the way that migrations take"


async def test_the_speed_of_an_uplink_is_the_configs_or_the_switchs() -> None:
    data = of()
    data["networks"][1]["uplink_bit_s"] = 1e6
    one = controller(data, Clocks())
    for name in ("dc1", "dc2"):
        port = Port(1, bytes(6), "uplink", curr_speed=10_000)
        one.southbound.handlers.ports(one.networks[name], (port,))
        one.southbound.handlers.port_status(one.networks[name], PortStatus(OFPPR_MODIFY, port))
    assert one.uplinks._speeds == {"dc1": 1e6}
    assert one.uplinks._told == {"dc1": 1e7, "dc2": 1e7}


def near_but_dear(policy: str, worth: dict[str, float]) -> dict[str, Any]:
    data = of(policy, weights={"server_price": 1.0}, worth=worth)
    data["networks"][1]["offer"] = {"server_price": [[0, 9.0]]}
    data["networks"][3]["offer"] = {"server_price": [[0, 1.0]]}
    return data


@pytest.mark.parametrize("policy", ["threshold", "myopic", "mdp", "stay-or-go"])
async def test_a_place_that_weights_chose_is_judged_by_worths_and_not_by_distance(policy: str) -> None:
    """The machine is at the user's own area, at distance 0; the cheaper data centre is farther."""
    for worth, goes in ((0.1, True), (1e-6, False)):
        one = controller(near_but_dear(policy, {"server_price": worth}), Clocks())
        one.redirect.move("alice", "wlan1", 5, [])
        for name in ("dc1", "dc2"):
            one.uplinks._know(one.networks[name], 1e9)
        decision = decided(one)
        assert (decision.migrate, decision.policy) == (goes, "stay-or-go")
        if goes:
            assert decision.target == "dc2"
            assert "dc2 is number 1 of 2 by weighted-sum" in decision.why


@pytest.mark.parametrize(("policy", "goes"), [("always", True), ("never", False)])
async def test_always_and_never_mean_what_they_say(policy: str, goes: bool) -> None:
    one = controller(near_but_dear(policy, {"server_price": 0.1}), Clocks())
    one.redirect.move("alice", "wlan1", 5, [])
    assert (decided(one).migrate, decided(one).policy) == (goes, policy)


async def test_over_no_known_bandwidth_it_stays_and_says_so() -> None:
    one = controller(near_but_dear("stay-or-go", {"server_price": 1.0}), Clocks())
    decision = decided(one)
    assert not decision.migrate
    assert "free bandwidth to the target is not known" in decision.why


@pytest.mark.parametrize("policy", ["threshold", "mdp"])
async def test_a_limit_on_the_nearest_sends_nobody_to_a_place_that_is_farther(policy: str) -> None:
    """alice goes from wlan1 to wlan3 in area 4: dc2 (area 2) is full, and dc3 (area 9) is farther than dc1."""
    data = of(policy)
    data["networks"][3]["offer"] = {"capacity": 0}
    data["networks"].append({**section("dc3", 6, "datacentre", 9)})
    one = controller(data, Clocks())
    one.redirect.move("alice", "wlan3", 7, [])
    situation = one.deciding.situation(one.config.services[0])
    assert situation is not None
    assert (situation.best, situation.distance, situation.distance_best) == ("dc1", 3, 3)
    assert not decided(one).migrate
    # By weights dc3 is the best for all that: the models of distance are not asked then.
    data["networks"][5]["offer"] = {"throughput_per_s": 9}
    data["networks"][1]["offer"] = {"throughput_per_s": 1}
    data["services"][0]["needs"] = {"weights": {"throughput": 1}, "worth": {"throughput": 1}}
    one = controller(data, Clocks())
    one.redirect.move("alice", "wlan3", 7, [])
    situation = one.deciding.situation(one.config.services[0])
    assert situation is not None
    assert (situation.best, situation.distance_best) == ("dc3", 5)
    assert not one.deciding.policy.decide(situation).migrate


async def test_what_is_not_possible_is_said_once() -> None:
    data = of()
    data["networks"][3]["offer"] = {"capacity": 0.5}
    one = controller(data, Clocks())
    told: list[str] = []
    one.watchers.add(lambda happening: told.append(happening.text) if isinstance(happening.fact, Choice) else None)
    for _ in range(3):
        assert not decided(one).migrate
    assert told == ["desktop: not possible: dc2: capacity: 0.5 free, 1 needed"]


async def test_a_machine_on_its_way_is_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has it carried: the room at the place that it is bound for is taken already."""
    data = of()
    data["networks"][3]["offer"] = {"capacity": 1}
    one = controller(data, Clocks())
    situations = one.deciding.situations
    assert situations is not None
    binding = one.redirect.bindings["vm"]
    assert situations._world.place_of("vm") == ("dc1", "dc1")
    assert situations.free("dc2") == 1.0
    arriving = dataclasses.replace(binding.here, network="dc2")
    monkeypatch.setitem(one.redirect.bindings, "vm", dataclasses.replace(binding, arriving=arriving))
    situations._used_at = -1
    assert situations._world.place_of("vm") == ("dc1", "dc2")
    assert situations.free("dc2") == 0.0
    assert situations._world.place_of("nobody") is None
