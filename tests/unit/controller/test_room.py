"""Several services want to go at once, and the place that they want cannot take them all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from followme.controllers import gathering
from followme.controllers.openflow.controller import Controller
from followme.controllers.situations import Question
from followme.domain import Decision
from followme.migration.host import MigrationError
from followme.placement.stay import Gain

from .world import section, started

USERS = ("alice", "bob", "carol")


def document(policy: str, capacity: float, needs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Three users at wlan1, their machines at dc1; dc2 beside wlan2 has room for ``capacity``, dc3 is farther."""
    networks = [section("wlan1", 1, "access", 1), section("dc1", 2, "datacentre", 1),
                section("wlan2", 3, "access", 9), section("dc2", 4, "datacentre", 9),
                section("dc3", 5, "datacentre", 7)]  # fmt: skip
    networks[3]["offer"] = {"capacity": capacity}
    networks[4]["offer"] = {"capacity": 1}
    return {
        "networks": networks,
        "machines": [{"name": f"vm-{user}", "home": "dc1", "mac": f"02:00:00:00:01:0{number}",
                      "address": f"10.2.0.{number + 5}"} for number, user in enumerate(USERS)],
        "users": [{"name": user, "home": "wlan1", "mac": f"02:00:00:00:02:0{number}",
                   "address": f"10.1.0.{number + 10}", "port": number + 5} for number, user in enumerate(USERS)],
        "services": [{"name": user, "user": user, "machine": f"vm-{user}", "needs": needs.get(user, {})}
                     for user in USERS],
        "listen": {"port": 0}, "policy": {"name": policy},
    }  # fmt: skip


class Carrier:
    """Carries are under way until ``arrive``."""

    def __init__(self, controller: Controller) -> None:
        self.hosts: dict[str, object] = {}
        self.results: dict[str, object] = {}
        self.under_way: dict[str, tuple[str, asyncio.Future[None]]] = {}
        self.controller = controller

    async def settled(self, machine: str) -> None:
        while machine in self.under_way:
            await asyncio.wait([self.under_way[machine][1]])

    async def carry(self, machine: str, target: str) -> None:
        assert machine not in self.under_way
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.under_way[machine] = target, done
        await done

    def arrive(self, machine: str) -> None:
        target, done = self.under_way.pop(machine)
        self.controller.redirect.move(machine, target, 2, [])
        done.set_result(None)

    def fail(self, machine: str) -> None:
        self.under_way.pop(machine)[1].set_exception(MigrationError("the target's disk is full"))

    def retire(self, node: str, places: object) -> None: ...

    def expected_bytes(self, machine: str) -> int:
        return 1 << 20

    def bandwidth_bit_s(self, source: str, target: str) -> float | None:
        return 1e9

    async def close(self) -> None: ...


class World:
    def __init__(self, controller: Controller, carrier: Carrier) -> None:
        self.controller, self.carrier = controller, carrier
        self.decisions: dict[str, Decision] = {}
        controller.watchers.add(self._told)

    def _told(self, happening: Any) -> None:
        if isinstance(happening.fact, Decision):
            self.decisions[happening.fact.service] = happening.fact

    async def go(self, to: str, *users: str) -> None:
        """The users go there, all within the window."""
        for user in users:
            here = self.controller.redirect.bindings[user].here.port
            self.controller.redirect.move(user, to, here, [])
            service = next(one for one in self.controller.config.services if one.name == user)
            self.controller.deciding.follow(service)
        await self.settle()

    async def settle(self) -> None:
        """Until the window has closed and all that can go on has gone on."""
        await asyncio.sleep(2 * gathering.WINDOW_S)

    @property
    def bound_for(self) -> dict[str, str]:
        return {machine: target for machine, (target, _) in self.carrier.under_way.items()}

    def at(self, user: str) -> str:
        return self.controller.redirect.bindings[f"vm-{user}"].here.network


@asynccontextmanager
async def running(policy: str, capacity: float, **needs: dict[str, Any]) -> AsyncIterator[World]:
    async with controlled(document(policy, capacity, needs)) as world:
        yield world


@asynccontextmanager
async def controlled(data: dict[str, Any]) -> AsyncIterator[World]:
    async with started(data, Carrier) as (controller, carrier):
        yield World(controller, carrier)


async def test_those_that_have_room_go_and_are_decided_as_ever() -> None:
    async with running("always", 3) as world:
        await world.go("wlan2", *USERS)
        assert world.bound_for == {f"vm-{user}": "dc2" for user in USERS}
        assert all("dc2 is better than dc1" in one.why for one in world.decisions.values())


async def test_never_over_capacity_and_the_second_best_takes_who_is_left() -> None:
    async with running("always", 1) as world:
        await world.go("wlan2", *USERS)
        assert sorted(world.bound_for.values()) == ["dc2", "dc3"]
        whys = {one.target: one.why for one in world.decisions.values()}
        assert "dc2 has room for 1 and 3 want to go there now" in whys["dc3"]
        assert "dc3 is the better for it of those with room" in whys["dc3"]
        assert "asked again when room gets free" in whys["dc1"]
        stays = next(name for name, one in world.decisions.items() if not one.migrate)
        assert world.decisions[stays].target == "dc1"


