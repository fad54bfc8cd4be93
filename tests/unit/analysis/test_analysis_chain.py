"""The chains of section 4.1 against values from elsewhere: exact fractions, closed forms, a simulated user."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from followme.analysis.chain import UNIFORM, hexagonal, line, stationary
from followme.analysis.measures import mean_distance, mean_latency, migration_share, optimal_probability

# Doubled coordinates, another way to write the lattice: nothing here is shared with hexagon.py.
STEPS = ((2, 0), (1, 1), (-1, 1), (-2, 0), (-1, -1), (1, -1))
Cell = tuple[int, int]


def breadth_first(k: int) -> dict[Cell, int]:
    """The cells within k-1 hops and how many hops they are away, found by walking."""
    found = {(0, 0): 0}
    edge = [(0, 0)]
    for hops in range(1, k):
        edge = [(x + dx, y + dy) for x, y in edge for dx, dy in STEPS]
        edge = [cell for cell in dict.fromkeys(edge) if cell not in found]
        found.update(dict.fromkeys(edge, hops))
    return found


def exact(k: int) -> tuple[Fraction, Fraction, Fraction]:
    """P(optimal), E[distance] and E[distance^2] of the full chain in fractions.

    The visits to each cell before the service moves solve v = e_0 + v P, where P has the jumps within the
    rings only; the shares of time are the visits, normalised.
    """
    hops = breadth_first(k)
    number = {cell: index for index, cell in enumerate(hops)}
    size = len(number)
    rows = [[Fraction(0)] * size + [Fraction(1 if row == 0 else 0)] for row in range(size)]
    for (x, y), source in number.items():
        rows[source][source] += 1
        for dx, dy in STEPS:
            target = number.get((x + dx, y + dy))
            if target is not None:
                rows[target][source] -= Fraction(1, 6)
    for pivot in range(size):
        for row in range(size):
            factor = rows[row][pivot] / rows[pivot][pivot] if row != pivot else Fraction(0)
            if factor:
                rows[row] = [a - factor * b if b else a for a, b in zip(rows[row], rows[pivot], strict=True)]
    visits = [rows[index][-1] / rows[index][index] for index in range(size)]
    total = sum(visits, Fraction(0))
    first, second = (
        sum((h**n * v for h, v in zip(hops.values(), visits, strict=True)), Fraction(0)) for n in (1, 2)
    )
    return visits[0] / total, first / total, second / total


@pytest.mark.parametrize("aggregated", [True, False])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_it_is_the_exact_solution(k: int, aggregated: bool) -> None:
    steady = stationary(hexagonal(k, aggregated=aggregated))
    optimal, first, second = exact(k)
    assert optimal_probability(steady) == pytest.approx(float(optimal), rel=1e-14)
    assert mean_distance(steady) == pytest.approx(float(first), rel=1e-14)
    assert mean_latency(steady, lambda i: i**2) == pytest.approx(float(second), rel=1e-14)


def test_the_check_values_of_the_issue() -> None:
    two, five, seven = (stationary(hexagonal(k)) for k in (2, 5, 7))
    assert optimal_probability(two) == pytest.approx(0.4, abs=1e-15)
    assert mean_distance(two) == pytest.approx(0.6, abs=1e-15)
    assert optimal_probability(five) == pytest.approx(0.0903642, abs=5e-8)
    assert mean_distance(five) == pytest.approx(2.0851979, abs=5e-8)
    assert mean_latency(seven, lambda i: 0.02 * i**2) == pytest.approx(0.232971, abs=5e-7)


def test_figure_3_has_nine_states_for_k_5() -> None:
    chain = hexagonal(5)
    assert chain.distance.tolist() == [0, 1, 2, 2, 3, 3, 4, 4, 4]
    assert chain.cells.tolist() == [1, 6, 6, 6, 6, 12, 6, 12, 6]


def test_section_4_1_ring_1_goes_home_with_p_stays_with_2p_and_leaves_with_3p() -> None:
    rates = hexagonal(5, rate=6.0).generator.toarray()
    # To the centre 1; around the ring 2, which is no transition; outward 3: a corner and two others of ring 2.
    assert rates[1].round(12).tolist() == [1, -4, 1, 2, 0, 0, 0, 0, 0]


def test_the_last_ring_leaves_at_three_sides_of_a_corner_and_two_of_the_others() -> None:
    chain = hexagonal(6)
    leaving = chain.leaving[chain.distance == 5]
    assert leaving == pytest.approx([3 / 6, 2 / 6, 2 / 6])
    assert not chain.leaving[chain.distance < 5].any()


def test_migrations_against_optional_stopping() -> None:
    """|X|^2 - n is a martingale of the walk, so the mean number of handovers between two migrations is the
    mean squared Euclidean distance to where the user leaves: k^2 at a corner of ring k, 3/4 k^2 halfway."""
    for k in (2, 3, 9, 40):
        between = 1.0 / migration_share(stationary(hexagonal(k)))
        assert 0.75 * k**2 < between < k**2
    assert 1.0 / migration_share(stationary(hexagonal(2))) == pytest.approx(4 / 3 + 3 * 2 / 3)


def test_a_simulated_user_is_as_far_away() -> None:
    random = np.random.default_rng(4)
    steps = np.array(STEPS)
    at = np.zeros((20_000, 2), dtype=np.int64)
    total = moved = 0
    for step in range(400):
        at += steps[random.integers(6, size=len(at))]
        across, up = np.abs(at).T
        hops = up + np.maximum(0, (across - up) // 2)
        at[hops == 5] = 0
        if step >= 200:
            moved += int(np.sum(hops == 5))
            total += int(np.sum(hops[hops < 5]))
    handovers = 200 * len(at)
    steady = stationary(hexagonal(5))
    # Some 80,000 independent excursions: the tolerances are about five standard errors.
    assert total / handovers == pytest.approx(mean_distance(steady), abs=0.02)
    assert moved / handovers == pytest.approx(migration_share(steady), abs=0.001)


@pytest.mark.parametrize("k", [2, 3, 7, 50])
def test_the_line_has_a_closed_form(k: int) -> None:
    """With 1/2 either way the visits are k at 0 and 2(k - i) at i: k^2 steps in all to get k away."""
    steady = stationary(line(k))
    visits = np.array([k, *(2 * (k - i) for i in range(1, k))])
    assert steady.probability == pytest.approx(visits / k**2, rel=1e-13)
    assert mean_distance(steady) == pytest.approx((k**2 - 1) / (3 * k), rel=1e-13)
    assert migration_share(steady) == pytest.approx(1 / k**2, rel=1e-13)


def test_the_line_at_its_extremes() -> None:
    assert stationary(line(4, away=1.0, back=0.0)).probability == pytest.approx([0.25] * 4)
    assert stationary(line(4, away=0.0, back=1.0)).probability == pytest.approx([0.5, 0.5, 0.0, 0.0])


def test_the_distribution_does_not_depend_on_the_rate() -> None:
    fast, slow = stationary(hexagonal(6, rate=50.0)), stationary(hexagonal(6, rate=0.01))
    assert fast.probability == pytest.approx(slow.probability, rel=1e-13)
    assert -fast.chain.generator.diagonal().min() == pytest.approx(50.0)


def test_a_user_that_only_goes_straight_on() -> None:
    steady = stationary(hexagonal(6, (1, 0, 0, 0, 0, 0)))
    assert steady.at_distance == pytest.approx([1 / 6] * 6)
    assert migration_share(steady) == pytest.approx(1 / 6)


@pytest.mark.parametrize("k", [0, 1, -1, 3.5])
def test_too_few_rings(k: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        hexagonal(k)
    with pytest.raises(ValueError, match="at least 2"):
        line(k)


@pytest.mark.parametrize(
    ("probabilities", "says"),
    [
        ((0.2,) * 6, "sum to 1.2, they must sum to 1"),
        ((0.1666,) * 6, "must sum to 1"),
        ((0.2,) * 5, "must be 6 numbers"),
        ((0.5, 0.7, -0.2, 0.0, 0.0, 0.0), "not be negative"),
        ((float("nan"),) * 6, "not be negative"),
    ],
)
def test_probabilities_that_are_none(probabilities: tuple[float, ...], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        hexagonal(4, probabilities)


def test_the_line_checks_its_probabilities_too() -> None:
    with pytest.raises(ValueError, match="must sum to 1"):
        line(4, 0.5, 0.4)
    with pytest.raises(ValueError, match="not be negative"):
        line(4, 1.5, -0.5)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("inf"), float("nan")])
def test_a_rate_must_be_positive(rate: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        hexagonal(4, UNIFORM, rate=rate)
    with pytest.raises(ValueError, match="positive"):
        line(4, rate=rate)


def test_a_slip_of_the_pen_takes_no_machine_down() -> None:
    for k in (1001, 10**7):
        for make in (hexagonal, line):
            with pytest.raises(ValueError, match=f"k {k} must be at most 1000 rings"):
                make(k)
    with pytest.raises(ValueError, match="k 400 makes 478801 states; there may be 300000 at most"):
        hexagonal(400, aggregated=False)
