"""Who has a node is asked before it is let go; and who may speak for a machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from followme.domain import mac_text
from followme.federation.codec import decode_answers, encode_orders
from followme.federation.hosts import HostRequest
from followme.federation.messages import Accepted, Answer, Attach
from followme.federation.presence import PRESENT, SILENT

from . import domains as world_of
from .domains import HOSTS, VM, VM_MAC, Domains, Guest, document, domains

STOLEN = Attach(VM, VM_MAC, "dc-c", 1)


async def _ask(world: Domains, domain: str, sender: str, *orders: Attach) -> list[Answer]:
    engine = world.instances[domain].engine
    assert engine is not None
    asking: Awaitable[bytes] = engine.receive(sender, encode_orders(1, orders))
    task = asyncio.ensure_future(asking)
    async with asyncio.timeout(10):
        while not task.done():
            world.pump()
            await asyncio.sleep(0.001)
    return decode_answers(task.result())[1]


async def test_a_machine_that_runs_is_not_given_to_another_domain(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        world.answering["dc-a"] = Guest("dc-a", 1)
        assert await _ask(world, "alpha", "gamma", STOLEN) == [PRESENT]
        world.answering.clear()
        await world.carry("dc-a", "dc-b", "m1")
        await world.settled("dc-b")
        world.answering["dc-b"] = Guest("dc-b", 2)
        assert await _ask(world, "alpha", "gamma", STOLEN) == [PRESENT]
        await world.stop("beta")
        assert await _ask(world, "alpha", "gamma", STOLEN) == [SILENT]
        await world.settled("dc-b")


async def test_a_machine_that_its_host_has_lost_is_believed_where_it_is(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        await world.carry("dc-a", "dc-b", "m1")
        await world.settled("dc-b")
        (answer,) = await _ask(world, "alpha", "gamma", STOLEN)
        assert isinstance(answer, Accepted)
        await world.settled("dc-c")


async def test_users_are_handed_over_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [(IPv4Address(f"10.4.0.{20 + number}"), bytes((2, 0, 0, 7, 0, number))) for number in range(60)]

    def with_users(domain: str, directory: Path, public: dict[str, str]) -> dict[str, Any]:
        made = document(domain, directory, public)
        if domain == "delta":
            made["users"] += [
                {"name": f"u{number}", "home": "wlan-d", "mac": mac_text(mac), "address": str(address), "port": 2}
                for number, (address, mac) in enumerate(users)
            ]
        return made

    monkeypatch.setattr(world_of, "document", with_users)
    async with domains(tmp_path) as world:
        began = time.monotonic()
        answers = await _ask(world, "delta", "alpha", *(Attach(one, mac, "dc-a", 1) for one, mac in users))
        assert time.monotonic() - began < 2.0  # one takes 0.3 s
        assert all(isinstance(answer, Accepted) for answer in answers)


async def test_one_that_is_not_the_user_does_not_stop_the_user(tmp_path: Path) -> None:
    """Both come while it is being found out whether it is still at home; it is not."""
    async with domains(tmp_path) as world:
        user = HOSTS["wlan-d"]
        strange = asyncio.ensure_future(_ask(world, "delta", "gamma", Attach(user.address, user.mac, "dc-c", 1)))
        await asyncio.sleep(0.05)
        (answer,) = await _ask(world, "delta", "beta", Attach(user.address, user.mac, "dc-b", 1))
        assert isinstance(answer, Accepted)
        await strange


async def test_hosts_speak_for_machines_in_their_networks(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        phases = ("prepare", "flipped", "released", "aborted")

        def who(domain: str) -> list[set[str]]:
            controller = world.instances[domain].controller
            assert controller is not None
            return [controller.hosts(HostRequest(phase, VM, "m1", "dc-b")) for phase in phases]

        assert who("alpha") == [{"dc-a"}] * 4
        assert who("beta") == [set()] * 4
        controller = world.instances["alpha"].controller
        assert controller is not None
        assert controller.hosts(HostRequest("arrived", VM, "m1", "dc-a", VM_MAC)) == {"dc-a"}
        assert controller.hosts(HostRequest("arrived", VM, "m1", "dc-b", VM_MAC)) == set()
        await world.carry("dc-a", "dc-b", "m1", release=False)
        assert who("alpha") == [set(), *[{"dc-a"}] * 3]
        assert who("beta")[0] == {"dc-b"}
