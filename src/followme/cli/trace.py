"""``followme simulate``: policies on a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .ending import failed, wrong
from .output import JsonFile, PlotFile, check_outputs, console_for, hand_over, write


def add(app: typer.Typer) -> None:
    app.command()(simulate)


def simulate(
    trace: Annotated[Path | None, typer.Option(help="Positions (CSV, .gz): taxi, t_s, lat, lon.")] = None,
    cells: Annotated[Path | None, typer.Option(help="Cells (CSV): cell, lat, lon.")] = None,
    policies: Annotated[list[str] | None, typer.Option("--policy", help="May be given again; default all.")] = None,
    train_hours: Annotated[float, typer.Option(help="Hours to learn from; the rest is held out.")] = 16.0,
    cells_per_centre: Annotated[int, typer.Option(help="Cells that share a micro data centre.")] = 1,
    capacity: Annotated[int | None, typer.Option(help="Services that each micro data centre can hold.")] = None,
    window: Annotated[float | None, typer.Option(help="With --capacity: seconds decided at once (60).")] = None,
    seed: Annotated[int, typer.Option(help="Of the synthetic city, where no trace is given.")] = 0,
    save_policy: Annotated[
        Path | None, typer.Option(help="Write what mdp (or mdp-line alone) learned, for the policy 'learned'.")
    ] = None,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
) -> None:
    """Users of a trace (or of a synthetic city), policies side by side: distance, latency, migrations, cost."""
    from followme.analysis.capacity import WINDOW_S, Limits
    from followme.analysis.comparison import POLICY_NAMES, simulate_trace
    from followme.placement.learned_file import save_learned

    names = tuple(policies or POLICY_NAMES)
    if seed < 0:
        wrong(f"--seed {seed}: must not be negative")
    if window is not None and capacity is None:
        wrong("--window: it is for --capacity only")
    if save_policy is not None and not {"mdp", "mdp-line"} & set(names):
        wrong("--save-policy: none of the policies learns tables; add --policy mdp")
    if str(save_policy) == "-":
        wrong("--save-policy -: a policy is not for standard output; name a file")
    check_outputs(json_file, plot_file, save_policy)
    console = console_for(json_file)
    try:
        limits = None if capacity is None else Limits(capacity, WINDOW_S if window is None else window)
        comparison = simulate_trace(
            trace, cells, policies=names, train_hours=train_hours, cells_per_centre=cells_per_centre,
            limits=limits, seed=seed, say=lambda text: console.print(text, markup=False),
        )  # fmt: skip
    except ValueError as error:
        wrong(str(error))
    console.print("\n".join(comparison.lines()), markup=False)
    if save_policy is not None:
        learned = comparison.learned
        if learned is None:
            failed(f"{save_policy}: not written, for nothing was learned")
        try:
            write(save_policy, lambda file: save_learned(learned, file))
        except ValueError as error:
            failed(f"{save_policy}: {error}")
        console.print(f"policy: {save_policy}", markup=False)

    def draw(path: Path) -> None:
        from followme.analysis.comparison_plot import plot

        plot(comparison, path)

    hand_over(comparison.to_json(), draw, json_file, plot_file, console)
