"""What the chain says of a service: distance, latency, the price of moving it, how long it is away.

Sections 4.2 to 4.5 of "When Cloud Services Follow Mobile Users"; the defaults are section 7.1's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, isfinite, log, sqrt

import numpy as np

from .chain import Stationary

SERVICE_BYTES = 125e6
"""1 Gb, section 7.1."""

SIGNAL_BYTES = 1500.0
"""A signalling message. The paper gives none: this is a full Ethernet packet, and hardly matters."""

PORTIONS = (("all", 1.0), ("half", 0.5), ("tenth", 0.1))
"""How much of the service moves, in figures 12 and 13."""

_SIGNALS = 3
"""Messages that trigger a migration (section 4.4)."""


def latency_s(distance: int) -> float:
    """Figure 11: the latency in seconds at a distance in hops, 0.02 i^2."""
    return 0.02 * distance**2


def rtt_s(distance: int) -> float:
    """Figure 13: the round trip in seconds between data centres at a distance in hops, 0.01 i^2."""
    return 0.01 * distance**2


def optimal_probability(steady: Stationary) -> float:
    """The share of time that the user is served by the optimal data centre: pi_0 (section 4.2)."""
    return float(steady.probability[0])


def mean_distance(steady: Stationary) -> float:
    """E[Dist], the mean distance to the data centre that serves, in hops (eq. 7)."""
    return float(steady.at_distance @ np.arange(steady.chain.k))


def mean_latency(steady: Stationary, latency: Callable[[int], float] = latency_s) -> float:
    """E[D] in the unit of ``latency``, a function of the distance 0..k-1 in hops (eq. 8).

    The paper's sum starts at 1; here distance 0 counts with its own latency, which need not be 0.
    ``ValueError`` if the function returns anything but a finite number that is not negative.
    """
    values = []
    for hops in range(steady.chain.k):
        value = latency(hops)
        if not isinstance(value, int | float | np.integer | np.floating) or not isfinite(value) or value < 0.0:
            raise ValueError(f"latency({hops}) is {value!r}, it must be a finite number and not negative")
        values.append(float(value))
    return float(steady.at_distance @ np.array(values))


def migration_share(steady: Stationary) -> float:
    """The probability that a handover moves the service: the bracket of eq. 10, from geometry.

    All cells have the same mean residence time, so the states at jumps have the shares that they have in time.
    """
    return float(steady.probability @ steady.chain.leaving)


def migration_cost(steady: Stationary, objects_bytes: float, signal_bytes: float = SIGNAL_BYTES) -> float:
    """MC, the mean cost of migrations in bytes for each handover (eq. 9 and 10).

    ``objects_bytes`` move at each migration, and three signalling messages of ``signal_bytes``. ``ValueError``
    if one is negative or not finite.
    """
    for name, value in (("objects_bytes", objects_bytes), ("signal_bytes", signal_bytes)):
        if not (isfinite(value) and value >= 0.0):
            raise ValueError(f"{name} {value} must be finite and not negative")
    return migration_share(steady) * (objects_bytes + _SIGNALS * signal_bytes)


@dataclass(frozen=True, slots=True)
class Transfer:
    """How a service is carried over TCP (section 4.5, after Sikdar et al.).

    ``loss`` is p_loss, in [0, 1); ``window`` is W_max in segments: the paper gives none, 44 segments of
    ``mss_bytes`` are the 64 KiB of TCP without window scaling; ``conversion_s`` is T_VM conversion.
    ``as_printed`` keeps a second factor N that stands in the paper's f(p_loss, RTT), so that the lost packets
    cost N squared round trips; docs/model.md says why that must be a slip. It changes nothing without loss.
    ``ValueError`` names what is out of range.
    """

    loss: float = 0.0
    window: float = 44.0
    mss_bytes: float = 1460.0
    conversion_s: float = 0.0
    as_printed: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.loss < 1.0:
            raise ValueError(f"loss {self.loss} must be at least 0 and below 1")
        if not (isfinite(self.window) and self.window >= 1.0):
            raise ValueError(f"window {self.window} must be at least 1 segment")
        if not (isfinite(self.mss_bytes) and self.mss_bytes > 0.0):
            raise ValueError(f"mss_bytes {self.mss_bytes} must be positive")
        if not (isfinite(self.conversion_s) and self.conversion_s >= 0.0):
            raise ValueError(f"conversion_s {self.conversion_s} must be finite and not negative")

    def disruption_s(self, size_bytes: float, rtt: float) -> float:
        """SDT, the seconds without the service while ``size_bytes`` move over a path of ``rtt`` s (eq. 11).

        ``ValueError`` if the size or the round trip is not positive: f divides by the round trip.
        """
        if not (isfinite(size_bytes) and size_bytes > 0.0):
            raise ValueError(f"size_bytes {size_bytes} must be positive")
        if not (isfinite(rtt) and rtt > 0.0):
            raise ValueError(f"rtt {rtt} must be positive, in seconds")
        packets = ceil(size_bytes / self.mss_bytes)
        loss = self.loss
        rounds = log(packets, 1.57)
        resent = 2.32 * (2.0 * loss + 4.0 * loss**2 + 16.0 * loss**3) / (1.0 + rtt) ** 3
        if self.as_printed:
            resent *= packets
        f = resent + (1.0 + loss) / (rtt * 1e3)
        limited = (10.0 + 3.0 * rtt) / (4.0 * (1.0 - loss) * self.window * sqrt(self.window))
        trips = rounds + f * packets + 4.0 * loss * rounds + 20.0 * loss + limited * packets
        return trips * rtt + self.conversion_s
