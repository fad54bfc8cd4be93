"""Stay-or-go as a policy: what a service gains over its user's expected stay, against what carrying it costs.

Section 3.2 of "When Cloud Services Follow Mobile Users"; the sum is ``stay.stay_or_go``'s. It is the policy of
all services that have weights, but for always and never: the threshold and the decision process know distance
only, so they would judge a place that was chosen for its price by how near it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from followme.domain import Decision

from .situation import Situation, check_numbers
from .stay import Carry, Use, Verdict, stay_or_go


@dataclass(frozen=True, slots=True)
class StayOrGo:
    """Migrate if the gain over the expected stay is more than the carry costs; over no known bandwidth, stay.

    A user's expected stay is the mean of those that were seen, and of ``prior_stays`` more of ``stay_s`` seconds
    each. A service whose ``worth`` is not given gains ``latency_worth`` a second of use for each second of
    one-way delay less: 2.0 is one request a second and both its ways, and the unit is seconds of waiting then.
    A second of standing still costs ``stalled_cost_per_s`` (1.0: it is a second of waiting); ``stalled_s`` is how
    long it takes until the machine's own was measured. ``price`` is that of a migration, ``byte_price`` that of
    each byte carried. ``ValueError`` names what is negative or not finite.
    """

    stay_s: float = 300.0
    prior_stays: float = 3.0
    latency_worth: float = 2.0
    stalled_cost_per_s: float = 1.0
    stalled_s: float = 0.1
    price: float = 0.0
    byte_price: float = 0.0
    name: ClassVar[str] = "stay-or-go"

    def __post_init__(self) -> None:
        check_numbers(self)

    def decide(self, situation: Situation) -> Decision:
        if situation.best == situation.current:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        verdict, notes = self.verdict(situation), ""
        if situation.gain is not None and situation.gain.unknown:
            notes += f"; not known, so not counted: {', '.join(situation.gain.unknown)}"
        if situation.stays:
            notes += f"; {situation.stays} stays of this user seen"
        return situation.decide(self.name, verdict.migrate, verdict.why + notes)

    def verdict(self, situation: Situation, bandwidth_bit_s: float | None = None) -> Verdict:
        """The sum; ``bandwidth_bit_s`` is taken where the situation's own is not known."""
        per_s = self._gain(situation)
        if per_s is None:
            return Verdict(False, "no delay is known, so neither is the gain of going")
        stalled_s = self.stalled_s if situation.stalled_s is None else situation.stalled_s
        free = bandwidth_bit_s if situation.bandwidth_bit_s is None else situation.bandwidth_bit_s
        size = situation.migration_bytes
        carry = Carry(size, free, stalled_s, self.price + self.byte_price * size)
        use = Use(situation.service, self.expected_stay_s(situation), remaining_s=situation.remaining_s)
        # The rules have been asked before any policy.
        return stay_or_go(use, carry, per_s, self.stalled_cost_per_s, rules=())

    def expected_stay_s(self, situation: Situation) -> float:
        """How long the user stays where it is, as far as its earlier stays tell."""
        if situation.stay_s is None or not situation.stays:
            return self.stay_s
        seen = situation.stays
        return (self.prior_stays * self.stay_s + seen * situation.stay_s) / (self.prior_stays + seen)

    def _gain(self, situation: Situation) -> float | None:
        """For a second; ``None`` if nothing is known of it."""
        if situation.gain is not None:
            return situation.gain.per_s if situation.gain.parts or not situation.gain.unknown else None
        here, there = situation.delay_current_s, situation.delay_best_s
        return None if here is None or there is None else self.latency_worth * (here - there)
