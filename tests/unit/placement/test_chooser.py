"""The choice that the controller asks for: the nearest with room, or the ranking where a service has criteria."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from math import inf, nan

import numpy as np
import pytest

from followme.domain import Network, NetworkKind
from followme.placement.chooser import Chooser, Measured, Needs
from followme.placement.criteria import Weights
from followme.placement.limits import Requirements
from followme.placement.mapper import LocationMapper
from followme.placement.offers import Offer
from followme.placement.stay import Task, Worth
from followme.placement.tariff import Tariff


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

def measured(
    delays: tuple[float, float] = (0.025, 0.0005), losses: float = nan, used: tuple[float, float] = (0.0, 0.0)
) -> Measured:
    """Of "here" and "there", in this order."""
    return Measured(np.array(delays), np.full(2, losses), np.full(2, nan), np.array(used))


NOTHING = measured((nan, nan))
MEASURED = measured(losses=0.0, used=(1.0, 0.0))
OFFERS = {"here": Offer(), "there": Offer()}


def test_without_criteria_the_nearest_is_the_best_measured_or_not() -> None:
    for measured in (NOTHING, MEASURED):
        assert Chooser(MAPPER, OFFERS, {}).choose("s", "wlan", "here", measured).best == "there"


def test_a_full_data_centre_takes_nobody_but_keeps_whom_it_has() -> None:
    offers = {"here": Offer(), "there": Offer(capacity=2.0)}
    full = measured(used=(0.0, 2.0))
    choice = Chooser(MAPPER, offers, {}).choose("s", "wlan", "here", full)
    assert choice.best == "here"
    assert "capacity" in choice.excluded["there"]
    assert Chooser(MAPPER, offers, {}).choose("s", "wlan", "there", full).best == "there"


def test_limits_exclude_and_nobody_may_be_left() -> None:
    at_home = Needs(Requirements(localities=frozenset({"DE"})))
    offers = {"here": Offer(locality="DE"), "there": Offer(locality="FR")}
    chooser = Chooser(MAPPER, offers, {"s": at_home})
    assert chooser.choose("s", "wlan", "there", MEASURED).best == "here"
    abroad = dict.fromkeys(offers, Offer(locality="FR"))
    nowhere = Chooser(MAPPER, abroad, {"s": at_home}).choose("s", "wlan", "there", MEASURED)
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
    for task, remaining_s, migrate in (
        (Task.EMERGENCY, None, True), (Task.MEASUREMENT, 1.0, True), (Task.ORDINARY, 20.0, False),
        (Task.ORDINARY, 0.0, False), (Task.ORDINARY, 4000.0, None),
    ):  # fmt: skip
        chooser = Chooser(MAPPER, OFFERS, {"s": Needs(task=task)})
        verdict = chooser.choose("s", "wlan", "here", MEASURED, remaining_s).verdict
        assert (None if verdict is None else verdict.migrate) is migrate


@pytest.mark.parametrize("weights", [None, Weights()])
def test_a_data_centre_to_which_nothing_comes_through_is_out(weights: Weights | None) -> None:
    cut = measured((0.025, inf))
    choice = Chooser(MAPPER, OFFERS, {"s": Needs(weights=weights)}).choose("s", "wlan", "here", cut)
    assert choice.best == "here"
    assert "probe" in choice.excluded["there"]
    both = measured((inf, inf))
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


def test_the_gain_is_measured_and_in_worths() -> None:
    worth = Worth({"latency": 10.0, "loss": 1.0, "bandwidth": 1.0})
    for weights in (None, Weights()):
        chooser = Chooser(MAPPER, OFFERS, {"s": Needs(weights=weights, worth=worth)})
        found = chooser.choose("s", "wlan", "here", MEASURED).gain
        assert found is not None
        assert found.parts == pytest.approx({"latency": 0.245, "loss": 0.0})
        assert found.unknown == ("bandwidth",)
    assert Chooser(MAPPER, OFFERS, {}).choose("s", "wlan", "here", MEASURED).gain is None
    nearest = Chooser(MAPPER, OFFERS, {"s": Needs(worth=worth)})
    assert nearest.choose("s", "wlan", "there", MEASURED).gain is None, "it is at the best"


def test_the_full_ones_are_those_that_nothing_else_excludes() -> None:
    offers = {"here": Offer(1.0, locality="DE"), "there": Offer(2.0, locality="FR")}
    full = measured(used=(1.0, 2.0))
    assert Chooser(MAPPER, offers, {}).choose("s", "wlan", "here", full).full == {"there"}
    german = {"s": Needs(Requirements(localities=frozenset({"DE"})))}
    assert Chooser(MAPPER, offers, german).choose("s", "wlan", "here", full).full == set()


def test_a_machine_at_a_place_without_an_offer_is_at_no_row() -> None:
    choice = Chooser(MAPPER, {"there": Offer()}, {}).choose(
        "s", "wlan", "here", Measured(np.array([0.01]), np.array([nan]), np.array([nan]), np.zeros(1))
    )
    assert (choice.best, choice.verdict, choice.gain, choice.delay_s("here")) == ("there", None, None, None)


def test_the_next_best_are_those_that_are_better_than_where_it_is() -> None:
    for weights in (None, Weights()):
        chooser = Chooser(MAPPER, OFFERS, {"s": Needs(weights=weights)})
        choice = chooser.choose("s", "wlan", "nowhere", MEASURED)
        assert choice.best == "there"
        assert [one.best for one in chooser.others(choice, "wlan", 3)] == ["here"]
        assert chooser.others(choice, "wlan", 0) == ()
        choice = chooser.choose("s", "wlan", "here", MEASURED)
        assert chooser.others(choice, "wlan", 3) == (), "it is there already"
