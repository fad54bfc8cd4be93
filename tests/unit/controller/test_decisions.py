"""The controller: a user attaches, a decision is made, and the machine is carried, or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from followme.config import openflow as config
from followme.controllers.events import Happening
from followme.controllers.openflow.controller import Controller
from followme.controllers.openflow.machines import Machines
from followme.domain import Decision, Placement, mac_bytes
from followme.migration.host import MigrationError
from followme.openflow import Match, PacketIn, Port, PortStatus
from followme.openflow.constants import OFP_NO_BUFFER, OFPPR_DELETE, OFPR_NO_MATCH
from followme.packets import arp_request_frame
from followme.store import Store

ALICE = mac_bytes("02:00:00:00:00:02")


def section(name: str, number: int, kind: str, area: int) -> dict[str, Any]:
    return {
        "name": name, "kind": kind, "datapath": number, "area": area,
        "uplink": {"port": 1, "router_mac": f"02:aa:00:00:00:0{number}"},
        "prefix": f"10.{number}.0.0/24", "gateway": f"10.{number}.0.1", "locators": f"10.{number}.0.128/25",
        **({"host": {"port": 2, "bridge": "br", "uplink": "e", "run_dir": "/run",
                     "management_address": f"10.9.0.{number}"}}
           if kind == "datacentre" else {}),
    }  # fmt: skip


def document(policy: str, **parameters: float) -> dict[str, Any]:
    """Two service areas with an access network and a data centre each, and a third one without the latter."""
    return {
        "networks": [
            section("wlan1", 1, "access", 1), section("dc1", 2, "datacentre", 1),
            section("wlan2", 3, "access", 2), section("dc2", 4, "datacentre", 2),
            section("wlan3", 5, "access", 4),
        ],
        "machines": [{"name": "vm", "home": "dc1", "mac": "02:00:00:00:00:01", "address": "10.2.0.5"}],
        "users": [{"name": "alice", "home": "wlan1", "mac": "02:00:00:00:00:02", "address": "10.1.0.10",
                   "port": 5}],
        "services": [{"name": "desktop", "user": "alice", "machine": "vm"}],
        "listen": {"port": 0},
        "policy": {"name": policy, "parameters": parameters},
    }  # fmt: skip


class Carrier:
    """The machines' side: carries take until ``arrive``, and move the binding as a migration does."""

    def __init__(self, controller: Controller) -> None:
        self.hosts = {"dc1": object(), "dc2": object()}
        self.carried: list[tuple[str, str]] = []
        self.retired: list[tuple[str, str]] = []
        self.fails = False
        self.results: dict[str, object] = {}
        self._controller = controller
        self._under_way: asyncio.Event | None = None

    async def settled(self, machine: str) -> None:
        while self._under_way is not None:
            await self._under_way.wait()

    async def carry(self, machine: str, target: str) -> None:
        assert self._under_way is None, "one migration at a time"
        self.carried.append((machine, target))
        if self.fails:
            raise MigrationError("the target's disk is full")
        self._under_way = asyncio.Event()
        await self._under_way.wait()

    def arrive(self) -> None:
        assert self._under_way is not None
        machine, target = self.carried[-1]
        self._controller.redirect.move(machine, target, 2, [])
        self._under_way.set()
        self._under_way = None

    def retire(self, node: str, places: tuple[Placement, ...]) -> None:
        self.retired += [(node, place.network) for place in places]

    def expected_bytes(self, machine: str) -> int:
        return 1 << 20

    def bandwidth_bit_s(self, source: str, target: str) -> float | None:
        return None

    async def close(self) -> None:
        """Nothing runs."""


class World:
    def __init__(self, controller: Controller, carrier: Carrier) -> None:
        self.controller, self.carrier = controller, carrier
        self.told: list[Happening] = []
        controller.watchers.add(self.told.append)

    async def move_alice(self, to: str, port: int) -> None:
        """Her old port goes, and she asks for her gateway somewhere else."""
        controller = self.controller
        here = controller.redirect.bindings["alice"].here
        gone = PortStatus(OFPPR_DELETE, Port(here.port, bytes(6), "p"))
        controller.watcher.port_status(controller.networks[here.network], gone)
        alice = controller.redirect.bindings["alice"].node
        frame = arp_request_frame(ALICE, alice.address, controller.networks["wlan1"].gateway)
        message = PacketIn(OFP_NO_BUFFER, len(frame), OFPR_NO_MATCH, 0, 0, Match(in_port=port), frame)
        controller.watcher.packet_in(controller.networks[to], message)
        await self.settle()

    async def settle(self) -> None:
        """Until all that can go on has gone on."""
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def decisions(self) -> list[Decision]:
        return [one.fact for one in self.told if isinstance(one.fact, Decision)]

    @property
    def machine_at(self) -> str:
        return self.controller.redirect.bindings["vm"].here.network


@asynccontextmanager
async def running(policy: str, **parameters: float) -> AsyncIterator[World]:
    async with controlled(document(policy, **parameters)) as world:
        yield world


@asynccontextmanager
async def controlled(data: dict[str, Any]) -> AsyncIterator[World]:
    controller = Controller(config.check(data, "fmc.yaml"), {}, store=Store(":memory:"))

    async def confirmed(*args: object, **options: object) -> None:
        """There are no switches here; what they confirm is tested with the redirect."""

    controller.southbound.barrier = confirmed  # type: ignore[method-assign]
    carrier = Carrier(controller)
    controller.machines = cast(Machines, carrier)
    await controller.start()
    try:
        yield World(controller, carrier)
    finally:
        await controller.close()


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
