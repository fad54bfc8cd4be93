"""The scalability paper's figures 5 and 6: what ``followme reproduce rules`` and ``messages`` count, print and
write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from .ending import run
from .output import console_for, hand_over, print_table

if TYPE_CHECKING:
    from followme.lab.roles_counts import Counts


def reproduce_roles(name: str, quick: bool, json_file: Path | None, plot_file: Path | None) -> None:
    """``name`` is ``rules`` or ``messages``."""
    (_rules if name == "rules" else _messages)(quick, json_file, plot_file, console_for(json_file))


def _rules(quick: bool, json_file: Path | None, plot_file: Path | None, console: Console) -> None:
    from followme.analysis import rules
    from followme.lab import roles_plots

    counts = _counts(quick, console, switches=True)
    curves = rules.figure5([one.nodes for one in counts.runs])
    rows = zip(curves.nodes, curves.central, curves.distributed, curves.our_central, curves.our_distributed,
               [one.entries.total(one.networks) for one in counts.runs], [one.entries.most for one in counts.runs],
               curves.our_moving, strict=True)  # fmt: skip
    headings = ("nodes", "paper: central", "foreign", "our rules: central", "most loaded", "counted: all",
                "most loaded", "while it moves")  # fmt: skip
    print_table(console, f"entries for one migration; counted: {counts.switches}", headings, rows)
    few = counts.few
    console.print(f"with one correspondent network and {few.nodes} nodes at home and abroad, counted: home "
                  f"{few.entries.home}, foreign {few.entries.foreign}, correspondent {few.entries.correspondent}")
    figures = {"delta": rules.DELTA, **curves.as_json(), "counted": counts.as_json()}
    hand_over(figures, lambda path: roles_plots.plot_rules(curves, counts, path), json_file, plot_file, console)


def _messages(quick: bool, json_file: Path | None, plot_file: Path | None, console: Console) -> None:
    from followme.analysis import messages
    from followme.lab import roles_plots

    counts = _counts(quick, console, switches=False)
    curves = messages.figure6([one.nodes for one in counts.runs])
    rows = zip(curves.nodes, curves.central, curves.distributed, [one.foreign_orders for one in counts.runs],
               [one.move.foreign for one in counts.runs], [one.onward.foreign for one in counts.runs],
               [one.onward.total for one in counts.runs], strict=True)  # fmt: skip
    headings = ("nodes", "paper: central", "foreign", "ours: foreign, orders", "of which the move", "next move",
                "next move, all")  # fmt: skip
    title = f"messages far away for one migration; ours counted on {counts.bus}, each order has an answer"
    print_table(console, title, headings, rows)
    few = counts.few
    console.print(f"with one correspondent network and {few.nodes} nodes at home and abroad: {few.foreign_orders} "
                  f"orders of the foreign controller, {few.onward.total} of all at the next move")  # fmt: skip
    figures = {**curves.as_json(), "counted": counts.as_json()}
    hand_over(figures, lambda path: roles_plots.plot_messages(curves, counts, path), json_file, plot_file, console)


def _counts(quick: bool, console: Console, *, switches: bool) -> Counts:
    """In what the machine has of switches and a bus; what it lacks is said."""
    from followme.lab import roles_counts

    for line in roles_counts.missing(switches):
        console.print(f"not counted in the real thing: {line}", markup=False)
    from followme.federation.nats_server import program
    from followme.system import needs

    real = switches and not needs.check(roles_counts.SWITCHES)
    nodes = roles_counts.QUICK_NODES if quick else roles_counts.NODES
    counts: Counts = run(roles_counts.count(nodes, console.print, switches=real, nats=program() is not None))
    return counts
