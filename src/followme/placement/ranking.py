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
from numpy.typing import NDArray

from .criteria import CRITERIA, CandidateFacts, Requirements, UserClass, Weights, shares, values
from .mapper import Candidate

Method = Literal["weighted-sum", "topsis"]
Matrix = NDArray[np.float64]

_SIGNS = np.array([float(criterion.sign) for criterion in CRITERIA])
_NAMES = tuple(criterion.name for criterion in CRITERIA)
_ANY = Requirements()
_EQUAL = Weights()


@dataclass(frozen=True, slots=True)
class Ranked:
    """One data centre in its place, 1 for the best. ``contributions`` by criterion add up to ``score`` (0..1)."""

    facts: CandidateFacts
    place: int
    score: float
    contributions: Mapping[str, float]
    why: str

    @property
    def name(self) -> str:
        return self.facts.name


@dataclass(frozen=True, slots=True)
class Ranking:
    """The feasible candidates, the best first; ``ranking[0]`` makes its words when it is asked for.

    ``excluded`` says for each other candidate which limits it breaks. ``unknown`` counts the missing values
    of criteria that count, each of which was taken to be the worst that was measured among the candidates
    (a criterion that is known of none tells none apart). (feasible x criteria) arrays are in ``facts``'
    order, the columns in that of ``CRITERIA``; ``order`` holds row numbers, the best first.
    """

    method: Method
    facts: tuple[CandidateFacts, ...]
    excluded: Mapping[str, str]
    order: tuple[int, ...]
    scores: tuple[float, ...]
    values: Matrix
    contributions: Matrix
    unknown: int

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Ranked]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, place: int) -> Ranked:
        """From 0; ``IndexError`` beyond the feasible ones."""
        row = self.order[place]
        place %= len(self.order)
        parts = dict(zip(_NAMES, self.contributions[row].tolist(), strict=True))
        return Ranked(self.facts[row], place + 1, self.scores[row], parts, self._why(place))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.facts[row].name for row in self.order)

    @property
    def best(self) -> Ranked | None:
        """``None`` if the limits exclude all; ``excluded`` says why."""
        return self[0] if self.order else None

    @property
    def why(self) -> str:
        """Why the best is the best, or why there is none."""
        if self.order:
            return self._why(0)
        broken = "; ".join(f"{name} ({reason})" for name, reason in self.excluded.items())
        return f"no data centre is feasible: {broken}"

    def candidates(self) -> tuple[Candidate, ...]:
        """As the location mapper would hand them to the controller, the best first."""
        return tuple(
            Candidate(
                one.name,
                None if one.facts.latency_s is None or isnan(one.facts.latency_s) else one.facts.latency_s,
                one.facts.distance,
                one.why,
            )
            for one in self
        )

    def _why(self, place: int) -> str:
        """Its place and score, and what sets it apart from its better neighbour (the first: from the next)."""
        row = self.order[place]
        name, score = self.facts[row].name, self.scores[row]
        text = f"{name} is number {place + 1} of {len(self.order)} by {self.method}, score {score:.3f}"
        if len(self.order) == 1:
            return f"{text}: no other data centre is feasible{self._missing(row)}"
        rival = self.order[place - 1 if place else 1]
        ahead = self.contributions[row] - self.contributions[rival]
        other = self.facts[rival].name
        by = sorted(zip(ahead.tolist(), range(len(CRITERIA)), strict=True))
        gains = self._named(row, rival, [one for one in by[:-3:-1] if one[0] > 0.0])
        losses = self._named(row, rival, [one for one in by[:2] if one[0] < 0.0])
        if not gains and not losses:
            return f"{text}: level with {other} in all that counts{self._missing(row)}"
        if place == 0:
            stands, why, yet = f"ahead of {other}", gains, f", though behind in {losses}" if losses else ""
        else:
            stands, why, yet = f"behind {other}", losses, f", though ahead in {gains}" if gains else ""
        return f"{text}: {stands}{f' in {why}' if why else ''}{yet}{self._missing(row)}"

    def _named(self, row: int, rival: int, by: list[tuple[float, int]]) -> str:
        """Each (difference in score, column) with both values."""
        return " and ".join(
            f"{CRITERIA[column].name.replace('_', ' ')} ({self._shown(row, column)} against "
            f"{self._shown(rival, column)}, {abs(difference):.3f})"
            for difference, column in by
        )

    def _shown(self, row: int, column: int) -> str:
        criterion, value = CRITERIA[column], float(self.values[row, column])
        if isnan(value):
            return "unknown"
        if criterion.name == "preference":
            return "preferred" if value else "not preferred"
        return f"{value * criterion.factor:.4g} {criterion.unit}"

    def _missing(self, row: int) -> str:
        blank = [one.name for one, value in zip(CRITERIA, self.values[row], strict=True) if isnan(value)]
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
) -> Ranking:
    """Data centres for one service, the best first; limits exclude, weights order.

    ``current`` is where the service runs: its capacity is not asked for again, and it wins ties; other ties
    go by name. ``user_class`` multiplies the weights. ``ValueError`` if there is no candidate, two have one
    name, or the method is unknown; no *feasible* candidate is a result (``Ranking.best`` is ``None``).
    """
    if not facts:
        raise ValueError("there is no data centre to choose from")
    names = [one.name for one in facts]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"two data centres are called {twice[0]!r}")
    if method not in get_args(Method):
        raise ValueError(f"method {method!r} is unknown; known are {', '.join(get_args(Method))}")
    share = shares(weights, user_class)
    feasible: list[CandidateFacts] = []
    excluded: dict[str, str] = {}
    for one in facts:
        broken = requirements.broken_by(one, current)
        if broken:
            excluded[one.name] = broken
        else:
            feasible.append(one)
    if not feasible:
        nothing = np.empty((0, len(CRITERIA)))
        return Ranking(method, (), excluded, (), (), nothing, nothing, 0)
    found = values(feasible, requirements)
    filled, unknown = _filled(found, share)
    scores, contributions = (_weighted_sum if method == "weighted-sum" else _topsis)(filled, share)
    listed = scores.tolist()
    places = sorted([(-score, one.name != current, one.name, row)
                     for row, (score, one) in enumerate(zip(listed, feasible, strict=True))])  # fmt: skip
    order = tuple([place[3] for place in places])
    return Ranking(method, tuple(feasible), excluded, order, tuple(listed), found, contributions, unknown)


