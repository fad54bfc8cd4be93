"""Hexagonal cells in rings around the data centre that serves: coordinates, neighbours, symmetries, orbits.

Axial coordinates (q, r): two of the three axes of the hexagonal lattice, 60 degrees apart. Everything that
the chain needs follows from them; no ring's transitions are typed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

DIRECTIONS: Ints = np.array([(1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1)], dtype=np.int64)
"""(6, 2): the steps to the six neighbours, each 60 degrees on from the one before."""

MOST_RINGS = 1000
"""Three million cells; a slip of the pen must not take the machine down."""

OUTSIDE = -1
"""In a table of neighbours: beyond the last ring."""


def check_rings(k: int) -> int:
    """``k`` itself; ``ValueError`` unless it is a whole number from 2 to ``MOST_RINGS``.

    With k = 1 the service moves at each handover and there is no chain to solve; with 0 there is no cell.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 2:
        raise ValueError(f"k {k!r} must be a whole number of rings, at least 2")
    if k > MOST_RINGS:
        raise ValueError(f"k {k} must be at most {MOST_RINGS} rings")
    return int(k)


def distance(cells: Ints) -> Ints:
    """The hops to the centre, which is the number of the ring: (..., 2) -> (...)."""
    q, r = cells[..., 0], cells[..., 1]
    result: Ints = np.maximum(np.maximum(np.abs(q), np.abs(r)), np.abs(q + r))
    return result


def rings(k: int) -> Ints:
    """(1 + 3k(k-1), 2): the cells of the rings 0..k-1, the centre first, then ring by ring, each walked round.

    Cell j of ring i, both from 0, stands at 1 + 3i(i-1) + j; the corners are those with j divisible by i.
    ``ValueError`` as ``check_rings``.
    """
    k = check_rings(k)
    parts = [np.zeros((1, 2), dtype=np.int64)]
    corners = [*DIRECTIONS, DIRECTIONS[0]]
    for i in range(1, k):
        along = np.arange(i, dtype=np.int64)[:, None]
        parts += [i * here + along * (there - here) for here, there in pairwise(corners)]
    return np.concatenate(parts)


def neighbours(cells: Ints, k: int) -> Ints:
    """(m, 6): where the neighbours of some cells stand in ``rings(k)``, ``OUTSIDE`` if beyond ring k-1.

    ``cells`` is (m, 2), all within the rings; the columns are in the order of ``DIRECTIONS``.
    """
    everywhere = rings(k)
    # A square table with a margin of one cell, so that no neighbour falls off it.
    table = np.full((2 * k + 1, 2 * k + 1), OUTSIDE, dtype=np.int64)
    table[everywhere[:, 0] + k, everywhere[:, 1] + k] = np.arange(len(everywhere))
    around = cells[:, None, :] + DIRECTIONS[None, :, :] + k
    found: Ints = table[around[..., 0], around[..., 1]]
    return found


def _hexagon_group() -> Ints:
    """(12, 2, 2): the rotations and reflections of the hexagon, as matrices that act on (q, r) columns."""
    turn = np.array([[0, -1], [1, 1]], dtype=np.int64)
    mirror = np.array([[0, 1], [1, 0]], dtype=np.int64)
    rotations = [np.linalg.matrix_power(turn, n) for n in range(6)]
    return np.array([*rotations, *(mirror @ rotation for rotation in rotations)], dtype=np.int64)


SYMMETRIES: Ints = _hexagon_group()


def symmetries(probabilities: Sequence[float] | NDArray[np.float64]) -> Ints:
    """(g, 2, 2): the symmetries of the hexagon that take each direction to one of the very same probability.

    ``probabilities`` has one value for each of ``DIRECTIONS``. All 12 if they are equal, the identity alone
    if nothing is; always a group, and the walk does not change under it.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    number = {tuple(step): index for index, step in enumerate(DIRECTIONS.tolist())}
    kept = []
    for symmetry in SYMMETRIES:
        image = [number[tuple(step)] for step in (DIRECTIONS @ symmetry.T).tolist()]
        if bool(np.all(values[image] == values)):
            kept.append(symmetry)
    return np.array(kept, dtype=np.int64)


def orbits(cells: Ints, group: Ints) -> tuple[Ints, Ints]:
    """Cells that a symmetry takes into one another: (class of each cell (n,), a cell of each class (c,)).

    Classes are numbered in the order of their first cells, so that the centre is class 0 and rings stay in
    order. ``cells`` must be closed under the group, as ``rings(k)`` is.
    """
    base = 2 * int(distance(cells).max(initial=0)) + 1
    # The largest code of all images names the orbit; |r| < base / 2 keeps the code unique.
    names = np.full(len(cells), np.iinfo(np.int64).min, dtype=np.int64)
    for symmetry in group:
        image = cells @ symmetry.T
        np.maximum(names, image[:, 0] * base + image[:, 1], out=names)
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse].astype(np.int64), first[order].astype(np.int64)
