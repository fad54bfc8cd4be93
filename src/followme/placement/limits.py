"""What one service asks of a data centre, and what it will not do without.

Hard limits: capacity, locality (where data may be), class of service, and a latency that some services cannot
do without.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

MOST = 1e100
"""Of anything: the squares of sums must be numbers still. A demand is at least its inverse, or 0."""


@dataclass(frozen=True, slots=True)
class Requirements:
    """What one service needs, and what it will not do without.

    ``demand`` is the capacity that it takes (any unit: cores, machines), ``network_bytes_per_h`` and
    ``storage_bytes`` what it is charged for. ``localities``: where its data may be (``None``: anywhere);
    ``service_class``: what the data centre must offer (``None``: anything). ``latency_at_most_s`` is one way.
    ``preferred`` are providers. ``ValueError`` names what is out of range.
    """

    demand: float = 1.0
    network_bytes_per_h: float = 0.0
    storage_bytes: float = 0.0
    localities: frozenset[str] | None = None
    service_class: str | None = None
    latency_at_most_s: float = inf
    preferred: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for key in ("demand", "network_bytes_per_h", "storage_bytes"):
            value = getattr(self, key)
            if not (isfinite(value) and value >= 0.0):
                raise ValueError(f"{key} {value} must be finite and not negative")
            if value > MOST:
                raise ValueError(f"{key} {value:g} must be at most {MOST:g}")
        if 0.0 < self.demand < 1.0 / MOST:
            raise ValueError(f"demand {self.demand:g} must be 0 or at least {1.0 / MOST:g}")
        if not self.latency_at_most_s >= 0.0:
            raise ValueError(f"latency_at_most_s {self.latency_at_most_s} must not be negative")
