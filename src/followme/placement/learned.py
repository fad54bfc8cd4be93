"""What was learned of users and places, as tables that decide: no model is solved here, only looked up.

A state is (the user's area a, the service's area m). A table says in each by how many seconds of waiting migrating
beats staying; ``inf`` and ``-inf`` where a rule was cheaper than any table in training (``threshold 2`` goes from
two hops on). Each user has a table, and may have own values in the states in which that user was seen.
``analysis/`` learns them from traces, ``learned_file`` keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from followme.domain import Decision

from .situation import Situation

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class LearnedTables:
    """n areas and u users, by name; k tables.

    ``gain`` (k, n, n) in seconds of waiting, [table, user's area, service's area]; ``kinds`` (k,) says what each
    table is. ``table_of`` (u + 1,) is each user's table, the last one that of users nobody has seen. ``own_state``
    (r,) are numbers (user * n + a) * n + m in rising order, where ``own_gain`` (r,) takes the place of the table's.

    A situation's ``user`` is looked up among the users, ``best`` and ``current`` among the areas. A service in or
    for an area that was not learned of stays, and says so. ``ValueError`` if shapes do not match, a name is there
    twice, a number is out of range or a gain is NaN.
    """

    areas: tuple[str, ...]
    users: tuple[str, ...]
    kinds: tuple[str, ...]
    gain: Floats
    table_of: Ints
    own_state: Ints
    own_gain: Floats
    _areas: dict[str, int] = field(init=False, repr=False)
    _users: dict[str, int] = field(init=False, repr=False)
    name: ClassVar[str] = "learned"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_areas", numbered("areas", self.areas))
        object.__setattr__(self, "_users", numbered("users", self.users))
        n, users, tables = len(self.areas), len(self.users), len(self.kinds)
        if not tables or not n:
            raise ValueError("there is no table or no area")
        expected = {"gain": (tables, n, n), "table_of": (users + 1,), "own_gain": self.own_state.shape}
        for key, shape in expected.items():
            if getattr(self, key).shape != shape:
                raise ValueError(f"{key} has the shape {getattr(self, key).shape}, not {shape}")
        if self.own_state.ndim != 1 or bool((np.diff(self.own_state) <= 0).any()):
            raise ValueError("own_state must be one row of rising numbers")
        within("table_of", self.table_of, tables)
        within("own_state", self.own_state, users * n * n)
        if bool(np.isnan(self.gain).any() or np.isnan(self.own_gain).any()):
            raise ValueError("a gain is not a number")

    def decide(self, situation: Situation) -> Decision:
        if situation.best == situation.current:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        if situation.distance_best > 0:
            why = f"{situation.best} is not in the user's area, and what was learned is for that"
            return situation.decide(self.name, False, why)
        here, service = self._areas.get(situation.best), self._areas.get(situation.current)
        if here is None or service is None:
            unknown = situation.best if here is None else situation.current
            return situation.decide(self.name, False, f"nothing was learned of {unknown}")
        user = self._users.get(situation.user, -1)
        gain, own = self._looked_up(user, here, service)
        kind = f"{situation.user}'s own moves" if own else self.kinds[int(self.table_of[user])]
        if np.isinf(gain):
            why = f"{kind}, the cheapest in training, {'goes' if gain > 0.0 else 'stays'} here"
        else:
            why = f"migrating saves {gain:+.3g} s of waiting to the session's end against staying ({kind})"
        return situation.decide(self.name, gain > 0.0, why)

    def _looked_up(self, user: int, here: int, service: int) -> tuple[float, bool]:
        if user >= 0 and len(self.own_state):
            n = len(self.areas)
            state = (user * n + here) * n + service
            at = int(np.searchsorted(self.own_state, state))
            if at < len(self.own_state) and self.own_state[at] == state:
                return float(self.own_gain[at]), True
        return float(self.gain[self.table_of[user], here, service]), False

    def migrate(self, user: ArrayLike, here: ArrayLike, service: ArrayLike) -> Bools:
        """``decide`` for many at once, in numbers of users (-1: nobody knows) and areas: (m,) each."""
        who, at, serving = (np.asarray(one, dtype=np.int64) for one in (user, here, service))
        n = len(self.areas)
        gain = self.gain[self.table_of[who], at, serving]
        if len(self.own_state):
            state = (who * n + at) * n + serving
            found = np.minimum(np.searchsorted(self.own_state, state), len(self.own_state) - 1)
            own = (self.own_state[found] == state) & (who >= 0)
            gain = np.where(own, self.own_gain[found], gain)
        goes: Bools = (gain > 0.0) & (at != serving)
        return goes


def numbered(what: str, names: tuple[str, ...]) -> dict[str, int]:
    """Names to their places; ``ValueError`` if one is there twice."""
    numbers = {name: number for number, name in enumerate(names)}
    if len(numbers) < len(names):
        twice = next(name for number, name in enumerate(names) if numbers[name] != number)
        raise ValueError(f"{what}: {twice!r} is there twice")
    return numbers


def within(what: str, numbers: Ints, count: int) -> None:
    """``ValueError`` unless all are from 0 to ``count`` - 1."""
    if numbers.size and not (int(numbers.min()) >= 0 and int(numbers.max()) < count):
        raise ValueError(f"{what} must be 0 to {count - 1}; there are {numbers.min()} to {numbers.max()}")
