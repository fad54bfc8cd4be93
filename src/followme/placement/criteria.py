"""What is known of a data centre, what a service asks of it, and how much each criterion counts.

The criteria are those of "An OpenFlow-based implementation", section III.B: the network (latency, available
bandwidth; loss is added), quality of service (server utilisation, server throughput) and business (network,
server and storage prices, bulk discounts, preferred providers). Hard limits are those of design.md: capacity,
locality, class of service; and a latency that some services cannot do without.

A measurement that nobody has is ``None``; NaN, which is what a broken meter gives, counts as ``None`` too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf, isfinite, isnan, nan
from struct import Struct
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

MAX_TIERS = 8
"""Tiers of a tariff: a fixed number lets the prices of all candidates be reckoned at once."""


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

_NAMES = tuple(SIGNS)
# Measurements (5), quantities in use (3), then for each tariff where its tiers begin and their unit prices.
_ROW = Struct(f"{8 + 3 * 2 * MAX_TIERS}d")


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


def _measure(name: str, value: float | None, most: float = inf) -> float:
    """The value, NaN if unknown; ``ValueError`` if it is negative, infinite or above ``most``."""
    if value is None or isnan(value):
        return nan
    if not (0.0 <= value <= most and isfinite(value)):
        range_ = "finite and not negative" if most == inf else f"between 0 and {most:g}"
        raise ValueError(f"{name} {value} must be {range_}")
    return value


@dataclass(frozen=True, slots=True)
class CandidateFacts:
    """One data centre as seen for one user. ``None`` or NaN: nobody knows.

    ``latency_s`` is one way, ``bandwidth_bit_s`` what is free on the way to the user, ``loss`` and
    ``utilisation`` are shares, ``throughput_per_s`` is requests served in a second. ``free_capacity`` is in
    the unit of ``Requirements.demand``. Tariffs are money for an hour: of the traffic by byte an hour, of the
    servers by unit of demand, of the storage by byte; the ``in_use`` are what is bought there already, this
    service left out, in the same units. ``locality`` is where its disks stand; ``service_classes`` are those
    that it offers. ``distance`` (service areas) is handed through to ``Candidate``.

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
    distance: int = 0
    # The numbers as eight bytes each: a decision joins those of all candidates into one array. A tier is
    # six of them: the begins of the network's, server's and storage's tariff, then the unit prices.
    row: bytes = field(init=False, repr=False, compare=False)
    tiers: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a data centre needs a name")
        try:
            if not self.free_capacity >= 0.0:
                raise ValueError(f"free_capacity {self.free_capacity} must not be negative, and be known")
            numbers = [
                _measure("latency_s", self.latency_s),
                _measure("bandwidth_bit_s", self.bandwidth_bit_s),
                _measure("loss", self.loss, 1.0),
                _measure("utilisation", self.utilisation, 1.0),
                _measure("throughput_per_s", self.throughput_per_s),
            ]
            for key in ("network_in_use_bytes_per_h", "servers_in_use", "storage_in_use_bytes"):
                value = getattr(self, key)
                if not (isfinite(value) and value >= 0.0):
                    raise ValueError(f"{key} {value} must be finite and not negative")
                numbers.append(value)
        except ValueError as error:
            raise ValueError(f"data centre {self.name!r}: {error}") from None
        given = (self.network_tariff, self.server_tariff, self.storage_tariff)
        tariffs = [None if one is None else one.tiers for one in given]
        for tier in range(MAX_TIERS):
            three = [_NO_TIER if one is None else one[tier] if tier < len(one) else _SPARE_TIER for one in tariffs]
            numbers += [begin for begin, _ in three] + [price for _, price in three]
        object.__setattr__(self, "row", _ROW.pack(*numbers))
        object.__setattr__(self, "tiers", max(1, *(len(one or ()) for one in tariffs)))

    def value(self, criterion: str, requirements: Requirements) -> float:
        """One criterion for one service, as ``values`` has it for many; ``ValueError`` if it is unknown."""
        measured: float | None
        match criterion:
            case "latency":
                measured = self.latency_s
            case "bandwidth":
                measured = self.bandwidth_bit_s
            case "loss":
                measured = self.loss
            case "utilisation":
                measured = self.utilisation
            case "throughput":
                measured = self.throughput_per_s
            case "network_price":
                measured = _share(
                    self.network_tariff, requirements.network_bytes_per_h, self.network_in_use_bytes_per_h
                )
            case "server_price":
                measured = _share(self.server_tariff, requirements.demand, self.servers_in_use)
            case "storage_price":
                measured = _share(self.storage_tariff, requirements.storage_bytes, self.storage_in_use_bytes)
            case "preference":
                measured = float(self.provider in requirements.preferred)
            case _:
                raise ValueError(f"{criterion!r} is no criterion; known: {', '.join(_NAMES)}")
        return nan if measured is None else measured


