"""The figures of the papers, and the policy table behind one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .ending import wrong
from .lisp_figures import reproduce_lisp
from .output import JsonFile, PlotFile, check_outputs, console_for, hand_over
from .role_figures import reproduce_roles
from .show import Mode, PolicyName, compare

FIGURES = {
    "model": "distance, latency, cost and disruption against k (model paper, figures 10 to 13)",
    "policy": "the two policy tables, cell by cell against the printed ones (model paper, figure 14)",
    "openflow-latency": "ping latency with and without following (OpenFlow paper, figure 5); needs root",
    "lisp-rtt": "round trip before, while and after the machine moves (LISP paper, figure 5); needs root",
    "lisp-downtime": "downtime against the controller's distance (LISP paper, figure 6); needs root, half an hour",
    "rules": "flow entries of a migration, central and distributed (scalability paper, figure 5)",
    "messages": "messages between distant controllers and switches (scalability paper, figure 6)",
    "lisp-sizes": "bytes and seconds of a migration against the link (LISP paper, section IV); needs root",
}


def add(app: typer.Typer) -> None:
    app.command()(reproduce)
    app.command()(policy)


def reproduce(
    name: Annotated[str | None, typer.Argument(help="Which figure; --list names them.")] = None,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
    quick: Annotated[bool, typer.Option(help="A shorter or coarser run.")] = False,
    search: Annotated[bool, typer.Option(help="policy: search for the open parameters again.")] = False,
    names: Annotated[bool, typer.Option("--list", help="List the figures that can be reproduced.")] = False,
) -> None:
    """A figure of the papers, computed or measured again."""
    if names:
        for key, text in FIGURES.items():
            typer.echo(f"{key:18} {text}")
        return
    if name not in FIGURES:
        wrong(f"{name!r} is not a figure that can be reproduced: {', '.join(FIGURES)}" if name else
               f"name the figure to reproduce: {', '.join(FIGURES)}")  # fmt: skip
    if search and name != "policy":
        wrong(f"--search: there is nothing to search for in {name}, only in policy")
    if quick and name == "policy":
        wrong("--quick: the policy tables have no shorter run")
    check_outputs(json_file, plot_file)
    console = console_for(json_file)
    if name == "model":
        from followme.analysis import figures

        model = figures.reproduce_model(quick)
        for table in model.tables:
            console.print("\n".join(table.lines()), markup=False)
            console.print()
        console.print("What the paper says of it, against the exact chain")
        for sentence in model.sentences():
            verdict = "holds" if sentence.holds else "does not hold"
            console.print(f"  {verdict:14} {sentence.paper}: {sentence.exact}", markup=False)
        hand_over(model.to_json(), lambda path: figures.plot(model, path), json_file, plot_file, console)
    elif name == "policy":
        from followme.analysis.figure14_report import reproduce_policy

        found = reproduce_policy(search, lambda text: console.print(text, markup=False))
        console.print(found.text(), markup=False)
        hand_over(found.as_json(), found.plot, json_file, plot_file, console)
    elif name in ("rules", "messages"):
        reproduce_roles(name, quick, json_file, plot_file)
    elif name != "openflow-latency":
        reproduce_lisp(name, quick, json_file, plot_file)
    else:
        from followme.lab.latency import Windows

        # The paper watches for about a minute, most of it before the machine has followed (after 32 s there).
        windows = Windows(3.0, 5.0, 5.0) if quick else Windows(10.0, 20.0, 10.0)
        plot_file = plot_file or Path("openflow-latency.png")
        compare(windows, json_file, plot_file, Mode.LIVE, PolicyName.MDP, 1.0, 50.0, overlapping=False)


def policy(
    thr: Annotated[int, typer.Option(help="Farthest distance with a choice, in service areas.")] = 10,
    p: Annotated[list[float] | None, typer.Option(help="Probability to go on; may be given again.")] = None,
    q0: Annotated[float, typer.Option(help="Quality at distance 0.")] = 10.0,
    k: Annotated[float, typer.Option(help="Quality lost with each service area.")] = 1.0,
    tau: Annotated[float, typer.Option(help="Cost of a migration as a share of q0.")] = 0.5,
    gamma: Annotated[float, typer.Option(help="Discount of a step.")] = 0.9,
    alpha: Annotated[float | None, typer.Option(help="Apply the paper's reward transformation, in mu.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Print the optimal policy of the decision process for given parameters: stay (C) or migrate (M)."""
    from followme.placement.mdp import PS, policy_table

    check_outputs(json_file, None)
    try:
        table = policy_table(thr, tuple(p or PS), q0, k, tau, gamma, alpha=alpha)
    except ValueError as error:
        wrong(str(error))
    if str(json_file) != "-":
        typer.echo(table.text())
    hand_over(table.as_json(), None, json_file, None, Console(stderr=True))
