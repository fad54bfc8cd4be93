"""What a policy is asked, and what it promises to answer."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Protocol

from followme.domain import Decision

from .stay import Gain, Verdict


@dataclass(frozen=True, slots=True)
class Situation:
    """One service, the data centre that serves it (``current``) and the one that is best for its user now.

    ``distance`` is in service areas between the user and ``current``, ``distance_best`` between the user and
    ``best`` (not 0 where a limit or a criterion excludes the nearest). Delays are one way, in seconds, ``None``
    if nobody measured them; so is ``bandwidth_bit_s``, that of the way from ``current`` to ``best``.
    ``migration_bytes`` is the estimate of what a migration would carry. ``rule`` is what a rule of the service
    has decided already (an urgent task, content that is nearly over): the policy is not asked then.

    ``weighed`` says that ``best`` was ranked by the service's weights. ``gain`` is what a second at the best is
    worth (``None``: no worths are given). ``stay_s`` is the mean of the user's last ``stays`` stays in one place,
    ``remaining_s`` for how long the content goes on (``None``: without end), ``stalled_s`` for how long the
    machine stood still when it was carried last; ``None`` where nobody knows. ``user`` is the name of whom the
    service follows, as the config and traces have it; empty where nobody says.
    """

    service: str
    current: str
    best: str
    distance: int
    delay_current_s: float | None = None
    delay_best_s: float | None = None
    migration_bytes: int = 0
    bandwidth_bit_s: float | None = None
    rule: Verdict | None = None
    distance_best: int = 0
    weighed: bool = False
    gain: Gain | None = None
    stay_s: float | None = None
    stays: int = 0
    remaining_s: float | None = None
    stalled_s: float | None = None
    user: str = ""

    @property
    def transfer_s(self) -> float | None:
        """Seconds that a migration's bytes take at the known bandwidth."""
        if self.bandwidth_bit_s is None or self.bandwidth_bit_s <= 0:
            return None
        return 8 * self.migration_bytes / self.bandwidth_bit_s

    @property
    def no_nearer(self) -> str:
        """Why ``best`` is no nearer to the user than ``current``, in words; empty if it is nearer.

        By the delays where both are known, else by service areas. A model that knows of nothing but distance
        has nothing to gain from such a place.
        """
        here, there = self.delay_current_s, self.delay_best_s
        if here is not None and there is not None:
            return "" if there < here else f"{self.best} is no nearer than {self.current}"
        if self.distance_best < self.distance or self.distance_best == self.distance == 0:
            return ""
        return f"{self.best}, at distance {self.distance_best}, is no nearer than {self.current} at {self.distance}"

    def decide(self, policy: str, migrate: bool, why: str) -> Decision:
        """The decision on this situation; the target of a stay is ``current``."""
        target = self.best if migrate else self.current
        return Decision(self.service, migrate, self.current, target, policy, f"{why}{self._delays()}")

    def _delays(self) -> str:
        if self.delay_current_s is None or self.delay_best_s is None:
            return ""
        here, there = 1e3 * self.delay_current_s, 1e3 * self.delay_best_s
        return f"; one-way delay {here:.1f} ms from {self.current}, {there:.1f} ms from {self.best}"


class Policy(Protocol):
    """Step 2: stay, or go. ``name`` is the word for it in the config and in decisions."""

    @property
    def name(self) -> str: ...

    def decide(self, situation: Situation) -> Decision:
        """Pure: the same situation gets the same decision. Never migrates to where the service is."""
        ...


def check_numbers(policy: Any) -> None:
    """``ValueError`` names a field of this dataclass, all of them numbers, that is negative or not finite."""
    for key in (one.name for one in fields(policy)):
        value = getattr(policy, key)
        if not (isfinite(value) and value >= 0.0):
            raise ValueError(f"{key} {value} must be finite and not negative")
