"""The search for what the paper leaves open about figure 14."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .figure14 import CELLS, PRINTED, PS, QUALITIES, TAUS, THR, Reading

GAMMAS = (0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88, 0.9, 0.92, 0.94, 0.96, 0.98)
AMOUNTS = tuple(float(amount) for amount in np.geomspace(1.0, 400.0, 32))
ALPHAS = (0.0, 1.0, 5.0, 10.0, 20.0, 30.0, 60.0)
ROUNDS = 4
"""Refinements around a family's best, each with steps half as long as the last one's."""


def families() -> Iterator[Reading]:
    """All that is no number: quality, what is fixed, who pays, transformed or not; the numbers are placeholders."""
    for quality, fixed, pays, transformed in product(QUALITIES, ("cost", "quality"), (True, False), (True, False)):
        yield Reading(quality, fixed, pays, 0.0 if transformed else None, 0.0, 1.0)


def search(say: Callable[[str], None] | None = None) -> list[Reading]:
    """The best reading of each family, best family first; the same every time.

    A grid over gamma, amount and alpha, then ``ROUNDS`` grids around its best points, centred among equals so
    that what is returned lies inside its region, not on the rim.
    """
    best: list[tuple[int, Reading]] = []
    for family in families():
        alphas = (None,) if family.alpha is None else ALPHAS
        points = list(product(GAMMAS, AMOUNTS, alphas))
        count, point = _best_of(family, points)
        for step in range(ROUNDS):
            width = 0.5**step
            gammas = [min(max(point[0] + width * move, 0.0), 0.995) for move in (-0.04, -0.02, 0.0, 0.02, 0.04)]
            amounts = [point[1] * (1.0 + width * move) for move in (-0.18, -0.09, -0.04, 0.0, 0.04, 0.09, 0.18)]
            near = [None] if point[2] is None else [
                max(point[2] * (1.0 + width * move), 0.0) for move in (-0.4, -0.2, 0.0, 0.2, 0.4)]  # fmt: skip
            refined, place = _best_of(family, list(product(gammas, amounts, near)))
            if refined >= count:
                count, point = refined, place
        reading = replace(family, gamma=point[0], amount=point[1], alpha=point[2])
        best.append((count, reading))
        if say is not None:
            say(f"{count} of {CELLS}: {reading.words()}")
    best.sort(key=lambda one: -one[0])
    return [reading for _, reading in best]


Point = tuple[float, float, float | None]


def _best_of(family: Reading, points: list[Point]) -> tuple[int, Point]:
    counts = np.concatenate([_agreeing(family, points[at : at + 256]) for at in range(0, len(points), 256)])
    top = np.flatnonzero(counts == np.max(counts))
    table = np.array([[gamma, np.log(amount), alpha or 0.0] for gamma, amount, alpha in points])[top]
    spread = np.std(table, axis=0) + 1e-12
    middle = int(np.argmin(np.sum(((table - np.mean(table, axis=0)) / spread) ** 2, axis=1)))
    return int(np.max(counts)), points[int(top[middle])]


def _agreeing(family: Reading, points: list[Point]) -> NDArray[np.int64]:
    """How many cells agree for each point: policy iteration on all of their problems at once."""
    n, states = len(points), THR + 2
    gamma, amount = (np.array([point[axis] for point in points])[:, None, None] for axis in (0, 1))
    tau, p, s = np.array(TAUS)[None, :, None], np.array(PS)[None, None, :], np.arange(states, dtype=np.float64)
    cost, q0 = (amount + 0 * tau, amount / tau) if family.fixed == "cost" else (tau * amount, amount + 0 * tau)
    quality = np.broadcast_to(QUALITIES[family.quality](s, q0[..., None]), (n, 2, 10, states))
    on = back = 1.0
    if family.alpha is not None:
        alpha = np.array([point[2] for point in points])[:, None, None]
        on, back = (alpha + p) / (alpha + 1.0), (alpha + 1.0 - p) / (alpha + 1.0)
    reward = np.zeros((n, 2, 10, states))
    reward[..., 1:-1] = (p * on)[..., None] * quality[..., 2:] + ((1.0 - p) * back)[..., None] * quality[..., :-2]
    reward[..., 0] = quality[..., 1] - (cost if family.home_pays else 0.0)
    go = (quality[..., 0] - cost)[..., None]
    moves = np.zeros((10, states, states))
    moves[:, 0, 1] = 1.0
    for state in range(1, THR + 1):
        moves[:, state, state + 1], moves[:, state, state - 1] = PS, 1.0 - np.array(PS)
    home = np.zeros(states)
    home[0] = 1.0
    goes = np.zeros((n, 2, 10, states), bool)
    goes[..., -1] = True
    discount = gamma[..., None]
    for _ in range(4 * states):
        chain = np.where(goes[..., None], home, moves)
        system = np.eye(states) - discount[..., None] * chain
        value = np.linalg.solve(system, np.where(goes, go, reward)[..., None])[..., 0]
        ahead = reward + discount * np.einsum("pij,ntpj->ntpi", moves, value)
        better = go + discount * value[..., :1] > ahead + 1e-9
        better[..., 0], better[..., -1] = False, True
        if np.array_equal(better, goes):
            break
        goes = better
    agreeing: NDArray[np.int64] = np.sum(goes[..., 1:-1] == PRINTED, axis=(1, 2, 3))
    return agreeing
