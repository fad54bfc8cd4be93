"""By what data centres are told apart, and how much each criterion counts for a service.

The criteria are those of "An OpenFlow-based implementation", section III.B: the network (latency, available
bandwidth; loss is added), quality of service (server utilisation, server throughput) and business (network,
server and storage prices, bulk discounts, preferred providers).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Criterion:
    """``sign`` is +1 where more is better, else -1; ``unit`` is shown after the value times ``factor``."""

    name: str
    sign: int
    unit: str
    factor: float = 1.0


CRITERIA = (
    Criterion("latency", -1, "ms", 1e3),
    Criterion("bandwidth", 1, "Mbit/s", 1e-6),
    Criterion("loss", -1, "%", 100.0),
    Criterion("utilisation", -1, "%", 100.0),
    Criterion("throughput", 1, "/s"),
    Criterion("network_price", -1, "an hour"),
    Criterion("server_price", -1, "an hour"),
    Criterion("storage_price", -1, "an hour"),
    Criterion("preference", 1, ""),
)
"""The columns of every (candidates x criteria) array here, in this order."""

SIGNS: Mapping[str, int] = MappingProxyType({criterion.name: criterion.sign for criterion in CRITERIA})
"""By name: +1 where more is better, else -1."""

NAMES = tuple(SIGNS)


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each criterion counts for a service; only their proportions matter.

    ``ValueError`` if one is negative or not finite, or all are 0.
    """

    latency: float = 1.0
    bandwidth: float = 1.0
    loss: float = 1.0
    utilisation: float = 1.0
    throughput: float = 1.0
    network_price: float = 1.0
    server_price: float = 1.0
    storage_price: float = 1.0
    preference: float = 1.0

    def __post_init__(self) -> None:
        for name, value in zip(NAMES, self.values(), strict=True):
            if not (isfinite(value) and value >= 0.0):
                raise ValueError(f"weight of {name} {value} must be finite and not negative")
        if not any(self.values()):
            raise ValueError("all weights are 0: nothing would count")

    def values(self) -> tuple[float, ...]:
        """In the order of ``CRITERIA``."""
        return (
            self.latency, self.bandwidth, self.loss, self.utilisation, self.throughput,
            self.network_price, self.server_price, self.storage_price, self.preference,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class UserClass:
    """A class of users: what a criterion counts for a service is multiplied for them (1 where not named).

    ``ValueError`` if a criterion is unknown, or a factor negative or not finite.
    """

    name: str
    factors: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    row: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for key, factor in self.factors.items():
            if key not in NAMES:
                raise ValueError(f"user class {self.name!r}: {key!r} is no criterion; known: {', '.join(NAMES)}")
            if not (isfinite(factor) and factor >= 0.0):
                raise ValueError(f"user class {self.name!r}: {key} {factor} must be finite and not negative")
        object.__setattr__(self, "row", tuple(self.factors.get(name, 1.0) for name in NAMES))


def shares(weights: Weights, user_class: UserClass | None = None) -> NDArray[np.float64]:
    """What each criterion counts: (criteria,), the sum is 1. ``ValueError`` if nothing is left that counts."""
    counts = weights.values()
    if user_class is not None:
        largest = max(counts)  # so that no product is infinite
        top = max(user_class.row) or 1.0
        counts = tuple([one / largest * (factor / top) for one, factor in zip(counts, user_class.row, strict=True)])
        if not any(counts):
            raise ValueError(f"user class {user_class.name!r} leaves no criterion that counts")
    largest = max(counts)  # first, for the sum of huge weights may be infinite
    counts = tuple([one / largest for one in counts])
    total = sum(counts)
    return np.array([one / total for one in counts])
