"""The aggregated chain is the full one: the same shares of time, whatever the rings and the probabilities."""

from __future__ import annotations

from math import fsum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from followme.analysis import hexagon
from followme.analysis.chain import UNIFORM, Chain, hexagonal, line, stationary
from followme.analysis.figures import summed
from followme.analysis.measures import mean_distance, mean_latency, migration_share, optimal_probability

# Patterns whose symmetries make groups of 12, 6, 4, 2 (three kinds) and 1.
PATTERNS = ("aaaaaa", "ababab", "abbabb", "abcabc", "abbbbb", "abcdcb", "abcdef")
rings = st.integers(2, 14)


@st.composite
def walks(draw: st.DrawFn) -> tuple[float, ...]:
    """Six probabilities, equal where a pattern has the same letter, some of them 0."""
    letters = draw(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 20), min_size=6, max_size=6))
    weights = [letters[letter] for letter in draw(st.sampled_from(PATTERNS))]
    if not any(weights):
        weights = [1] * 6
    return tuple(weight / sum(weights) for weight in weights)


def check(chain: Chain) -> None:
    """It is a generator, and what was solved is its stationary distribution."""
    steady = stationary(chain)
    off_diagonal = chain.generator - np.diag(chain.generator.diagonal())
    assert off_diagonal.min() >= 0.0
    assert np.abs(chain.generator.sum(axis=1)).max() < 1e-14 * chain.rate
    assert np.abs(chain.generator.T @ steady.probability).max() < 1e-14 * chain.rate
    assert steady.probability.min() >= 0.0
    assert fsum(steady.probability) == pytest.approx(1.0, abs=1e-14)
    assert steady.at_distance.sum() == pytest.approx(1.0, abs=1e-14)


@settings(deadline=None)
@given(rings, walks())
def test_aggregated_is_full(k: int, probabilities: tuple[float, ...]) -> None:
    full = stationary(hexagonal(k, probabilities, aggregated=False))
    aggregated = stationary(hexagonal(k, probabilities))
    assert len(full.probability) == 1 + 3 * k * (k - 1)
    expected = summed(full, hexagon.symmetries(probabilities))
    assert aggregated.probability == pytest.approx(expected, abs=1e-12, rel=1e-12)
    assert aggregated.chain.cells.sum() == len(full.probability)
    for measure in (optimal_probability, mean_distance, mean_latency, migration_share):
        assert measure(aggregated) == pytest.approx(measure(full), rel=1e-12)


@settings(deadline=None)
@given(rings, walks())
def test_orbits_are_lumpable(k: int, probabilities: tuple[float, ...]) -> None:
    """Kemeny and Snell's criterion, on the full generator: all cells of a state go to each other state, and
    out of the rings, at one and the same rate."""
    full, aggregated = hexagonal(k, probabilities, aggregated=False), hexagonal(k, probabilities)
    state_of, _ = hexagon.orbits(hexagon.rings(k), hexagon.symmetries(probabilities))
    collect = np.zeros((len(state_of), len(aggregated.cells)))
    collect[np.arange(len(state_of)), state_of] = 1.0
    assert np.abs(full.generator @ collect - aggregated.generator.toarray()[state_of]).max() < 1e-14
    assert np.abs(full.leaving - aggregated.leaving[state_of]).max() < 1e-14
    assert np.array_equal(full.distance, aggregated.distance[state_of])


@settings(deadline=None)
@given(rings, walks(), st.floats(1e-3, 1e3), st.booleans())
def test_hexagonal_chains_are_stationary(
    k: int, probabilities: tuple[float, ...], rate: float, aggregated: bool
) -> None:
    check(hexagonal(k, probabilities, rate=rate, aggregated=aggregated))


@given(st.integers(2, 40), st.integers(0, 16), st.floats(1e-3, 1e3))
def test_lines_are_stationary(k: int, sixteenths: int, rate: float) -> None:
    check(line(k, sixteenths / 16, 1 - sixteenths / 16, rate=rate))


@given(st.integers(2, 60))
def test_a_hexagonal_user_strays_further_than_one_on_a_line(k: int) -> None:
    """In two dimensions there is more room far out than near by."""
    hexagons, straight = stationary(hexagonal(k, UNIFORM)), stationary(line(k))
    assert mean_distance(hexagons) > mean_distance(straight)
    assert optimal_probability(hexagons) < optimal_probability(straight)
