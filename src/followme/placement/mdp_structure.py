"""Solving by the problem's structure: optimal stopping with one unknown, on the states that matter.

Three facts are used, none is taken on trust:

1. *One unknown.* What migrating pays is known but for v(0). Values are taken relative to it, h = v - v(0), as the
   common part grows with 1/(1 - gamma) and would cost the digits that tell actions apart. With g = (1 - gamma) v(0)

       h(s) + g = r(s) + gamma sum_s' P(s,s') h(s')   where one stays,    h(s) + g = Q(0) - cost(s)   where not

   So h is x - w g, where x and w are solved on the states where one stays, but home: there h is 0, which gives g.
2. *Locality.* The states where one stays lie around home. The problem is cut at a distance, beyond which every
   state migrates, solved by policy iteration from "stay everywhere", and one improvement step over all
   states says whether any beyond would rather stay: if so, the distance doubles. If none would, the policy is
   greedy for its own value, so optimal for all states (Puterman, theorem 6.4.2). Starting from above matters: a
   step of policy iteration can drop any number of stays, but add those next to a stay only.
3. *Symmetry.* States of one class (``Problem.classes``) share their values: one of each is solved.

A chain that is a line is solved by its three bands in O(n); small ones by sparse LU; large ones by
BiCGSTAB (van der Vorst 1992). The caller's last sweep over the whole chain bounds the error of all of it, a wrong
class included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_banded
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.linalg import splu

from .mdp_problem import Bools, Floats, Integers, Problem, Sparse

FIRST_DISTANCE = 16
DIRECT = 3000
"""Up to so many states are solved by LU: beyond, on a grid, its fill costs more than BiCGSTAB's sweeps."""
NOISE = 1e-12
"""An action must be better than the policy's by this share of the largest value, or the policy keeps its own."""

REFINED = 4e-15
"""A solution by BiCGSTAB is refined until its residual is this share of the largest numbers in it."""
ROUGH = 1e-4
"""The same while the policy still changes."""
MOST_REFINEMENTS = 6
_MOST_STEPS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """What is solved: a problem, its quotient or a part of it. Fields are those of ``Problem``."""

    stay: Sparse
    bands: Floats | None
    stay_reward: Floats
    go_reward: Floats
    may_stay: Bools
    gamma: float

    def noise(self, value: Floats) -> float:
        """By how much actions may seem to differ that do not."""
        return NOISE * sum(float(np.max(np.abs(one))) for one in (self.stay_reward, self.go_reward, value))

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
        """What staying and what migrating is worth, were the relative ``value`` right; both less gamma v(0)."""
        return self.stay_reward + self.gamma * self.moved(value), self.go_reward


def evaluate(chain: Chain, goes: Bools, guess: Floats | None = None, rough: bool = False) -> Floats:
    """(n,) the relative value of the policy that migrates where ``goes``; staying at home, where it is 0.

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
    system[1, 0], system[2, 0] = 1.0, 0.0  # home's value is no unknown
    known = np.ones((goes.size, 2))
    known[:, 0] = np.where(goes, chain.go_reward, chain.stay_reward)
    solved = solve_banded((1, 1), system, known, overwrite_ab=True, overwrite_b=True, check_finite=False)
    value: Floats = solved[:, 0] - solved[:, 1] * (solved[0, 0] / solved[0, 1])
    return value


def _evaluate_sparse(chain: Chain, goes: Bools, guess: Floats | None, rough: bool) -> Floats:
    stays = np.flatnonzero(~goes)
    rows = chain.stay if stays.size == goes.size else chain.stay[stays]
    inner = rows[:, stays]
    gamma = chain.gamma
    known = chain.stay_reward[stays] + gamma * (rows @ np.where(goes, chain.go_reward, 0.0))
    # What migrates is worth its reward less g.
    per_g = 1.0 + gamma * (rows @ goes.astype(np.float64))
    if stays.size <= DIRECT:
        away = np.ones(stays.size)
        away[0] = 0.0  # home's value is no unknown
        factors = splu((eye_array(stays.size, format="csc") - gamma * (inner @ diags_array(away))).tocsc())
        x, w = factors.solve(known), factors.solve(per_g)
        g = float(x[0] / w[0])
        inside = x - w * g
    else:
        start = known / (1.0 - gamma) if guess is None else guess[stays]
        inside, g = _krylov(inner, gamma, known, per_g, start - start[0], ROUGH if rough else REFINED)
    value: Floats = chain.go_reward - g
    value[stays] = inside
    value[0] = 0.0
    return value


def _krylov(
    inner: Sparse, gamma: float, known: Floats, per_g: Floats, value: Floats, share: float
) -> tuple[Floats, float]:
    """h and g, from a first ``value`` of h. What is solved for are corrections of v, which takes BiCGSTAB fewer
    steps; they are small, so that v's common part costs them no digits."""
    by_home = gamma * (per_g - 1.0)

    def times(change: Floats) -> Floats:
        product: Floats = inner @ change
        product *= -gamma
        product += change
        product -= by_home * change[0]
        return product

    g = float(known[0] - (value - gamma * (inner @ value))[0]) / float(per_g[0])
    enough = share * float(np.max(np.abs(known)) + np.max(np.abs(value)))
    # The residual that BiCGSTAB updates drifts from the true one: solve for the correction, and anew from there.
    for _ in range(MOST_REFINEMENTS):
        residual = known - (value - gamma * (inner @ value)) - g * per_g
        most = float(np.max(np.abs(residual)))
        if most <= enough:
            break
        # BiCGSTAB measures the residual's length: a hundredth is for one large entry among many small ones.
        change = _bicgstab(times, residual, max(1e-7, 1e-2 * enough / most))
        g += (1.0 - gamma) * float(change[0])
        value = value + (change - change[0])
    return value, g


