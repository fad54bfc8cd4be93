"""Problems whose moves are learned from a trace, for a population or for one user."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array, csr_array, diags_array

from .mdp_problem import Integers, Problem, Quality, Sparse, quality_of


def count_moves(walks: Iterable[Sequence[int]], states: int) -> Sparse:
    """(states, states) how often the walks went from one state to another; a walk is a sequence of states.

    For one user hand in his walks only. A state that is too far counts as the last one, "beyond"; what is
    seen after it does not count, as the service would have moved. ``ValueError`` if a state is negative.
    """
    pairs: list[tuple[int, int]] = []
    for walk in walks:
        if any(state < 0 for state in walk):
            raise ValueError(f"state {min(walk)} of a walk is negative")
        near = [min(int(state), states - 1) for state in walk]
        pairs += [(here, there) for here, there in pairwise(near) if here < states - 1]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return csr_array(coo_array((np.ones(len(table)), (table[:, 0], table[:, 1])), shape=(states, states)))


def learned_moves(counts: Sparse | ArrayLike, believed: Sparse, strength: float = 1.0) -> Sparse:
    """The posterior mean of the moves: (counts + strength * believed) / (row sum + strength).

    Each row has a Dirichlet prior that weighs as much as ``strength`` handoffs seen there and expects
    ``believed``: the model's chain when a population is learned, the population's when one user is. With
    ``strength`` 0 the counts alone speak, and rows that were never seen are ``believed``. ``ValueError``.
    """
    if not (np.isfinite(strength) and strength >= 0.0):
        raise ValueError(f"strength {strength} must be finite and not negative")
    seen, prior = csr_array(counts, dtype=np.float64), csr_array(believed, dtype=np.float64)
    if seen.shape != prior.shape:
        raise ValueError(f"counts have the shape {seen.shape}, believed has {prior.shape}")
    if not np.all(np.isfinite(seen.data)) or np.any(seen.data < 0.0):
        raise ValueError("counts must be finite and not negative")
    total = seen.sum(axis=1)
    weight = np.where(total > 0.0, strength, max(strength, 1.0))
    return csr_array(diags_array(1.0 / (total + weight)) @ (seen + diags_array(weight) @ prior))


def from_counts(
    counts: Sparse | ArrayLike,
    believed: Sparse,
    cost: float | ArrayLike,
    gamma: float,
    quality: Quality,
    distance: Integers,
    *,
    strength: float = 1.0,
    forced: ArrayLike | None = None,
    alpha: float | None = None,
) -> Problem:
    """A problem with ``learned_moves``; ``distance`` (n,) from home, ``forced`` (n,) by default the farthest."""
    stay = learned_moves(counts, believed, strength)
    where = np.asarray(distance, dtype=np.int64)
    if where.size == 0:
        raise ValueError("the problem has no states")
    beyond = where == np.max(where) if forced is None else np.asarray(forced, dtype=bool)
    return Problem(stay, quality_of(quality, where), cost, gamma, where, beyond, alpha)
