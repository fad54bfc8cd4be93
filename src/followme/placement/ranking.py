"""The choice of a data centre among many by many criteria, and for each why it stands where it stands.

Two methods, one signature. Both compare the candidates with each other only, so units do not matter, and
neither ever puts a candidate above one that is at least as good in all that counts:

- ``weighted-sum``: each criterion from 0 (the worst candidate's) to 1 (the best's), times its weight;
- ``topsis``: how near a candidate is to the ideal (the best of each criterion) and how far from its
  opposite (Hwang and Yoon, Multiple Attribute Decision Making, 1981): vectors of length 1, then weights.

A score says who is better, not by how much in any unit: with two candidates even a trifle is worth all of a
criterion. Whether going there pays is another question (``stay.stay_or_go``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal, get_args

import numpy as np

from .criteria import CRITERIA, NAMES, UserClass, Weights
from .facts import CandidateFacts
from .limits import Requirements
from .offers import Bools, Floats
from .table import Asked, Table

Method = Literal["weighted-sum", "topsis"]

_SIGNS = np.array([float(criterion.sign) for criterion in CRITERIA])
_LATENCY, _BANDWIDTH, _LOSS = (NAMES.index(name) for name in ("latency", "bandwidth", "loss"))
_ANY = Requirements()
_EQUAL = Weights()


@dataclass(frozen=True, slots=True)
class Noise:
    """By how much measurements err: the data centre that serves is ranked as if it were better by that much.

    Two delays err by less than ``latency_s`` (one way) against each other, ``loss`` is one probe of the path
    monitor's 64 and a little, ``bandwidth`` the share by which a few seconds' traffic makes what is free go up
    and down. ``score`` is what another must be ahead of it all the same: what does not show in the
    measurements (a span that the noise of a third one stretches). 0.02 is a fiftieth of all that counts.
    """

    latency_s: float = 0.002
    loss: float = 0.02
    bandwidth: float = 0.1
    score: float = 0.02

    def better(self, found: Floats, row: int) -> Floats:
        """The values with those of ``row`` bettered."""
        one = found[row].tolist()
        for column, by in ((_LATENCY, self.latency_s), (_LOSS, self.loss)):
            if not isnan(one[column]):
                one[column] = max(0.0, one[column] - by)
        one[_BANDWIDTH] *= 1.0 + self.bandwidth
        found = found.copy()
        found[row] = one
        return found


@dataclass(frozen=True, slots=True)
class Ranked:
    """One data centre in its place, 1 for the best. ``contributions`` by criterion add up to ``score`` (0..1)."""

    name: str
    place: int
    score: float
    contributions: Mapping[str, float]
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The feasible candidates, the best first; words are made when they are asked for.

    ``unknown`` counts the missing values of criteria that count, each of which was taken to be the worst that
    was measured among the candidates (a criterion that is known of none tells none apart). ``values`` is
    (candidates x criteria) in ``table``'s order; ``rows`` are the feasible ones' numbers there. ``scores`` and
    ``contributions`` (feasible x criteria) are in the order of ``rows``, ``order`` holds numbers into it, the
    best first. ``current`` is the row where the service runs, ``noise`` what it was given for noise.
    """

    method: Method
    table: Table
    asked: Asked
    current: int | None
    rows: tuple[int, ...]
    order: tuple[int, ...]
    scores: tuple[float, ...]
    values: Floats
    contributions: Floats
    unknown: int
    noise: Noise | None

    @property
    def excluded(self) -> dict[str, str]:
        """For each candidate that is not feasible, which limits it breaks."""
        inside = set(self.rows)
        return {
            name: self.table.broken(row, self.asked, self.current)
            for row, name in enumerate(self.table.offers.names)
            if row not in inside
        }

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Ranked]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> Ranked:
        """From 0; ``IndexError`` beyond the feasible ones."""
        row = self.order[place]
        place %= len(self.order)
        parts = dict(zip(NAMES, self.contributions[row].tolist(), strict=True))
        return Ranked(self._name(row), place + 1, self.scores[row], parts, self._why(place))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._name(row) for row in self.order)

    @property
    def best(self) -> Ranked | None:
        """``None`` if the limits exclude all; ``excluded`` says why."""
        return self[0] if self.order else None

    @property
    def best_row(self) -> int | None:
        """The best's row in ``table``; ``None`` if the limits exclude all."""
        return self.rows[self.order[0]] if self.order else None

    @property
    def why(self) -> str:
        """Why the best is the best, or why there is none."""
        if self.order:
            return self._why(0)
        broken = "; ".join(f"{name} ({reason})" for name, reason in self.excluded.items())
        return f"no data centre is feasible: {broken}"

    def _why(self, place: int) -> str:
        """Its place and score, and what sets it apart from its better neighbour (the first: from the next)."""
        row = self.order[place]
        name, score = self._name(row), self.scores[row]
        if place == 0 and self.noise is not None and self.rows[row] == self.current:
            plain = rank_table(self.table, self.asked, self.method, self.current)
            if plain.best_row != self.current:
                return f"{name} serves now, and no other is better by more than noise; without noise: {plain.why}"
        text = f"{name} is number {place + 1} of {len(self.order)} by {self.method}, score {score:.3f}"
        if len(self.order) == 1:
            return f"{text}: no other data centre is feasible{self._missing(row)}"
        rival = self.order[place - 1 if place else 1]
        ahead = (self.contributions[row] - self.contributions[rival]).tolist()
        other = self._name(rival)
        by = sorted([(one, column) for column, one in enumerate(ahead) if one])
        gains = self._named(row, rival, [one for one in by[:-3:-1] if one[0] > 0.0])
        losses = self._named(row, rival, [one for one in by[:2] if one[0] < 0.0])
        if not gains and not losses:
            return f"{text}: level with {other} in all that counts{self._missing(row)}"
        if place == 0:
            stands, why, yet = f"ahead of {other}", gains, f", though behind in {losses}" if losses else ""
        else:
            stands, why, yet = f"behind {other}", losses, f", though ahead in {gains}" if gains else ""
        return f"{text}: {stands}{f' in {why}' if why else ''}{yet}{self._missing(row)}"

    def _name(self, row: int) -> str:
        return self.table.offers.names[self.rows[row]]

    def _named(self, row: int, rival: int, by: list[tuple[float, int]]) -> str:
        """Each (difference in score, column) with both values."""
        return " and ".join(
            f"{CRITERIA[column].name.replace('_', ' ')} ({self._shown(row, column)} against "
            f"{self._shown(rival, column)}, {abs(difference):.3f})"
            for difference, column in by
        )

    def _shown(self, row: int, column: int) -> str:
        criterion, value = CRITERIA[column], float(self.values[self.rows[row], column])
        if isnan(value):
            return "unknown"
        if criterion.name == "preference":
            return "preferred" if value else "not preferred"
        return f"{value * criterion.factor:.4g} {criterion.unit}"

    def _missing(self, row: int) -> str:
        values = self.values[self.rows[row]].tolist()
        blank = [name for name, value in zip(NAMES, values, strict=True) if value != value]
        if not blank:
            return ""
        return f"; not known of it: {', '.join(blank).replace('_', ' ')} (taken as the worst)"


