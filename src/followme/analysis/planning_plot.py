"""A capacity plan as a picture: how full the tables get, and how many of each are needed. PNG, SVG or PDF by
name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from followme.analysis.planning import Plan, sweep
from followme.system.picture import picture

_POINTS = 17


def plot(plans: Sequence[Plan], path: Path) -> None:
    """Left: entries per switch, one curve for each plan. Right: switches and controllers against users, to the
    most."""
    with picture(path, (11, 4.5), 1, 2) as (left, right):
        for plan in plans:
            entries = np.sort(plan.entries)
            above = 1.0 - np.arange(len(entries)) / len(entries)
            label = f"{plan.demand.users:,} users, {plan.switches:,} switches"
            left.plot(entries, above, drawstyle="steps-post", label=label)
        left.axvline(plans[0].limits.table, color="black", linestyle="--", linewidth=0.8, label="table")
        left.set(title="Entries of a switch, one sample", xlabel="entries", yscale="log",
                 ylabel="share of switches with at least so many")  # fmt: skip
        most = max(plans, key=lambda plan: plan.demand.users)
        steps = np.geomspace(min(1000, most.demand.users), most.demand.users, _POINTS)
        users = sorted({round(number) for number in steps.tolist()})
        points = sweep(most.demand, most.limits, users)
        for column, name in ((1, "switches"), (2, "controllers")):
            right.plot([one[0] for one in points], [one[column] for one in points], "o-", markersize=3, label=name)
        right.set(title="Needed", xlabel="users", xscale="log", yscale="log")
        for axes in (left, right):
            axes.grid(True, which="both", alpha=0.25)
            axes.legend(fontsize=8)