def _filled(found: Matrix, share: Matrix) -> tuple[Matrix, int]:
    """Values signed so that more is better, unknown ones the worst known; and how many of those count."""
    signed = found * _SIGNS
    blank = np.isnan(signed)
    if not blank.any():
        return signed, 0
    worst = np.fmin.reduce(signed, axis=0)  # NaN only where all are
    signed = np.where(blank, np.where(np.isnan(worst), 0.0, worst), signed)
    return signed, int(np.count_nonzero(blank[:, share > 0.0]))


def _weighted_sum(signed: Matrix, share: Matrix) -> tuple[Matrix, Matrix]:
    worst = signed.min(axis=0)
    span = signed.max(axis=0) - worst
    level = span == 0.0
    # A criterion in which all are level is fully met by all.
    contributions = share * ((signed - worst) / (span + level) + level)
    return contributions.sum(axis=1), contributions


def _topsis(signed: Matrix, share: Matrix) -> tuple[Matrix, Matrix]:
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
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = 1.0 / (1.0 + to_ideal / to_worst)
    same = (to_ideal == 0.0) & (to_worst == 0.0)
    scores[same] = 1.0
    # The squared distance from the worst is a sum over criteria: so is the score, in its proportions.
    contributions = above * (scores / (squares + (squares == 0.0)))[:, None]
    contributions[same] = share
    return scores, contributions