def rank(
    facts: Sequence[CandidateFacts],
    requirements: Requirements = _ANY,
    weights: Weights = _EQUAL,
    method: Method = "weighted-sum",
    current: str | None = None,
    user_class: UserClass | None = None,
    noise: Noise | None = None,
) -> Ranking:
    """Data centres for one service, the best first; limits exclude, weights order.

    ``current`` is where the service runs: its capacity is not asked for again, it wins ties, and with ``noise``
    all that is not better by more than that; other ties go by name. ``user_class`` multiplies the weights.
    ``ValueError`` if there is no candidate, two have one name, or the method is unknown; no *feasible* candidate
    is a result (``Ranking.best`` is ``None``).
    """
    if method not in get_args(Method):
        raise ValueError(f"method {method!r} is unknown; known are {', '.join(get_args(Method))}")
    table = Table.of(facts)
    row = None if current is None else table.offers.index.get(current)
    return rank_table(table, Asked(table.offers, requirements, weights, user_class), method, row, noise)


def rank_table(
    table: Table, asked: Asked, method: Method, current: int | None = None, noise: Noise | None = None,
    feasible: Bools | None = None,
) -> Ranking:  # fmt: skip
    """As ``rank``, of candidates in arrays; ``current`` is a row, ``feasible`` what ``Table.feasible`` said, if it
    was asked already. ``ValueError`` if there are no weights."""
    share = asked.share
    if share is None:
        raise ValueError("there are no weights to rank by")
    ok = table.feasible(asked, current) if feasible is None else feasible
    places = ok.nonzero()[0]
    rows = places.tolist()
    found = table.values(asked)
    if not rows:
        nothing = np.empty((0, len(CRITERIA)))
        return Ranking(method, table, asked, current, (), (), (), found, nothing, 0, noise)
    here = None if current is None or not ok[current] else current
    compared = found if noise is None or here is None else noise.better(found, here)
    filled, unknown = _filled(compared if len(rows) == len(ok) else compared[ok], share)
    scores, contributions = (_weighted_sum if method == "weighted-sum" else _topsis)(filled, share)
    listed = scores.tolist()
    elsewhere = places != (-1 if here is None else here)
    order = np.lexsort((table.offers.alphabetical[places], elsewhere, -scores)).tolist()
    if noise is not None and here is not None:
        at = rows.index(here)
        if listed[order[0]] - listed[at] <= noise.score:
            order.remove(at)
            order.insert(0, at)
    return Ranking(method, table, asked, current, tuple(rows), tuple(order), tuple(listed), found, contributions,
                   unknown, noise)  # fmt: skip


