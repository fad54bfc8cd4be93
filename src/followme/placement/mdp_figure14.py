"""Figure 14 of "When Cloud Services Follow Mobile Users", cell by cell, and the search for what it leaves open.

The paper gives thr = 10, K = 1, and tau = cost / Q(0) = 0.1 and 0.5. It does not give the discount, alpha, Q(0) or
the cost, nor the quality as a function: Q(s) = Q(0) - K cannot fall with s as the text says it does. A ``Reading``
fills these in. ``docs/policy.md`` tells what ``search`` found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .mdp_problem import Bools, Floats, Problem, line
from .mdp_solve import solve

THR = 10
TAUS = (0.1, 0.5)
PS = tuple(tenths / 10 for tenths in range(1, 11))
PRINTED_THRESHOLDS = ((10, 9, 8, 7, 6, 6, 5, 5, 5, 5), (11, 10, 9, 7, 7, 6, 6, 6, 6, 5))
"""The first M of each printed row, a row for each p: tables (a) and (b); 11 where the row has none."""
PRINTED: Bools = np.array([[[d >= t for d in range(1, THR + 1)] for t in rows] for rows in PRINTED_THRESHOLDS])
"""(2, 10, 10): tau, p, distance 1..10; true for M. Every printed row is Cs followed by Ms."""
CELLS = PRINTED.size

QUALITIES: dict[str, Callable[[Floats, Any], Any]] = {
    "linear": lambda s, q0: q0 - s,
    "linear, not below 0": lambda s, q0: np.maximum(q0 - s, 0.0),
    "square": lambda s, q0: q0 - s * s,
    "root": lambda s, q0: q0 - np.sqrt(s),
    "inverse": lambda s, q0: q0 / (1.0 + s),
    "exponential": lambda s, q0: q0 * np.exp(-s),
}
"""Q(s) from the distance and Q(0), with K = 1."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to fill in what the paper leaves open.

    ``quality`` names one of ``QUALITIES``. ``fixed`` is "cost" or "quality" (that is, Q(0)): which of the two is
    ``amount`` in both tables, the other following from tau. ``home_pays``: the step out of 0 costs a migration, as
    the paper's equation has it ("j = 1, s = 0, a = a2" with g(a2) = Cm). ``alpha`` of the reward
    transformation, in units of mu, ``None`` without it. ``gamma`` is the discount.
    """

    quality: str
    fixed: str
    home_pays: bool
    alpha: float | None
    gamma: float
    amount: float

    def scale(self, tau: float) -> tuple[float, float]:
        """The cost and Q(0)."""
        return (self.amount, self.amount / tau) if self.fixed == "cost" else (tau * self.amount, self.amount)

    def problem(self, tau: float, p: float) -> Problem:
        cost, q0 = self.scale(tau)
        return line(THR, p, cost, self.gamma, lambda s: QUALITIES[self.quality](s, q0), alpha=self.alpha,
                    home_fee=cost if self.home_pays else 0.0)  # fmt: skip


FIRST = Reading("linear, not below 0", "cost", False, None, 0.7, 15.3)
"""The best of an earlier, smaller search."""
LINEAR = Reading("linear", "cost", True, 20.0, 0.9, 10.0)
"""The best with the quality that K's name suggests, in round numbers."""
BEST = Reading("square", "cost", True, 15.0, 0.93, 72.0)
"""Agrees with every printed cell; so do many near it. No cell is near a tie: see ``docs/policy.md``."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that differs from the printed one."""

    tau: float
    p: float
    distance: int
    printed: str
    ours: str


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Both tables for one reading, beside the printed ones. ``migrate`` is (2, 10, 10), as ``PRINTED``."""

    reading: Reading
    migrate: Bools

    @property
    def differing(self) -> tuple[Cell, ...]:
        marks = "CM"
        return tuple(
            Cell(TAUS[t], PS[row], int(column) + 1, marks[int(PRINTED[t, row, column])],
                 marks[int(self.migrate[t, row, column])])
            for t, row, column in np.argwhere(self.migrate != PRINTED)
        )  # fmt: skip

    @property
    def agreeing(self) -> int:
        return int(np.sum(self.migrate == PRINTED))

    def text(self) -> str:
        """Both tables; where ours differs, the printed letter stands beside ours in brackets."""
        lines = [f"{self.agreeing} of {CELLS} cells agree; {_words(self.reading)}"]
        for t, tau in enumerate(TAUS):
            lines += ["", f"({'ab'[t]}) tau = {tau:g}", "p\\d  " + "".join(f"{d:<5}" for d in range(1, THR + 1))]
            for row, p in enumerate(PS):
                pairs = zip(self.migrate[t, row], PRINTED[t, row], strict=True)
                cells = ("CM"[int(a)] + ("" if a == b else f"({'CM'[int(b)]})") for a, b in pairs)
                lines.append((f"{p:<5g}" + "".join(cell.ljust(5) for cell in cells)).rstrip())
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "reading": asdict(self.reading), "agreeing": self.agreeing, "cells": CELLS,
            "differing": [asdict(cell) for cell in self.differing],
            "tables": [
                {"tau": tau, "p": list(PS), "printed": _letters(PRINTED[t]), "ours": _letters(self.migrate[t])}
                for t, tau in enumerate(TAUS)
            ],
        }  # fmt: skip

    def plot(self, file: Path) -> None:
        """Both tables as thresholds against p, the printed ones as circles. PNG, SVG or PDF by the file's name."""
        # Imported here: matplotlib takes half a second that the controller need not spend.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for t, tau in enumerate(TAUS):
            ours = THR + 1 - np.sum(self.migrate[t], axis=1)
            axes.step(PS, ours, where="mid", color=f"C{t}", label=f"ours, τ = {tau:g}")
            axes.plot(PS, PRINTED_THRESHOLDS[t], "o", mfc="none", color=f"C{t}", label=f"printed, τ = {tau:g}")
        axes.set(xlabel="p, the probability to move on", ylabel="smallest distance at which to migrate",
                 ylim=(0, THR + 2), title=f"Figure 14: {self.agreeing} of {CELLS} cells agree")  # fmt: skip
        axes.legend()
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)


