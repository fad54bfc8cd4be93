"""The migration decision as a Markov decision process: what a problem is, whatever the topology.

Section 5 of "When Cloud Services Follow Mobile Users" (figs 4 and 5), uniformised with c = mu: one step is one
handoff. A state is where the user is, seen from the data centre that serves; state 0 is being at it. The
controller stays (a1: the user's own moves P) or migrates (a2: to state 0). The reward of a step is the
quality of the state that it leads to, less the cost of a migration:

    v(s) = max( sum_s' P(s,s') f(s,s') Q(s') - fee(s) + gamma sum_s' P(s,s') v(s'),   stay
                Q(0) - cost(s) + gamma v(0) )                                           migrate

f is 1, or the paper's reward transformation r' = r (alpha + beta) / (alpha + c): with alpha in units of c and
beta(s,s') = P(s,s') c the rate of the transition, f = (alpha + P(s,s')) / (alpha + 1). A migration has the rate
c, so f = 1 there. ``fee`` is what staying costs; one reading of the paper has one in state 0.

That is an optimal stopping problem with one unknown: what stopping pays is the same everywhere up to known
costs, v(0) being the only unknown in it. ``mdp_structure`` lives on that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]
Sparse = Any
"""A ``scipy.sparse.csr_array``; SciPy has no types."""

Quality = Callable[[Floats], ArrayLike] | ArrayLike
"""A function of the distances (an array of floats), or its values for each state; in the unit of the cost."""

SUM_TOLERANCE = 1e-9
MAX_GAMMA = 1.0 - 1e-9
"""Nearer to 1 the arithmetic has too few digits to tell by what the actions differ."""


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """n states; 0 is home, where the service is with its user.

    ``stay``: (n, n) sparse, P above, rows sum to one. ``quality``: (n,). ``cost``: a scalar or (n,). ``gamma``: the
    discount of a step, 0 to ``MAX_GAMMA``. ``distance``: (n,) whole numbers from home. ``forced``: (n,), true where
    the service must migrate ("beyond"); home never may. ``alpha``: the reward transformation, ``None`` for none.
    ``fee``: (n,), not negative, zeros by default. ``classes``: (n,) numbers 0..m-1 of states that look alike by
    symmetry, 0 for home alone; a hint for speed, whose result is verified on the whole chain. ``ValueError`` says
    what is wrong.
    """

    stay: Sparse
    quality: Floats
    cost: Any
    gamma: float
    distance: Integers
    forced: Bools = None  # type: ignore[assignment] # replaced in __post_init__, as is fee
    alpha: float | None = None
    fee: Floats = None  # type: ignore[assignment]
    classes: Integers | None = None
    stay_reward: Floats = field(init=False, repr=False)
    """(n,) expected reward of staying."""
    go_reward: Floats = field(init=False, repr=False)
    """(n,) reward of migrating."""
    may_stay: Bools = field(init=False, repr=False)
    may_go: Bools = field(init=False, repr=False)
    bands: Floats | None = field(init=False, repr=False)
    """(3, n): P(s, s-1), P(s, s), P(s, s+1) if the chain is a line, else ``None``."""

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        stay = csr_array(self.stay, dtype=np.float64)
        n = stay.shape[0]
        if n == 0:
            raise ValueError("the problem has no states")
        if stay.shape != (n, n):
            raise ValueError(f"stay must be square, not {stay.shape}")
        put("stay", stay)
        put("quality", _vector("quality", self.quality, n))
        put("cost", _vector("cost", np.broadcast_to(self.cost, n) if np.ndim(self.cost) == 0 else self.cost, n))
        put("fee", _vector("fee", np.zeros(n) if self.fee is None else self.fee, n))
        put("distance", np.asarray(self.distance, dtype=np.int64))
        put("forced", np.zeros(n, bool) if self.forced is None else np.asarray(self.forced, dtype=bool))
        self._check(n)
        put("may_stay", ~self.forced)
        put("may_go", np.arange(n) > 0)
        put("stay_reward", self._stay_reward() - self.fee)
        put("go_reward", self.quality[0] - self.cost)
        put("bands", _bands(stay))

    @property
    def states(self) -> int:
        return int(self.quality.size)

    def _check(self, n: int) -> None:
        if not 0.0 <= self.gamma <= MAX_GAMMA:
            raise ValueError(f"gamma {self.gamma} must be at least 0 and below 1, by 1e-9 or more")
        if self.alpha is not None and not (np.isfinite(self.alpha) and self.alpha >= 0.0):
            raise ValueError(f"alpha {self.alpha} must be finite and not negative")
        for name in ("cost", "fee"):
            least = float(np.min(getattr(self, name)))
            if least < 0.0:
                raise ValueError(f"{name} {least} must be finite and not negative")
        data = self.stay.data
        if not np.all(np.isfinite(data)) or np.any(data < 0.0) or np.any(data > 1.0 + SUM_TOLERANCE):
            raise ValueError("stay has entries that are no probabilities")
        sums = self.stay.sum(axis=1)
        worst = int(np.argmax(np.abs(sums - 1.0)))
        if abs(sums[worst] - 1.0) > SUM_TOLERANCE:
            raise ValueError(f"the probabilities of state {worst} sum to {sums[worst]:.12g}, not to 1")
        for name in ("distance", "forced", "classes"):
            value = getattr(self, name)
            if value is not None and np.shape(value) != (n,):
                raise ValueError(f"{name} has the shape {np.shape(value)}, not ({n},)")
        if self.forced[0]:
            raise ValueError("state 0 is home: nothing migrates from there")

    def _stay_reward(self) -> Floats:
        chain = self.stay
        if self.alpha is not None:
            weights = chain.data * (self.alpha + chain.data) / (self.alpha + 1.0)
            chain = csr_array((weights, chain.indices, chain.indptr), shape=chain.shape)
        reward: Floats = chain @ self.quality
        return reward


def _vector(name: str, values: ArrayLike, n: int) -> Floats:
    array = np.array(values, dtype=np.float64)
    if array.shape != (n,):
        raise ValueError(f"{name} has the shape {array.shape}, not ({n},)")
    if not np.all(np.isfinite(array)):
        bad = int(np.argmin(np.isfinite(array)))
        raise ValueError(f"{name} {array[bad]} of state {bad} must be finite")
    return array


def _bands(stay: Sparse) -> Floats | None:
    n = stay.shape[0]
    if stay.nnz > 3 * n:
        return None
    entries = stay.tocoo()
    offset = entries.col.astype(np.int64) - entries.row
    if entries.nnz and int(np.max(np.abs(offset))) > 1:
        return None
    bands = np.zeros((3, n))
    np.add.at(bands, (offset + 1, entries.row), entries.data)
    return bands


MAX_THR = 1_000_000
"""Farther than any user is, and few enough states for any machine: a slip of the pen must not take it down."""


def linear_quality(thr: int, q0: float, k: float) -> tuple[float, ...]:
    """Q(s) = q0 - k s, not below 0, for s in 0..thr+1; any unit, but the cost's too."""
    if not 1 <= thr <= MAX_THR:
        raise ValueError(f"thr {thr} must be at least 1 and at most {MAX_THR}")
    return tuple(max(0.0, q0 - k * s) for s in range(thr + 2))