def _filled(found: Floats, share: Floats) -> tuple[Floats, int]:
    """Values signed so that more is better, unknown ones the worst known; and how many of those count."""
    signed = found * _SIGNS
    blank = np.isnan(signed)
    if not blank.any():
        return signed, 0
    worst = np.fmin.reduce(signed, axis=0)  # NaN only where all are
    signed = np.where(blank, np.where(np.isnan(worst), 0.0, worst), signed)
    return signed, int(np.count_nonzero(blank[:, share > 0.0]))


def _weighted_sum(signed: Floats, share: Floats) -> tuple[Floats, Floats]:
    worst = signed.min(axis=0)
    span = signed.max(axis=0) - worst
    level = span == 0.0
    # A criterion in which all are level is fully met by all.
    contributions = share * ((signed - worst) / (span + level) + level)
    return contributions.sum(axis=1), contributions


def _topsis(signed: Floats, share: Floats) -> tuple[Floats, Floats]:
    best, worst = signed.max(axis=0), signed.min(axis=0)
    largest = np.maximum(np.abs(best), np.abs(worst))
    largest += largest == 0.0
    scaled = signed / largest  # so that no square over- or underflows
    length = np.sqrt((scaled * scaled).sum(axis=0))
    factor = share / (length + (length == 0.0))
    weighted = scaled * factor
    below = best / largest * factor - weighted
    above = weighted - worst / largest * factor
    above *= above
    to_ideal = np.sqrt((below * below).sum(axis=1))
    squares = above.sum(axis=1)
    to_worst = np.sqrt(squares)
    # Written so that rounding cannot put a dominated candidate first; 0 / 0 is where all are equal.
    lowest = to_worst == 0.0
    scores = 1.0 / (1.0 + to_ideal / (to_worst + lowest))
    same = lowest & (to_ideal == 0.0)
    scores[lowest] = 0.0
    scores[same] = 1.0
    # The squared distance from the worst is a sum over criteria: so is the score, in its proportions.
    contributions = above * (scores / (squares + (squares == 0.0)))[:, None]
    contributions[same] = share
    return scores, contributions
