"""Cells: neighbours, service areas, where positions belong, and files that are no cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from followme.analysis import hexagon
from followme.analysis.cells import MOST_CELLS, make_areas, read_cells
from followme.analysis.synthetic import make_city
from followme.analysis.trace import Trace, TraceError

ROW = np.arange(6) / 100.0


def test_cells_in_a_row_are_a_line() -> None:
    areas = make_areas("abcdef", np.zeros(6), ROW)
    assert areas.names == tuple("abcdef")
    assert areas.hops.tolist() == [[abs(one - other) for other in range(6)] for one in range(6)]


def test_a_square_grid_has_no_diagonals() -> None:
    lat, lon = (axis.ravel() for axis in np.meshgrid(ROW[:4], ROW[:4]))
    hops = make_areas([str(i) for i in range(16)], lat, lon).hops
    x, y = np.round(lat * 100), np.round(lon * 100)
    assert (hops == np.abs(x[:, None] - x) + np.abs(y[:, None] - y)).all()


def test_hexagonal_cells_have_hexagonal_distances() -> None:
    """Against the lattice of the analytic model, where the distance has a closed form."""
    city = make_city(users=1, hours=0.1, rings=4)
    cells = hexagon.rings(4)
    expected = hexagon.distance(cells[:, None, :] - cells[None, :, :])
    assert (make_areas(city.names, city.lat, city.lon).hops == expected).all()


@pytest.mark.parametrize("cells_per_centre", [1, 2, 3])
def test_service_areas_are_nearest_by_hops(cells_per_centre: int) -> None:
    city = make_city(users=1, hours=0.1, rings=4)
    fine = make_areas(city.names, city.lat, city.lon).hops
    areas = make_areas(city.names, city.lat, city.lon, cells_per_centre)
    assert len(areas) == -(-len(city.names) // cells_per_centre)
    to_own = fine[np.arange(len(fine)), areas.centre[areas.of_cell]]
    assert (to_own == fine[:, areas.centre].min(axis=1)).all()
    # Areas one hop apart are those that share a border between two of their cells.
    touching = {
        (int(areas.of_cell[one]), int(areas.of_cell[other])) for one, other in np.argwhere(fine == 1)
    }
    assert {(int(one), int(other)) for one, other in np.argwhere(areas.hops == 1)} == {
        (one, other) for one, other in touching if one != other
    }


def test_positions_belong_to_the_nearest_cell_in_range() -> None:
    areas = make_areas("abcdef", np.zeros(6), ROW, 2)
    lon = np.array([-0.001, 0.0149, 0.0151, 0.05, 0.5])
    zeros = np.zeros(5)
    trace = Trace(("u",), zeros.astype(np.int64), np.arange(5.0), zeros, lon, 5)
    near = [int(areas.of_cell[cell]) for cell in (0, 1, 2, 5)]
    assert areas.locate(trace).tolist() == [*near, -1]
    assert areas.locate(trace, range_km=60.0).tolist() == [*near, near[-1]]


@pytest.mark.parametrize(
    ("names", "lon", "per", "complaint"),
    [
        ("a", [0.0], 1, f"1 cells: there must be 2 to {MOST_CELLS}"),
        ("aa", [0.0, 1.0], 1, "two cells have one name"),
        ("abc", [0.0, 1.0, 1.0], 1, "cells 'b' and 'c' are at one place"),
        ("abcd", [0.0, 1.0, 2.0, 3.0], 0, "cells_per_centre 0 must be from 1 to 2"),
        ("abcd", [0.0, 1.0, 2.0, 3.0], 3, "cells_per_centre 3 must be from 1 to 2"),
    ],
)
def test_what_makes_no_areas(names: str, lon: list[float], per: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("(", "\\(")):
        make_areas(names, np.zeros(len(lon)), np.array(lon), per)


def test_two_cells_are_neighbours() -> None:
    assert make_areas("ab", np.zeros(2), np.array([0.0, 1.0])).hops.tolist() == [[0, 1], [1, 0]]


def test_cells_are_read(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("cell,lat,lon\n0,37.5,-122.5\n\nmain st,38,-122\n \n")
    names, lat, lon = read_cells(path)
    assert (names, lat.tolist(), lon.tolist()) == (("0", "main st"), [37.5, 38.0], [-122.5, -122.0])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cell,lat\n0,1\n", "no column lon"),
        ("cell,lat,lon\n", "there is no cell in it"),
        ("cell,lat,lon\n0,1,2\n1,x,2\n", "line 3: '1,x,2' is not a cell"),
        ("\ncell,lat,lon\n\n0,1,2\n\n1,x,2\n", "line 6: '1,x,2' is not a cell"),
        ("cell,lat,lon\n0,1\n", "line 2: '0,1' is not a cell"),
        ("cell,lat,lon\n0,91,2\n", "line 2: 91.0, 2.0 is no position on Earth"),
        ("cell,lat,lon\n0,nan,2\n", "is no position on Earth"),
    ],
)
def test_no_bad_cell_is_dropped(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(text)
    with pytest.raises(TraceError) as caught:
        read_cells(path)
    assert complaint in str(caught.value)
