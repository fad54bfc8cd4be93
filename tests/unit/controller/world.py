"""A controller without switches and hypervisors, and users that move in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

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

C = TypeVar("C")
EXAMPLE = Path(__file__).parents[3] / "examples" / "controller.yaml"
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
    async with started(data, Carrier) as (controller, carrier):
        yield World(controller, carrier)


@asynccontextmanager
async def started(
    data: dict[str, Any], carrier_of: Callable[[Controller], C]
) -> AsyncIterator[tuple[Controller, C]]:
    controller = Controller(config.check(data, "fmc.yaml"), {}, store=Store(":memory:"))

    async def confirmed(*args: object, **options: object) -> None:
        """There are no switches here; what they confirm is tested with the redirect."""

    controller.southbound.barrier = confirmed  # type: ignore[method-assign]
    carrier = carrier_of(controller)
    controller.machines = cast(Machines, carrier)
    await controller.start()
    try:
        yield controller, carrier
    finally:
        await controller.close()


def restarted(store: Store) -> Controller:
    controller = Controller(config.check(yaml.safe_load(EXAMPLE.read_text()), "example"), {}, store=store)
    controller._restore()
    return controller
