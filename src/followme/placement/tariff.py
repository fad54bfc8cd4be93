"""Price lists with bulk discounts ("An OpenFlow-based implementation", section III.B: business criteria)."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

MAX_TIERS = 8
"""Tiers of a tariff: a fixed number lets the prices of all candidates be reckoned at once."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """A price list with bulk discounts: ``tiers`` are (from this quantity on, price of a unit).

    The unit price of a tier holds for the whole quantity, not for what lies above the tier's begin, and
    nobody pays more than the begin of a later tier would cost: total(q) = min over tiers of
    max(q, begin) * price. Hence the total never falls when the quantity grows, though a plain all-units
    discount does fall at each begin, and the mean price of a unit never rises.

    ``ValueError`` unless there are 1 to ``MAX_TIERS`` tiers, the first from 0, begins rise, and prices are
    finite, not negative and fall.
    """

    tiers: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.tiers) <= MAX_TIERS:
            raise ValueError(f"a tariff has 1 to {MAX_TIERS} tiers, not {len(self.tiers)}")
        if self.tiers[0][0] != 0:
            raise ValueError(f"the first tier begins at {self.tiers[0][0]}, not at 0")
        for begin, price in self.tiers:
            if not (isfinite(begin) and isfinite(price) and price >= 0.0):
                raise ValueError(f"tier ({begin}, {price}) must be finite, its price not negative")
        for (begin, price), (later, cheaper) in zip(self.tiers, self.tiers[1:], strict=False):
            if later <= begin or cheaper >= price:
                raise ValueError(f"tier ({later}, {cheaper}) must begin above {begin} and cost less than {price}")

    def total(self, quantity: float) -> float:
        """The price of ``quantity``; ``ValueError`` if that is negative or not finite."""
        if not (isfinite(quantity) and quantity >= 0.0):
            raise ValueError(f"quantity {quantity} must be finite and not negative")
        return min(max(quantity, begin) * price for begin, price in self.tiers)

    def share(self, quantity: float, in_use: float = 0.0) -> float:
        """What ``quantity`` costs beside ``in_use``: its share, by quantity, of the total price of both.

        Not the rise of the total, which is 0 just below a tier's begin: a service would seem free there,
        and the next one would pay for it.
        """
        together = quantity + in_use
        return quantity * (self.total(together) / together) if together > 0.0 else self.total(0.0)
