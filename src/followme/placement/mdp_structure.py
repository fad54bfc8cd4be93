"""Solving by the problem's structure: optimal stopping with one unknown, on the states that matter.

Three facts are used, none is taken on trust:

1. *One unknown.* What migrating pays is known but for v(0). So a policy's value is x + y v(0), x and y solved on
   the states where it stays; those where it migrates drop out of the equations.
2. *Locality.* The states where one stays lie around home. The problem is cut at a distance, beyond which every
   state migrates, solved by policy iteration from "stay everywhere", and one improvement step over all
   states says whether any beyond would rather stay: if so, the distance doubles. If none would, the policy is
   greedy for its own value, so optimal for all states (Puterman, theorem 6.4.2). Starting from above matters: a
   step of policy iteration can drop any number of stays, but add those next to a stay only.
3. *Symmetry.* States of one class (``Problem.classes``) share their values: one of each is solved.

A chain that is a line is solved by its three bands in O(n); small ones by sparse LU; large ones by
BiCGSTAB. The caller's last sweep over the whole chain bounds the error of all of it, a wrong class included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_banded
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import LinearOperator, bicgstab, splu

from .mdp_problem import Bools, Floats, Integers, Problem, Sparse

FIRST_DISTANCE = 16
DIRECT = 3000
"""Up to so many states are solved by LU: beyond, on a grid, its fill costs more than BiCGSTAB's sweeps."""
NOISE = 1e-12
"""An action must be better than the policy's by this share of the largest value, or the policy keeps its own."""

REFINED = 4e-15
"""A solution by BiCGSTAB is refined until its residual is this share of the largest value."""
ROUGH = 1e-7
"""The same while the policy still changes."""
MOST_REFINEMENTS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """What is solved: a problem, its quotient or a part of it. Fields are those of ``Problem``."""

    stay: Sparse
    bands: Floats | None
    stay_reward: Floats
    go_reward: Floats
    may_stay: Bools
    gamma: float

    @property
    def noise(self) -> float:
        largest = max(float(np.max(np.abs(self.stay_reward))), float(np.max(np.abs(self.go_reward))))
        return NOISE * largest / (1.0 - self.gamma)

    def moved(self, value: Floats) -> Floats:
        """P value."""
        if self.bands is None:
            product: Floats = self.stay @ value
            return product
        low, level, high = self.bands
        expected: Floats = np.multiply(level, value)
        expected[1:] += low[1:] * value[:-1]
        expected[:-1] += high[:-1] * value[1:]
        return expected

    def actions(self, value: Floats) -> tuple[Floats, Floats]:
        """What staying and what migrating is worth, were ``value`` right."""
        stay = self.stay_reward + self.gamma * self.moved(value)
        return stay, self.go_reward + self.gamma * value[0]


def evaluate(chain: Chain, goes: Bools, guess: Floats | None = None, rough: bool = False) -> Floats:
    """(n,) the value of the policy that migrates where ``goes``; staying at home.

    ``guess`` (n,) is where large sparse chains start from; ``rough`` is enough for them while the policy changes.
    """
    if chain.bands is not None:
        return _evaluate_line(chain, chain.bands, goes)
    return _evaluate_sparse(chain, goes, guess, rough)


def _evaluate_line(chain: Chain, bands: Floats, goes: Bools) -> Floats:
    weight = np.where(goes, 0.0, chain.gamma)
    system = np.empty_like(bands)
    system[0, 1:] = -weight[:-1] * bands[2, :-1]
    system[1] = 1.0 - weight * bands[1]
    system[2, :-1] = -weight[1:] * bands[0, 1:]
    system[0, 0] = system[2, -1] = 0.0
    known = np.empty((goes.size, 2))
    known[:, 0] = np.where(goes, chain.go_reward, chain.stay_reward)
    known[:, 1] = chain.gamma - weight
    solved = solve_banded((1, 1), system, known, overwrite_ab=True, overwrite_b=True, check_finite=False)
    value: Floats = solved[:, 0] + solved[:, 1] * (solved[0, 0] / (1.0 - solved[0, 1]))
    return value


def _evaluate_sparse(chain: Chain, goes: Bools, guess: Floats | None, rough: bool) -> Floats:
    stays = np.flatnonzero(~goes)
    rows = chain.stay if stays.size == goes.size else chain.stay[stays]
    inner = rows[:, stays]
    gamma = chain.gamma
    known = chain.stay_reward[stays] + gamma * (rows @ np.where(goes, chain.go_reward, 0.0))
    # Home is the first of the stays; what migrates is worth its reward and gamma v(0).
    by_home = gamma * gamma * (rows @ goes.astype(np.float64))
    if stays.size <= DIRECT:
        factors = splu((eye_array(stays.size, format="csc") - gamma * inner).tocsc())
        x, y = factors.solve(known), factors.solve(by_home)
        inside = x + y * (x[0] / (1.0 - y[0]))
    else:
        start = known / (1.0 - gamma) if guess is None else guess[stays]
        inside = _krylov(inner, gamma, known, by_home, start, ROUGH if rough else REFINED)
    value: Floats = chain.go_reward + gamma * inside[0]
    value[stays] = inside
    return value


