"""Figure 14 as text, JSON and a picture: ours beside the printed one, and the other readings that were tried."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from followme.placement.mdp_problem import Bools
from followme.system.picture import picture

from .figure14 import BEST, CELLS, FIRST, LINEAR, PRINTED, PRINTED_THRESHOLDS, PS, TAUS, THR, Comparison, compare
from .figure14_search import search

MOST_LISTED = 12
"""Readings that differ more are counted only; their cells are in the JSON."""


@dataclass(frozen=True, slots=True, eq=False)
class PolicyReproduction:
    """``best`` is the one to show; beside it ``others`` and, if searched, ``found``, the best of each family."""

    best: Comparison
    others: tuple[Comparison, ...]
    found: tuple[Comparison, ...] = ()

    def text(self) -> str:
        lines = [_tables(self.best), ""]
        for title, table in (("Other readings:", self.others), ("The best of each family searched:", self.found)):
            if table:
                lines.append(title)
                lines += [f"  {one.agreeing:3} of {CELLS}: {one.reading.words()}{_cells(one)}" for one in table]
        return "\n".join(lines).rstrip()

    def as_json(self) -> dict[str, Any]:
        return {"best": _json(self.best), "others": [_json(one) for one in self.others],
                "found": [_json(one) for one in self.found]}  # fmt: skip

    def plot(self, file: Path) -> None:
        """Both tables as thresholds against p, the printed ones as circles. PNG, SVG or PDF by the file's name."""
        _plot(self.best, file)


def _cells(one: Comparison) -> str:
    if not one.differing or len(one.differing) > MOST_LISTED:
        return ""
    cells = (f"tau {c.tau:g} p {c.p:g} d {c.distance} ({c.ours} for {c.printed})" for c in one.differing)
    return "; differs at " + ", ".join(cells)


def reproduce_policy(searching: bool = False, say: Callable[[str], None] | None = None) -> PolicyReproduction:
    """Figure 14; with ``searching`` the search is run again (under a minute), ``say`` hearing of each family."""
    found = tuple(compare(reading) for reading in search(say)) if searching else ()
    best = max([compare(BEST), *found], key=lambda one: one.agreeing)
    return PolicyReproduction(best, (compare(LINEAR), compare(FIRST)), found)


def _tables(one: Comparison) -> str:
    """Both tables; where ours differs, the printed letter stands beside ours in brackets."""
    lines = [f"{one.agreeing} of {CELLS} cells agree; {one.reading.words()}"]
    for t, tau in enumerate(TAUS):
        lines += ["", f"({'ab'[t]}) tau = {tau:g}", "p\\d  " + "".join(f"{d:<5}" for d in range(1, THR + 1))]
        for row, p in enumerate(PS):
            pairs = zip(one.migrate[t, row], PRINTED[t, row], strict=True)
            cells = ("CM"[int(a)] + ("" if a == b else f"({'CM'[int(b)]})") for a, b in pairs)
            lines.append((f"{p:<5g}" + "".join(cell.ljust(5) for cell in cells)).rstrip())
    return "\n".join(lines)


def _json(one: Comparison) -> dict[str, Any]:
    return {
        "reading": asdict(one.reading), "agreeing": one.agreeing, "cells": CELLS,
        "differing": [asdict(cell) for cell in one.differing],
        "tables": [
            {"tau": tau, "p": list(PS), "printed": _letters(PRINTED[t]), "ours": _letters(one.migrate[t])}
            for t, tau in enumerate(TAUS)
        ],
    }  # fmt: skip


def _letters(table: Bools) -> list[str]:
    return ["".join("CM"[int(cell)] for cell in row) for row in table]


def _plot(one: Comparison, file: Path) -> None:
    with picture(file, (7.0, 4.2)) as (axes,):
        for t, tau in enumerate(TAUS):
            ours = THR + 1 - np.sum(one.migrate[t], axis=1)
            axes.step(PS, ours, where="mid", color=f"C{t}", label=f"ours, τ = {tau:g}")
            axes.plot(PS, PRINTED_THRESHOLDS[t], "o", mfc="none", color=f"C{t}", label=f"printed, τ = {tau:g}")
        axes.set(xlabel="p, the probability to move on", ylabel="smallest distance at which to migrate",
                 ylim=(0, THR + 2), title=f"Figure 14: {one.agreeing} of {CELLS} cells agree")  # fmt: skip
        axes.legend()