MOST_LISTED = 12
"""Readings that differ more are counted only; their cells are in the JSON."""


def _words(reading: Reading) -> str:
    parts = [f"quality {reading.quality}", f"{reading.fixed} fixed at {reading.amount:.4g}",
             f"gamma {reading.gamma:.4g}",
             "no reward transformation" if reading.alpha is None else f"alpha {reading.alpha:.4g} mu",
             "the step out of 0 " + ("pays the cost" if reading.home_pays else "is free")]  # fmt: skip
    return ", ".join(parts)


def _letters(table: Bools) -> list[str]:
    return ["".join("CM"[int(cell)] for cell in row) for row in table]


def compare(reading: Reading) -> Comparison:
    """Solves the twenty problems of a reading exactly."""
    rows = [[solve(reading.problem(tau, p)).migrate[1 : THR + 1] for p in PS] for tau in TAUS]
    return Comparison(reading, np.array(rows))


@dataclass(frozen=True, slots=True, eq=False)
class PolicyReproduction:
    """``best`` is the one to show; beside it ``others`` and, if searched, ``found``, the best of each family."""

    best: Comparison
    others: tuple[Comparison, ...]
    found: tuple[Comparison, ...] = ()

    def text(self) -> str:
        lines = [self.best.text(), ""]
        for title, table in (("Other readings:", self.others), ("The best of each family searched:", self.found)):
            if table:
                lines.append(title)
                lines += [f"  {one.agreeing:3} of {CELLS}: {_words(one.reading)}{_cells(one)}" for one in table]
        return "\n".join(lines).rstrip()

    def as_json(self) -> dict[str, Any]:
        return {"best": self.best.as_json(), "others": [one.as_json() for one in self.others],
                "found": [one.as_json() for one in self.found]}  # fmt: skip

    def plot(self, file: Path) -> None:
        self.best.plot(file)


def _cells(one: Comparison) -> str:
    if not one.differing or len(one.differing) > MOST_LISTED:
        return ""
    cells = (f"tau {c.tau:g} p {c.p:g} d {c.distance} ({c.ours} for {c.printed})" for c in one.differing)
    return "; differs at " + ", ".join(cells)


def reproduce_policy(searching: bool = False, say: Callable[[str], None] | None = None) -> PolicyReproduction:
    """Figure 14; with ``searching`` the search is run again (under a minute), ``say`` hearing of each family."""
    found = tuple(compare(reading) for reading in search(say)) if searching else ()
    best = max([compare(BEST), *found], key=lambda one: one.agreeing)
    return PolicyReproduction(best, (compare(LINEAR), compare(FIRST)), found)


# --- the search -------------------------------------------------------------------------------------------

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
            say(f"{count} of {CELLS}: {_words(reading)}")
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
