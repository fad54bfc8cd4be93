"""Limits on a way that can be reckoned by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from followme.analysis.capacity import Limits, places_within
from followme.analysis.cells import make_areas
from followme.analysis.outcome import Costs, Crowding
from followme.analysis.visits import Visits
from followme.analysis.wishes import wishes_of
from followme.placement import Always, Policy, Threshold

AREAS = make_areas("abcdef", np.zeros(6), np.arange(6) / 100.0)
# Two requests a second, 0.1 s a hop; a migration takes 8 s of the link and pauses for 1 s.
COSTS = Costs(2.0, 1e6, 1e6, 1.0, 1.0, lambda hops: 0.1 * hops)
STAY_S = np.full(6, 100.0)


def visits_of(*ways: str, apart_s: float = 1.0) -> Visits:
    """A user for each way, each of whose areas holds for 100 s; they begin a little apart."""
    rows = [
        (user, "abcdef".index(area), user * apart_s + 100.0 * step, step == 0)
        for user, way in enumerate(ways)
        for step, area in enumerate(way)
    ]
    user_of, area, start, first = (np.array(column) for column in zip(*rows, strict=True))
    names = tuple(f"u{index}" for index in range(len(ways)))
    return Visits(names, user_of, area, start, np.full(len(rows), 100.0), first)


def served(
    policy: Policy, visits: Visits, limits: Limits, stay: NDArray[np.float64] = STAY_S
) -> tuple[str, Crowding]:
    serving, found = places_within(wishes_of(policy, AREAS, COSTS), visits, AREAS, COSTS, stay, limits)
    return "".join(AREAS.names[area] for area in serving), found


def test_with_room_for_all_it_is_as_without_limits() -> None:
    where, found = served(Always(), visits_of("abc", "cba"), Limits(2))
    assert where == "abccba"
    assert found == Crowding(2, 60.0, 0, 0, 0, 0.0, 2, 0)


def test_who_gains_most_gets_the_place_and_the_other_the_second_best() -> None:
    # Both want to d; from a it is three hops, from c one. The one from a gets it; a stay at c's hop costs 20 s.
    where, found = served(Threshold(1), visits_of("ad", "cd"), Limits(1))
    assert where == "adcc"
    assert (found.refused, found.displaced, found.most, found.over) == (1, 0, 1, 0)
    # From b it is two hops (40 s of waiting): c or e, one hop away, is worth a migration (20 + 9.05 s).
    where, found = served(Threshold(1), visits_of("ad", "bd"), Limits(1))
    assert where[:3] == "adb"
    assert where[3] in "ce"
    assert (found.refused, found.displaced) == (0, 1)
    assert found.gap_s == pytest.approx(0.0, abs=1e-6)


def test_a_place_that_is_left_is_free_in_the_next_window_only() -> None:
    # u0 leaves b at 100 s, when u1 wants to it, at 101 s: in the same window of 60 s, not in the same of a second.
    assert served(Always(), visits_of("bc", "ab"), Limits(1, 60.0))[0] == "bcaa"
    assert served(Always(), visits_of("bc", "ab"), Limits(1, 1.0))[0] == "bcab"


def test_a_wish_that_looks_beyond_one_stay_counts() -> None:
    # A stay of a second pays for no migration, yet the policy wants it: one of two gets d, the other e.
    where, found = served(Always(), visits_of("ad", "cd"), Limits(1), np.full(6, 1.0))
    assert where == "aecd"
    assert (found.refused, found.displaced, found.most) == (0, 1, 1)


def test_services_begin_where_there_is_room() -> None:
    where, found = served(Always(), visits_of("c", "c", "c"), Limits(1))
    assert sorted(where) == ["b", "c", "d"]
    assert (found.elsewhere, found.refused, found.over) == (2, 0, 0)
    with pytest.raises(ValueError, match="hold 6 services, and 7 are there within 60 s"):
        served(Always(), visits_of(*"abcdefa"), Limits(1))


def test_an_ended_session_leaves_its_place() -> None:
    first = visits_of("a", "a", apart_s=300.0)
    assert served(Always(), first, Limits(1))[0] == "aa"


@pytest.mark.parametrize(
    ("capacity", "window_s"), [(0, 60.0), (10**20, 60.0), (1, 0.5), (1, float("nan")), (1, 1e9)]
)
def test_limits_are_checked(capacity: int, window_s: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Limits(capacity, window_s)
