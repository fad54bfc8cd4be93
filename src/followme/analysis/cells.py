"""Cells of a mobile network and the service areas that micro data centres make of them.

A position belongs to the nearest cell (the Voronoi diagram of the antennas). Two cells are neighbours if the
straight way from one antenna to the other passes through no third cell, which is the Gabriel graph: a part of
the Delaunay graph without its long edges along the rim, and always connected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, radians
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from .trace import Floats, Ints, Trace, TraceError, column_places, shown, text_lines

_KM_PER_DEGREE = 111.195
"""Of latitude, on a sphere of 6371 km."""

MOST_CELLS = 1000
"""Pairs of cells are looked at, and of areas solved for: about 350 bytes a pair."""


@dataclass(frozen=True, slots=True, eq=False)
class Areas:
    """Service areas 0..n-1, each with one micro data centre, at the cell of that number in ``centre``.

    ``lat``, ``lon`` (c,) in degrees of all cells; ``of_cell`` (c,) the area of each; ``centre`` (n,);
    ``hops`` (n, n) is the distance between areas: borders of areas to cross.
    """

    names: tuple[str, ...]
    lat: Floats
    lon: Floats
    of_cell: Ints
    centre: Ints
    hops: Ints

    def __len__(self) -> int:
        return len(self.centre)

    def locate(self, trace: Trace, range_km: float = 5.0) -> Ints:
        """(n,): the area of each position, -1 where the next antenna is further than ``range_km``."""
        scale = cos(radians(float(self.lat.mean())))
        tree = cKDTree(_plane(self.lat, self.lon, scale))
        _, cell = tree.query(_plane(trace.lat, trace.lon, scale), distance_upper_bound=range_km)
        found: Ints = np.append(self.of_cell, -1)[cell]
        return found


def read_cells(path: Path) -> tuple[tuple[str, ...], Floats, Floats]:
    """Names, latitudes and longitudes, in degrees, of the cells in a CSV file (``cell``, ``lat``, ``lon``).

    ``TraceError`` names the first line that is wrong: a cell less would change the distances of all others,
    so none is dropped. Blank lines are ignored, as in a trace, and not counted.
    """
    names: list[str] = []
    places: list[int] | None = None
    positions: list[tuple[float, float]] = []
    for number, line in enumerate(text_lines(path), 1):
        if not line.strip():
            continue
        row = [text.strip() for text in line.removeprefix("\ufeff").split(",")]
        if places is None:
            places = column_places(path, row, (("cell",), ("lat",), ("lon",)))
            width = len(row)
            continue
        try:
            if len(row) != width:
                raise ValueError
            lat, lon = float(row[places[1]]), float(row[places[2]])
        except ValueError:
            raise TraceError(f"{path}, line {number}: {shown(line)} is not a cell and its position") from None
        if not (abs(lat) <= 90.0 and abs(lon) <= 180.0):
            raise TraceError(f"{path}, line {number}: {lat}, {lon} is no position on Earth")
        names.append(row[places[0]])
        positions.append((lat, lon))
    if not names:
        raise TraceError(f"{path}: there is no cell in it")
    lats, lons = np.array(positions).T
    return tuple(names), lats, lons


def make_areas(names: Sequence[str], lat: Floats, lon: Floats, cells_per_centre: int = 1) -> Areas:
    """Service areas of about ``cells_per_centre`` cells each: (c,) names and positions in degrees.

    Data centres are spread: each next one is at the cell that is the most hops away from those before, the
    first at the cell in the middle. ``ValueError`` if there are fewer than two cells or more than
    ``MOST_CELLS``, two of them at one place or of one name, or ``cells_per_centre`` is not from 1 to half of them.
    """
    count = len(names)
    if not 2 <= count <= MOST_CELLS:
        raise ValueError(f"{count} cells: there must be 2 to {MOST_CELLS}")
    if len(set(names)) < count:
        raise ValueError("two cells have one name")
    if not 1 <= cells_per_centre <= count // 2:
        raise ValueError(f"cells_per_centre {cells_per_centre} must be from 1 to {count // 2}, half of the cells")
    points = _plane(lat, lon, cos(radians(float(lat.mean()))))
    borders = _neighbours(points, names)
    hops = _hops(borders)
    centre = _spread(hops, ceil(count / cells_per_centre))
    # The nearest centre by hops; of several the nearest in kilometres.
    km = np.linalg.norm(points[:, None, :] - points[None, centre, :], axis=2)
    of_cell = np.lexsort((km, hops[:, centre]), axis=1)[:, 0].astype(np.int64)
    across = np.zeros((len(centre), len(centre)), dtype=np.bool_)
    one, other = np.nonzero(borders)
    across[of_cell[one], of_cell[other]] = True
    np.fill_diagonal(across, False)
    return Areas(tuple(names[cell] for cell in centre), lat, lon, of_cell, centre, _hops(across))


def _plane(lat: Floats, lon: Floats, scale: float) -> Floats:
    """(n, 2): kilometres on a plane, good for the size of a city."""
    flat: Floats = np.stack([lat, lon * scale], axis=1) * _KM_PER_DEGREE
    return flat


def _neighbours(points: Floats, names: Sequence[str]) -> NDArray[np.bool_]:
    """(c, c): the Gabriel graph, of pairs whose circle (the one that has them at its ends) holds no other cell."""
    tree = cKDTree(points)
    gap, near = tree.query(points, k=2)
    if not gap[:, 1].min() > 0.0:
        cell = int(np.argmin(gap[:, 1]))
        raise ValueError(f"cells {shown(names[cell])} and {shown(names[int(near[cell].max())])} are at one place")
    count = len(points)
    borders = np.zeros((count, count), dtype=np.bool_)
    for cell in range(count - 1):
        others = np.arange(cell + 1, count)
        middle = (points[cell] + points[others]) / 2.0
        half = np.linalg.norm(points[others] - points[cell], axis=1) / 2.0
        # The third nearest to the middle is not one of the pair; on the circle counts as within.
        third = tree.query(middle, k=min(3, count))[0][:, -1] if count > 2 else np.full(1, np.inf)
        borders[cell, others] = third > half * (1.0 + 1e-9)
    return borders | borders.T


def _hops(borders: NDArray[np.bool_]) -> Ints:
    hops: Ints = dijkstra(csr_array(borders.astype(np.float64)), unweighted=True).astype(np.int64)
    return hops


def _spread(hops: Ints, count: int) -> Ints:
    """(count,) cells, in rising order."""
    chosen = [int(np.argmin(hops.sum(axis=1)))]
    nearest = hops[chosen[0]].copy()
    while len(chosen) < count:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, hops[chosen[-1]])
    return np.array(sorted(chosen), dtype=np.int64)
