"""Of any assignment: no place over its capacity, exact no worse than greedy, bounds below the optimum."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import fsum, inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from followme.placement.assignment import STAYS, Assignment, assign

Case = tuple[NDArray[np.float64], list[float], list[float], list[float]]
whole = st.integers(0, 30).map(float)
costs = st.one_of(st.floats(0, 30), whole, st.sampled_from((inf, nan)))


@st.composite
def cases(draw: st.DrawFn, users: int = 5, centres: int = 3) -> Case:
    """(cost, capacity, cost of staying, demand): whole numbers or fractions, equal demands or not."""
    u, d = draw(st.integers(0, users)), draw(st.integers(1, centres))
    demands = st.one_of(st.integers(1, 6).map(float), st.floats(0.1, 6))
    if draw(st.booleans()):
        demands = st.just(draw(demands))
    return (
        np.array([[draw(costs) for _ in range(d)] for _ in range(u)], dtype=np.float64).reshape(u, d),
        [draw(st.one_of(st.floats(0, 12), st.integers(0, 12).map(float))) for _ in range(d)],
        [draw(st.floats(0, 30)) for _ in range(u)],
        [draw(demands) for _ in range(u)],
    )


def fits(case: Case, place: tuple[int, ...] | list[int]) -> bool:
    _, capacity, _, demand = case
    loads = [Fraction(0)] * len(capacity)
    for user, one in enumerate(place):
        if one != STAYS:
            loads[one] += Fraction(demand[user])
    return all(load <= Fraction(most) for load, most in zip(loads, capacity, strict=True))


def cost_of(case: Case, place: tuple[int, ...] | list[int]) -> float:
    cost, _, stay, _ = case
    return fsum(stay[user] if one == STAYS else cost[user, one] for user, one in enumerate(place))


def check(case: Case, result: Assignment) -> None:
    place = result.place.tolist()
    assert fits(case, place)
    assert (result.load <= case[1]).all()
    assert result.cost == pytest.approx(cost_of(case, place), abs=1e-12)
    assert result.gap >= 0.0
    assert result.unknown == np.isnan(case[0]).sum()
    for user in range(len(place)):
        assert result.why(user).startswith("stays" if place[user] == STAYS else f"goes to {place[user]} ")


@settings(deadline=None)
@given(cases())
def test_against_all_assignments(case: Case) -> None:
    u, d = case[0].shape
    optimum = min(
        cost_of(case, place)
        for place in product(range(-1, d), repeat=u)
        if fits(case, place) and np.isfinite(cost_of(case, place))
    )
    greedy, exact = (assign(*case, method) for method in ("greedy", "exact"))
    for result in (greedy, exact):
        check(case, result)
        assert result.lower_bound <= optimum + 1e-9
        assert result.cost >= optimum - 1e-9
    assert exact.cost <= greedy.cost
    assert exact.cost == pytest.approx(optimum, abs=1e-4)
    assert exact.gap <= 1e-4


@settings(deadline=None, max_examples=50)
@given(cases(users=60, centres=6))
def test_nobody_would_find_room_in_a_better_place(case: Case) -> None:
    cost, capacity, stay, _ = case
    for method in ("greedy", "auto"):
        result = assign(*case, method, time_limit_s=0.2)
        check(case, result)
        place = result.place.tolist()
        for user in range(len(place)):
            now = stay[user] if place[user] == STAYS else cost[user, place[user]]
            for one in range(len(capacity)):
                # By more than rounding: what is compared are savings.
                if cost[user, one] < now - 1e-9:
                    tried = [*place[:user], one, *place[user + 1 :]]
                    assert not fits(case, tried)
