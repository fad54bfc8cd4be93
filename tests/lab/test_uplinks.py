"""What is free on real switches' uplinks, from their own counters and their own word for the speed."""

from __future__ import annotations

import asyncio

import pytest

from followme.lab.scenario import Scenario
from followme.system import needs

_missing = needs.check(needs.MACHINE_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_missing), reason="; ".join(_missing))]


async def test_open_vswitch_tells_what_its_uplinks_carry() -> None:
    async with Scenario() as scenario:
        meter = scenario.controller.uplinks
        for _ in range(2):
            await meter.ask()
            await asyncio.sleep(1.5)  # Open vSwitch brings its counters up to date once a second
        await meter.ask()
        for network in scenario.lab.networks:
            speed, free = meter._told[network.name], meter.free_bit_s(network.name)
            assert free is not None
            assert 0.9 * speed < free < speed, "the path monitor's probes, and not much else"
        assert scenario.controller.southbound.counters.errors == 0
