"""A domain where a machine was, and which was told of it, is gone for good: the others' files name it no more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from . import domains as world_of
from .domains import HOSTS, VM, VM_MAC, document, domains

GONE = "gamma"


def _without(domain: str, directory: Path, public: dict[str, str]) -> dict[str, Any]:
    made = document(domain, directory, public)
    others = made["federation"]["domains"]
    made["federation"]["domains"] = [one for one in others if one["name"] != GONE]
    return made


async def test_a_machine_that_was_there_goes_on_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with domains(tmp_path) as world:
        await world.carry("dc-a", "dc-c", "m1")
        for host in HOSTS.values():
            await world.talks(host, "dc-c")
        await world.settled("dc-c")
        for domain in world_of.DOMAINS:
            await world.stop(domain)
        monkeypatch.setattr(world_of, "document", _without)
        for domain in world_of.DOMAINS:
            if domain != GONE:
                await world.start(domain)
        await world.host_agent("dc-a", "no")
        world.at = "dc-b"
        arrived = (await world.host_agent("dc-b", "yes")).arrived(VM, "m2", "dc-b", VM_MAC)
        await asyncio.wait_for(arrived, 10)
        await world.settled("dc-b")
        for name in ("dc-a", "dc-b", "wlan-d"):
            await world.talks(HOSTS[name], "dc-b")
        await world.carry("dc-b", "dc-a", "m3")
        await world.settled("dc-a")
        for name in ("dc-a", "dc-b", "wlan-d"):
            await world.talks(HOSTS[name], "dc-a")
        controllers = [one.controller for one in world.instances.values() if one.controller is not None]
        assert {one.where(VM) for one in controllers if one.federate.view(VM) is not None} <= {"dc-a"}
        assert len(controllers) == len(world_of.DOMAINS) - 1
