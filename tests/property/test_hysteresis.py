"""Noise in the measurements does not move a service to and fro, by weights or by nearness."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from followme.domain import Network, NetworkKind
from followme.placement.chooser import NOISE, Chooser, Measured, Needs
from followme.placement.criteria import CRITERIA, Weights
from followme.placement.mapper import LocationMapper
from followme.placement.offers import Offer
from followme.placement.ranking import Noise
from followme.placement.settings import HYSTERESIS_S
from followme.placement.tariff import Tariff

PREFIX = IPv4Network("10.0.0.0/24")
NAMES = ("a", "b", "c")
NOTHING = dict.fromkeys((criterion.name for criterion in CRITERIA), 0.0)


def network(name: str, kind: NetworkKind) -> Network:
    return Network(name, kind, 1, 1, bytes(6), PREFIX, PREFIX, IPv4Address("10.0.0.1"), PREFIX)


def chooser(places: int, needs: Needs, prices: list[int], noise: Noise = NOISE) -> Chooser:
    networks = [network("wlan", NetworkKind.ACCESS), *(network(n, NetworkKind.DATACENTRE) for n in NAMES[:places])]
    offers = {
        name: Offer(server_tariff=Tariff(((0.0, float(price)),)))
        for name, price in zip(NAMES[:places], prices, strict=False)
    }
    return Chooser(LocationMapper(networks, HYSTERESIS_S), offers, {"s": needs}, noise=noise)


def visited(chooser: Chooser, delays: list[int], shakes: list[list[float]], lost: list[list[int]]) -> list[str]:
    """Where the service is, decision after decision, under a policy that always follows."""
    places = len(chooser.names)
    at = [chooser.names[0]]
    for shake, probes in zip(shakes, lost, strict=True):
        measured = Measured(
            np.array([1e-3 * (10 + delays[one]) + shake[one] for one in range(places)]),
            np.array([probes[one] / 64 for one in range(places)]), np.full(places, nan), np.zeros(places),
        )  # fmt: skip
        best = chooser.choose("s", "wlan", at[-1], measured).best
        assert best is not None
        if best != at[-1]:
            at.append(best)
    return at


def shakes(most_s: float) -> st.SearchStrategy[list[list[float]]]:
    one = st.floats(-most_s, most_s)
    return st.lists(st.lists(one, min_size=3, max_size=3), min_size=12, max_size=12)


delays = st.lists(st.integers(0, 30), min_size=3, max_size=3)
prices = st.lists(st.integers(0, 9), min_size=3, max_size=3)
probes = st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=12, max_size=12)
needs = st.builds(
    lambda latency, price, loss, method: Needs(
        weights=Weights(**{**NOTHING, "latency": latency, "server_price": price, "loss": loss}), method=method
    ),
    st.integers(1, 9), st.integers(0, 9), st.integers(0, 9), st.sampled_from(("weighted-sum", "topsis")),
)  # fmt: skip


@given(needs, delays, prices, shakes(0.5e-3), probes)
def test_noise_moves_a_weighed_service_once_at_the_most_of_two(
    asked: Needs, far: list[int], price: list[int], shake: list[list[float]], lost: list[list[int]]
) -> None:
    at = visited(chooser(2, asked, price), far, shake, lost)
    assert len(at) <= 2, at


@given(needs, delays, prices, shakes(0.5e-3), probes)
def test_nor_does_it_come_back_to_any_of_three(
    asked: Needs, far: list[int], price: list[int], shake: list[list[float]], lost: list[list[int]]
) -> None:
    at = visited(chooser(3, asked, price), far, shake, lost)
    assert len(at) == len(set(at)), at


@given(delays, shakes(0.5e-3), probes)
def test_nor_does_noise_move_one_that_goes_to_the_nearest(
    far: list[int], shake: list[list[float]], lost: list[list[int]]
) -> None:
    at = visited(chooser(3, Needs(), [1, 1, 1]), far, shake, lost)
    assert len(at) == len(set(at)), at


@pytest.mark.parametrize("method", ["weighted-sum", "topsis"])
def test_without_it_noise_alone_moves_a_service_to_and_fro(method: str) -> None:
    asked = Needs(weights=Weights(**{**NOTHING, "latency": 1.0}), method=method)  # type: ignore[arg-type]
    shake = [[1e-4 * (-1) ** turn, 0.0, 0.0] for turn in range(12)]
    none = [[0, 0, 0]] * 12
    assert len(visited(chooser(2, asked, [1, 1], Noise(0.0, 0.0, 0.0, 0.0)), [0, 0], shake, none)) > 10
    assert visited(chooser(2, asked, [1, 1]), [0, 0], shake, none) == ["a"]


@pytest.mark.parametrize("method", ["weighted-sum", "topsis"])
def test_what_is_better_by_more_than_noise_is_gone_to_and_the_words_say_what_is_not(method: str) -> None:
    asked = Needs(weights=Weights(**{**NOTHING, "latency": 1.0}), method=method)  # type: ignore[arg-type]
    two = chooser(2, asked, [1, 1])
    blank = np.full(2, nan)
    near = two.choose("s", "wlan", "a", Measured(np.array([0.0110, 0.0100]), blank, blank, np.zeros(2)))
    assert near.best == "a"
    assert near.why.startswith("a serves now, and no other is better by more than noise; without noise: b is ")
    far = two.choose("s", "wlan", "a", Measured(np.array([0.0130, 0.0100]), blank, blank, np.zeros(2)))
    assert far.best == "b"
