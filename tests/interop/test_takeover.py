from __future__ import annotations
import asyncio, signal, time
from pathlib import Path
import pytest
from tests.interop.instances import fleet
from tests.unit.controller.domains import VM, HOSTS
async def test_kill(tmp_path: Path) -> None:
    t=time.monotonic()
    async with fleet(tmp_path) as world:
        print("up", time.monotonic()-t)
        world.converse()
        await asyncio.sleep(0.5)
        print(world.sent, world.lost)
        name = await world.active("alpha")
        t=time.monotonic()
        await world.kill(name)
        await world.active("alpha")
        print("takeover", time.monotonic()-t, world.lost)
        await world.carry_by_host("dc-b","m1")
        print("carried", time.monotonic()-t, world.lost)
        await asyncio.sleep(1)
        await world.same_everywhere("dc-b")
        print(world.sent, world.lost)
