"""The location mapper: delays where they are known, distance where not, and no flipping."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from followme.domain import Network, NetworkKind
from followme.placement.mapper import Candidate, LocationMapper

ACCESS, CENTRE = NetworkKind.ACCESS, NetworkKind.DATACENTRE


def network(name: str, kind: NetworkKind, area: int) -> Network:
    prefix = IPv4Network("10.0.0.0/24")
    gateway = IPv4Address("10.0.0.1")
    return Network(
        name, kind, 1, 1, b"\2\0\0\0\0\1", prefix, prefix, gateway, IPv4Network("10.0.0.128/25"), area
    )


NETWORKS = [
    network("west", ACCESS, 0),
    network("east", ACCESS, 9),
    network("dc-a", CENTRE, 1),
    network("dc-b", CENTRE, 5),
    network("dc-c", CENTRE, 9),
]


NAN, INF = float("nan"), float("inf")


def from_west(a: float, b: float, c: float) -> dict[str, float]:
    return {"dc-a": a, "dc-b": b, "dc-c": c}


NOTHING = from_west(NAN, NAN, NAN)


def best(mapper: LocationMapper, access: str, delays: dict[str, float], current: str | None = None) -> Candidate:
    found = mapper.nearest(access, delays, current)
    assert found is not None
    assert found.network == mapper.in_order(access, delays, current)[0]
    return found


def test_without_delays_the_areas_decide() -> None:
    mapper = LocationMapper(NETWORKS)
    assert mapper.in_order("west", NOTHING) == ["dc-a", "dc-b", "dc-c"]
    assert mapper.in_order("east", NOTHING) == ["dc-c", "dc-b", "dc-a"]
    first = best(mapper, "east", NOTHING)
    assert (first.distance, first.delay_s) == (0, None)
    assert first.why == "0 service areas from east (no delay measured for dc-a, dc-b, dc-c)"


def test_delays_decide_when_all_are_known() -> None:
    delays = from_west(0.030, 0.010, 0.020)
    assert LocationMapper(NETWORKS).in_order("west", delays) == ["dc-b", "dc-c", "dc-a"]
    first = best(LocationMapper(NETWORKS), "west", delays)
    assert (first.delay_s, first.distance, first.why) == (0.010, 5, "10.00 ms one way from west, measured")


@pytest.mark.parametrize("unknown", [NAN, INF, -0.001])
def test_one_unknown_delay_leaves_it_to_the_areas(unknown: float) -> None:
    delays = from_west(0.030, 0.010, unknown)
    assert LocationMapper(NETWORKS).in_order("west", delays) == ["dc-a", "dc-b", "dc-c"]
    first = best(LocationMapper(NETWORKS), "west", delays)
    assert first.delay_s == 0.030
    assert "no delay measured for dc-c" in first.why


def test_ties_go_to_the_one_that_serves_then_by_name() -> None:
    mapper = LocationMapper([*NETWORKS, network("dc-0", CENTRE, 1)])
    unknown = NOTHING | {"dc-0": NAN}
    assert mapper.in_order("west", unknown)[:2] == ["dc-0", "dc-a"]
    assert mapper.in_order("west", unknown, "dc-a")[:2] == ["dc-a", "dc-0"]
    same = dict.fromkeys(("dc-0", "dc-a", "dc-b", "dc-c"), 0.01)
    assert mapper.in_order("west", same) == ["dc-0", "dc-a", "dc-b", "dc-c"]
    assert mapper.in_order("west", same, "dc-c") == ["dc-c", "dc-0", "dc-a", "dc-b"]
    assert best(mapper, "west", same, "dc-c").why == "10.00 ms one way from west, measured"


def test_noise_does_not_flip_it() -> None:
    mapper = LocationMapper(NETWORKS, hysteresis_s=0.002)
    close = from_west(0.0110, 0.0100, 0.0105)
    assert mapper.in_order("west", close) == ["dc-b", "dc-c", "dc-a"]
    assert mapper.in_order("west", close, "dc-a") == ["dc-a", "dc-b", "dc-c"]
    kept = best(mapper, "west", close, "dc-a")
    assert "it serves now, and dc-b is closer by 1.00 ms only (hysteresis 2.00 ms)" in kept.why
    assert best(mapper, "west", from_west(0.0121, 0.0100, 0.0105), "dc-a").network == "dc-b"
    assert best(mapper, "west", close, "gone").network == "dc-b"


def test_the_nearest_of_some_is_found_by_the_same_rules() -> None:
    mapper = LocationMapper(NETWORKS, hysteresis_s=0.002)
    found = mapper.nearest("west", {"dc-a": 0.0110, "dc-b": 0.0100}, current="dc-a")
    assert found is not None
    assert found.network == "dc-a"
    assert "dc-b is closer by 1.00 ms only" in found.why
    # One that is left out is missed by nobody: its unknown delay does not leave it to the areas.
    near = mapper.nearest("east", {"dc-a": 0.001, "dc-b": 0.5})
    assert near is not None
    assert (near.network, near.distance) == ("dc-a", 8)
    dark = mapper.nearest("east", {"dc-a": 0.001, "dc-b": float("nan")})
    assert dark is not None
    assert (dark.network, "no delay measured for dc-b" in dark.why) == ("dc-b", True)
    assert mapper.nearest("east", {}) is None


def test_what_is_wrong_is_named() -> None:
    with pytest.raises(ValueError, match="no data centre"):
        LocationMapper(NETWORKS[:2])
    with pytest.raises(ValueError, match="'west'"):
        LocationMapper([*NETWORKS, NETWORKS[0]])
    with pytest.raises(ValueError, match="hysteresis -1"):
        LocationMapper(NETWORKS, hysteresis_s=-1.0)
    with pytest.raises(ValueError, match="'north' is unknown"):
        LocationMapper(NETWORKS).nearest("north", NOTHING)