_NO_TIER = (nan, nan)
_SPARE_TIER = (1.0, inf)


def _share(tariff: Tariff | None, quantity: float, in_use: float) -> float | None:
    return None if tariff is None else tariff.share(quantity, in_use)


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
        if not self.latency_at_most_s >= 0.0:
            raise ValueError(f"latency_at_most_s {self.latency_at_most_s} must not be negative")

    def broken_by(self, one: CandidateFacts, current: str | None = None) -> str:
        """Which limits exclude ``one``, in words; empty if none does.

        ``current``, where the service runs, has room for it: the service is there already.
        """
        full = one.free_capacity < self.demand and one.name != current
        elsewhere = self.localities is not None and one.locality not in self.localities
        lacking = self.service_class is not None and self.service_class not in one.service_classes
        slow = self.latency_at_most_s != inf and not (
            one.latency_s is not None and one.latency_s <= self.latency_at_most_s
        )
        if not (full or elsewhere or lacking or slow):
            return ""
        reasons = []
        if full:
            reasons.append(f"capacity: {one.free_capacity:g} free, {self.demand:g} needed")
        if elsewhere:
            allowed = ", ".join(sorted(self.localities or ())) or "nowhere"
            reasons.append(f"locality: it is in {one.locality or 'no known place'}, data may be in {allowed}")
        if lacking:
            offered = ", ".join(sorted(one.service_classes)) or "none"
            reasons.append(f"class of service: {self.service_class} needed, {offered} offered")
        if slow:
            known = one.latency_s is not None and not isnan(one.latency_s)
            seen = f"{1e3 * one.latency_s:.1f} ms" if known and one.latency_s is not None else "not measured"
            reasons.append(f"latency: {seen}, at most {1e3 * self.latency_at_most_s:.1f} ms allowed")
        return "; ".join(reasons)


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
        for name, value in zip(_NAMES, self.values(), strict=True):
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


assert tuple(one.name for one in fields(Weights)) == _NAMES


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
            if key not in _NAMES:
                raise ValueError(f"user class {self.name!r}: {key!r} is no criterion; known: {', '.join(_NAMES)}")
            if not (isfinite(factor) and factor >= 0.0):
                raise ValueError(f"user class {self.name!r}: {key} {factor} must be finite and not negative")
        object.__setattr__(self, "row", tuple(self.factors.get(name, 1.0) for name in _NAMES))


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


def values(facts: Sequence[CandidateFacts], requirements: Requirements) -> NDArray[np.float64]:
    """All criteria of all candidates for one service: (candidates x criteria), SI units, NaN where unknown.

    Prices are money for an hour, each the service's share (``Tariff.share``).
    """
    rows = np.frombuffer(b"".join([one.row for one in facts])).reshape(len(facts), -1)
    found = np.empty((len(facts), len(CRITERIA)))
    found[:, :5] = rows[:, :5]
    need = np.array((requirements.network_bytes_per_h, requirements.demand, requirements.storage_bytes))
    together = rows[:, 5:8] + need
    total = np.maximum(together, rows[:, 8:11]) * rows[:, 11:14]
    for tier in range(14, 8 + 6 * max([one.tiers for one in facts]), 6):
        later = np.maximum(together, rows[:, tier : tier + 3]) * rows[:, tier + 3 : tier + 6]
        np.minimum(total, later, out=total)
    # Nothing at all costs nothing: 0 / 1 there in place of 0 / 0.
    found[:, 5:8] = need * (total / (together + (together == 0.0)))
    preferred = requirements.preferred
    found[:, 8] = [one.provider in preferred for one in facts] if preferred else 0.0
    return found
