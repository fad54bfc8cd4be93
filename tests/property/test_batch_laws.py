"""Batch decisions are those that are made one by one."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from followme.placement.batch import DecisionTable, decide, stay_or_go
from followme.placement.mdp import MdpPolicy, line, linear_quality
from followme.placement.policy import Threshold
from followme.placement.situation import Policy, Situation
from followme.placement.stay import Carry, Task, Use
from followme.placement.stay import stay_or_go as one_stay_or_go

THR = 8
PS = (0.1, 0.5, 0.9)
TAUS = (0.0, 0.3, 1.0, 3.0)
LIMITS = np.array([[1, 2, 5], [3, 1, 9]])
POLICIES = {(p, tau): MdpPolicy(THR, p, 10.0, 1.0, tau, 0.9) for p in PS for tau in TAUS}


@lru_cache(maxsize=1)
def solved() -> DecisionTable:
    quality = linear_quality(THR, 10.0, 1.0)
    return DecisionTable.of_problems([[line(THR, p, 10.0 * tau, 0.9, quality) for tau in TAUS] for p in PS])


def one(policy: Policy, distance: int) -> bool:
    best = "here" if distance == 0 else "there"
    return policy.decide(Situation("s", "here", best, distance)).migrate


users = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(0, 3)), max_size=30)


@given(users)
def test_the_decision_process(population: list[tuple[int, int, int]]) -> None:
    columns = np.array(population, dtype=np.int64).reshape(-1, 3).T
    expected = [one(POLICIES[PS[p], TAUS[cost]], distance) for distance, p, cost in population]
    assert decide(solved(), *columns).tolist() == expected


@given(users)
def test_thresholds(population: list[tuple[int, int, int]]) -> None:
    population = [(distance, p % 2, cost % 3) for distance, p, cost in population]
    columns = np.array(population, dtype=np.int64).reshape(-1, 3).T
    expected = [one(Threshold(int(LIMITS[p, cost])), distance) for distance, p, cost in population]
    table = DecisionTable(np.arange(int(LIMITS.max()) + 1) >= LIMITS[:, :, None])
    assert decide(table, *columns).tolist() == expected


times = st.one_of(st.floats(0, 1e5), st.sampled_from((0.0, 60.0, np.inf)))
services = st.tuples(
    st.one_of(st.floats(-10, 10), st.just(0.0)),  # gain
    times,  # stay
    st.floats(0, 1e12),  # bytes
    st.one_of(st.floats(0, 1e11), st.just(np.nan)),  # bandwidth
    st.floats(0, 100),  # stalled
    st.floats(0, 100),  # price
    st.floats(0, 100),  # cost of a stalled second
    st.one_of(st.none(), times),  # remaining
    st.sampled_from(Task),
)


Row = tuple[float, float, float, float, float, float, float, float | None, Task]


@given(st.lists(services, max_size=20))
def test_stay_or_go(population: list[Row]) -> None:
    """Bit by bit, for it is the same arithmetic in the same order."""
    single = [
        one_stay_or_go(Use("s", row[1], row[8], row[7]), Carry(row[2], row[3], row[4], row[5]), row[0], row[6])
        for row in population
    ]
    gain, stay, size, free, stalled, price, cost = np.array([row[:7] for row in population]).reshape(-1, 7).T
    remaining = np.array([np.inf if row[7] is None else row[7] for row in population])
    hurry = np.array([row[8] is not Task.ORDINARY for row in population])
    verdicts = stay_or_go(gain, stay, size, free, stalled, price, cost, remaining, hurry)
    assert verdicts.migrate.tolist() == [verdict.migrate for verdict in single]
    expected = [np.nan if verdict.net is None else verdict.net for verdict in single]
    np.testing.assert_array_equal(verdicts.net, expected)
    assert verdicts.unknown == sum("not known" in verdict.why for verdict in single)
