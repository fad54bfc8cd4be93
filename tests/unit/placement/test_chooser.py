"""The choice that the controller asks for: the nearest with room, or the ranking where a service has criteria."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from math import inf

import pytest

from followme.domain import Network, NetworkKind
from followme.placement.chooser import Chooser, Measured, Needs, Offer
from followme.placement.criteria import Requirements, Tariff, Weights
from followme.placement.mapper import LocationMapper
from followme.placement.stay import Task, Use


def network(name: str, number: int, kind: NetworkKind, area: int) -> Network:
    prefix = IPv4Network(f"10.{number}.0.0/24")
    return Network(name, kind, number, 1, bytes(6), prefix, prefix, IPv4Address(f"10.{number}.0.1"),
                   IPv4Network(f"10.{number}.0.128/25"), area)  # fmt: skip


MAPPER = LocationMapper(
    [
        network("here", 1, NetworkKind.DATACENTRE, 0),
        network("there", 2, NetworkKind.DATACENTRE, 8),
        network("wlan", 3, NetworkKind.ACCESS, 8),
    ]
)
DELAYS = {("wlan", "here"): 0.025, ("wlan", "there"): 0.0005}
NOTHING = Measured({}, {}, {}, {})
MEASURED = Measured(DELAYS, dict.fromkeys(DELAYS, 0.0), {}, {"here": 1.0})
OFFERS = {"here": Offer(), "there": Offer()}


def test_without_criteria_the_nearest_is_the_best_measured_or_not() -> None:
    for measured in (NOTHING, MEASURED):
        assert Chooser(MAPPER, OFFERS, {}).choose("s", "wlan", "here", measured).best == "there"


def test_a_full_data_centre_takes_nobody_but_keeps_whom_it_has() -> None:
    offers = {"here": Offer(), "there": Offer(capacity=2.0)}
    full = Measured(DELAYS, {}, {}, {"there": 2.0})
    choice = Chooser(MAPPER, offers, {}).choose("s", "wlan", "here", full)
    assert choice.best == "here"
    assert "capacity" in choice.excluded["there"]
    assert Chooser(MAPPER, offers, {}).choose("s", "wlan", "there", full).best == "there"


def test_limits_exclude_and_nobody_may_be_left() -> None:
    at_home = Needs(Requirements(localities=frozenset({"DE"})))
    offers = {"here": Offer(locality="DE"), "there": Offer(locality="FR")}
    chooser = Chooser(MAPPER, offers, {"s": at_home})
    assert chooser.choose("s", "wlan", "there", MEASURED).best == "here"
    nowhere = Chooser(MAPPER, {"there": offers["there"]}, {"s": at_home}).choose("s", "wlan", "there", MEASURED)
    assert nowhere.best is None
    assert "locality" in nowhere.why


@pytest.mark.parametrize("method", ["weighted-sum", "topsis"])
def test_weights_may_prefer_the_cheaper_to_the_nearer(method: str) -> None:
    offers = {
        "here": Offer(server_tariff=Tariff(((0.0, 1.0),))),
        "there": Offer(server_tariff=Tariff(((0.0, 9.0),))),
    }
    only = dict.fromkeys(("bandwidth", "loss", "utilisation", "throughput", "network_price", "storage_price",
                          "preference"), 0.0)  # fmt: skip
    for latency, price, best in ((1.0, 9.0, "here"), (9.0, 1.0, "there")):
        weights = Weights(latency=latency, server_price=price, **only)
        needs = Needs(weights=weights, method=method)  # type: ignore[arg-type]
        choice = Chooser(MAPPER, offers, {"s": needs}).choose("s", "wlan", "here", MEASURED)
        assert choice.best == best
        assert choice.why


def test_rules_decide_before_any_policy() -> None:
    for use, migrate in (
        (Use("s", inf, Task.EMERGENCY), True),
        (Use("s", inf, Task.MEASUREMENT), True),
        (Use("s", inf, remaining_s=20.0), False),
    ):
        verdict = Chooser(MAPPER, OFFERS, {"s": Needs(use=use)}).choose("s", "wlan", "here", MEASURED).verdict
        assert verdict is not None
        assert verdict.migrate is migrate
    long = Needs(use=Use("s", inf, remaining_s=4000.0))
    assert Chooser(MAPPER, OFFERS, {"s": long}).choose("s", "wlan", "here", MEASURED).verdict is None


@pytest.mark.parametrize("weights", [None, Weights()])
def test_a_data_centre_to_which_nothing_comes_through_is_out(weights: Weights | None) -> None:
    cut = Measured({**DELAYS, ("wlan", "there"): inf}, {}, {}, {})
    choice = Chooser(MAPPER, OFFERS, {"s": Needs(weights=weights)}).choose("s", "wlan", "here", cut)
    assert choice.best == "here"
    assert "probe" in choice.excluded["there"]
    both = Measured({("wlan", "here"): inf, ("wlan", "there"): inf}, {}, {}, {})
    assert Chooser(MAPPER, OFFERS, {"s": Needs(weights=weights)}).choose("s", "wlan", "here", both).best is None


def test_who_may_not_be_where_it_is_goes_whatever_the_policy() -> None:
    needs = Needs(Requirements(localities=frozenset({"DE"})))
    offers = {"here": Offer(locality="FR"), "there": Offer(locality="DE")}
    choice = Chooser(MAPPER, offers, {"s": needs}).choose("s", "wlan", "here", MEASURED)
    assert choice.verdict is not None
    assert choice.verdict.migrate
    assert "locality" in choice.verdict.why


def test_a_service_is_no_competitor_of_its_own() -> None:
    """Alone at one of two equal data centres, it does not look crowded there."""
    offers = {"here": Offer(capacity=1.0), "there": Offer(capacity=1.0)}
    only = dict.fromkeys(("latency", "bandwidth", "loss", "throughput", "network_price", "server_price",
                          "storage_price", "preference"), 0.0)  # fmt: skip
    chooser = Chooser(MAPPER, offers, {"s": Needs(weights=Weights(utilisation=1.0, **only))})
    assert chooser.choose("s", "wlan", "here", MEASURED).best == "here"
