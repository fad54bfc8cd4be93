"""How long a user could not reach its machine, from pings at a fixed pace; and how that depends on a delay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from followme.lab.pinger import Ping

USUAL_S = 1.0
"""The usual round trip is the median of this long before the window."""


@dataclass(frozen=True, slots=True)
class Outage:
    """``downtime_s``: the longest time for which a ping's answer was overdue, and so were those of all later ones;
    infinite if none ever came again. ``first`` is that ping (None: nothing was overdue)."""

    downtime_s: float
    sent: int
    lost: int
    first: Ping | None = None


def outage(pings: Sequence[Ping], begin: float, end: float, usual_s: float | None = None) -> Outage:
    """Of the pings sent in between (``time.monotonic()``), which are in the order of their sending. ``usual_s`` is
    the usual round trip; None: the median of the second before. ``ValueError`` if no ping was answered then.

    A ping's answer is due one usual round trip after it was sent, and the wait ends when it or that of a later
    ping comes. (Not that of an earlier one: a machine that was stopped answers what it had received already when
    it runs again, though nobody may reach it yet.) What the sender itself was late by is not counted as long as no
    ping is lost: while nothing is sent, nothing is due.
    """
    window = [ping for ping in pings if begin <= ping.sent_s < end]
    usual = _usual(pings, begin) if usual_s is None else usual_s
    longest, comes, first = 0.0, math.inf, None
    for ping in reversed(pings):
        if ping.rtt_s is not None:
            comes = min(comes, ping.sent_s + ping.rtt_s)
        if begin <= ping.sent_s < end and comes - ping.sent_s - usual > longest:
            longest, first = comes - ping.sent_s - usual, ping
    return Outage(longest, len(window), sum(ping.rtt_s is None for ping in window), first)


def _usual(pings: Sequence[Ping], begin: float) -> float:
    before = [one.rtt_s for one in pings if begin - USUAL_S <= one.sent_s < begin and one.rtt_s is not None]
    if not before:
        raise ValueError(f"no ping was answered in the {USUAL_S:g} s before the window")
    return median(before)


_T95 = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201,
    12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 16: 2.120, 17: 2.110, 18: 2.101, 19: 2.093, 20: 2.086, 25: 2.060,
}  # fmt: skip
"""Student's t by degrees of freedom: 95 % lie within plus and minus that."""


@dataclass(frozen=True, slots=True)
class Line:
    """``y = intercept + slope * x`` by least squares; ``slope_error`` is the slope's standard error."""

    slope: float
    slope_error: float
    intercept: float
    points: int

    @property
    def doubt(self) -> float:
        """Half of the slope's 95 % confidence interval (Student's t for the points that are left)."""
        freedom = self.points - 2
        return _T95[max(known for known in _T95 if known <= freedom)] * self.slope_error

    @property
    def flat(self) -> bool:
        """Whether the slope cannot be told from 0; where ``doubt`` is large that says little."""
        return abs(self.slope) <= self.doubt


def fit(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """``ValueError`` where there are fewer than three points, or all have the same x."""
    count = len(xs)
    if count < 3 or len(ys) != count:
        raise ValueError(f"{count} and {len(ys)} values: a line with an error needs three pairs")
    mean_x, mean_y = fmean(xs), fmean(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    if min(xs) == max(xs):
        raise ValueError(f"all x are {mean_x}: that is no line")
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    intercept = mean_y - slope * mean_x
    residual = sum((y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    return Line(slope, math.sqrt(residual / (count - 2) / spread), intercept, count)
