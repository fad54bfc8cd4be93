"""Figures 5 and 6 of the scalability paper as pictures: its curves, and what was counted. PNG, SVG or PDF by
name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from followme.analysis.messages import MessageCurves
from followme.analysis.rules import RuleCurves
from followme.lab.roles_counts import Counts
from followme.system.picture import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAPER, OURS = "tab:red", "tab:blue"


def plot_rules(curves: RuleCurves, counts: Counts, path: Path) -> None:
    """Entries against nodes: central and most loaded, the paper's and ours; points are counted."""

    def draw(axes: Axes) -> None:
        x = curves.nodes
        axes.plot(x, curves.central, "-", color=PAPER, label="paper, central (5)")
        axes.plot(x, curves.distributed, "--", color=PAPER, label="paper, foreign controller (6)")
        axes.plot(x, curves.our_central, "-", color=OURS, label="our rules, all in one controller")
        axes.plot(x, curves.our_distributed, "--", color=OURS, label="our rules, foreign controller")
        points = [(run.nodes, run.entries.most) for run in counts.runs]
        axes.plot(*zip(*points, strict=True), "o", color=OURS, mfc="none", label=f"counted: {counts.switches}")

    _figure(path, "Entries for one migration", "entries", draw)


def plot_messages(curves: MessageCurves, counts: Counts, path: Path) -> None:
    """Messages against nodes; ours with and without answers."""

    def draw(axes: Axes) -> None:
        x = curves.nodes
        axes.plot(x, curves.central, "-", color=PAPER, label="paper, central, near the foreign switch")
        axes.plot(x, curves.distributed, "--", color=PAPER, label="paper, foreign controller")
        orders = [(run.nodes, run.foreign_orders) for run in counts.runs]
        axes.plot(*zip(*orders, strict=True), "o-", color=OURS, mfc="none",
                  label=f"ours, foreign controller, orders counted: {counts.bus}")  # fmt: skip
        both = [(nodes, 2 * number) for nodes, number in orders]
        axes.plot(*zip(*both, strict=True), "o:", color=OURS, mfc="none", label="ours, with their answers")

    _figure(path, "Messages far away for one migration", "messages", draw)


def _figure(path: Path, title: str, unit: str, draw: Callable[[Axes], None]) -> None:
    with picture(path, (7, 4.5)) as (axes,):
        draw(axes)
        axes.set(title=title, xlabel="nodes at home, abroad, and correspondent networks (each)", ylabel=unit)
        axes.grid(True, alpha=0.25)
        axes.legend(fontsize=8)
