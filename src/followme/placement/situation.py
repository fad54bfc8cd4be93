"""What a policy is asked, and what it promises to answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from followme.domain import Decision

from .stay import Verdict


@dataclass(frozen=True, slots=True)
class Situation:
    """One service, the data centre that serves it (``current``) and the one that is best for its user now.

    ``distance`` is in service areas between the user and ``current``. Delays are one way, in seconds,
    ``None`` if nobody measured them; so is ``bandwidth_bit_s``, that of the way from ``current`` to ``best``.
    ``migration_bytes`` is the estimate of what a migration would carry. ``rule`` is what a rule of the service
    has decided already (an urgent task, content that is nearly over): the policy is not asked then.
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

    @property
    def transfer_s(self) -> float | None:
        """Seconds that a migration's bytes take at the known bandwidth."""
        if self.bandwidth_bit_s is None or self.bandwidth_bit_s <= 0:
            return None
        return 8 * self.migration_bytes / self.bandwidth_bit_s

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
