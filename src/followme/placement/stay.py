"""Stay, or go: the measured cost of carrying one service against what it gains over the expected stay.

"Whether service migration is worthwhile depends on the service type and requirements, content size, and/or
user class. An estimate of these costs shall be compared to the benefits" ("When Cloud Services Follow Mobile
Users", section 3.2). First the rules that the papers name, then the sum, in one unit of value (money, or the
quality of the decision process; the caller's choice):

    net = gain per second * (stay - transfer) - stalled seconds * cost of one - price of the transfer
    stay = the user's expected stay, or what remains of the content where that is less

The gain begins when the service has arrived: until then it runs where it was (live migration).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf, isfinite, isnan

from .criteria import NAMES, SIGNS, UserClass


class Task(StrEnum):
    """What kind of task a service has; the last two are the papers' that always go to the best place."""

    ORDINARY = "ordinary"
    EMERGENCY = "emergency"
    MEASUREMENT = "measurement"


@dataclass(frozen=True, slots=True)
class Use:
    """One service in use: for how long its user is expected to stay, and what remains of the content.

    ``remaining_s`` is ``None`` for what has no end. ``ValueError`` if a time is negative or NaN.
    """

    service: str
    stay_s: float
    task: Task = Task.ORDINARY
    remaining_s: float | None = None

    def __post_init__(self) -> None:
        for key, value in (("stay_s", self.stay_s), ("remaining_s", self.remaining_s)):
            if value is not None and not value >= 0.0:
                raise ValueError(f"service {self.service!r}: {key} {value} must not be negative, and be known")


@dataclass(frozen=True, slots=True)
class Verdict:
    """``net`` is the value of going less that of staying; ``None`` where a rule or a gap in the data decided."""

    migrate: bool
    why: str
    net: float | None = None


Rule = Callable[[Use], Verdict | None]
"""Decides before any sum is made, or leaves it (``None``) to the next; the first that decides wins."""


def urgent(use: Use) -> Verdict | None:
    """Emergency and measurement tasks always go to the best data centre, whatever that costs."""
    if use.task is Task.ORDINARY:
        return None
    return Verdict(True, f"{use.task} tasks always go to the best data centre")


def nearly_over(within_s: float) -> Rule:
    """Stays if what remains is less than ``within_s``; ``ValueError`` if that is negative or not finite."""
    if not (isfinite(within_s) and within_s >= 0.0):
        raise ValueError(f"within_s {within_s} must be finite and not negative")

    def rule(use: Use) -> Verdict | None:
        if use.remaining_s is None or use.remaining_s >= within_s:
            return None
        return Verdict(False, f"nearly over: {use.remaining_s:g} s remain, less than {within_s:g} s")

    return rule


RULES: tuple[Rule, ...] = (urgent, nearly_over(60.0))
"""Urgent first: a warning that is nearly over is a warning still."""


@dataclass(frozen=True, slots=True)
class Carry:
    """The measured cost of carrying one service to the target.

    ``bytes_`` to carry, ``free_bit_s`` the free bandwidth between the two data centres (``None``, NaN or 0:
    nothing known to be free), ``stalled_s`` for how long its user will see it stand still, ``price`` of it
    all (traffic between data centres, start at the target, release at the source) in the unit of value.
    ``ValueError`` names what is negative or, but for the bandwidth, not finite.
    """

    bytes_: float
    free_bit_s: float | None
    stalled_s: float = 0.0
    price: float = 0.0

    def __post_init__(self) -> None:
        for key in ("bytes_", "stalled_s", "price"):
            value = getattr(self, key)
            if not (isfinite(value) and value >= 0.0):
                raise ValueError(f"{key} {value} must be finite and not negative")
        if self.free_bit_s is not None and self.free_bit_s < 0.0:
            raise ValueError(f"free_bit_s {self.free_bit_s} must not be negative")

    @property
    def transfer_s(self) -> float:
        """Infinite if no bandwidth is known to be free."""
        if self.free_bit_s is None or isnan(self.free_bit_s) or self.free_bit_s == 0.0:
            return inf
        return 8.0 * self.bytes_ / self.free_bit_s


