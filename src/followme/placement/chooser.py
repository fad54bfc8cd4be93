"""Which data centre is best for one service now: the location mapper, or the ranking where criteria are given.

The controller asks this one object. A service that says nothing of its needs goes to the nearest data centre
that has room; one that does is ranked by its own weights under its own limits (``ranking``). The rules that
the papers name (urgent tasks, content that is nearly over) come before any policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite

import numpy as np

from .criteria import UserClass, Weights
from .limits import Requirements
from .mapper import Candidate, LocationMapper
from .offers import Bools, Floats, Offer, Offers
from .ranking import Method, Noise, Ranking, rank_table
from .stay import RULES, Gain, Rule, Task, Use, Verdict, Worth, gain
from .table import Asked, Table

NOISE = Noise()


@dataclass(frozen=True, slots=True)
class Needs:
    """What a service asks for. Without ``weights`` the nearest data centre within the limits is the best.

    ``worth`` is what stay-or-go weighs against the cost of going; ``ends_at`` when its content ends, in seconds
    of the wall clock (``None``: it has no end).
    """

    requirements: Requirements = field(default_factory=Requirements)
    weights: Weights | None = None
    method: Method = "weighted-sum"
    user_class: UserClass | None = None
    task: Task = Task.ORDINARY
    ends_at: float | None = None
    worth: Worth | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """What is measured now, seen from one access network: (data centres,) each, in ``Chooser.names``' order.

    One-way delays (s; infinite: nothing comes through), losses, free bandwidths (bit/s), NaN where unknown, and
    the capacity in ``used``.
    """

    delays: Floats
    losses: Floats
    bandwidths: Floats
    used: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """``best`` is ``None`` if no data centre is feasible; ``verdict`` is what a rule decides before any policy is
    asked; ``gain`` what a second at the best is worth, where the service's ``worth`` says it. Words are made
    when they are asked for."""

    best: str | None
    verdict: Verdict | None
    table: Table
    asked: Asked
    current: int | None
    """The row where the service runs."""
    worth: Worth | None
    feasible: Bools
    """(n,): whom no limit excludes."""
    ranking: Ranking | None
    nearest: Candidate | None

    @property
    def why(self) -> str:
        """How the best was chosen, or why there is none."""
        if self.ranking is not None:
            return self.ranking.why
        if self.nearest is not None:
            return self.nearest.why
        return f"no data centre is feasible ({'; '.join(f'{name}: {why}' for name, why in self.excluded.items())})"

    @property
    def excluded(self) -> dict[str, str]:
        """For each data centre that a limit excludes, which one."""
        table = self.table
        return {
            table.offers.names[row]: table.broken(row, self.asked, self.current)
            for row in np.flatnonzero(~self.feasible).tolist()
        }

    @property
    def full(self) -> frozenset[str]:
        """Those that only the want of room excludes."""
        rows = np.flatnonzero(self.table.full(self.asked, self.current)).tolist()
        return frozenset(self.table.offers.names[row] for row in rows)

    @property
    def gain(self) -> Gain | None:
        """``None`` where no worth is given, or there is nothing to compare."""
        row = None if self.best is None else self.table.offers.index[self.best]
        if self.worth is None or row is None or self.current is None or row == self.current:
            return None
        values = self.table.values(self.asked) if self.ranking is None else self.ranking.values
        return gain(values[self.current].tolist(), values[row].tolist(), self.worth)

    def delay_s(self, name: str) -> float | None:
        """One way, if it is known."""
        row = self.table.offers.index.get(name)
        delay = inf if row is None else float(self.table.measured[row, 0])
        return delay if isfinite(delay) else None


class Chooser:
    """``offers`` by data centre (those that can run machines), ``needs`` by service."""

    def __init__(
        self,
        mapper: LocationMapper,
        offers: Mapping[str, Offer],
        needs: Mapping[str, Needs],
        rules: Sequence[Rule] = RULES,
        noise: Noise = NOISE,
    ) -> None:
        self._mapper = mapper
        self._offers = Offers(offers)
        self._needs = dict(needs)
        self._asked = {
            name: Asked(self._offers, one.requirements, one.weights, one.user_class)
            for name, one in self._needs.items()
        }
        self._any = Asked(self._offers, _NONE.requirements)
        self._rules = tuple(rules)
        self._noise = noise
        capacity = self._offers.capacity
        self._limited = np.isfinite(capacity) & (capacity > 0.0)
        self._per = np.where(self._limited, 1.0 / np.where(self._limited, capacity, 1.0), np.nan)
        self.names = self._offers.names
        """The data centres, in the order of all arrays."""
        self.scarce = bool(np.isfinite(capacity).any())
        """Whether any data centre can be full."""

    def needs(self, service: str) -> Needs:
        """What the service asks for; nothing if it has not said."""
        return self._needs.get(service, _NONE)

    def capacity(self, name: str) -> float:
        """The whole capacity of the data centre; 0 if it is not one of ours."""
        row = self._offers.index.get(name)
        return 0.0 if row is None else float(self._offers.capacity[row])

    def choose(
        self, service: str, access: str, current: str, measured: Measured, remaining_s: float | None = None
    ) -> Choice:
        """The best data centre for a user at ``access``; ``current`` is where the service runs now, and
        ``remaining_s`` for how long its content goes on (``None``: without end)."""
        needs = self._needs.get(service, _NONE)
        asked = self._asked.get(service, self._any)
        row = self._offers.index.get(current)
        table = self._table(needs, row, measured)
        verdict = self._verdict(service, needs, remaining_s)
        ranking: Ranking | None = None
        nearest: Candidate | None = None
        ok = table.feasible(asked, row)
        if asked.share is not None:
            ranking = rank_table(table, asked, needs.method, row, self._noise, ok)
            at = ranking.best_row
            best = None if at is None else self.names[at]
        else:
            delays = measured.delays.tolist()
            nearest = self._mapper.nearest(
                access, {self.names[one]: delays[one] for one in np.flatnonzero(ok).tolist()}, current
            )
            best = None if nearest is None else nearest.network
        if verdict is None and row is not None and not ok[row] and best is not None:
            # A limit is no matter of taste: whoever may not be where it is goes, whatever the policy.
            verdict = Verdict(True, f"it cannot stay at {current}: {table.broken(row, asked, row)}")
        return Choice(best, verdict, table, asked, row, needs.worth, ok, ranking, nearest)

    def others(self, choice: Choice, access: str, most: int) -> tuple[Choice, ...]:
        """The choice with each of the ``most`` next best in the best's place, the better first: those only that
        come before where the service runs, by score or by nearness."""
        current = None if choice.current is None else self.names[choice.current]
        if choice.ranking is not None:
            order = list(choice.ranking.names)
        else:
            delays = choice.table.measured[:, 0].tolist()
            known = {self.names[row]: delays[row] for row in np.flatnonzero(choice.feasible).tolist()}
            order = self._mapper.in_order(access, known, current)
        ahead = order[: order.index(current)] if current in order else order
        return tuple(replace(choice, best=name) for name in [one for one in ahead if one != choice.best][:most])

    def distance(self, access: str, centre: str) -> int:
        """Service areas between two networks; ``ValueError`` if one is unknown."""
        return self._mapper.distance(access, centre)

    def _table(self, needs: Needs, current: int | None, measured: Measured) -> Table:
        used = measured.used.copy()
        if current is not None:  # the service is no competitor of its own
            used[current] = max(0.0, used[current] - needs.requirements.demand)
        offers = self._offers
        found = np.empty((len(offers), 5))
        found[:, 0], found[:, 1], found[:, 2] = measured.delays, measured.bandwidths, measured.losses
        found[:, 3] = np.minimum(1.0, used * self._per)
        found[:, 4] = offers.throughput
        in_use = np.zeros((len(offers), 3))
        in_use[:, 1] = used
        return Table(offers, found, in_use, np.maximum(0.0, offers.capacity - used))

    def _verdict(self, service: str, needs: Needs, remaining_s: float | None) -> Verdict | None:
        if needs.task is Task.ORDINARY and remaining_s is None:
            return None
        use = Use(service, inf, needs.task, remaining_s)
        return next((found for rule in self._rules if (found := rule(use)) is not None), None)


_NONE = Needs()
