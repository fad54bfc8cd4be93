"""What the data centres offer, as their operators say: packed once, for it does not change between decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import NDArray

from .limits import Requirements
from .tariff import Tariff

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_NO_TIER = (nan, nan)
_SPARE_TIER = (1.0, inf)


@dataclass(frozen=True, slots=True)
class Offer:
    """What one data centre offers, as its operator says; the rest is measured."""

    capacity: float = inf
    provider: str = ""
    locality: str = ""
    service_classes: frozenset[str] = frozenset()
    throughput_per_s: float | None = None
    network_tariff: Tariff | None = None
    server_tariff: Tariff | None = None
    storage_tariff: Tariff | None = None


class Offers:
    """The offers of n data centres in one order, their numbers as arrays.

    ``capacity`` and ``throughput`` (n,), NaN where unknown; ``begins`` and ``prices`` (tiers, n, 3): where each
    tier of the network's, server's and storage's tariff begins, and its unit price (NaN without a tariff).
    ``ValueError`` if there is none.
    """

    __slots__ = ("alphabetical", "begins", "capacity", "index", "names", "offers", "prices", "throughput")

    def __init__(self, offers: Mapping[str, Offer]) -> None:
        if not offers:
            raise ValueError("there is no data centre to choose from")
        self.names = tuple(offers)
        self.offers = tuple(offers.values())
        self.index = {name: number for number, name in enumerate(self.names)}
        self.alphabetical = np.argsort(np.argsort(np.array(self.names)))
        """(n,): each one's place by name."""
        self.capacity: Floats = np.array([one.capacity for one in self.offers], dtype=np.float64)
        self.throughput: Floats = np.array(
            [nan if one.throughput_per_s is None else one.throughput_per_s for one in self.offers]
        )
        tariffs = [(one.network_tariff, one.server_tariff, one.storage_tariff) for one in self.offers]
        tiers = max([1, *(len(one.tiers) for three in tariffs for one in three if one is not None)])
        packed = np.array([[[_tier(one, tier) for one in three] for three in tariffs] for tier in range(tiers)])
        self.begins: Floats = packed[..., 0].copy()
        self.prices: Floats = packed[..., 1].copy()

    def __len__(self) -> int:
        return len(self.names)

    def allowed(self, needs: Requirements) -> Bools:
        """(n,): where the data may be and the class of service is offered."""
        return np.array([self._where(one, needs) and self._class(one, needs) for one in self.offers], dtype=bool)

    def preferred(self, needs: Requirements) -> Floats:
        """(n,): 1 where the provider is a preferred one, else 0."""
        return np.array([float(one.provider in needs.preferred) for one in self.offers])

    def forbidden(self, row: int, needs: Requirements) -> list[str]:
        """Why ``allowed`` is false there, in words."""
        one, reasons = self.offers[row], []
        if not self._where(one, needs):
            allowed = ", ".join(sorted(needs.localities or ())) or "nowhere"
            reasons.append(f"locality: it is in {one.locality or 'no known place'}, data may be in {allowed}")
        if not self._class(one, needs):
            offered = ", ".join(sorted(one.service_classes)) or "none"
            reasons.append(f"class of service: {needs.service_class} needed, {offered} offered")
        return reasons

    @staticmethod
    def _where(one: Offer, needs: Requirements) -> bool:
        return needs.localities is None or one.locality in needs.localities

    @staticmethod
    def _class(one: Offer, needs: Requirements) -> bool:
        return needs.service_class is None or needs.service_class in one.service_classes


def _tier(tariff: Tariff | None, tier: int) -> tuple[float, float]:
    if tariff is None:
        return _NO_TIER
    return tariff.tiers[tier] if tier < len(tariff.tiers) else _SPARE_TIER
