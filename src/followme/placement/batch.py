"""Decisions for a population at once: arrays in, arrays out, the same answers as one by one.

``decide`` looks up tables of the decision process by distance and by the class of a user's
walk and cost; ``stay_or_go`` is ``stay.stay_or_go`` over arrays. An empty population gets an empty answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .mdp import Problem, solve

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

_BLOCK = 1 << 15
"""Users that are decided on in one go: their intermediate arrays stay in the cache (measured: 16 to 64 Ki)."""


@dataclass(frozen=True, slots=True, eq=False)
class DecisionTable:
    """``migrate[p class, cost class, distance]``, distances 0..thr+1, the last for all that is beyond.

    ``ValueError`` unless it has three dimensions, none of them empty, of booleans, and never migrates at 0.
    """

    migrate: Bools

    def __post_init__(self) -> None:
        if self.migrate.ndim != 3 or self.migrate.size == 0 or self.migrate.dtype != np.bool_:
            shape, kind = self.migrate.shape, self.migrate.dtype
            raise ValueError(f"a decision table is (p, cost, distance) of booleans, not {shape} of {kind}")
        if self.migrate[:, :, 0].any():
            raise ValueError("a decision table cannot migrate at distance 0: the service is there")

    @classmethod
    def of_problems(cls, problems: Sequence[Sequence[Problem]]) -> DecisionTable:
        """Solves ``problems[p class][cost class]``, each of a line (``mdp.line``), whose state is the distance.

        ``ValueError`` if they are ragged, differ in their number of states, or one is of no line.
        """
        sizes = {(len(row), one.states) for row in problems for one in row}
        if len(sizes) != 1 or any(not row for row in problems):
            raise ValueError("a decision table needs as many cost classes in each p class, and one thr")
        if any((one.distance != np.arange(one.states)).any() for row in problems for one in row):
            raise ValueError("a decision table is of lines: a state is its distance")
        return cls(np.array([[solve(one).migrate for one in row] for row in problems], dtype=np.bool_))


def decide(table: DecisionTable, distance: ArrayLike, p_class: ArrayLike, cost_class: ArrayLike) -> Bools:
    """Whether each user's service should move: (users,) booleans.

    ``distance`` in service areas, ``p_class`` and ``cost_class`` as in the table; each (users,) or one for
    all, of whole numbers. ``ValueError`` if an array is of another type (so NaN cannot get in), shapes do
    not match, a distance is negative or a class is not in the table.
    """
    classes, costs, states = table.migrate.shape
    arrays = [
        _indices("distance", distance, None), _indices("p_class", p_class, classes),
        _indices("cost_class", cost_class, costs),
    ]  # fmt: skip
    users = _users([("distance", arrays[0]), ("p_class", arrays[1]), ("cost_class", arrays[2])])
    far, walk, cost = (np.broadcast_to(one, (users,)) for one in arrays)
    flat = table.migrate.ravel()
    # In the distances' own type: a byte cannot hold 300, and a huge unsigned one is no index.
    beyond = min(states - 1, int(np.iinfo(far.dtype).max))
    migrate = np.empty(users, dtype=np.bool_)
    for begin in range(0, users, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        index = walk[block].astype(np.intp)
        index *= costs
        index += cost[block]
        index *= states
        index += np.minimum(far[block], beyond).astype(np.intp)
        # All were checked: "clip" only spares NumPy a second look.
        flat.take(index, out=migrate[block], mode="clip")
    return migrate


def _indices(name: str, given: ArrayLike, count: int | None) -> NDArray[Any]:
    found = np.asarray(given)
    if found.size == 0:
        found = found.astype(np.intp)  # [] is of floats, but holds none
    if found.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers, not {found.dtype}")
    if found.size and (found.min() < 0 or (count is not None and found.max() >= count)):
        allowed = "at least 0" if count is None else f"0 to {count - 1}"
        raise ValueError(f"{name} must be {allowed}; there are {found.min()} to {found.max()}")
    return found


def _users(arrays: Sequence[tuple[str, NDArray[Any]]]) -> int:
    """How many there are; ``ValueError`` if two arrays differ or one has more dimensions than one."""
    sizes = {}
    for name, one in arrays:
        if one.ndim > 1:
            raise ValueError(f"{name} has {one.ndim} dimensions, not one")
        if one.ndim == 1:
            sizes[name] = one.size
    if len(set(sizes.values())) > 1:
        raise ValueError(f"arrays differ in length: {', '.join(f'{name} {n}' for name, n in sizes.items())}")
    return next(iter(sizes.values()), 1)


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """(users,) each. ``net`` is value of going less that of staying, NaN where a rule or a gap decided.

    ``unknown`` counts the users who stay because a measurement of theirs is missing (NaN, or no bandwidth).
    """

    migrate: Bools
    net: Floats
    unknown: int


def stay_or_go(
    gain_per_s: ArrayLike,
    stay_s: ArrayLike,
    bytes_: ArrayLike,
    free_bit_s: ArrayLike,
    stalled_s: ArrayLike = 0.0,
    price: ArrayLike = 0.0,
    stalled_cost_per_s: ArrayLike = 0.0,
    remaining_s: ArrayLike = np.inf,
    urgent: ArrayLike = False,
    nearly_over_s: float = 60.0,
) -> Verdicts:
    """``stay.stay_or_go`` with its rules for many services; each argument is (users,) or one for all.

    ``remaining_s`` is ``inf`` for what has no end, ``urgent`` marks emergency and measurement tasks. A user
    with a NaN, or with no free bandwidth, stays and is counted, if no rule decides. ``ValueError`` if shapes do
    not match, a value but the gain is negative, or the gain, bytes or a cost is infinite.
    """
    if not (isfinite(nearly_over_s) and nearly_over_s >= 0.0):
        raise ValueError(f"nearly_over_s {nearly_over_s} must be finite and not negative")
    given = {
        "gain_per_s": gain_per_s, "stay_s": stay_s, "bytes_": bytes_, "free_bit_s": free_bit_s,
        "stalled_s": stalled_s, "price": price, "stalled_cost_per_s": stalled_cost_per_s,
        "remaining_s": remaining_s,
    }  # fmt: skip
    columns = {name: np.asarray(one, dtype=np.float64) for name, one in given.items()}
    hurry = np.asarray(urgent)
    if hurry.size and hurry.dtype != np.bool_:
        raise ValueError(f"urgent must be booleans, not {hurry.dtype}")
    hurry = hurry.astype(np.bool_)
    users = _users([*columns.items(), ("urgent", hurry)])
    for name, one in columns.items():
        if name != "gain_per_s" and (one < 0.0).any():
            raise ValueError(f"{name} {np.nanmin(one)} must not be negative")
        if name not in ("stay_s", "remaining_s", "free_bit_s") and np.isinf(one).any():
            raise ValueError(f"{name} must be finite")
    migrate = np.empty(users, dtype=np.bool_)
    net = np.empty(users)
    unknown = 0
    spread = [np.broadcast_to(one, (users,)) for one in columns.values()]
    hurry = np.broadcast_to(hurry, (users,))
    for begin in range(0, users, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        unknown += _block([one[block] for one in spread], hurry[block], nearly_over_s, migrate[block], net[block])
    return Verdicts(migrate, net, unknown)


def _block(columns: list[Floats], hurry: Bools, nearly_over_s: float, migrate: Bools, net: Floats) -> int:
    """Fills ``migrate`` and ``net`` for one block; how many users lack a measurement."""
    gain_per_s, stay_s, bytes_, free_bit_s, stalled_s, price, stalled_cost_per_s, remaining_s = columns
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        transfer_s = 8.0 * bytes_ / free_bit_s
        served_s = np.maximum(0.0, np.minimum(stay_s, remaining_s) - transfer_s)
        gained = gain_per_s * served_s
        gained[(gain_per_s == 0.0) & np.isinf(served_s)] = 0.0  # as for one: no gain is none for ever
        net[:] = gained - (stalled_s * stalled_cost_per_s + price)
    net[np.isinf(transfer_s)] = np.nan  # no bandwidth is known to be free
    ruled = hurry | (remaining_s < nearly_over_s)
    unknown = int(np.count_nonzero(np.isnan(net) & ~ruled))
    np.greater(net, 0.0, out=migrate)  # NaN is not: who is not known stays
    migrate &= ~ruled
    migrate |= hurry
    net[ruled] = np.nan
    return unknown
