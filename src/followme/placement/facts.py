"""One data centre as it is known at a decision.

A measurement that nobody has is ``None``; NaN, which is what a broken meter gives, counts as ``None`` too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite, isnan

from .tariff import Tariff


def _check(name: str, value: float | None, most: float = inf) -> None:
    """``ValueError`` if the value is negative, infinite or above ``most``; ``None`` and NaN are unknown."""
    if value is None or isnan(value):
        return
    if not (0.0 <= value <= most and isfinite(value)):
        range_ = "finite and not negative" if most == inf else f"between 0 and {most:g}"
        raise ValueError(f"{name} {value} must be {range_}")


@dataclass(frozen=True, slots=True)
class CandidateFacts:
    """One data centre as seen for one user. ``None`` or NaN: nobody knows.

    ``latency_s`` is one way, ``bandwidth_bit_s`` what is free on the way to the user, ``loss`` and
    ``utilisation`` are shares, ``throughput_per_s`` is requests served in a second. ``free_capacity`` is in
    the unit of ``Requirements.demand``. Tariffs are money for an hour: of the traffic by byte an hour, of the
    servers by unit of demand, of the storage by byte; the ``in_use`` are what is bought there already, this
    service left out, in the same units. ``locality`` is where its disks stand; ``service_classes`` are those
    that it offers.

    ``ValueError`` names a value that is out of range; a capacity must be known.
    """

    name: str
    free_capacity: float
    latency_s: float | None = None
    bandwidth_bit_s: float | None = None
    loss: float | None = None
    utilisation: float | None = None
    throughput_per_s: float | None = None
    network_tariff: Tariff | None = None
    server_tariff: Tariff | None = None
    storage_tariff: Tariff | None = None
    network_in_use_bytes_per_h: float = 0.0
    servers_in_use: float = 0.0
    storage_in_use_bytes: float = 0.0
    provider: str = ""
    locality: str = ""
    service_classes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a data centre needs a name")
        try:
            if not self.free_capacity >= 0.0:
                raise ValueError(f"free_capacity {self.free_capacity} must not be negative, and be known")
            _check("latency_s", self.latency_s)
            _check("bandwidth_bit_s", self.bandwidth_bit_s)
            _check("loss", self.loss, 1.0)
            _check("utilisation", self.utilisation, 1.0)
            _check("throughput_per_s", self.throughput_per_s)
            for key in ("network_in_use_bytes_per_h", "servers_in_use", "storage_in_use_bytes"):
                value = getattr(self, key)
                if not (isfinite(value) and value >= 0.0):
                    raise ValueError(f"{key} {value} must be finite and not negative")
        except ValueError as error:
            raise ValueError(f"data centre {self.name!r}: {error}") from None