def quality_of(quality: Quality, distance: Integers) -> Floats:
    """The qualities at these distances, if a function or a table by state."""
    return np.asarray(quality(distance.astype(np.float64)) if callable(quality) else quality, dtype=np.float64)


def line(
    thr: int,
    p: float | ArrayLike,
    cost: float | ArrayLike,
    gamma: float,
    quality: Quality,
    *,
    alpha: float | None = None,
    home_fee: float = 0.0,
) -> Problem:
    """The 1D model (fig. 4): states 0..thr+1, of which 1..thr have the choice and thr+1 is "beyond".

    From s the user goes on to s+1 with ``p`` (a number, or one for each of 1..thr), else back to s-1; from 0 he
    always goes to 1. What the paper leaves open about the far end is settled as its figure 14 has it:
    its equation sends thr on to 0 at no cost, its text migrates beyond thr, its figure has a choice at thr.
    ``home_fee`` is charged for the step out of 0 (the equation calls that step a2). ``ValueError``.
    """
    if not 1 <= thr <= MAX_THR:
        raise ValueError(f"thr {thr} must be at least 1 and at most {MAX_THR}")
    on = np.asarray(p, dtype=np.float64)
    if on.ndim and on.shape != (thr,):
        raise ValueError(f"p has the shape {on.shape}, not ({thr},)")
    if not np.all((on >= 0.0) & (on <= 1.0)):
        wrong = on[~((on >= 0.0) & (on <= 1.0))]
        raise ValueError(f"p {float(wrong.flat[0])} must be between 0 and 1")
    on = np.broadcast_to(on, (thr,))
    inner = np.arange(1, thr + 1)
    # The far end's row is never used, as it has no choice; it must be a distribution all the same.
    rows = np.concatenate([[0, thr + 1], inner, inner])
    columns = np.concatenate([[1, thr], inner + 1, inner - 1])
    stay = csr_array((np.concatenate([[1.0, 1.0], on, 1.0 - on]), (rows, columns)), shape=(thr + 2, thr + 2))
    distance = np.arange(thr + 2)
    fee = np.where(distance == 0, home_fee, 0.0)
    return Problem(stay, quality_of(quality, distance), cost, gamma, distance, distance > thr, alpha, fee)
