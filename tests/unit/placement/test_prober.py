"""The prober over a southbound whose packets are carried by the test, and the mapper fed by it."""

from __future__ import annotations

from math import inf
from typing import cast

import numpy as np
import pytest

from followme.continuity.pipeline import PROBE_PORT, edge_mac
from followme.continuity.southbound import Southbound
from followme.domain import Network
from followme.openflow import Message, PacketOut
from followme.packets.probe import pack_probe, probe_at
from followme.packets.udp import udp_frame
from followme.placement.mapper import LocationMapper
from followme.placement.prober import PathProber

from ..continuity.fabric import network

WLAN, NEAR, FAR = network("wlan", 1, access=True), network("near", 2), network("far", 3)
NETWORKS = {one.name: one for one in (WLAN, NEAR, FAR)}
DELAYS = {"near": 0.005, "far": 0.040}


class World:
    """Carries each probe to its destination, after the path's delay, unless the path is in ``dead``."""

    def __init__(self) -> None:
        self.now, self.sequence = 100.0, 0
        self.dead: set[tuple[str, str]] = set()
        self.sent: list[Message] = []
        self.prober = PathProber(NETWORKS, cast(Southbound, self), 0.5, lambda: self.now)

    def connected(self, datapath: int) -> bool:
        return True

    def half_round_trip(self, datapath: int) -> float:
        return 0.0

    def send(self, datapath: int, messages: list[Message]) -> None:
        self.sent += messages

    def probe(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            start = self.now
            for centre in (NEAR, FAR):
                for source, destination in ((WLAN, centre), (centre, WLAN)):
                    self._carry(source, destination, start + DELAYS[centre.name])
                    self.now = start
            self.sequence += 1
            self.now = start + 0.5

    def _carry(self, source: Network, destination: Network, arrives: float) -> None:
        self.sent.clear()
        self.prober._send(source, destination, self.sequence)
        (packet,) = self.sent
        assert isinstance(packet, PacketOut)
        if (source.name, destination.name) not in self.dead:
            self.now = arrives
            self.prober.received(destination, packet.data)

    def best(self, current: str | None = None) -> str:
        delays = self.delays()
        reached = {name: delay for name, delay in delays.items() if delay != inf} or delays
        return LocationMapper(NETWORKS.values(), 0.002).in_order("wlan", reached, current)[0]

    def delays(self) -> dict[str, float]:
        delays, _ = self.prober.measured("wlan")
        assert self.prober.centres == ("near", "far")
        return dict(zip(self.prober.centres, delays.tolist(), strict=True))


def test_the_nearest_is_best_until_its_path_dies_and_again_when_it_is_back() -> None:
    world = World()
    assert all(np.isnan(one).all() for one in world.prober.measured("wlan"))
    world.probe(5.0)
    assert world.delays() == {"near": pytest.approx(0.005), "far": pytest.approx(0.040)}
    assert world.best() == "near"
    world.dead.add(("near", "wlan"))  # one direction is enough
    world.probe(6.0)
    assert world.delays() == {"near": inf, "far": pytest.approx(0.040)}
    assert world.best(current="near") == "far"
    world.dead.clear()
    world.probe(1.0)
    assert world.best(current="far") == "near"


def test_a_path_that_never_lived_is_not_best_either() -> None:
    world = World()
    world.dead = {("wlan", "far"), ("far", "wlan")}
    world.probe(6.0)
    assert world.best() == "near"
    world = World()
    world.dead = {("wlan", "near"), ("near", "wlan")}
    world.probe(6.0)
    assert world.best() == "far"


def test_losses_are_those_of_the_worse_direction() -> None:
    world = World()
    world.probe(8.0)
    world.dead.add(("wlan", "far"))
    world.probe(8.0)
    world.now += 10.0
    world.probe(0.5)  # a loss is as of the last probe sent
    _, losses = world.prober.measured("wlan")
    assert losses.tolist() == [0.0, pytest.approx(0.5)]


def test_who_is_no_access_network_is_named() -> None:
    with pytest.raises(ValueError, match="'near' is not an access network"):
        World().prober.measured("near")


def test_a_probe_between_two_data_centres_is_forged() -> None:
    world = World()
    probe = probe_at(world.prober._ids["near"], world.prober._ids["far"], 0, world.now)
    frame = udp_frame(NEAR.router_mac, edge_mac(NEAR), NEAR.probe_address, FAR.probe_address, PROBE_PORT,
                      PROBE_PORT, pack_probe(probe, world.prober._key))  # fmt: skip
    world.prober.received(FAR, frame)
    assert world.prober.forged == 1
