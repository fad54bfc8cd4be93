"""Decisions over arrays: the tables, the edges, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from followme.placement import batch
from followme.placement.batch import DecisionTable, decide, stay_or_go
from followme.placement.mdp import Problem, hexagons, line, linear_quality


def of_thresholds(*limits: list[int]) -> DecisionTable:
    """(p classes x cost classes) distances from which on to migrate."""
    return DecisionTable(np.arange(max(map(max, limits)) + 1) >= np.array(limits)[:, :, None])


TABLE = of_thresholds([1, 2], [3, 4])


def test_thresholds() -> None:
    assert TABLE.migrate.shape == (2, 2, 5)
    distance = [0, 1, 1, 2, 3, 2, 3, 4, 99]
    p_class = [0, 0, 0, 0, 1, 1, 1, 1, 1]
    cost_class = [0, 0, 1, 1, 0, 0, 1, 1, 1]
    expected = [False, True, False, True, True, False, False, True, True]
    assert decide(TABLE, distance, p_class, cost_class).tolist() == expected
    assert decide(TABLE, distance, 1, 1).tolist() == [False] * 7 + [True, True]
    assert decide(TABLE, 3, 1, 0).tolist() == [True]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_any_whole_numbers(kind: type[np.integer[np._typing.NBitBase]]) -> None:
    wide = of_thresholds([300])  # more states than a byte can count
    far = np.iinfo(kind).max
    distance = np.array([0, far], dtype=kind)
    assert decide(wide, distance, 0, 0).tolist() == [False, int(far) >= 300]


def test_more_users_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(7)
    arrays = [draw.integers(0, high, 1000) for high in (7, 2, 2)]
    worth = draw.normal(size=1000)
    stay, size, free = (draw.exponential(100.0, 1000) for _ in range(3))
    whole, weighed = decide(TABLE, *arrays), stay_or_go(worth, stay, size, free)
    monkeypatch.setattr(batch, "_BLOCK", 33)
    assert (decide(TABLE, *arrays) == whole).all()
    assert whole.tolist() == [bool(TABLE.migrate[p, c, min(d, 4)]) for d, p, c in zip(*arrays, strict=True)]
    split = stay_or_go(worth, stay, size, free)
    np.testing.assert_array_equal(split.net, weighed.net)
    np.testing.assert_array_equal(split.migrate, weighed.migrate)


def test_an_empty_population_decides_nothing() -> None:
    assert decide(TABLE, [], [], []).shape == (0,)
    assert decide(TABLE, [], 0, 0).shape == (0,)
    verdicts = stay_or_go([], [], [], [])
    assert (verdicts.migrate.shape, verdicts.net.shape, verdicts.unknown) == ((0,), (0,), 0)


@pytest.mark.parametrize(
    ("distance", "p_class", "cost_class", "what"),
    [
        ([1.0], 0, 0, "distance must be whole numbers"),
        ([np.nan], 0, 0, "distance must be whole numbers"),
        ([True], 0, 0, "distance must be whole numbers"),
        ([1, -1], 0, 0, "distance must be at least 0; there are -1 to 1"),
        (1, 2, 0, "p_class must be 0 to 1; there are 2 to 2"),
        (1, 0, [0, -1], "cost_class must be 0 to 1"),
        ([1, 1], [0, 0, 0], 0, "arrays differ in length: distance 2, p_class 3"),
        ([[1]], 0, 0, "distance has 2 dimensions"),
    ],
)
def test_no_lookup(distance: object, p_class: object, cost_class: object, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        decide(TABLE, distance, p_class, cost_class)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "migrate", [np.zeros((2, 2), bool), np.zeros((0, 1, 1), bool), np.zeros((1, 1, 2)), np.ones((1, 1, 2), bool)]
)
def test_no_table(migrate: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
    with pytest.raises(ValueError, match="decision table"):
        DecisionTable(migrate)


def test_no_problems() -> None:
    def problem(thr: int) -> Problem:
        return line(thr, 0.5, 1.0, 0.9, linear_quality(thr, 10.0, 1.0))

    ragged: list[list[list[Problem]]] = [
        [], [[]], [[problem(3)], [problem(4)]], [[problem(3)], [problem(3), problem(3)]],
    ]  # fmt: skip
    for problems in ragged:
        with pytest.raises(ValueError, match="as many cost classes"):
            DecisionTable.of_problems(problems)
    flat = hexagons(2, 1.0, 0.9, lambda distance: 10.0 - distance)
    with pytest.raises(ValueError, match="of lines"):
        DecisionTable.of_problems([[flat]])


def test_gaps_stay_and_are_counted_unless_a_rule_decides() -> None:
    nan = np.nan
    verdicts = stay_or_go(
        gain_per_s=[1.0, nan, 1.0, 1.0, 1.0, nan, nan],
        stay_s=[100.0, 100.0, nan, 100.0, 100.0, 100.0, 100.0],
        bytes_=1.0,
        free_bit_s=[1e6, 1e6, 1e6, 0.0, nan, 1e6, 1e6],
        remaining_s=[np.inf] * 6 + [59.0],
        urgent=[False] * 5 + [True, False],
    )
    assert verdicts.migrate.tolist() == [True, False, False, False, False, True, False]
    assert verdicts.unknown == 4
    assert np.isnan(verdicts.net).tolist() == [False] + 6 * [True]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"stay_s": [-1.0]}, "stay_s -1.0 must not be negative"),
        ({"bytes_": -1.0}, "bytes_"),
        ({"free_bit_s": -1.0}, "free_bit_s"),
        ({"price": -1.0}, "price"),
        ({"stalled_s": np.inf}, "stalled_s must be finite"),
        ({"gain_per_s": [np.inf]}, "gain_per_s must be finite"),
        ({"urgent": [1]}, "urgent must be booleans"),
        ({"stay_s": [1.0, 2.0], "price": [1.0] * 3}, "arrays differ in length"),
        ({"nearly_over_s": np.nan}, "nearly_over_s"),
    ],
)
def test_no_weighing(changes: dict[str, object], what: str) -> None:
    sound: dict[str, object] = {"gain_per_s": 1.0, "stay_s": 1.0, "bytes_": 1.0, "free_bit_s": 1.0}
    with pytest.raises(ValueError, match=what):
        stay_or_go(**{**sound, **changes})  # type: ignore[arg-type]
