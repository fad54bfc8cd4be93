"""The comparison as a picture."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from followme.system.picture import picture

from .comparison_table import Comparison, cheapest_without_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAR = 3.0
"""A policy that costs more than this many times the median is cut off, or it would flatten the others."""


def plot(comparison: Comparison, path: Path) -> None:
    """Cost, latency against bytes, time at a distance, cost by the hour; PNG, SVG or PDF by the suffix."""
    with picture(path, (11, 8), 2, 2) as (cost, trade, distance, hourly):
        _costs(cost, comparison)
        base = cheapest_without_model(comparison.outcomes) or comparison.outcomes[0]
        # Policies may coincide: what is drawn first is larger, so that it is seen behind the next.
        size = 14.0
        for one, marker in zip(comparison.outcomes, cycle("osD^vP"), strict=False):
            trade.plot(1e-9 * one.moved_bytes, 1e3 * one.mean_latency_s, marker, markersize=size, label=one.policy)
            size -= 1.5
            shares = np.cumsum(one.share_at_hops)
            distance.plot(range(len(shares)), shares, marker=marker, markersize=4, label=one.policy)
            with np.errstate(divide="ignore", invalid="ignore"):
                against = 100.0 * (one.by_hour / base.by_hour - 1.0)
            hourly.plot(range(len(against)), against, marker=marker, markersize=4, label=one.policy)
        trade.set_yscale("symlog", linthresh=1.0)
        trade.margins(0.1)
        hourly.set_ylim(-25.0, 100.0)
        for axes in (trade, distance, hourly):
            axes.legend(fontsize=8)
        _dress(trade, "Latency against bytes", "GB moved", "mean latency, ms")
        _dress(distance, "Distance", "hops to the data centre that serves", "share of time within")
        _dress(hourly, f"Cost by the hour against {base.policy}", "hour since training ended", "%, cut off at 100")


def _costs(axes: Axes, comparison: Comparison) -> None:
    outcomes = comparison.outcomes
    names = [one.policy for one in outcomes]
    hours = comparison.held_out.stay_s.sum() / 3600.0
    waiting = [one.waiting_s / hours for one in outcomes]
    axes.bar(names, waiting, color="tab:red", alpha=0.7, label="waiting for answers")
    migrating = [one.migrating_s / hours for one in outcomes]
    axes.bar(names, migrating, bottom=waiting, color="tab:blue", alpha=0.7, label="migrations")
    totals = [one.cost_s / hours for one in outcomes]
    top = _FAR * float(np.median(totals))
    for index, total in enumerate(totals):
        cut = total > top > 0.0
        height = 0.97 * top if cut else total
        axes.annotate(f"{total:.1f}", (index, height), ha="center", va="top" if cut else "bottom", fontsize=8)
    axes.legend(fontsize=8)
    _dress(axes, "Cost", "", "seconds of waiting an hour of use")
    axes.set_ylim(0.0, min(1.1 * max(totals), top) or 1.0)


def _dress(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(True, alpha=0.25)
