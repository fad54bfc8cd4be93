"""The LISP experiments as pictures: PNG, SVG or PDF by the file's name."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from followme.lab.lisp_downtime import Case, Downtimes, Part, added, downtime, network
from followme.lab.lisp_rtt import RoundTrips
from followme.lab.lisp_sizes import LINK_BIT_S, PAYLOAD, Sizes
from followme.lab.reporting import draw_pings
from followme.system.picture import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"paper": "tab:red", "live": "tab:blue"}
NAMES = {"paper": "the papers' order", "live": "our order"}


def plot_round_trips(found: RoundTrips, path: Path) -> None:
    """Round trip over time from the user's move, one panel for each order, with the migration's window."""
    with picture(path, (9, 6.5), len(found.runs)) as panels:
        for axes, (mode, run) in zip(panels, found.runs, strict=True):
            draw_pings(axes, run.pings, run.moved_at, 400.0, "ping", COLOURS[mode])
            if run.migration:
                begin, end = (at - run.moved_at for at in run.migration)
                axes.axvspan(begin, end, color="grey", alpha=0.15, label=f"migration, {end - begin:.1f} s")
            axes.axvline(0.0, color="black", linewidth=0.8, linestyle="--")
            axes.set_yscale("log")
            axes.set_ylim(1.0, 600.0)
            _dress(axes, NAMES[mode], "seconds after the user's move", "round trip, ms")


def plot_downtimes(found: Downtimes, path: Path) -> None:
    """Against the round trip controller - target: the downtime, what of it is not the machine's own pause, and what
    is not its own first answer either; each migration, the medians, and the fitted lines."""
    parts = {"Downtime of a migration": downtime, "Downtime less the machine's own pause": added,
             "Downtime less pause and guest's cold start": network}  # fmt: skip
    with picture(path, (18, 5), 1, len(parts)) as panels:
        for axes, (title, part) in zip(panels, parts.items(), strict=True):
            for case, mode, varied in found.series():
                if varied == "target":
                    _downtimes(axes, found, case, mode, varied, part)
            # Room for the legend above all points.
            axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.4 * axes.get_ylim()[1])
            _dress(axes, title, "round trip controller - target, ms", "ms")


def _downtimes(axes: Axes, found: Downtimes, case: Case, mode: str, varied: str, part: Part) -> None:
    first = case == found.cases[0]
    marker, colour = "o" if first else "s", COLOURS[mode]
    points = [
        (x * 1e3, [1e3 * part(one) for one in mine])
        for x, mine in found.points(case.name, mode, varied)
    ]
    for x, values in points:
        axes.plot([x] * len(values), values, marker, color=colour, alpha=0.35, markersize=4)
    line = found.line(case.name, mode, varied, part)
    label = (f"{NAMES[mode]}, {case.name} (source {case.dc1_s * 1e3:g} ms): "
             f"slope {line.slope:+.2f} ± {line.slope_error:.2f}")  # fmt: skip
    axes.plot([x for x, _ in points], [median(values) for _, values in points], marker, color=colour, markersize=8,
              mfc=colour if first else "none", label=label)  # fmt: skip
    ends = (points[0][0], points[-1][0])
    axes.plot(ends, [line.intercept * 1e3 + line.slope * x for x in ends], "-" if first else "--", color=colour,
              linewidth=1.0)  # fmt: skip


def plot_sizes(found: Sizes, path: Path) -> None:
    """Seconds against bytes of each migration, beside the link's own limit."""
    with picture(path, (7, 4.5)) as (axes,):
        for busy, marker in ((False, "o"), (True, "s")):
            mine = [one for one in found.carried if bool(one.dirtying_bytes_s) is busy]
            axes.plot([one.bytes / 1e6 for one in mine], [one.transfer_s for one in mine], marker, mfc="none",
                      label="the machine writes to its memory" if busy else "idle machine")  # fmt: skip
        most = 1.1 * max(one.bytes for one in found.carried)
        limit = most * 8 / LINK_BIT_S / PAYLOAD
        axes.plot((0.0, most / 1e6), (0.0, limit), "-", color="black", linewidth=0.8, label="the link's own limit")
        _dress(axes, f"Migrations over {LINK_BIT_S / 1e6:g} Mbit/s", "MB carried", "seconds")


def _dress(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set(title=title, xlabel=across, ylabel=up)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
