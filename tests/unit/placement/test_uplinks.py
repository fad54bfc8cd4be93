"""What is free on uplinks, from counters that the test makes up."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from followme.continuity.southbound import Southbound
from followme.openflow import Port, PortStats
from followme.openflow.port_stats import UNSUPPORTED
from followme.placement.uplinks import UNANSWERED, UplinkMeter

from ..continuity.fabric import network

WLAN, NEAR, FAR = network("wlan", 1, access=True), network("near", 2), network("far", 3)
NETWORKS = {one.name: one for one in (WLAN, NEAR, FAR)}


class World:
    """Switches whose uplinks carry so many bytes a second in and out."""

    def __init__(self, **speeds: float) -> None:
        self.now = 100.0
        self.carries = {one.datapath: (0, 0) for one in NETWORKS.values()}
        self.counted = {one.datapath: (1000, 5000) for one in NETWORKS.values()}
        self.away: set[int] = set()
        self.refuses: set[int] = set()
        self.asked: list[int] = []
        self.meter = UplinkMeter(NETWORKS, cast(Southbound, self), speeds, lambda: self.now, ("near", "far"))

    def connected(self, datapath: int) -> bool:
        return datapath not in self.away

    async def port_stats(self, datapath: int, port: int, timeout: float) -> PortStats | None:
        assert port == next(one.uplink_port for one in NETWORKS.values() if one.datapath == datapath)
        self.asked.append(datapath)
        if datapath in self.refuses:
            return None
        into, out = self.counted[datapath]
        return PortStats(port, rx_bytes=into, tx_bytes=out)

    async def poll(self, seconds: float = 2.0) -> None:
        self.now += seconds
        for datapath, (into, out) in self.carries.items():
            before = self.counted[datapath]
            self.counted[datapath] = before[0] + round(seconds * into), before[1] + round(seconds * out)
        await self.meter.ask()


async def test_what_is_free_is_the_speed_less_the_busier_direction() -> None:
    world = World(wlan=1e6, near=1e9, far=1e9)
    world.carries[NEAR.datapath] = (25_000_000, 100_000_000)
    await world.poll()
    assert world.meter.free_bit_s("near") is None, "one reading is no rate"
    await world.poll()
    assert world.meter.free_bit_s("near") == pytest.approx(0.2e9)
    assert world.meter.free_bit_s("far") == 1e9
    assert world.meter.measured("wlan").tolist() == [1e6, 1e6], "the less of both ends"
    assert world.meter.between("near", "far") == pytest.approx(0.2e9)
    world.carries[NEAR.datapath] = (200_000_000, 0)
    await world.poll()
    assert world.meter.free_bit_s("near") == 0.0, "never negative"


async def test_what_is_not_known_stays_unknown_and_is_not_asked() -> None:
    world = World(near=1e9)
    await world.poll()
    await world.poll()
    assert set(world.asked) == {NEAR.datapath}, "without a speed there is nothing to reckon with"
    assert np.isnan(world.meter.measured("wlan")).all()
    assert world.meter.between("near", "far") is None
    assert world.meter.between("far", "near") is None


async def test_the_switch_may_know_the_speed_and_the_config_knows_better() -> None:
    world = World(near=1e6)
    for one in (NEAR, FAR):
        uplink = Port(one.uplink_port, bytes(6), "up", curr_speed=10_000_000)
        world.meter.ports(one, (Port(99, bytes(6), "other", curr_speed=1), uplink))
    await world.poll()
    await world.poll()
    assert (world.meter.free_bit_s("near"), world.meter.free_bit_s("far")) == (1e6, 10e9)


async def test_a_switch_that_went_away_or_began_anew_is_not_believed() -> None:
    world = World(near=1e9)
    await world.poll()
    await world.poll()
    assert world.meter.free_bit_s("near") == 1e9
    world.away.add(NEAR.datapath)
    asked = len(world.asked)
    await world.poll()
    assert world.meter.free_bit_s("near") is None
    assert len(world.asked) == asked, "who is away is not asked"
    world.away.clear()
    await world.poll()
    assert world.meter.free_bit_s("near") is None, "no rate over the time when it was away"
    await world.poll()
    assert world.meter.free_bit_s("near") == 1e9
    world.counted[NEAR.datapath] = (0, 0)
    await world.poll()
    assert world.meter.free_bit_s("near") is None
    world.counted[NEAR.datapath] = (UNSUPPORTED, 0)
    await world.meter.ask()
    assert world.meter.free_bit_s("near") is None


async def test_a_switch_that_does_not_know_the_question_is_not_asked_for_ever() -> None:
    world = World(near=1e9)
    world.refuses.add(NEAR.datapath)
    for _ in range(10):
        await world.poll()
    assert len(world.asked) == UNANSWERED
    world.refuses.clear()
    world.meter.ports(NEAR, ())  # it connects again
    await world.poll()
    await world.poll()
    assert world.meter.free_bit_s("near") == 1e9
