"""The migration decision of section 5 as a policy for the controller and as a table to print.

The model is in ``mdp_problem`` (``mdp_hexagons`` builds the 2D one), the solvers are in ``mdp_solve``.
The policy here is the 1D model's with given probabilities; what is learned from traces decides in ``learned``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import isfinite
from typing import Any, ClassVar

from followme.domain import Decision

from .mdp_hexagons import hexagons
from .mdp_problem import Problem, Quality, line, linear_quality
from .mdp_solve import Method, Solution, solve
from .situation import Situation

__all__ = ["MdpPolicy", "PolicyTable", "Problem", "Solution", "hexagons", "line", "linear_quality", "policy_table",
           "solve"]  # fmt: skip


PS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""The rows of the paper's tables."""


@lru_cache(maxsize=256)
def _solved(thr: int, p: float, q0: float, k: float, cost: float, gamma: float) -> Solution:
    return solve(line(thr, p, cost, gamma, linear_quality(thr, q0, k)))


@dataclass(frozen=True, slots=True)
class MdpPolicy:
    """The optimal policy of the model, as a table that is solved once.

    ``thr`` in service areas, ``p`` the probability to go on, ``q0`` and ``k`` the quality at distance 0 and
    its loss per area, ``tau`` the cost of a migration as a share of ``q0``, ``gamma`` the discount of a step.
    With ``cost_per_s`` (quality per second of transfer) above 0 the cost is the situation's own transfer time
    where its bandwidth is known, ``tau`` elsewhere; each cost's table is kept. ``ValueError`` names what is
    out of range.
    """

    thr: int = 10
    p: float = 0.5
    q0: float = 10.0
    k: float = 1.0
    tau: float = 0.5
    gamma: float = 0.9
    cost_per_s: float = 0.0
    solution: Solution = field(init=False, compare=False, repr=False)
    name: ClassVar[str] = "mdp"

    def __post_init__(self) -> None:
        for key in ("q0", "k", "tau", "cost_per_s"):
            value = getattr(self, key)
            if not (isfinite(value) and value >= 0.0):
                raise ValueError(f"{key} {value} must be finite and not negative")
        object.__setattr__(self, "solution", self._solution(self.tau * self.q0))

    def decide(self, situation: Situation) -> Decision:
        if situation.best == situation.current:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        distance, nearest = situation.distance, situation.distance_best
        if distance <= 0:
            return situation.decide(self.name, False, "the user is at distance 0")
        if situation.no_nearer or nearest >= distance:
            why = situation.no_nearer or f"{situation.best} is as far as {situation.current}, distance {distance}"
            return situation.decide(self.name, False, why)
        if distance > self.thr:
            return situation.decide(self.name, True, f"distance {distance} is beyond thr {self.thr}")
        cost, solution = self._table(situation)
        migrate = bool(solution.migrate[distance])
        gain = float(solution.gain[distance])
        if nearest > 0:
            # It goes to ``nearest`` and not to 0: what that is worth less is missing from the gain.
            gain -= self.q0 - max(0.0, self.q0 - self.k * nearest)
            gain -= self.gamma * float(solution.value[0] - solution.value[nearest])
            migrate = gain > 0.0
        why = (
            f"migrating at distance {distance} is worth {gain:+.3g} in quality against staying "
            f"(threshold {solution.threshold} at p {self.p:g}, cost {cost:.3g} of quality {self.q0:g})"
        )
        return situation.decide(self.name, migrate, why)

    def _table(self, situation: Situation) -> tuple[float, Solution]:
        transfer = situation.transfer_s
        if self.cost_per_s == 0.0 or transfer is None:
            return self.tau * self.q0, self.solution
        # Two digits of a measured cost are all that mean something, and they keep the tables few.
        cost = float(f"{self.cost_per_s * transfer:.2g}")
        return cost, self._solution(cost)

    def _solution(self, cost: float) -> Solution:
        return _solved(self.thr, self.p, self.q0, self.k, cost, self.gamma)


@dataclass(frozen=True, slots=True)
class PolicyTable:
    """The optimal policy as the paper prints it: a row for each p, a column for each distance 1..thr."""

    ps: tuple[float, ...]
    solutions: tuple[Solution, ...]
    thr: int
    parameters: Mapping[str, float | str | None]

    def text(self) -> str:
        """The table in text: C to stay (continue), M to migrate, and the threshold at the end of the row."""
        wide = len(str(self.thr))
        rows = ["p\\d".ljust(6) + " ".join(str(d).rjust(wide) for d in range(1, self.thr + 1)) + "  threshold"]
        for p, solution in zip(self.ps, self.solutions, strict=True):
            marks = ("M" if go else "C" for go in solution.migrate[1 : self.thr + 1])
            row = f"{p:<6.4g}" + " ".join(mark.rjust(wide) for mark in marks)
            rows.append(f"{row}  {solution.threshold if solution.threshold <= self.thr else 'none'}")
        return "\n".join(rows)

    def as_json(self) -> dict[str, Any]:
        """Lists go by distance, 1..thr; the values start at distance 0 and end "beyond"."""
        return {
            "parameters": dict(self.parameters),
            "rows": [
                {"p": p, "threshold": solution.threshold, "migrate": solution.migrate[1:-1].tolist(),
                 "gain": solution.gain[1:-1].tolist(), "value": solution.value.tolist(),
                 "iterations": solution.iterations, "error_bound": solution.error_bound}
                for p, solution in zip(self.ps, self.solutions, strict=True)
            ],
        }  # fmt: skip


def policy_table(
    thr: int = 10,
    ps: Sequence[float] = PS,
    q0: float = 10.0,
    k: float = 1.0,
    tau: float = 0.5,
    gamma: float = 0.9,
    *,
    alpha: float | None = None,
    home_pays: bool = False,
    method: Method = "structure",
    quality: Quality | None = None,
) -> PolicyTable:
    """The policies of the 1D model for each p; the parameters are those of ``MdpPolicy`` and of ``line``.

    ``alpha``: the paper's reward transformation; ``home_pays``: the cost is charged for the step out of 0 too;
    ``quality``: a function of the distance in the place of q0 - k s (never below 0). ``ValueError`` says what is
    out of range.
    """
    if not ps:
        raise ValueError("there is no p")
    for key, number in (("q0", q0), ("k", k), ("tau", tau)):
        if not (isfinite(number) and number >= 0.0):
            raise ValueError(f"{key} {number} must be finite and not negative")
    cost, qualities = tau * q0, linear_quality(thr, q0, k) if quality is None else quality
    fee = cost if home_pays else 0.0
    solutions = tuple(
        solve(line(thr, p, cost, gamma, qualities, alpha=alpha, home_fee=fee), method) for p in ps
    )
    parameters: dict[str, float | str | None] = {
        "thr": thr, "q0": q0, "k": k, "tau": tau, "cost": cost, "gamma": gamma, "alpha": alpha,
        "home_pays": home_pays, "method": method,
    }  # fmt: skip
    return PolicyTable(tuple(ps), solutions, thr, parameters)
