"""The paper's 1D decision process with what was learned of users and places: a threshold table for each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from followme.domain import Decision

from .learned import Bools, Floats, Ints, numbered, within
from .situation import Situation


@dataclass(frozen=True, slots=True, eq=False)
class LearnedLine:
    """Solved lines, and which of them goes for which user in which area.

    ``gain`` (k, d) in seconds of waiting, by how much migrating beats staying at distances 0..d-1; what is farther
    counts as the last. ``line_of`` (u + 1, n) is the line of each user (the last row: of users nobody has seen) in
    each area. Names as in ``LearnedTables``; ``ValueError`` as there.
    """

    areas: tuple[str, ...]
    users: tuple[str, ...]
    gain: Floats
    line_of: Ints
    _areas: dict[str, int] = field(init=False, repr=False)
    _users: dict[str, int] = field(init=False, repr=False)
    name: ClassVar[str] = "mdp-line"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_areas", numbered("areas", self.areas))
        object.__setattr__(self, "_users", numbered("users", self.users))
        if self.gain.ndim != 2 or not self.gain.size:
            raise ValueError(f"gain is (lines, distances), not {self.gain.shape}")
        if self.line_of.shape != (len(self.users) + 1, len(self.areas)):
            raise ValueError(f"line_of is (users + 1, areas), not {self.line_of.shape}")
        within("line_of", self.line_of, len(self.gain))
        if bool(np.isnan(self.gain).any()) or bool((self.gain[:, 0] > 0.0).any()):
            raise ValueError("a gain is not a number, or is above 0 at distance 0: the service is there")

    def decide(self, situation: Situation) -> Decision:
        distance = situation.distance
        if situation.best == situation.current or distance <= 0:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        if situation.distance_best > 0:
            why = f"{situation.best} is not in the user's area, and what was learned is for that"
            return situation.decide(self.name, False, why)
        area = self._areas.get(situation.best)
        if area is None:
            return situation.decide(self.name, False, f"nothing was learned of {situation.best}")
        line = self.gain[self.line_of[self._users.get(situation.user, -1), area]]
        gain = float(line[min(distance, len(line) - 1)])
        above = np.flatnonzero(line > 0.0)
        threshold = f"threshold {above[0]}" if len(above) else "it never migrates"
        why = f"migrating at distance {distance} saves {gain:+.3g} s of waiting against staying ({threshold})"
        return situation.decide(self.name, gain > 0.0, why)

    @property
    def migrate(self) -> Bools:
        """(k, d): whether a line migrates at a distance."""
        goes: Bools = self.gain > 0.0
        return goes
