"""The continuous-time Markov chain of the user's place relative to the data centre that serves.

Section 4.1 of "When Cloud Services Follow Mobile Users": the user stays in a cell for an exponential time of
mean 1/mu, then goes to one of the neighbours. The service moves to where the user is as soon as it leaves
ring k-1, so the chain starts again at the centre. In the full chain a state is a cell; in the aggregated one
it is all the cells that a symmetry of the walk takes into one another. Such orbits are exactly lumpable: a
symmetry takes the jumps of one cell to those of another, so all cells of an orbit jump into each other orbit
at the same rate, and the sums of the full chain's probabilities are the aggregated chain's (Kemeny and Snell,
Finite Markov Chains, theorem 6.3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, isfinite

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import splu

from . import hexagon
from .hexagon import Ints, check_rings

Floats = NDArray[np.float64]

MOST_STATES = 300_000
"""Their factorisation takes some 600 MB."""

UNIFORM = (1 / 6,) * 6
"""The paper's random walk: p = 1/6 for each neighbour."""


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """States 0..n-1, of which 0 is the cell of the data centre that serves.

    ``distance`` (n,) in hops; ``cells`` (n,) how many cells a state stands for; ``leaving`` (n,) the
    probability that a jump out of the state's cells leaves ring k-1 and so moves the service; ``generator``
    (n, n) the rates of the transitions per second, rows sum to 0. A move of the service is a transition to
    state 0 like a user's own return, so the generator alone does not tell them apart: ``leaving`` does.
    """

    k: int
    rate: float
    distance: Ints
    cells: Ints
    leaving: Floats
    generator: csr_array


@dataclass(frozen=True, slots=True, eq=False)
class Stationary:
    """The long run of a chain: ``probability`` (n,) is the share of time in each state; it sums to 1."""

    chain: Chain
    probability: Floats

    @property
    def at_distance(self) -> Floats:
        """(k,): the share of time at 0..k-1 hops."""
        shares = np.bincount(self.chain.distance, self.probability, minlength=self.chain.k)
        return shares.astype(np.float64)


def hexagonal(
    k: int,
    probabilities: Sequence[float] = UNIFORM,
    *,
    rate: float = 1.0,
    aggregated: bool = True,
) -> Chain:
    """The chain on hexagonal cells: k rings (0..k-1), the service moved when the user leaves the last.

    ``probabilities`` of the next cell, in the order of ``hexagon.DIRECTIONS``; ``rate`` is mu, jumps a second.
    Aggregation uses those symmetries of the hexagon that the probabilities have, with none the chain is the
    full one. ``ValueError`` if k is below 2 or makes more than ``MOST_STATES``, the probabilities are not six, one
    is negative or they do not sum to 1, or the rate is not positive.
    """
    k = check_rings(k)
    steps = _check_probabilities(probabilities, len(hexagon.DIRECTIONS))
    _check_rate(rate)
    cells = hexagon.rings(k)
    if aggregated:
        state_of, representative = hexagon.orbits(cells, hexagon.symmetries(steps))
    else:
        state_of = representative = np.arange(len(cells), dtype=np.int64)
    if len(representative) > MOST_STATES:
        raise ValueError(f"k {k} makes {len(representative)} states; there may be {MOST_STATES} at most")
    around = hexagon.neighbours(cells[representative], k)
    outside = around == hexagon.OUTSIDE
    targets = np.where(outside, 0, state_of[around])
    states = len(representative)
    sources = np.repeat(np.arange(states, dtype=np.int64), len(steps))
    return Chain(
        k,
        rate,
        hexagon.distance(cells[representative]),
        np.bincount(state_of, minlength=states),
        outside @ steps,
        _generator(states, sources, targets.ravel(), rate * np.tile(steps, states)),
    )


def line(k: int, away: float = 0.5, back: float = 0.5, *, rate: float = 1.0) -> Chain:
    """The 1D chain (section 5, figure 4): from 0 always to 1, from there ``away`` by a hop or ``back`` by one.

    The service moves when the user leaves distance k-1. ``rate`` is mu, jumps a second. ``ValueError`` if k
    is below 2, a probability is negative or they do not sum to 1, or the rate is not positive.
    """
    k = check_rings(k)
    on, home = _check_probabilities((away, back), 2)
    _check_rate(rate)
    at = np.arange(k, dtype=np.int64)
    leaving = np.zeros(k)
    leaving[-1] = on
    sources = np.concatenate([at, at[1:]])
    targets = np.concatenate([(at + 1) % k, at[1:] - 1])
    rates = np.concatenate([[1.0], np.full(k - 1, on), np.full(k - 1, home)]) * rate
    # On a line distance i stands for two cells, one to each side.
    return Chain(k, rate, at, np.where(at == 0, 1, 2), leaving, _generator(k, sources, targets, rates))


def stationary(chain: Chain) -> Stationary:
    """Solve pi G = 0, sum(pi) = 1, by one sparse factorisation.

    State 0 is taken out: with pi_0 = 1 the others solve -G' x = g_0, where G' is the generator without
    state 0. From each cell the user comes back to 0 or leaves, which leads to 0 too, so G' is not singular
    whatever the probabilities (a user that moves has to leave a bounded area), and -G' is an M-matrix: its
    factors need no pivoting, and the ordering can be the one that keeps them sparse.
    """
    rest = (-chain.generator[1:, 1:]).T.tocsc()
    entering = chain.generator[[0], 1:].toarray().ravel()
    factors = splu(rest, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    weights = np.concatenate([[1.0], factors.solve(entering)])
    # Cells that the user cannot reach come out as zeros of either sign.
    weights = np.maximum(weights, 0.0)
    return Stationary(chain, weights / fsum(weights))


def _generator(states: int, sources: Ints, targets: Ints, rates: Floats) -> csr_array:
    """The rates summed up, without jumps from a state to itself, with the diagonal that makes rows sum to 0."""
    moves = (sources != targets) & (rates > 0.0)
    sources, targets, rates = sources[moves], targets[moves], rates[moves]
    diagonal = np.arange(states, dtype=np.int64)
    out = np.bincount(sources, rates, minlength=states)
    rows, columns = np.concatenate([sources, diagonal]), np.concatenate([targets, diagonal])
    return coo_array((np.concatenate([rates, -out]), (rows, columns)), shape=(states, states)).tocsr()


def _check_probabilities(probabilities: Sequence[float], count: int) -> Floats:
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != (count,):
        raise ValueError(f"probabilities {probabilities!r} must be {count} numbers")
    if not bool(np.all(np.isfinite(values) & (values >= 0.0))):
        raise ValueError(f"probabilities {probabilities!r} must not be negative")
    if abs(fsum(values) - 1.0) > 1e-9:
        raise ValueError(f"probabilities {probabilities!r} sum to {fsum(values):.9g}, they must sum to 1")
    return values


def _check_rate(rate: float) -> None:
    if not (isfinite(rate) and rate > 0.0):
        raise ValueError(f"rate {rate} must be positive, in jumps a second")