@pytest.mark.parametrize("task", ["emergency", "ordinary"])
async def test_who_loses_the_first_place_to_others_gets_the_next_best(task: str) -> None:
    """alice and bob may go to dc1 to dc3 only; dc4, which has room for all, is one area beside carol's dc3."""
    needs: dict[str, Any] = {"localities": ["FI"], "task": task}
    data = document("always", 1, {"alice": needs, "bob": needs})
    data["networks"] += [section("dc4", 6, "datacentre", 6), section("wlan3", 7, "access", 7)]
    for one in data["networks"]:
        if one["kind"] == "datacentre":
            one.setdefault("offer", {})["locality"] = "SE" if one["name"] == "dc4" else "FI"
    async with controlled(data) as world:
        redirect = world.controller.redirect
        for user, to in (("alice", "wlan2"), ("bob", "wlan2"), ("carol", "wlan3")):
            redirect.move(user, to, redirect.bindings[user].here.port, [])
            world.controller.deciding.follow(next(s for s in world.controller.config.services if s.name == user))
        await world.settle()
        assert sorted(world.bound_for.values()) == ["dc2", "dc3", "dc4"]
        assert world.bound_for["vm-carol"] == "dc4"
        assert "dc3 has room for 1 and 2 want to go there now" in world.decisions["carol"].why


async def test_an_emergency_gets_the_second_best_before_who_may_stay() -> None:
    """carol gains all that a sum can be at dc3, which bob, an emergency, needs as his second choice."""
    urgent: dict[str, Any] = {"task": "emergency"}
    needs = {"alice": urgent, "bob": urgent, "carol": {"worth": {"server_price": 1e9}}}
    data = document("always", 1, needs)
    data["networks"] += [section("wlan3", 7, "access", 7)]
    for number, price in ((1, 9.0), (3, 1.0), (4, 1.0)):
        data["networks"][number].setdefault("offer", {})["server_price"] = [[0, price]]
    async with controlled(data) as world:
        redirect = world.controller.redirect
        for user, to in (("alice", "wlan2"), ("bob", "wlan2"), ("carol", "wlan3")):
            redirect.move(user, to, redirect.bindings[user].here.port, [])
            world.controller.deciding.follow(next(s for s in world.controller.config.services if s.name == user))
        await world.settle()
        assert sorted(world.bound_for) == ["vm-alice", "vm-bob"]
        assert sorted(world.bound_for.values()) == ["dc2", "dc3"]
        gathering_ = world.controller.deciding.gathering
        question = world.controller.deciding._question(world.controller.config.services[2])
        assert gathering_ is not None
        assert question is not None
        dear = replace(question.situation, gain=Gain(1e9, {}, ()))
        assert gathering_._worth(replace(question, situation=dear)) == gathering.URGENT / 10.0


async def test_who_stays_waits_only_for_places_that_are_nearer() -> None:
    async with running("always", 1) as world:
        gathering_ = world.controller.deciding.gathering
        service = world.controller.config.services[0]
        assert gathering_ is not None
        stays = Decision("alice", False, "dc1", "dc1", "always", "")
        for full, waits in ((0.03, False), (0.04, False), (0.02, True), (None, True)):
            delays = {"dc1": 0.03, "dc2": full}
            choice = SimpleNamespace(full=frozenset({"dc2"}), ranking=None, delay_s=delays.get)
            question = cast(Question, SimpleNamespace(service=service, choice=choice))
            gathering_._waiting.clear()
            gathering_._wait(gathering._Decided(question, stays), stays)
            assert ("alice" in gathering_._waiting) is waits, full


async def test_what_going_is_worth_is_the_configs_sum() -> None:
    async with running("stay-or-go", 1) as world:
        world.controller.deciding.use_policy("stay-or-go", {"price": 7.0})
        gathering_ = world.controller.deciding.gathering
        assert gathering_ is not None
        service = world.controller.config.services[0]
        world.controller.redirect.move("alice", "wlan2", 5, [])
        question = world.controller.deciding._question(service)
        assert question is not None
        near = replace(question.situation, delay_current_s=1.0, delay_best_s=0.0)
        cheap = gathering_._worth(replace(question, situation=near))
        world.controller.deciding.use_policy("stay-or-go", {"price": 107.0})
        assert gathering_._worth(replace(question, situation=near)) == pytest.approx(cheap - 100.0)


async def test_room_is_taken_from_the_decision_on() -> None:
    async with running("always", 1) as world:
        await world.go("wlan2", "alice")
        assert world.bound_for == {"vm-alice": "dc2"}
        await world.go("wlan2", "bob", "carol")
        assert sorted(world.bound_for.values()) == ["dc2", "dc3"]


