"""The grid of cells: its geometry, its symmetry, and that the full chain is what gets solved."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from followme.placement.mdp_hexagons import STEPS, cells, coordinates, grid, hexagons, number_of, symmetry
from followme.placement.mdp_problem import Problem
from followme.placement.mdp_solve import Method, solve


def without_classes(problem: Problem) -> Problem:
    given = {one.name: getattr(problem, one.name) for one in fields(problem) if one.init and one.name != "classes"}
    return Problem(**given)


def test_cells_are_numbered_ring_by_ring() -> None:
    where = coordinates(7)
    assert len(where) == cells(7) == 169
    assert len(np.unique(where, axis=0)) == 169
    assert np.all(where.sum(axis=1) == 0)
    ring = np.max(np.abs(where), axis=1)
    assert np.bincount(ring).tolist() == [1, 6, 12, 18, 24, 30, 36, 42]
    assert np.all(np.diff(ring) >= 0)
    assert np.array_equal(number_of(where), np.arange(169))


def test_moves_go_to_the_six_neighbours() -> None:
    where, stay = coordinates(4), grid(4).toarray()
    inner = np.max(np.abs(where), axis=1) < 4
    for cell in np.flatnonzero(inner):
        near = [int(number_of(where[cell : cell + 1] + np.array(step))[0]) for step in STEPS]
        assert len(set(near)) == 6
        assert np.flatnonzero(stay[cell]).tolist() == sorted(near)
        assert stay[cell, near] == pytest.approx(1 / 6)
    # section 4.1: ring 1 comes back with p, stays in the ring with 2 p, goes on with 3 p.
    assert stay[1, 0] == pytest.approx(1 / 6)
    assert stay[1, 1:7].sum() == pytest.approx(2 / 6)
    assert stay[1, 7:19].sum() == pytest.approx(3 / 6)


def test_moves_by_ring_keep_their_promise() -> None:
    stay, ring = grid(5, 0.3), np.max(np.abs(coordinates(5)), axis=1)
    for cell in range(1, cells(4)):
        row = stay[[cell]].toarray()[0]
        assert row[ring == ring[cell] + 1].sum() == pytest.approx(0.3)
        assert row[ring == ring[cell] - 1].sum() == pytest.approx(0.7)


def test_classes_are_the_twelve_symmetries() -> None:
    where, classes = coordinates(6), symmetry(6)
    turned = np.stack([-where[:, 1], -where[:, 2], -where[:, 0]], axis=1)
    mirrored = where[:, [1, 0, 2]]
    for image in (turned, mirrored):
        assert np.array_equal(classes[number_of(image)], classes)
    sizes = np.bincount(classes)
    assert sizes[0] == 1
    assert set(sizes[1:].tolist()) == {6, 12}


@pytest.mark.parametrize("method", ["value", "policy", "modified"])
def test_all_methods_agree_with_the_structure(method: Method) -> None:
    for cost in (3.0, 40.0, 900.0):
        problem = hexagons(30, cost, 0.9, lambda d: -d)
        by_class, full, peer = solve(problem), solve(without_classes(problem)), solve(problem, method)
        for other in (full, peer):
            assert np.array_equal(by_class.migrate, other.migrate)
            assert np.max(np.abs(by_class.value - other.value)) <= by_class.error_bound + other.error_bound
        assert by_class.error_bound <= 1e-8


def test_a_large_grid_is_solved_by_sweeps_to_the_same_end() -> None:
    """Beyond 3000 stays the equations are solved by BiCGSTAB: here almost all cells are such."""
    problem = without_classes(hexagons(40, 5000.0, 0.97, lambda d: -d))
    ours, peer = solve(problem), solve(problem, "modified")
    assert np.sum(~ours.migrate) > 3000
    assert np.array_equal(ours.migrate, peer.migrate)
    assert ours.error_bound <= 1e-7
    assert np.max(np.abs(ours.value - peer.value)) <= ours.error_bound + peer.error_bound


def test_wrong_classes_do_not_spoil_the_result() -> None:
    """Moves with a wind are not symmetric: the last sweep over the whole chain finds out."""
    problem = hexagons(12, 20.0, 0.9, lambda d: -d)
    windy = problem.stay.toarray()
    for cell in range(cells(12)):
        row = np.flatnonzero(windy[cell])
        windy[cell] *= 0.5
        windy[cell, row[-1]] += 0.5
    given = {one.name: getattr(problem, one.name) for one in fields(problem) if one.init and one.name != "stay"}
    wrong = Problem(windy, **given)
    ours, right = solve(wrong), solve(without_classes(wrong), "value")
    assert np.array_equal(ours.migrate, right.migrate)
    assert np.max(np.abs(ours.value - right.value)) <= 1e-8


def test_states_in_any_order_are_solved_alike() -> None:
    problem = without_classes(hexagons(25, 50.0, 0.9, lambda d: -d))
    order = np.concatenate([[0], 1 + np.random.default_rng(3).permutation(problem.states - 1)])
    mixed = Problem(problem.stay[order][:, order], problem.quality[order], 50.0, 0.9, problem.distance[order],
                    ~problem.may_stay[order])  # fmt: skip
    ours, peer = solve(problem), solve(mixed)
    assert np.array_equal(ours.migrate[order], peer.migrate)
    assert np.allclose(ours.value[order], peer.value, rtol=0, atol=1e-8)


def test_bad_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="thr 0"):
        hexagons(0, 1.0, 0.9, lambda d: -d)
    with pytest.raises(ValueError, match=r"out 1\.5"):
        hexagons(3, 1.0, 0.9, lambda d: -d, out=1.5)
    with pytest.raises(ValueError, match="quality nan"):
        hexagons(3, 1.0, 0.9, lambda d: np.where(d == 2, np.nan, -d))
