"""``followme plan``: switches and controllers for so many users."""

from __future__ import annotations

from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .ending import wrong
from .output import JsonFile, PlotFile, check_outputs, console_for, hand_over, print_table

if TYPE_CHECKING:
    from followme.analysis.planning import Plan


_UNITS = {"k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def add(app: typer.Typer) -> None:
    app.command(name="plan")(plan_capacity)


def _number(text: str) -> int:
    """``250_000``, ``250k``, ``1.5M``, ``1G``; else the end (``wrong``)."""
    unit = _UNITS.get(text[-1:].lower(), 1)
    digits = text[:-1] if unit > 1 else text
    try:
        number = float(digits) * unit if unit > 1 else int(digits)
    except ValueError:
        number = nan
    if not isfinite(number) or number != int(number):
        wrong(f"--users {text}: is no whole number; write 250000, 250k or 1M")
    return int(number)


def plan_capacity(
    users: Annotated[
        list[int] | None,
        typer.Option(help="As 250k or 1M; may be given again. Default: 1M.", parser=_number, metavar="NUMBER"),
    ] = None,
    moves: Annotated[float, typer.Option(help="Moves of a user to another network, each hour.")] = 2.0,
    services: Annotated[int, typer.Option(help="Services of each user.")] = 1,
    peers: Annotated[float, typer.Option(help="Nodes that a service talks to, on average.")] = 3.0,
    peers_kind: Annotated[str, typer.Option(help="Their distribution: fixed, poisson, geometric.")] = "poisson",
    away: Annotated[float, typer.Option(help="Share of users and services that are not at home.")] = 0.3,
    follow: Annotated[float, typer.Option(help="Share of moves after which the services follow.")] = 1.0,
    uneven: Annotated[float, typer.Option(help="Deviation of the logarithm of the networks' sizes.")] = 0.0,
    table: Annotated[int, typer.Option(help="Flow entries that a switch can hold.")] = 100_000,
    controller_moves: Annotated[float, typer.Option(help="Moves a second that a controller is part of.")] = 1000.0,
    controller_entries: Annotated[float, typer.Option(help="Entries a second that it can install.")] = 15_000.0,
    controller_mappings: Annotated[int, typer.Option(help="Mappings that it can hold.")] = 1_000_000,
    controller_switches: Annotated[int, typer.Option(help="Switches that it can serve.")] = 1000,
    instances: Annotated[int, typer.Option(help="Instances of each controller, one of them active.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the sample of entries per switch.")] = 0,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
) -> None:
    """Switches and controllers needed, how full the tables get, and messages a second."""
    from followme.analysis.planning import Demand, Limits, plan

    check_outputs(json_file, plot_file)
    if seed < 0:
        wrong(f"--seed {seed}: must not be negative")
    console = console_for(json_file)
    try:
        limits = Limits(table, controller_moves, controller_entries, controller_mappings, controller_switches,
                        instances)  # fmt: skip
        plans = [plan(Demand(number, moves, services, peers, peers_kind, away, follow, uneven), limits, seed)
                 for number in users or (1_000_000,)]  # fmt: skip
    except ValueError as error:
        wrong(str(error))
    _print(console, plans)
    for one in plans:
        drawn = "" if one.exact else ", with normal sums where there are too many nodes to draw one by one"
        console.print(f"{one.demand.users:,} users: controllers are as many as {one.decided_by} ask for; entries "
                      f"are one sample{drawn}; {one.overfull} switches overfull", markup=False)  # fmt: skip

    def draw(path: Path) -> None:
        from followme.analysis.planning_plot import plot

        plot(plans, path)

    hand_over({"plans": [one.as_json() for one in plans]}, draw, json_file, plot_file, console)


def _print(console: Console, plans: list[Plan]) -> None:
    headings = ("users", "switches", "entries: mean", "99 %", "99.9 %", "most", "controllers", "instances",
                "moves/s", "messages/s", "of a controller")  # fmt: skip
    rows: list[list[str]] = []
    for one in plans:
        entries = one.quantiles()
        row = (one.demand.users, one.switches, one.mean_entries, entries["p99"], entries["p99_9"], entries["most"],
               one.controllers, one.instances, one.moves_s, one.messages_s,
               one.messages_per_controller_s)  # fmt: skip
        rows.append([f"{value:,.0f}" for value in row])
    print_table(console, f"tables of {plans[0].limits.table:,} entries", headings, rows)
