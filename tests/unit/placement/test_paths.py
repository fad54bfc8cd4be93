"""The path monitor's estimator: delay, deviation, minimum, loss."""

from __future__ import annotations

import random

import pytest

from followme.placement.paths import PathEstimate, PathMonitor


def estimate(monitor: PathMonitor, now: float = 1e6) -> PathEstimate:
    found = monitor.estimate("a", "b", now)
    assert found is not None
    return found


def dead(monitor: PathMonitor, now: float) -> bool:
    return now > estimate(monitor, now).alive_until


def losses(monitor: PathMonitor, now: float = 1e6) -> tuple[int, int]:
    """How many probes count, and how many of them are lost."""
    found = estimate(monitor, now)
    lost = found.loss * found.probes
    assert lost == pytest.approx(round(lost))
    return found.probes, round(lost)


def feed(monitor: PathMonitor, sequence: int, delay: float = 0.01) -> bool:
    return monitor.received("a", "b", sequence, float(sequence), sequence + delay)


def test_nothing_is_known_of_a_path_without_probes() -> None:
    monitor = PathMonitor()
    assert monitor.estimate("a", "b", 0.0) is None
    feed(monitor, 1)
    assert monitor.estimate("b", "a", 0.0) is None
    assert estimate(monitor, 1.0).delay_s == pytest.approx(0.01)


def test_the_control_channels_are_taken_off() -> None:
    monitor = PathMonitor()
    assert monitor.received("a", "b", 0, 10.0, 10.050, 0.005, 0.015)
    found = estimate(monitor)
    assert found.delay_s == pytest.approx(0.030)
    assert found.variation_s == pytest.approx(0.015)
    assert found.last_at == 10.050


def test_a_delay_below_zero_counts_as_zero() -> None:
    monitor = PathMonitor()
    monitor.received("a", "b", 0, 10.0, 10.001, 0.005, 0.005)
    assert estimate(monitor).delay_s == 0.0


def test_smoothing_is_that_of_rfc_6298() -> None:
    monitor = PathMonitor()
    delay, variation = 0.0, 0.0
    for sequence, sample in enumerate([0.010, 0.030, 0.020, 0.050]):
        monitor.received("a", "b", sequence, 0.0, sample)
        if sequence == 0:
            delay, variation = sample, sample / 2
        else:
            variation = 0.75 * variation + 0.25 * abs(delay - sample)
            delay = 0.875 * delay + 0.125 * sample
    found = estimate(monitor)
    assert found.delay_s == pytest.approx(delay)
    assert found.variation_s == pytest.approx(variation)
    assert found.minimum_s == pytest.approx(0.010)


def test_the_minimum_forgets_what_left_the_window() -> None:
    monitor = PathMonitor(window=4)
    feed(monitor, 0, 0.001)
    for sequence in range(1, 4):
        feed(monitor, sequence, 0.020)
    assert estimate(monitor).minimum_s == pytest.approx(0.001)
    feed(monitor, 4, 0.020)
    assert estimate(monitor).minimum_s == pytest.approx(0.020)


def test_gaps_are_losses_until_they_are_filled() -> None:
    monitor = PathMonitor()
    for sequence in (5, 6, 9):
        assert feed(monitor, sequence)
    assert losses(monitor) == (5, 2)
    assert feed(monitor, 8)
    assert estimate(monitor).loss == pytest.approx(1 / 5)
    assert feed(monitor, 4)
    assert losses(monitor) == (6, 1)
    assert feed(monitor, 7)
    assert estimate(monitor).loss == 0.0


def test_duplicates_and_probes_from_before_the_window_do_not_count() -> None:
    monitor = PathMonitor(window=4)
    for sequence in (0, 1, 2, 9):
        feed(monitor, sequence)
    before = estimate(monitor)
    assert losses(monitor) == (4, 3)
    for sequence in (9, 5, 2):
        assert not feed(monitor, sequence, 5.0)
    assert estimate(monitor) == before
    assert feed(monitor, 6)
    assert not feed(monitor, 6)


def test_a_path_that_died_shows_it_by_the_probes_sent() -> None:
    monitor = PathMonitor(window=8, patience_s=2.0)
    for sequence in range(4):
        monitor.sent("a", "b", sequence, float(sequence))
        feed(monitor, sequence)
    for sequence in range(4, 12):
        monitor.sent("a", "b", sequence, float(sequence))
    # At 5.9 only probe 3's patience is over, and it came.
    assert losses(monitor, 5.9) == (4, 0)
    assert losses(monitor, 7.0) == (6, 2)
    assert losses(monitor, 11.0) == (8, 6)
    assert losses(monitor, 99.0) == (8, 8)
    assert estimate(monitor, 99.0).last_at == 3.01


def test_a_path_that_never_lived() -> None:
    monitor = PathMonitor(patience_s=1.0)
    monitor.sent("a", "b", 7, 0.0)
    assert estimate(monitor, 0.5) == PathEstimate(None, None, None, 0.0, 0, None, 10.0)
    assert estimate(monitor, 1.0) == PathEstimate(None, None, None, 1.0, 1, None, 10.0)


def test_a_path_that_brings_nothing_any_more_has_no_delay() -> None:
    monitor = PathMonitor(window=4, patience_s=2.0, stale_s=10.0)
    monitor.sent("a", "b", 0, 0.0)
    feed(monitor, 0)
    assert not dead(monitor, 9.0)
    assert dead(monitor, 10.1)
    monitor.received("a", "b", 1, 11.0, 11.01)
    assert not dead(monitor, 12.0), "it lives again at the first probe"


def test_a_whole_window_lost_is_a_dead_path_before_it_is_stale() -> None:
    monitor = PathMonitor(window=4, patience_s=1.0, stale_s=1000.0)
    feed(monitor, 0)
    for sequence in range(1, 5):
        monitor.sent("a", "b", sequence, float(sequence))
    assert not dead(monitor, 4.9)
    assert dead(monitor, 5.0)


def test_a_path_that_never_brought_anything_is_dead_in_time() -> None:
    monitor = PathMonitor(stale_s=10.0)
    for sequence in range(5):
        monitor.sent("a", "b", sequence, float(sequence))
    assert not dead(monitor, 9.9)
    assert dead(monitor, 10.1)


def test_loss_is_that_of_counting_in_any_order() -> None:
    rng = random.Random(1)
    for _ in range(300):
        window = rng.randint(1, 12)
        monitor = PathMonitor(window=window)
        came: set[int] = set()
        highest = -1
        for sequence in rng.choices(range(25), k=rng.randint(1, 30)):
            fresh = sequence not in came and sequence > highest - window
            assert feed(monitor, sequence) == fresh
            if fresh:
                came.add(sequence)
            highest = max(highest, sequence)
        found = estimate(monitor)
        first = min(came)
        counted = range(max(first, highest - window + 1), highest + 1)
        assert found.probes == len(counted)
        assert found.loss == pytest.approx(1 - len(came & set(counted)) / len(counted))


def test_a_leap_in_numbers_takes_no_memory() -> None:
    monitor = PathMonitor(window=8)
    feed(monitor, 0)
    assert feed(monitor, 2**63)
    assert losses(monitor) == (8, 7)


def test_what_is_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="window 0"):
        PathMonitor(window=0)
    with pytest.raises(ValueError, match="patience 0"):
        PathMonitor(patience_s=0.0)
    with pytest.raises(ValueError, match="staleness 0"):
        PathMonitor(stale_s=0.0)
    with pytest.raises(ValueError, match="not finite"):
        PathMonitor().received("a", "b", 0, float("nan"), 1.0)
