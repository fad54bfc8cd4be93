"""What following costs on a trace, in one currency, and what a policy's run came to.

The currency is the second that a user waits. A user sends ``requests_per_s`` and waits the latency of the
distance for each answer, so a second at i hops costs requests_per_s * latency(i). A migration costs

- the time its bytes take: each second in which they hold the link between the sites is worth
  ``link_weight`` seconds of waiting to the users whose traffic they delay;
- the stall that its user sees: the pause of the machine and one path delay, half the latency.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from .measures import SERVICE_BYTES, latency_s
from .trace import Floats, Ints


@dataclass(frozen=True, slots=True)
class Costs:
    """The prices. ``latency`` gives the round trip in seconds at a distance in hops: figure 11's by default.

    ``service_bytes`` move at each migration at ``bandwidth_bit_s``. The pause of a second is a live migration's
    on the safe side (the lab measures some 10 ms). ``ValueError`` names what is out of range.
    """

    requests_per_s: float = 1.0
    service_bytes: float = SERVICE_BYTES
    bandwidth_bit_s: float = 100e6
    pause_s: float = 1.0
    link_weight: float = 1.0
    latency: Callable[[int], float] = latency_s

    def __post_init__(self) -> None:
        for name in ("requests_per_s", "service_bytes", "bandwidth_bit_s", "pause_s", "link_weight"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0.0):
                raise ValueError(f"{name} {value} must be finite and not negative")
        if self.bandwidth_bit_s == 0.0:
            raise ValueError("bandwidth_bit_s must be above 0")

    @property
    def transfer_s(self) -> float:
        return 8.0 * self.service_bytes / self.bandwidth_bit_s

    def latencies(self, hops: Ints) -> Floats:
        """The latency in seconds at these distances, of any shape; ``ValueError`` if one cannot be a latency."""
        table = np.array([self.latency(distance) for distance in range(int(hops.max(initial=0)) + 1)])
        if not bool(np.all(np.isfinite(table) & (table >= 0.0))):
            raise ValueError("latency must be finite and not negative at every distance")
        found: Floats = table[hops]
        return found

    def waiting(self, hops: Ints) -> Floats:
        """What a second at these distances costs."""
        return self.requests_per_s * self.latencies(hops)

    def migration(self, hops: Ints) -> Floats:
        """What a migration over these distances costs."""
        return self.link_weight * self.transfer_s + self.pause_s + self.latencies(hops) / 2.0


@dataclass(frozen=True, slots=True)
class Crowding:
    """What it did that each centre can hold ``capacity`` services.

    ``refused`` migrations were wanted and not made, ``displaced`` ones went to another centre than wanted,
    ``elsewhere`` began in another area than their user's. ``gap_s`` is by how much all joint assignments together
    may be dearer than the optimum, in seconds of waiting. ``most`` services were in one centre at an instant;
    ``over`` counts the arrivals at a full one.
    """

    capacity: int
    window_s: float
    refused: int
    displaced: int
    elsewhere: int
    gap_s: float
    most: int
    over: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What one policy came to. ``share_at_hops`` (d,) is the share of time at each distance, ``by_user`` (u,) and
    ``by_hour`` (h,) the cost in seconds of each user and in each hour since the evaluation began.
    ``crowding`` is there if centres had limits."""

    policy: str
    how: str
    handoffs: int
    watched_s: float
    mean_distance_hops: float
    mean_latency_s: float
    migrations: int
    moved_bytes: float
    waiting_s: float
    migrating_s: float
    share_at_hops: Floats
    by_user: Floats = field(repr=False)
    by_hour: Floats = field(repr=False)
    crowding: Crowding | None = None

    @property
    def cost_s(self) -> float:
        """All that users waited, for answers and for migrations."""
        return self.waiting_s + self.migrating_s

    def to_json(self) -> dict[str, Any]:
        """SI units in the key names."""
        return {
            "policy": self.policy,
            "parameters": self.how,
            "mean_distance_hops": self.mean_distance_hops,
            "mean_latency_s": self.mean_latency_s,
            "migrations": self.migrations,
            "moved_bytes": self.moved_bytes,
            "waiting_s": self.waiting_s,
            "migrating_s": self.migrating_s,
            "cost_s": self.cost_s,
            "share_of_time_at_hops": self.share_at_hops.tolist(),
            "cost_by_hour_s": self.by_hour.tolist(),
            **({} if self.crowding is None else {"crowding": self.crowding.to_json()}),
        }


@dataclass(frozen=True, slots=True)
class Margin:
    """By how much one policy's cost differs from another's, as a share of the other's; below 0 is cheaper.

    ``low`` and ``high`` hold 95 % of what other draws of as many users from this population would give.
    """

    policy: str
    against: str
    share: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def margin(ours: Outcome, theirs: Outcome, seed: int = 0, draws: int = 2000) -> Margin:
    """Both ran over the same visits; users are drawn with replacement (the bootstrap, paired by user)."""
    if theirs.cost_s == 0.0:
        share = 0.0 if ours.cost_s == 0.0 else float("inf")
        return Margin(ours.policy, theirs.policy, share, share, share)
    users = len(ours.by_user)
    # One draw of all users as how often each was drawn; 2000 draws of 500 users are 8 MB.
    times = np.random.default_rng(seed).multinomial(users, np.full(users, 1.0 / users), size=draws)
    base = times @ theirs.by_user
    shares = (times @ ours.by_user)[base > 0.0] / base[base > 0.0] - 1.0
    low, high = np.quantile(shares, (0.025, 0.975))
    return Margin(ours.policy, theirs.policy, ours.cost_s / theirs.cost_s - 1.0, float(low), float(high))