def _krylov(inner: Sparse, gamma: float, known: Floats, by_home: Floats, x: Floats, share: float) -> Floats:
    size = known.size

    def times(x: Floats) -> Floats:
        flat = x.reshape(size)
        product: Floats = flat - gamma * (inner @ flat) - by_home * flat[0]
        return product

    operator = LinearOperator((size, size), matvec=times, dtype=np.float64)
    enough = share * float(np.max(np.abs(known))) / (1.0 - gamma)
    # The residual that BiCGSTAB updates drifts from the true one: solve for the correction, and anew from there.
    for _ in range(MOST_REFINEMENTS):
        residual = known - times(x)
        most = float(np.max(np.abs(residual)))
        if most <= enough:
            break
        # BiCGSTAB measures the residual's length: a hundredth is for one large entry among many small ones.
        x = x + bicgstab(operator, residual, rtol=max(1e-7, 1e-2 * enough / most), atol=0.0, maxiter=1000)[0]
    return x


def policy_iteration(
    chain: Chain, goes: Bools, most: int, guess: Floats | None = None
) -> tuple[Floats, Bools, int]:
    """From the policy ``goes``: its value, itself and the evaluations done once nothing improves (or ``most``)."""
    noise, value, rough = chain.noise, guess, True
    for iteration in range(1, most + 1):
        value = evaluate(chain, goes, value, rough and iteration < most)
        stay, go = chain.actions(value)
        better = np.where(goes, go >= stay - noise, go > stay + noise)
        better |= ~chain.may_stay
        better[0] = False
        settled = np.array_equal(better, goes)
        if iteration == most or (settled and (not rough or _is_direct(chain, goes))):
            return value, goes, iteration
        # Rough values have settled on a policy; exact ones must agree, or go on from there.
        rough = rough and not settled
        goes = better
    raise ValueError(f"max_iterations {most} must be at least 1")


def _is_direct(chain: Chain, goes: Bools) -> bool:
    return chain.bands is not None or int(np.sum(~goes)) <= DIRECT


def chain_of(problem: Problem) -> Chain:
    return Chain(problem.stay, problem.bands, problem.stay_reward, problem.go_reward, problem.may_stay,
                 problem.gamma)  # fmt: skip


def structured(problem: Problem, most: int, symmetric: bool = True) -> tuple[Floats, int]:
    """The value of the optimal policy and the evaluations it took; see above."""
    chain, distance = chain_of(problem), problem.distance
    classes = problem.classes if symmetric else None
    if classes is not None:
        chain, distance = _quotient(chain, distance, classes)
    order = None
    if np.any(distance[1:] < distance[:-1]):
        order = np.concatenate([[0], 1 + np.argsort(distance[1:], kind="stable")])
        chain, distance = _ordered(chain, order), distance[order]
    value, iterations = _growing(chain, distance, most)
    if order is not None:
        value[order] = value.copy()
    return (value if classes is None else value[classes]), iterations


def _growing(chain: Chain, distance: Integers, most: int) -> tuple[Floats, int]:
    iterations, reach = 0, FIRST_DISTANCE
    value: Floats | None = None
    while True:
        count = max(1, int(np.searchsorted(distance, reach, side="right")))
        if count + 1 >= distance.size:
            value, _, steps = policy_iteration(chain, ~chain.may_stay, most - iterations, value)
            return value, iterations + steps
        part = _cut(chain, count)
        guess = None if value is None else np.append(value[:count], chain.gamma * value[0])
        inside, _, steps = policy_iteration(part, ~part.may_stay, most - iterations, guess)
        iterations += steps
        value = chain.go_reward + chain.gamma * inside[0]
        value[:count] = inside[:count]
        stay, go = chain.actions(value)
        rather = chain.may_stay[count:] & (stay[count:] > go[count:] + chain.noise)
        if iterations >= most or not np.any(rather):
            return value, iterations
        reach *= 2


def _cut(chain: Chain, count: int) -> Chain:
    """The first ``count`` states and one that stands for all others, where everyone migrates.

    What a state beyond pays for its migration differs from state to state, so it goes into the reward of the
    step there: the one state pays nothing and is worth gamma v(0).
    """
    beyond = chain.go_reward.copy()
    beyond[:count] = 0.0
    if chain.bands is not None:
        bands = chain.bands[:, : count + 1].copy()
        bands[:, count] = (0.0, 1.0, 0.0)
        expected = np.zeros(count)
        expected[-1] = chain.bands[2, count - 1] * beyond[count]
        stay: Sparse = None
    else:
        bands = None
        rows = chain.stay[:count]
        expected = rows @ beyond
        columns = np.minimum(rows.indices, count)
        stay = csr_array(
            (np.append(rows.data, 1.0), np.append(columns, count), np.append(rows.indptr, rows.nnz + 1)),
            shape=(count + 1, count + 1),
        )
        stay.sum_duplicates()
    return Chain(
        stay, bands, np.append(chain.stay_reward[:count] + chain.gamma * expected, 0.0),
        np.append(chain.go_reward[:count], 0.0), np.append(chain.may_stay[:count], False), chain.gamma,
    )  # fmt: skip


def _quotient(chain: Chain, distance: Integers, classes: Integers) -> tuple[Chain, Integers]:
    """One state of each class, its moves added up by class."""
    one = np.zeros(int(np.max(classes)) + 1, dtype=np.int64)
    one[classes[::-1]] = np.arange(classes.size - 1, -1, -1)
    rows = chain.stay[one]
    stay = csr_array((rows.data, classes[rows.indices], rows.indptr), shape=(one.size, one.size))
    stay.sum_duplicates()
    smaller = Chain(stay, None, chain.stay_reward[one], chain.go_reward[one], chain.may_stay[one], chain.gamma)
    return smaller, distance[one]


def _ordered(chain: Chain, order: Integers) -> Chain:
    stay = chain.stay[order][:, order]
    return Chain(stay, None, chain.stay_reward[order], chain.go_reward[order], chain.may_stay[order], chain.gamma)