async def test_an_emergency_goes_first() -> None:
    for urgent in USERS:
        async with running("always", 1, **{urgent: {"task": "emergency"}}) as world:
            await world.go("wlan2", *USERS)
            assert world.bound_for[f"vm-{urgent}"] == "dc2"


async def test_who_found_no_room_is_asked_again_when_there_is_some() -> None:
    async with running("always", 1) as world:
        await world.go("wlan2", *USERS)
        first = next(machine for machine, target in world.bound_for.items() if target == "dc2")
        stays = next(name for name, one in world.decisions.items() if not one.migrate)
        for machine in list(world.bound_for):
            world.carrier.arrive(machine)
        await world.settle()
        assert world.bound_for == {}
        await world.go("wlan1", first.removeprefix("vm-"))  # back home, and its machine behind it
        assert world.bound_for == {first: "dc1"}
        world.carrier.arrive(first)
        await world.settle()
        # Both that are not there would go, and there is room for one: it takes the one who is farther off.
        assert world.bound_for == {f"vm-{stays}": "dc2"}
        world.carrier.arrive(f"vm-{stays}")
        await world.settle()
        assert sorted(world.at(user) for user in USERS) == ["dc1", "dc2", "dc3"]


async def test_room_that_a_failure_gives_back_is_offered_again() -> None:
    async with running("always", 1) as world:
        await world.go("wlan2", "alice")
        await world.go("wlan2", "bob", "carol")
        stays = next(name for name, one in world.decisions.items() if not one.migrate)
        world.carrier.fail("vm-alice")
        await world.settle()
        assert world.bound_for[f"vm-{stays}"] == "dc2"


@pytest.mark.parametrize("seed", range(4))
async def test_never_over_capacity_whatever_happens(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "WINDOW_S", 0.001)
    chance = random.Random(seed)
    needs = {user: {"demand": demand} for user, demand in zip(USERS, (1, 2, 1), strict=True)}
    most = {"dc2": 2.0, "dc3": 1.0}
    async with running("always", most["dc2"], **needs) as world:
        situations = world.controller.deciding.situations
        assert situations is not None
        for _ in range(60):
            under_way = sorted(world.bound_for)
            what = chance.random()
            if what < 0.6 or not under_way:
                await world.go(chance.choice(("wlan1", "wlan2")), *chance.sample(USERS, chance.randint(1, 3)))
            elif what < 0.9:
                world.carrier.arrive(chance.choice(under_way))
            else:
                world.carrier.fail(chance.choice(under_way))
            await world.settle()
            for name, capacity in most.items():
                # Who is on the way may come back: it takes room at both ends.
                there = [user for user in USERS if name in (world.bound_for.get(f"vm-{user}"), world.at(user))]
                assert sum(needs[user]["demand"] for user in there) <= capacity
        await world.settle()
        assert situations._going.keys() == world.bound_for.keys(), "nothing stays reserved for nobody"


async def test_a_policy_that_fails_for_one_does_not_take_the_others_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running("always", 3) as world:
        inner = world.controller.deciding.policy

        class Picky:
            name = "always"

            def decide(self, situation: Any) -> Decision:
                if situation.service == "bob":
                    raise ArithmeticError("singular matrix")
                return inner.decide(situation)

        world.controller.deciding.policy = Picky()
        await world.go("wlan2", *USERS)
        assert set(world.bound_for) == {"vm-alice", "vm-carol"}
        assert "following a user failed" in caplog.text


async def test_two_moves_of_one_user_in_the_window_are_one_decision() -> None:
    async with running("always", 3) as world:
        service = world.controller.config.services[0]
        world.controller.deciding.follow(service)
        await world.go("wlan2", "alice")
        assert world.bound_for == {"vm-alice": "dc2"}
        assert set(world.decisions) == {"alice"}


async def test_a_decision_that_falls_due_as_another_is_taken_waits_until_that_is_carried_out() -> None:
    async with running("always", 3) as world:
        controller = world.controller
        inner, service = controller.deciding.policy, controller.config.services[0]

        class Eager:
            name = "always"

            def decide(self, situation: Any) -> Decision:
                if not world.bound_for:
                    controller.deciding.follow(service)  # runs before the one that this decision is for goes on
                return inner.decide(situation)

        controller.deciding.policy = Eager()
        await world.go("wlan2", "alice")
        assert world.bound_for == {"vm-alice": "dc2"}
        situations = controller.deciding.situations
        assert situations is not None
        await world.settle()
        assert situations.goes("vm-alice"), "its room is still reserved"
        world.carrier.arrive("vm-alice")
        controller.deciding.policy = inner
        await world.settle()
        assert not situations.goes("vm-alice")
        assert world.decisions["alice"].migrate is False, "the second decision: it is at the best"


async def test_the_room_is_left_in_peace_by_who_stays() -> None:
    async with running("never", 1) as world:
        await world.go("wlan2", *USERS)
        assert world.bound_for == {}
        assert all(not one.migrate for one in world.decisions.values())
