"""Who goes where when several services want to go at once and a place cannot take them all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, inf

import numpy as np

from .assignment import STAYS, assign

TIME_LIMIT_S = 0.05
"""For the solver: the controller waits for it."""


@dataclass(frozen=True, slots=True)
class Want:
    """One service that is to go: ``choices`` are (place, what being there is worth more than staying), the
    place that it wants first; all are above 0, in one unit for all services."""

    service: str
    demand: float
    choices: tuple[tuple[str, float], ...]

    @property
    def first(self) -> str:
        return self.choices[0][0]


def crowded(wants: Iterable[Want], free: Mapping[str, float]) -> tuple[str, ...]:
    """The places whose free capacity is less than what all that may go there demand together."""
    demands: dict[str, list[float]] = {}
    for want in wants:
        for place, _ in want.choices:
            demands.setdefault(place, []).append(want.demand)
    return tuple(place for place, all_ in demands.items() if fsum([*all_, -free.get(place, inf)]) > 0.0)


def share_out(wants: Sequence[Want], free: Mapping[str, float]) -> dict[str, str | None]:
    """Where each service goes, ``None`` where it stays: the most worth in sum that is found, and no place over its
    ``free`` capacity (``assignment.assign``; places that are not named are not limited). A service without
    demand takes no room and goes where it wants."""
    given: dict[str, str | None] = {want.service: want.first for want in wants if want.demand == 0.0}
    rest = [want for want in wants if want.demand > 0.0]
    places = sorted({place for want in rest for place, _ in want.choices})
    if not rest:
        return given
    column = {place: number for number, place in enumerate(places)}
    cost = np.full((len(rest), len(places)), inf)
    for row, want in enumerate(rest):
        for place, worth in want.choices:
            cost[row, column[place]] = -worth
    found = assign(
        cost, [free.get(place, inf) for place in places], 0.0, [want.demand for want in rest],
        time_limit_s=TIME_LIMIT_S,
    )  # fmt: skip
    for want, place in zip(rest, found.place.tolist(), strict=True):
        given[want.service] = None if place == STAYS else places[place]
    return given
