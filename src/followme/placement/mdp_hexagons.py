"""The 2D model (fig. 5): a full grid of hexagonal cells around the data centre that serves, cell by cell.

Cells have cube coordinates (x, y, z) with x + y + z = 0; the ring is max(|x|, |y|, |z|), which is the distance in
handoffs. They are numbered ring by ring, so that the rings up to i are the first 3 i (i + 1) + 1 cells.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from .mdp_problem import Integers, Problem, Quality, Sparse, quality_of

STEPS = ((1, -1, 0), (1, 0, -1), (0, 1, -1), (-1, 1, 0), (-1, 0, 1), (0, -1, 1))
"""To the six neighbours, counter-clockwise."""


def cells(rings: int) -> int:
    """How many cells the rings 0..``rings`` have."""
    return 3 * rings * (rings + 1) + 1


def coordinates(rings: int) -> Integers:
    """(cells, 3) cube coordinates of all cells up to that ring, ring by ring, each ring side by side."""
    table = np.zeros((cells(rings), 3), dtype=np.int64)
    steps = np.array(STEPS)
    for ring in range(1, rings + 1):
        along = np.arange(ring)[:, None]
        # Each side starts at a corner and walks in the direction two further on.
        sides = [ring * steps[side] + along * steps[(side + 2) % 6] for side in range(6)]
        table[cells(ring - 1) : cells(ring)] = np.concatenate(sides)
    return table


def number_of(where: Integers) -> Integers:
    """(n,) the numbers of the cells at the (n, 3) coordinates; the inverse of ``coordinates``."""
    x, y, z = where[:, 0], where[:, 1], where[:, 2]
    ring = np.max(np.abs(where), axis=1)
    # Side by side, the corner that starts it included: see STEPS for the order of the corners.
    sides = [(x == ring) & (y < 0) & (z <= 0), (z == -ring) & (x > 0) & (y >= 0), (y == ring) & (z < 0) & (x <= 0),
             (x == -ring) & (y > 0) & (z >= 0), (z == ring) & (x < 0) & (y <= 0)]  # fmt: skip
    side = np.select(sides, list(range(5)), 5)
    along = np.choose(side, [z * -1, y, x * -1, z, y * -1, x])
    return np.where(ring == 0, 0, 3 * ring * (ring - 1) + 1 + side * ring + along)


def grid(rings: int, out: float | None = None) -> Sparse:
    """(n, n) moves on the grid: to each of the six neighbours with 1/6, as in the paper's random walk.

    With ``out`` the user never stays in his ring: he goes a ring further with that probability, else a ring
    nearer, and takes any of the neighbours there alike. What the edge cells would lose stays in the cell:
    they are "beyond" and have no choice, so that nothing reads their moves.
    """
    where = coordinates(rings)
    n = len(where)
    ring = np.max(np.abs(where), axis=1)
    neighbours = np.stack([number_of(where + np.array(step)) for step in STEPS], axis=1)
    ring_of = np.max(np.abs(where[:, None, :] + np.array(STEPS)[None]), axis=2)
    if out is None:
        chance = np.full((n, 6), 1.0 / 6.0)
    else:
        further, nearer = ring_of > ring[:, None], ring_of < ring[:, None]
        chance = out * further / np.maximum(further.sum(1, keepdims=True), 1)
        chance += (1.0 - out) * nearer / np.maximum(nearer.sum(1, keepdims=True), 1)
        chance[0] = 1.0 / 6.0
    target = np.where(ring_of <= rings, neighbours, np.arange(n)[:, None])
    start = np.arange(0, 6 * n + 1, 6)
    stay = csr_array((chance.ravel(), target.ravel(), start), shape=(n, n))
    stay.sum_duplicates()
    stay.eliminate_zeros()
    return stay


def symmetry(rings: int) -> Integers:
    """(n,) the class of each cell under the grid's twelve rotations and reflections.

    They permute |x|, |y|, |z|, of which the largest is the sum of the two others: ring and smallest tell all.
    """
    sizes = np.abs(coordinates(rings))
    ring, least = np.max(sizes, axis=1), np.min(sizes, axis=1)
    first = np.concatenate([[0], np.cumsum(np.arange(rings + 1) // 2 + 1)])
    return np.asarray(first[ring] + least, dtype=np.int64)


def hexagons(
    thr: int,
    cost: float | ArrayLike,
    gamma: float,
    quality: Quality,
    *,
    out: float | None = None,
    stay: Sparse | None = None,
    alpha: float | None = None,
    home_fee: float = 0.0,
) -> Problem:
    """The 2D model: the rings 0..thr+1, of which 1..thr have the choice and thr+1 is "beyond"; as in ``line``.

    ``quality`` is a function of the ring or one value for each cell; ``stay`` are moves of your own on the
    cells as ``coordinates`` numbers them, in the place of ``grid(thr + 1, out)``. ``ValueError``.
    """
    if thr < 1:
        raise ValueError(f"thr {thr} must be at least 1")
    if out is not None and not 0.0 <= out <= 1.0:
        raise ValueError(f"out {out} must be between 0 and 1")
    rings = thr + 1
    distance = np.repeat(np.arange(rings + 1), [max(6 * ring, 1) for ring in range(rings + 1)])
    alike = stay is None and callable(quality) and np.ndim(cost) == 0
    return Problem(
        grid(rings, out) if stay is None else stay,
        quality_of(quality, distance), cost, gamma, distance, distance > thr, alpha,
        np.where(distance == 0, home_fee, 0.0), symmetry(rings) if alike else None,
    )  # fmt: skip
