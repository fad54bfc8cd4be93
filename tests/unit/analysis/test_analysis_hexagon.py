"""The geometry of section 4.1: rings, neighbours, and which cells of a ring behave alike."""

from __future__ import annotations

import numpy as np
import pytest

from followme.analysis.hexagon import (
    DIRECTIONS,
    OUTSIDE,
    SYMMETRIES,
    distance,
    neighbours,
    orbits,
    rings,
    symmetries,
)


@pytest.mark.parametrize("k", [2, 3, 5, 12])
def test_ring_i_has_6i_cells_in_order(k: int) -> None:
    cells = rings(k)
    assert distance(cells).tolist() == [0] + [i for i in range(1, k) for _ in range(6 * i)]
    assert len({tuple(cell) for cell in cells.tolist()}) == len(cells) == 1 + 3 * k * (k - 1)


def test_a_ring_is_walked_round() -> None:
    cells = rings(5)
    for i in range(1, 5):
        ring = cells[1 + 3 * i * (i - 1) : 1 + 3 * i * (i + 1)]
        assert np.all(distance(np.roll(ring, -1, axis=0) - ring) == 1)


def test_neighbours_are_one_hop_away_and_mutual() -> None:
    cells = rings(6)
    around = neighbours(cells, 6)
    for here, row in enumerate(around.tolist()):
        for direction, there in enumerate(row):
            if there == OUTSIDE:
                assert distance(cells[here] + DIRECTIONS[direction]) == 6
            else:
                assert (cells[there] - cells[here]).tolist() == DIRECTIONS[direction].tolist()
                assert around[there, (direction + 3) % 6] == here


def test_outward_neighbours_are_three_at_a_corner_and_two_elsewhere() -> None:
    """As the paper says of ring 2; it is so of every ring."""
    outward = np.sum(neighbours(rings(7), 7) == OUTSIDE, axis=1)
    ring = outward[-36:]
    assert ring.tolist() == [3, 2, 2, 2, 2, 2] * 6
    assert not outward[:-36].any()


def test_there_are_twelve_symmetries_and_they_keep_distances() -> None:
    cells = rings(4)
    images = {tuple(map(tuple, cells @ symmetry.T)) for symmetry in SYMMETRIES}
    assert len(images) == 12
    for symmetry in SYMMETRIES:
        assert np.array_equal(distance(cells @ symmetry.T), distance(cells))


@pytest.mark.parametrize(
    ("probabilities", "count"),
    [
        ((1, 1, 1, 1, 1, 1), 12),
        ((2, 1, 2, 1, 2, 1), 6),  # thirds of a turn, and their mirrors
        ((2, 1, 1, 2, 1, 1), 4),  # half a turn, two mirrors
        ((3, 1, 2, 3, 1, 2), 2),  # half a turn
        ((2, 1, 1, 1, 1, 1), 2),  # one mirror
        ((1, 2, 3, 4, 5, 6), 1),
    ],
)
def test_the_symmetries_of_the_probabilities(probabilities: tuple[float, ...], count: int) -> None:
    group = symmetries(probabilities)
    assert len(group) == count
    members = {symmetry.tobytes() for symmetry in group}
    assert {(one @ other).tobytes() for one in group for other in group} == members


def test_the_states_of_a_ring_are_those_of_the_paper() -> None:
    """One state for the corners and ceil((i - 1) / 2) for the cells between them (section 4.1)."""
    cells = rings(30)
    state_of, representative = orbits(cells, SYMMETRIES)
    states = np.bincount(distance(cells[representative]))
    assert states.tolist() == [1] + [1 + -(-(i - 1) // 2) for i in range(1, 30)]
    assert np.array_equal(state_of[representative], np.arange(len(representative)))
    # Ring 2 in the order of the figure: corners and others take turns.
    assert state_of[7:19].tolist() == [2, 3] * 6


@pytest.mark.parametrize("k", [0, 1, -3, 2.0, True, "5", None])
def test_k_must_be_a_whole_number_of_two_or_more(k: object) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        rings(k)  # type: ignore[arg-type]
