"""From positions to visits: sessions, handoffs, the cut between training and judging."""

from __future__ import annotations

import numpy as np
import pytest

from followme.analysis.cells import make_areas
from followme.analysis.trace import Trace
from followme.analysis.visits import find_visits, split

AREAS = make_areas("abcdef", np.zeros(6), np.arange(6) / 100.0)
FAR = 99


def trace_of(*users: list[tuple[float, int]]) -> Trace:
    """Each user is a list of (time, cell)."""
    rows = [(user, at, cell / 100.0) for user, way in enumerate(users) for at, cell in way]
    user, t_s, lon = (np.array(column) for column in zip(*rows, strict=True))
    names = tuple(f"u{index}" for index in range(len(users)))
    return Trace(names, user, t_s.astype(float), np.zeros(len(rows)), lon, len(rows))


def test_a_position_holds_until_the_next() -> None:
    ways = [(0.0, 0), (60.0, 0), (120.0, 1), (200.0, 3), (260.0, 3)], [(30.0, 5), (90.0, 5)]
    visits, mapped = find_visits(trace_of(*ways), AREAS)
    assert visits.user.tolist() == [0, 0, 0, 1]
    assert visits.area.tolist() == [0, 1, 3, 5]
    assert visits.start_s.tolist() == [0.0, 120.0, 200.0, 30.0]
    assert visits.stay_s.tolist() == [120.0, 80.0, 60.0, 60.0]
    assert visits.first.tolist() == [True, False, False, True]
    assert (visits.sessions, visits.handoffs) == (2, 2)
    assert [list(indices) for indices in visits.moves()] == [[0, 1], [1, 2]]
    assert (mapped.positions, mapped.outside, mapped.alone) == (7, 0, 0)


def test_a_gap_ends_the_session_and_a_lone_position_says_nothing() -> None:
    way = [(0.0, 0), (600.0, 1), (660.0, 1), (1261.0, 1), (2000.0, 2), (2060.0, 2)]
    visits, mapped = find_visits(trace_of(way), AREAS)
    assert visits.area.tolist() == [0, 1, 2]
    assert visits.stay_s.tolist() == [600.0, 60.0, 60.0]
    assert visits.first.tolist() == [True, False, True]
    assert mapped.alone == 1
    longer, _ = find_visits(trace_of(way), AREAS, max_gap_s=1000.0)
    assert (longer.area.tolist(), longer.sessions) == ([0, 1, 2], 1)


def test_positions_out_of_range_are_skipped_and_counted() -> None:
    visits, mapped = find_visits(trace_of([(0, 0), (60, FAR), (120, 0), (180, 0)]), AREAS)
    assert (visits.area.tolist(), visits.stay_s.tolist(), mapped.outside) == ([0], [180.0], 1)


def test_nobody_in_range() -> None:
    visits, mapped = find_visits(trace_of([(0, FAR), (60, FAR)]), AREAS)
    assert (len(visits), mapped.outside) == (0, 2)


def test_the_cut_goes_through_a_visit() -> None:
    visits, _ = find_visits(trace_of([(0, 0), (60, 1), (160, 2), (200, 2)], [(500, 3), (560, 3)]), AREAS)
    before, after = split(visits, 100.0)
    assert (before.area.tolist(), before.stay_s.tolist()) == ([0, 1], [60.0, 40.0])
    assert (after.area.tolist(), after.stay_s.tolist()) == ([1, 2, 3], [60.0, 40.0, 60.0])
    assert after.start_s.tolist() == [100.0, 160.0, 500.0]
    assert after.first.tolist() == [True, False, True]
    assert [len(part) for part in split(visits, 60.0)] == [1, 3]
    assert [len(part) for part in split(visits, 9999.0)] == [4, 0]


@pytest.mark.parametrize("gap", [0.0, -1.0, float("nan")])
def test_the_gap_is_positive(gap: float) -> None:
    with pytest.raises(ValueError, match="max_gap_s"):
        find_visits(trace_of([(0, 0), (60, 0)]), AREAS, gap)
