"""Figure 14 of "When Cloud Services Follow Mobile Users", cell by cell.

The paper gives thr = 10, K = 1, and tau = cost / Q(0) = 0.1 and 0.5. It does not give the discount, alpha, Q(0) or
the cost, nor the quality as a function: Q(s) = Q(0) - K cannot fall with s as the text says it does. A ``Reading``
fills these in. ``docs/policy.md`` tells what ``figure14_search`` found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from followme.placement.mdp_problem import Bools, Floats, Problem, line
from followme.placement.mdp_solve import solve

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

    def words(self) -> str:
        parts = [f"quality {self.quality}", f"{self.fixed} fixed at {self.amount:.4g}",
                 f"gamma {self.gamma:.4g}",
                 "no reward transformation" if self.alpha is None else f"alpha {self.alpha:.4g} mu",
                 "the step out of 0 " + ("pays the cost" if self.home_pays else "is free")]  # fmt: skip
        return ", ".join(parts)

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


def compare(reading: Reading) -> Comparison:
    """Solves the twenty problems of a reading exactly."""
    rows = [[solve(reading.problem(tau, p)).migrate[1 : THR + 1] for p in PS] for tau in TAUS]
    return Comparison(reading, np.array(rows))
