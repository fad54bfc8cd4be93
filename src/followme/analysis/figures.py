"""Figures 10 to 13 of "When Cloud Services Follow Mobile Users", as tables of numbers and as one picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from followme.system.picture import picture

from . import hexagon
from .chain import Floats, Stationary, hexagonal, line, stationary
from .measures import (
    PORTIONS,
    SERVICE_BYTES,
    SIGNAL_BYTES,
    Transfer,
    mean_distance,
    mean_latency,
    migration_cost,
    migration_share,
    optimal_probability,
    rtt_s,
)
from .sentences import Sentence, weigh

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The figures go to k = 7. The quick run compares the chains there only, the other also where they are large.
_RINGS = range(2, 8)
_LARGE = (10, 20, 40, 60)


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers with the names of their columns, which end in their unit; the first column is k."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    def column(self, name: str) -> tuple[float, ...]:
        """One column from top to bottom. ``KeyError`` if there is none of this name."""
        if name not in self.columns:
            raise KeyError(f"{self.name} has no column {name!r}: {', '.join(self.columns)}")
        return tuple(row[self.columns.index(name)] for row in self.rows)

    def lines(self) -> list[str]:
        """As text: the title, the names of the columns, the rows, right-aligned, with seven digits."""
        cells = [self.columns, *([f"{value:.7g}" for value in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        padded = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in cells]
        return [self.title, *padded]

    def to_json(self) -> dict[str, Any]:
        """``title``, and each column as a list under its name."""
        return {"title": self.title, **{name: list(self.column(name)) for name in self.columns}}


@dataclass(frozen=True, slots=True)
class Model:
    """All tables: the four figures, the 1D chain, the aggregated chain against the full one."""

    distance: Table
    latency: Table
    cost: Table
    disruption: Table
    line: Table
    agreement: Table

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.distance, self.latency, self.cost, self.disruption, self.line, self.agreement)

    def sentences(self) -> tuple[Sentence, ...]:
        """What section 7.1 says of the figures, each sentence against the exact chain."""
        return weigh(
            self.distance.column("k"),
            self.distance.column("optimal_probability"),
            self.distance.column("mean_distance_hops"),
            self.latency.column("mean_latency_s"),
            self.cost.column("migration_share"),
            self.disruption.column("all_s"),
            self.disruption.column("tenth_s"),
        )

    def to_json(self) -> dict[str, Any]:
        """One object, each table under its name; SI units in the key names."""
        transfer = Transfer()
        return {
            "parameters": {
                "service_bytes": SERVICE_BYTES,
                "signal_bytes": SIGNAL_BYTES,
                "loss": transfer.loss,
                "window_segments": transfer.window,
                "mss_bytes": transfer.mss_bytes,
                "conversion_s": transfer.conversion_s,
            },
            **{table.name: table.to_json() for table in self.tables},
            "sentences": [{"paper": one.paper, "exact": one.exact, "holds": one.holds} for one in self.sentences()],
        }


def reproduce_model(quick: bool = False) -> Model:
    """Solve the chains and fill the tables. ``quick`` compares full and aggregated chains for k <= 7 only."""
    steady = {k: stationary(hexagonal(k)) for k in _RINGS}
    transfer = Transfer()
    return Model(
        Table(
            "fig10",
            "Figure 10: the share of time at the optimal data centre, and the mean distance from the serving one",
            ("k", "optimal_probability", "mean_distance_hops"),
            tuple((k, optimal_probability(one), mean_distance(one)) for k, one in steady.items()),
        ),
        Table(
            "fig11",
            "Figure 11: mean latency, 0.02 i^2 s at i hops",
            ("k", "mean_latency_s"),
            tuple((k, mean_latency(one)) for k, one in steady.items()),
        ),
        Table(
            "fig12",
            "Figure 12: cost of migration, for each handover",
            ("k", "migration_share", *(f"{name}_bytes" for name, _ in PORTIONS)),
            tuple(
                (k, migration_share(one), *(migration_cost(one, part * SERVICE_BYTES) for _, part in PORTIONS))
                for k, one in steady.items()
            ),
        ),
        Table(
            "fig13",
            "Figure 13: service disruption time, round trip 0.01 k^2 s between the data centres",
            ("k", "rtt_s", *(f"{name}_s" for name, _ in PORTIONS)),
            # The service moves when the user is k hops away, to where the user is: the two are k hops apart.
            tuple(
                (k, rtt_s(k), *(transfer.disruption_s(part * SERVICE_BYTES, rtt_s(k)) for _, part in PORTIONS))
                for k in _RINGS
            ),
        ),
        Table(
            "line",
            "The 1D chain, as probable to go on as to go back",
            ("k", "optimal_probability", "mean_distance_hops", "mean_latency_s", "migration_share"),
            tuple(_line_row(k) for k in _RINGS),
        ),
        Table(
            "agreement",
            "The full chain against the aggregated one",
            ("k", "cells", "states", "largest_difference"),
            tuple(_agreement_row(k) for k in (*_RINGS, *(() if quick else _LARGE))),
        ),
    )


def _line_row(k: int) -> tuple[float, ...]:
    steady = stationary(line(k))
    measures = (optimal_probability(steady), mean_distance(steady), mean_latency(steady), migration_share(steady))
    return (k, *measures)


def _agreement_row(k: int) -> tuple[float, ...]:
    """The difference is between probabilities of a state and of its cells in sum, the largest of all states."""
    full, aggregated = stationary(hexagonal(k, aggregated=False)), stationary(hexagonal(k))
    difference = float(np.abs(summed(full, hexagon.SYMMETRIES) - aggregated.probability).max())
    return (k, len(full.probability), len(aggregated.probability), difference)


def summed(full: Stationary, group: hexagon.Ints) -> Floats:
    """The probabilities of a full chain on hexagonal cells, summed over the orbits of a group: (n,) -> (c,)."""
    state_of, _ = hexagon.orbits(hexagon.rings(full.chain.k), group)
    sums: Floats = np.bincount(state_of, full.probability).astype(np.float64)
    return sums


def plot(model: Model, path: Path) -> None:
    """The four figures in one picture, 10 to 13."""
    with picture(path, (10, 7.5), 2, 2) as (left, right, cost, disruption):
        probability = left.twinx()
        bars = probability.bar(
            model.distance.column("k"), model.distance.column("optimal_probability"), width=0.5,
            color="tab:blue", alpha=0.35, label="at the optimal data centre (right)",
        )  # fmt: skip
        (hops,) = left.plot(
            model.distance.column("k"), model.distance.column("mean_distance_hops"), "o-",
            color="tab:red", label="mean distance (left)",
        )  # fmt: skip
        # The distance in front of the bars: a twin is drawn last, on a background that would hide them.
        left.set_zorder(probability.get_zorder() + 1)
        left.patch.set_visible(False)
        left.legend(handles=[hops, bars], fontsize=8, loc="upper center")
        probability.set_ylabel("probability")
        probability.set_ylim(0.0, 0.5)
        _dress(left, "Figure 10: optimal data centre and distance", "hops")
        right.plot(
            model.latency.column("k"), [1e3 * value for value in model.latency.column("mean_latency_s")], "o-",
            color="tab:red",
        )  # fmt: skip
        _dress(right, "Figure 11: mean latency", "ms")
        for name, _ in PORTIONS:
            megabytes = [1e-6 * value for value in model.cost.column(f"{name}_bytes")]
            cost.plot(model.cost.column("k"), megabytes, "o-", label=name)
            disruption.plot(model.disruption.column("k"), model.disruption.column(f"{name}_s"), "o-", label=name)
        for axes in (cost, disruption):
            axes.legend(title="of the service", fontsize=8, title_fontsize=8)
        _dress(cost, "Figure 12: cost of migration", "MB for each handover")
        _dress(disruption, "Figure 13: service disruption", "s")


def _dress(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("k, rings before the service moves")
    axes.set_ylabel(unit)
    axes.set_ylim(0.0)
    axes.grid(True, alpha=0.25)
