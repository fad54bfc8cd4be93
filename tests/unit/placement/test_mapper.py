"""The location mapper: delays where they are known, distance where not, and no flipping."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from followme.domain import Network, NetworkKind
from followme.placement.mapper import LocationMapper

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


def names(
    mapper: LocationMapper, access: str, delays: dict[str, float | None], **more: str
) -> list[str]:
    return [candidate.network for candidate in mapper.rank(access, delays, **more)]


def from_west(a: float | None, b: float | None, c: float | None) -> dict[str, float | None]:
    return {"dc-a": a, "dc-b": b, "dc-c": c}


def test_without_delays_the_areas_decide() -> None:
    mapper = LocationMapper(NETWORKS)
    assert names(mapper, "west", {}) == ["dc-a", "dc-b", "dc-c"]
    assert names(mapper, "east", {}) == ["dc-c", "dc-b", "dc-a"]
    first = mapper.rank("east", {})[0]
    assert (first.distance, first.delay_s) == (0, None)
    assert first.why == "0 service areas from east (no delay measured for dc-a, dc-b, dc-c)"


def test_delays_decide_when_all_are_known() -> None:
    ranked = LocationMapper(NETWORKS).rank("west", from_west(0.030, 0.010, 0.020))
    assert [(one.network, one.delay_s, one.distance) for one in ranked] == [
        ("dc-b", 0.010, 5),
        ("dc-c", 0.020, 9),
        ("dc-a", 0.030, 1),
    ]
    assert ranked[0].why == "10.00 ms one way from west, measured"


@pytest.mark.parametrize("unknown", [None, float("nan"), -0.001])
def test_one_unknown_delay_leaves_it_to_the_areas(unknown: float | None) -> None:
    ranked = LocationMapper(NETWORKS).rank("west", from_west(0.030, 0.010, unknown))
    assert [(one.network, one.delay_s) for one in ranked] == [
        ("dc-a", 0.030),
        ("dc-b", 0.010),
        ("dc-c", None),
    ]
    assert "no delay measured for dc-c" in ranked[0].why


INF = float("inf")


def test_a_data_centre_that_no_probe_reaches_comes_last() -> None:
    mapper = LocationMapper(NETWORKS, hysteresis_s=1.0)
    ranked = mapper.rank("west", from_west(INF, 0.030, 0.020), current="dc-a")
    assert [(one.network, one.delay_s) for one in ranked] == [("dc-c", 0.020), ("dc-b", 0.030), ("dc-a", None)]
    assert ranked[-1].why == "1 service areas from west (no probe gets through from west)"
    # Of the others one is not known: their areas decide, but the dead one stays behind them.
    assert names(mapper, "west", from_west(INF, None, 0.020)) == ["dc-b", "dc-c", "dc-a"]
    assert names(mapper, "west", from_west(INF, INF, INF)) == ["dc-a", "dc-b", "dc-c"]


def test_ties_go_to_the_one_that_serves_then_by_name() -> None:
    mapper = LocationMapper([*NETWORKS, network("dc-0", CENTRE, 1)])
    assert names(mapper, "west", {})[:2] == ["dc-0", "dc-a"]
    assert names(mapper, "west", {}, current="dc-a")[:2] == ["dc-a", "dc-0"]
    same = dict.fromkeys(("dc-0", "dc-a", "dc-b", "dc-c"), 0.01)
    assert names(mapper, "west", {**same}) == ["dc-0", "dc-a", "dc-b", "dc-c"]
    assert names(mapper, "west", {**same}, current="dc-c") == ["dc-c", "dc-0", "dc-a", "dc-b"]
    assert mapper.rank("west", {**same}, current="dc-c")[0].why == "10.00 ms one way from west, measured"


def test_noise_does_not_flip_it() -> None:
    mapper = LocationMapper(NETWORKS, hysteresis_s=0.002)
    close = from_west(0.0110, 0.0100, 0.0105)
    assert names(mapper, "west", close) == ["dc-b", "dc-c", "dc-a"]
    ranked = mapper.rank("west", close, current="dc-a")
    assert [one.network for one in ranked] == ["dc-a", "dc-b", "dc-c"]
    assert "it serves now, and dc-b is closer by 1.00 ms only (hysteresis 2.00 ms)" in ranked[0].why
    assert names(mapper, "west", from_west(0.0121, 0.0100, 0.0105), current="dc-a")[0] == "dc-b"
    assert names(mapper, "west", close, current="gone")[0] == "dc-b"


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
        LocationMapper(NETWORKS).rank("north", {})
