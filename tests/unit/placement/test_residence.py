"""How long users stay is learned from their handoffs."""

from __future__ import annotations

import pytest

from followme.placement.residence import MEMORY, Residence


def test_a_stay_is_from_one_handoff_to_the_next() -> None:
    residence = Residence()
    assert residence.of("alice") == (None, 0)
    residence.seen("alice", "wlan1", 100.0)
    residence.seen("alice", "wlan1", 150.0)  # another port there is no handoff
    assert residence.of("alice") == (None, 0)
    residence.seen("alice", "wlan2", 160.0)
    assert residence.of("alice") == (60.0, 1)
    residence.seen("alice", "wlan1", 180.0)
    assert residence.of("alice") == (40.0, 2)
    assert residence.of("bob") == (None, 0)
    residence.forget("alice")
    assert residence.of("alice") == (None, 0)


def test_habits_change() -> None:
    residence, at = Residence(), 0.0
    for turn in range(10 * MEMORY):
        at += 100.0 if turn < 5 * MEMORY else 10.0
        residence.seen("alice", f"wlan{turn % 2}", at)
    mean, count = residence.of("alice")
    assert count == MEMORY
    assert mean == pytest.approx(10.0, rel=0.1)


def test_a_clock_that_runs_back_makes_no_negative_stay() -> None:
    residence = Residence()
    residence.seen("alice", "wlan1", 100.0)
    residence.seen("alice", "wlan2", 50.0)
    assert residence.of("alice") == (0.0, 1)
