"""What decisions know of LISP sites, and the decisions that come of it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest

from followme.config.lisp import check
from followme.controllers.lisp.places import Places
from followme.controllers.lisp.sites import Site
from followme.controllers.lisp.world import LispWorld
from followme.controllers.situations import Situations
from followme.lisp import EidPrefix, Locator, MappingRecord
from followme.migration.mover import Result
from followme.placement.settings import chooser_of, policy_of
from followme.remote.channel import ChannelError
from followme.remote.keys import Key

from ..config.document import changed
from ..config.lisp_document import LISP

DC1, DC2, WLAN2 = "192.0.2.2", "192.0.2.6", "192.0.2.14"
TWO_WLANS = {
    "name": "wlan2", "kind": "access", "area": 8, "prefix": "10.4.0.0/24", "gateway": "10.4.0.1", "rlocs": [WLAN2],
    "agent": {"address": WLAN2, "key_file": "/k"},
}  # fmt: skip
RESULT = Result(mode="live", pause_s=0.010, total_s=2.0, held_s=0.012, bytes=50_000_000, passes=3, bounced=0)


class World:
    """The world of four sites, with nobody connected."""

    def __init__(self, policy: str = "always", **services: Any) -> None:
        data = changed((("policy",), {"name": policy}), (("networks",), [*LISP["networks"], TWO_WLANS]), of=LISP)
        if services:
            data["services"][0]["needs"] = services
        self.config = check(data, "lisp.yaml")
        self.places = Places(self.config.networks, self.config.nodes, 7)
        self.sites = {one.name: Site(one, Key.random(), "ctl", None) for one in self.config.networks}
        self.results: dict[str, Result] = {}
        self.world = LispWorld(self.config, self.places, self.sites, self.results)
        chooser = chooser_of(self.config)
        assert chooser is not None
        self.situations = Situations(self.config.services, chooser, self.world, lambda: 100.0, lambda: 1e9)

    def at(self, eid: str, rloc: str) -> None:
        self.places.changed(MappingRecord(EidPrefix.of(eid, 7), (Locator(ip_address(rloc)),), 1440))

    def target(self) -> str | None:
        """Where the machine is to go; ``None`` if it stays."""
        question = self.situations.of(self.config.services[0])
        assert question is not None
        decision = policy_of(self.config).decide(question.situation)
        return decision.target if decision.migrate else None


def test_users_are_at_access_networks_and_machines_at_data_centres() -> None:
    world = World()
    assert world.world.centres == ["dc1", "dc2"]
    assert world.world.access_of("alice") == "wlan1"
    assert world.world.access_of("nobody") is None
    assert world.world.place_of("vm1") == ("dc1", "dc1")
    assert world.world.place_of("vm9") is None
    world.at("10.3.0.10", DC2)
    assert world.world.access_of("alice") is None, "no access network, so no decision"
    assert world.situations.of(world.config.services[0]) is None


def test_delays_are_those_of_the_users_access_router_in_the_centres_order() -> None:
    world = World()
    world.sites["wlan1"].delays = {DC2: 0.025, DC1: 0.001, "203.0.113.66": 9.0}
    delays, losses, bandwidths = world.world.measured("wlan1")
    assert delays.tolist() == [0.001, 0.025]
    assert np.isnan(losses).all()
    assert np.isnan(bandwidths).all()
    world.sites["wlan1"].delays = {DC2: 0.025}
    assert np.isnan(world.world.measured("wlan1")[0][0]), "nobody knows"
    assert np.isnan(world.world.measured("wlan2")[0]).all()


def test_a_machine_that_is_being_carried_is_at_two_places() -> None:
    world = World().world
    before = world.moves
    world.going("vm1", "dc2")
    assert world.place_of("vm1") == ("dc1", "dc2")
    assert world.moves > before, "who keeps what is taken must look again"
    before = world.moves
    world.going("vm1", None)
    assert world.place_of("vm1") == ("dc1", "dc1")
    assert world.moves > before


def test_a_move_that_the_map_server_tells_counts_as_one() -> None:
    world = World()
    before = world.world.moves
    world.at("10.1.0.5", DC2)
    assert world.world.moves > before
    assert world.world.place_of("vm1") == ("dc2", "dc2")


def test_what_it_cost_last_time_is_expected_next_time() -> None:
    world = World()
    assert world.world.expected_bytes("vm1") == 128 << 20, "its whole memory, before that is known"
    assert world.world.stalled_s("vm1") is None
    assert world.world.bandwidth_bit_s("dc1", "dc2") is None
    world.results["vm1"] = RESULT
    world.world.carried("dc1", "dc2", RESULT)
    assert world.world.expected_bytes("vm1") == 50_000_000
    assert world.world.stalled_s("vm1") == 0.012
    assert world.world.bandwidth_bit_s("dc2", "dc1") == 200e6, "both ways"
    assert world.world.bandwidth_bit_s("dc1", "dc1") is None


def test_a_migration_that_took_no_time_does_not_divide_by_it() -> None:
    world = World()
    world.world.carried("dc1", "dc2", Result("live", 0.0, 0.0, 0.0, 1, 1, 0))
    assert np.isfinite(world.world.bandwidth_bit_s("dc1", "dc2"))  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["always", "threshold", "mdp"])
def test_the_machine_is_to_follow_its_user(policy: str) -> None:
    world = World(policy)
    world.sites["wlan1"].delays = {DC1: 0.001, DC2: 0.025}
    world.sites["wlan2"].delays = {DC1: 0.025, DC2: 0.001}
    assert world.target() is None
    world.at("10.3.0.10", WLAN2)
    assert world.target() == "dc2"
    world.at("10.1.0.5", DC2)
    assert world.target() is None


def test_without_measurements_the_area_says_what_is_near() -> None:
    world = World()
    world.at("10.3.0.10", WLAN2)
    assert world.target() == "dc2"


def test_limits_and_free_places_count_here_too() -> None:
    full = World(demand=9.0)
    full.at("10.1.0.5", DC2)
    assert full.target() is None, "dc1 takes 8"
    near = World(latency_at_most_ms=5)
    near.sites["wlan2"].delays = {DC1: 0.025, DC2: 0.001}
    near.at("10.3.0.10", WLAN2)
    assert near.target() == "dc2"


async def test_an_agent_that_is_not_connected_is_named() -> None:
    site = World().sites["dc1"]
    with pytest.raises(ChannelError, match="agent of dc1: not connected yet"):
        _ = site.client
    with pytest.raises(ChannelError, match="agent of dc1: not connected yet"):
        await site.call("site", {}, timeout=0.01)
