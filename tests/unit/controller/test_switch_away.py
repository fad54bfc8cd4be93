"""While a switch is not connected nothing is known of who is behind it; what it has not confirmed is not held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from followme.continuity.southbound import SwitchError
from followme.controllers.openflow.federated import FederatedController
from followme.domain import Node
from followme.federation.codec import decode_answers, encode_orders
from followme.federation.messages import Accepted, Answer, Attach, Refused
from followme.federation.outputs import View
from followme.federation.presence import BUSY
from followme.mobility.visits import SWITCH_AWAY_S
from tests.until import until

from ..continuity.switch import Switch
from . import domains as world_of
from .domains import HOSTS, VM, VM_MAC, Domains, document, domains

USER = HOSTS["wlan-d"]
USERS = Attach(USER.address, USER.mac, "dc-c", 1)
MACHINES = Attach(VM, VM_MAC, "dc-c", 1)


def _controller(world: Domains, domain: str) -> FederatedController:
    controller = world.instances[domain].controller
    assert controller is not None
    return controller


async def _asked(world: Domains, domain: str, order: Attach) -> Answer:
    engine = _controller(world, domain).engine
    (answer,) = decode_answers(await engine.receive("gamma", encode_orders(1, [order])))[1]
    return answer


async def _cut_off(world: Domains, domain: str, network: str) -> FederatedController:
    controller = _controller(world, domain)
    await world.switches[network].leave()
    await until(lambda: not controller.southbound.connected(controller.networks[network].datapath))
    return controller


async def test_a_user_behind_a_switch_that_is_away_is_kept_for_it_for_a_while(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        delta = await _cut_off(world, "delta", "wlan-d")
        assert await _asked(world, "delta", USERS) == BUSY
        delta.watcher._clock = lambda: time.monotonic() + SWITCH_AWAY_S - 1
        assert await _asked(world, "delta", USERS) == BUSY
        delta.watcher._clock = lambda: time.monotonic() + SWITCH_AWAY_S
        assert isinstance(await _asked(world, "delta", USERS), Accepted)


async def test_a_switch_that_was_back_is_waited_for_anew(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        delta = await _cut_off(world, "delta", "wlan-d")
        assert await _asked(world, "delta", USERS) == BUSY
        table = world.switches["wlan-d"].table
        world.switches["wlan-d"] = await Switch(4, table).connect(world.instances["delta"].port)
        await delta.wait_for_switches(5)
        await _cut_off(world, "delta", "wlan-d")
        delta.watcher._clock = lambda: time.monotonic() + SWITCH_AWAY_S
        assert await _asked(world, "delta", USERS) == BUSY


@pytest.mark.parametrize("lost", [False, True])
async def test_a_machine_is_kept_until_its_host_is_gone_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    def with_lost(domain: str, directory: Path, public: dict[str, str]) -> dict[str, Any]:
        made = document(domain, directory, public)
        made["networks"][0] |= {"hypervisor_lost": lost} if domain == "alpha" else {}
        return made

    monkeypatch.setattr(world_of, "document", with_lost)
    async with domains(tmp_path) as world:
        if not lost:
            await world.host_agent("dc-a", "no")
        alpha = await _cut_off(world, "alpha", "dc-a")
        alpha.watcher._clock = lambda: time.monotonic() + 100 * SWITCH_AWAY_S
        answer = await _asked(world, "alpha", MACHINES)
        assert isinstance(answer, Accepted) if lost else answer == BUSY


async def test_a_version_that_touches_another_switch_is_not_confirmed_by_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are under way at once, and the second one's switch is away."""
    touched = [{1}, {2}, set()]

    async def barrier(datapaths: Collection[int], timeout: float, owner: str | None = None) -> None:
        await asyncio.sleep(0.02)
        if 2 in datapaths:
            await asyncio.sleep(0.1)
            raise SwitchError("switch 2 is away")

    def show(identifier: IPv4Address, view: View | None) -> tuple[str, set[int]]:
        return "u1", touched.pop(0)

    async with domains(tmp_path) as world:
        alpha = _controller(world, "alpha")
        monkeypatch.setattr(alpha, "_show", show)
        monkeypatch.setattr(alpha.southbound, "barrier", barrier)
        first = asyncio.ensure_future(alpha.apply({VM}))
        await asyncio.sleep(0.005)
        second = asyncio.ensure_future(alpha.apply({VM}))
        assert await first == {}
        refused = {VM: Refused("switch 2 is away", again=True)}
        assert await second == refused
        assert await alpha.apply({VM}) == refused, "a copy"


async def test_a_switch_that_goes_while_its_node_is_asked_says_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with domains(tmp_path) as world:
        watcher = _controller(world, "delta").watcher

        async def verdict(node: Node) -> bool:
            await _cut_off(world, "delta", "wlan-d")
            return True

        monkeypatch.setattr(watcher._checks, "verdict", verdict)
        assert await _asked(world, "delta", USERS) == BUSY
