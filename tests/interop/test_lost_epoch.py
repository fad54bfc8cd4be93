"""The bucket has lost which epoch it was; the switches have not."""

from __future__ import annotations

import time
from pathlib import Path

from tests.interop.instances import fleet
from tests.interop.nats_lab import needs_nats

pytestmark = needs_nats
GENERATION = 1000


async def test_an_epoch_below_the_switches_generation_is_passed_at_once(tmp_path: Path) -> None:
    async with fleet(tmp_path, {"alpha": 1}) as world:
        await world.kill("alpha/1")
        world.switches["dc-a"].shared.generation = GENERATION
        await world.begin("alpha/1")
        began = time.monotonic()
        await world.until_said("alpha/1", f"is served, epoch {GENERATION + 1}")
        assert world.said("alpha/1").count("has the lease") <= 2, world.said("alpha/1")
        assert time.monotonic() - began < 10
        await world.sessions_are_well()