@dataclass(frozen=True, slots=True)
class Gain:
    """What a second at the better place is worth; ``parts`` by criterion, ``unknown`` ones count nothing."""

    per_s: float
    parts: Mapping[str, float]
    unknown: tuple[str, ...]


MOST_WORTH = 1e15
"""In any unit of value: so that no sum of gains is infinite."""
_MOST_GAIN = 1e300


class Worth:
    """For each criterion that counts, what one unit (SI; prices: money for an hour) less or more of it is worth
    for a second of use; ``user_class`` multiplies it.

    ``ValueError`` if a criterion is unknown, or a worth negative or, times its factor, above ``MOST_WORTH``.
    """

    __slots__ = ("columns",)

    def __init__(self, worth: Mapping[str, float], user_class: UserClass | None = None) -> None:
        factors = user_class.factors if user_class is not None else {}
        self.columns: list[tuple[str, int, float]] = []
        for name, counts in worth.items():
            if name not in SIGNS:
                raise ValueError(f"{name!r} is no criterion; known: {', '.join(NAMES)}")
            if not (isfinite(counts) and counts >= 0.0):
                raise ValueError(f"worth of {name} {counts} must be finite and not negative")
            factor = factors.get(name, 1.0)
            if not counts * factor <= MOST_WORTH:
                times = "" if factor == 1.0 else f" times the user class's {factor:g}"
                raise ValueError(f"worth of {name} {counts:g}{times} must be at most {MOST_WORTH:g}")
            self.columns.append((name, NAMES.index(name), SIGNS[name] * counts * factor))

    def __bool__(self) -> bool:
        """Whether any criterion is worth something."""
        return any(counts for _, _, counts in self.columns)


def gain(here: Sequence[float], there: Sequence[float], worth: Worth) -> Gain:
    """What one second ``there`` in place of ``here`` is worth, from measurements, not from scores.

    Each is the values of one data centre in the order of ``CRITERIA`` (a row of ``Table.values``), NaN unknown; so
    is what is beyond all sense.
    """
    parts: dict[str, float] = {}
    unknown = []
    for name, column, counts in worth.columns:
        better = (there[column] - here[column]) * counts
        if abs(better) <= _MOST_GAIN:  # NaN is not
            parts[name] = better
        else:
            unknown.append(name)
    return Gain(sum(parts.values()), parts, tuple(unknown))


def stay_or_go(
    use: Use, carry: Carry, gain_per_s: float, stalled_cost_per_s: float = 0.0, rules: Sequence[Rule] = RULES
) -> Verdict:
    """Whether to carry one service now. A tie is a stay, and so is a carry over no known bandwidth.

    ``gain_per_s`` and ``stalled_cost_per_s`` are value for a second, the gain negative where the target is
    the worse one. A stay that never ends (``inf``) goes for any gain. ``ValueError`` if the gain is not
    finite or the cost negative or not finite.
    """
    if not isfinite(gain_per_s):
        raise ValueError(f"gain_per_s {gain_per_s} must be finite")
    if not (isfinite(stalled_cost_per_s) and stalled_cost_per_s >= 0.0):
        raise ValueError(f"stalled_cost_per_s {stalled_cost_per_s} must be finite and not negative")
    for rule in rules:
        verdict = rule(use)
        if verdict is not None:
            return verdict
    transfer_s = carry.transfer_s
    if transfer_s == inf:
        return Verdict(False, "the free bandwidth to the target is not known, so neither is the cost of going")
    stay_s = use.stay_s if use.remaining_s is None else min(use.stay_s, use.remaining_s)
    served_s = max(0.0, stay_s - transfer_s)
    # 0 for a target that is no better, also over an endless stay (0 * inf is nothing).
    gained = gain_per_s * served_s if gain_per_s != 0.0 else 0.0
    cost = carry.stalled_s * stalled_cost_per_s + carry.price
    net = gained - cost
    why = (
        f"{gained:.3g} to gain in {served_s:.4g} s of {stay_s:.4g} s against a cost of {cost:.3g} "
        f"({carry.bytes_:.3g} bytes in {transfer_s:.3g} s, {1e3 * carry.stalled_s:.3g} ms stalled, "
        f"price {carry.price:.3g})"
    )
    return Verdict(net > 0.0, why, net)