def _bicgstab(times: Callable[[Floats], Floats], residual: Floats, share: float) -> Floats:
    """Solves to that share of the residual's length; sooner if the method breaks down.

    SciPy's takes its sums from BLAS, whose threads wait for one another at each of them: where other programs
    have the cores that costs more than all the rest.
    """
    x, shadow, direction = np.zeros_like(residual), residual.copy(), residual.copy()
    residual = residual.copy()
    enough = share * share * _dot(residual, residual)
    rho = _dot(shadow, residual)
    for _ in range(_MOST_STEPS):
        moved = times(direction)
        slope = _dot(shadow, moved)
        if slope == 0.0:
            break
        step = rho / slope
        residual -= step * moved
        x += step * direction
        if _dot(residual, residual) <= enough:
            break
        turned = times(residual)
        length = _dot(turned, turned)
        if length == 0.0:
            break
        omega = _dot(turned, residual) / length
        x += omega * residual
        residual -= omega * turned
        before, rho = rho, _dot(shadow, residual)
        if rho == 0.0 or omega == 0.0 or _dot(residual, residual) <= enough:
            break
        direction -= omega * moved
        direction *= (rho / before) * (step / omega)
        direction += residual
    return x


def _dot(one: Floats, other: Floats) -> float:
    return float(np.einsum("i,i->", one, other))


def policy_iteration(
    chain: Chain, goes: Bools, most: int, guess: Floats | None = None
) -> tuple[Floats, Bools, int]:
    """From the policy ``goes`` until nothing improves, or ``most`` evaluations: the relative value, the policy, and
    how many evaluations it took."""
    value, rough = guess, True
    for iteration in range(1, most + 1):
        value = evaluate(chain, goes, value, rough and iteration < most)
        stay, go = chain.actions(value)
        noise = chain.noise(value)
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
    """The relative value of the optimal policy and the evaluations it took; see above."""
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
        guess = None if value is None else np.append(_guess(chain, value)[:count], value.min())
        inside, _, steps = policy_iteration(part, ~part.may_stay, most - iterations, guess)
        iterations += steps
        # The one that stands for all others migrates at no cost: it is worth -g.
        value = chain.go_reward + inside[count]
        value[:count] = inside[:count]
        stay, go = chain.actions(value)
        rather = chain.may_stay[count:] & (stay[count:] > go[count:] + chain.noise(value))
        if iterations >= most or not np.any(rather):
            return value, iterations
        reach *= 2


def _guess(chain: Chain, value: Floats) -> Floats:
    """What BiCGSTAB starts from with more states: they were to migrate, and may stay where they are."""
    there: Floats = np.maximum(value, (chain.stay_reward - chain.stay_reward[0]) / (1.0 - chain.gamma))
    return there


def _cut(chain: Chain, count: int) -> Chain:
    """The first ``count`` states and one that stands for all others, where everyone migrates.

    What a state beyond pays for its migration differs from state to state, so it goes into the reward of the
    step there: the one state pays nothing.
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
