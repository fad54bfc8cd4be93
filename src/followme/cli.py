"""The command line: thin, one function a command. Exit codes: 0 done, 1 it failed, 2 wrong use or config."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from followme import __version__
from followme.config import ConfigError, load

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Follow-Me Cloud: cloud services follow mobile users, and open sessions go on.",
)  # fmt: skip


class Plane(StrEnum):
    OPENFLOW = "openflow"


class Mode(StrEnum):
    LIVE = "live"
    COLD = "cold"
    PAPER = "paper"


class PolicyName(StrEnum):
    ALWAYS = "always"
    THRESHOLD = "threshold"
    MYOPIC = "myopic"
    MDP = "mdp"


JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures as one JSON object (-: stdout).")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Write the plot (PNG, SVG or PDF).")]
ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The YAML file; see examples/controller.yaml.")]


@app.command()
def demo(
    plane: Annotated[Plane, typer.Option(help="How sessions are kept.")] = Plane.OPENFLOW,
    json_file: JsonFile = None,
    plot_file: PlotFile = Path("followme-demo.png"),
    mode: Annotated[Mode, typer.Option(help="How the machine is carried.")] = Mode.LIVE,
    policy: Annotated[PolicyName, typer.Option(help="Who decides.")] = PolicyName.MDP,
    near_ms: Annotated[float, typer.Option(min=0.0, max=10_000.0, help="Round trip to the near site.")] = 1.0,
    far_ms: Annotated[float, typer.Option(min=0.0, max=10_000.0, help="Round trip to the far site.")] = 50.0,
    overlapping: Annotated[bool, typer.Option(help="Both data centres use one private address range.")] = False,
    quick: Annotated[bool, typer.Option(help="Watch for a shorter time.")] = False,
) -> None:
    """Show it: a user moves between two networks, its machine follows, its sessions go on. Needs root."""
    from followme.lab.latency import Windows

    windows = Windows(2.0, 2.5, 2.5) if quick else Windows()
    _compare(windows, json_file, plot_file, mode, policy, near_ms, far_ms, overlapping)


FIGURES = {
    "model": "distance, latency, cost and disruption against k (model paper, figures 10 to 13)",
    "policy": "the two policy tables, cell by cell against the printed ones (model paper, figure 14)",
    "openflow-latency": "ping latency with and without following (OpenFlow paper, figure 5); needs root",
}


@app.command()
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
        _wrong(f"{name!r} is not a figure that can be reproduced: {', '.join(FIGURES)}" if name else
               f"name the figure to reproduce: {', '.join(FIGURES)}")  # fmt: skip
    _check_outputs(json_file, plot_file)
    console = Console(stderr=str(json_file) == "-", highlight=False, soft_wrap=True)
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
        _hand_over(model.to_json(), lambda path: figures.plot(model, path), json_file, plot_file, console)
    elif name == "policy":
        from followme.placement.mdp_figure14 import reproduce_policy

        found = reproduce_policy(search, lambda text: console.print(text, markup=False))
        console.print(found.text(), markup=False)
        _hand_over(found.as_json(), found.plot, json_file, plot_file, console)
    else:
        from followme.lab.latency import Windows

        # The paper watches for about a minute, most of it before the machine has followed (after 32 s there).
        windows = Windows(3.0, 5.0, 5.0) if quick else Windows(10.0, 20.0, 10.0)
        plot_file = plot_file or Path("openflow-latency.png")
        _compare(windows, json_file, plot_file, Mode.LIVE, PolicyName.MDP, 1.0, 50.0, overlapping=False)


@app.command()
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

    _check_outputs(json_file, None)
    try:
        table = policy_table(thr, tuple(p or PS), q0, k, tau, gamma, alpha=alpha)
    except ValueError as error:
        _wrong(str(error))
    if str(json_file) != "-":
        typer.echo(table.text())
    _hand_over(table.as_json(), None, json_file, None, Console(stderr=True))


@app.command()
def simulate(
    trace: Annotated[Path | None, typer.Option(help="Positions (CSV, .gz): taxi, t_s, lat, lon.")] = None,
    cells: Annotated[Path | None, typer.Option(help="Cells (CSV): cell, lat, lon.")] = None,
    policies: Annotated[list[str] | None, typer.Option("--policy", help="May be given again; default all.")] = None,
    train_hours: Annotated[float, typer.Option(help="Hours to learn from; the rest is held out.")] = 16.0,
    cells_per_centre: Annotated[int, typer.Option(help="Cells that share a micro data centre.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the synthetic city, where no trace is given.")] = 0,
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
) -> None:
    """Users of a trace (or of a synthetic city), policies side by side: distance, latency, migrations, cost."""
    from followme.analysis.comparison import POLICY_NAMES, simulate_trace

    _check_outputs(json_file, plot_file)
    console = Console(stderr=str(json_file) == "-", highlight=False, soft_wrap=True)
    try:
        comparison = simulate_trace(
            trace, cells, policies=tuple(policies or POLICY_NAMES), train_hours=train_hours,
            cells_per_centre=cells_per_centre, seed=seed, say=lambda text: console.print(text, markup=False),
        )  # fmt: skip
    except ValueError as error:
        _wrong(str(error))
    console.print("\n".join(comparison.lines()), markup=False)

    def draw(path: Path) -> None:
        from followme.analysis.comparison_plot import plot

        plot(comparison, path)

    _hand_over(comparison.to_json(), draw, json_file, plot_file, console)


@app.command()
def controller(
    config_file: ConfigPath,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each step of each message.")] = False,
) -> None:
    """Run the controller for real switches and hypervisors, until SIGINT or SIGTERM."""
    from followme.daemon import serve

    config = _load(config_file)
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("qemu.qmp").setLevel(logging.WARNING)
    _run(serve(config))


@app.command("check-config")
def check_config(config_file: Annotated[Path, typer.Argument(metavar="FILE")]) -> None:
    """Check a config file, and say everything that is wrong with it."""
    config = _load(config_file)
    typer.echo(
        f"{config_file}: good: {len(config.networks)} networks, {len(config.file.machines)} machines, "
        f"{len(config.file.users)} users, {len(config.services)} services"
    )


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _load(path: Path) -> Any:
    from followme.placement.settings import chooser_of, policy_of

    try:
        config = load(path)
        policy_of(config)
        chooser_of(config)
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(2) from None
    except ValueError as error:
        typer.echo(f"{path}: {error}", err=True)
        raise typer.Exit(2) from None
    return config


def _wrong(text: str) -> NoReturn:
    typer.echo(f"followme: {text}", err=True)
    raise typer.Exit(2)


def _failed(text: str) -> NoReturn:
    typer.echo(f"followme: {text}", err=True)
    raise typer.Exit(1)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; what may go wrong on a healthy program becomes one line and exit code 1."""
    from followme.continuity.southbound import SwitchError
    from followme.lab.client import DhcpError
    from followme.lab.guest import GuestError
    from followme.lab.topology import LabError
    from followme.migration.host import MigrationError
    from followme.store import StoreError
    from followme.system.process import ProcessError

    interrupted: list[int] = []
    try:
        return asyncio.run(_until_interrupted(work, interrupted))
    except asyncio.CancelledError:
        number = interrupted[0] if interrupted else signal.SIGTERM
        typer.echo(f"followme: ended by {signal.Signals(number).name}; what was made is removed", err=True)
        raise typer.Exit(128 + number) from None
    except (
        SwitchError, DhcpError, GuestError, LabError, MigrationError, StoreError, ProcessError, OSError,
        RuntimeError,
    ) as error:  # fmt: skip
        _failed(" ".join(str(error).split()))


async def _until_interrupted(work: Coroutine[Any, Any, Any], interrupted: list[int]) -> Any:
    """The first Ctrl-C cancels the work; those that follow must not stop it from cleaning up."""
    task = asyncio.ensure_future(work)

    def interrupt() -> None:
        if not interrupted:
            interrupted.append(signal.SIGINT)
            task.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
    return await task


def _compare(
    windows: Any, json_file: Path | None, plot_file: Path | None, mode: Mode, policy: PolicyName, near_ms: float,
    far_ms: float, overlapping: bool,
) -> None:  # fmt: skip
    from followme.lab.comparison import plot
    from followme.lab.plan import LabConfig
    from followme.lab.scenario import ScenarioConfig
    from followme.system import needs

    problems = needs.check(needs.MACHINE_LAB)
    if problems:
        _failed("this machine cannot run the lab: " + "; ".join(problems))
    _check_outputs(json_file, plot_file)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    console = Console(stderr=str(json_file) == "-", highlight=False)
    settings = ScenarioConfig(
        lab=LabConfig(overlapping=overlapping, same_site_rtt_s=near_ms / 1e3, between_sites_rtt_s=far_ms / 1e3),
        policy=policy.value,
        parameters={"distance": 1.0} if policy is PolicyName.THRESHOLD else {},
        mode=mode.value,
    )
    comparison = _run(_show(settings, windows, console))
    figures = comparison.figures()
    console.print(_table(figures))
    _hand_over(figures, lambda path: plot(comparison, path), json_file, plot_file, console)


def _check_outputs(json_file: Path | None, plot_file: Path | None) -> None:
    """Complain before the work, not after it."""
    if plot_file is not None and plot_file.suffix.lower() not in (".png", ".svg", ".pdf"):
        _wrong(f"--plot {plot_file}: the name must end in .png, .svg or .pdf")
    for file in (json_file, plot_file):
        if file is not None and str(file) != "-":
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.open("ab").close()
            except OSError as error:
                _wrong(f"{file}: cannot be written: {error.strerror}")


def _hand_over(
    figures: dict[str, Any], draw: Callable[[Path], None] | None, json_file: Path | None, plot_file: Path | None,
    console: Console,
) -> None:  # fmt: skip
    """Write what was asked for, and say where it is."""
    try:
        if draw is not None and plot_file is not None:
            draw(plot_file)
            console.print(f"plot: {plot_file}")
        if json_file is not None:
            text = json.dumps(figures, indent=2) + "\n"
            if str(json_file) == "-":
                sys.stdout.write(text)
            else:
                json_file.write_text(text)
                console.print(f"figures: {json_file}")
    except OSError as error:
        _failed(f"{error.filename}: cannot be written: {error.strerror}")


async def _show(settings: Any, windows: Any, console: Console) -> Any:
    from followme.lab.comparison import compare
    from followme.lab.scenario import Scenario
    from followme.lab.story import Story

    with Story(console) as story:
        story.say("building the lab: four OpenFlow switches, a router, two hypervisors, a client")
        async with Scenario(settings) as scenario:
            story.say(
                f"lab is up; path delays by {scenario.lab.delay.kind}, machines by QEMU with {scenario.accel}"
            )
            scenario.controller.watchers.add(story.happened)
            return await compare(scenario, windows, story.say, story.tick)


def _table(figures: dict[str, Any]) -> Table:
    table = Table(title="What was measured")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in figures.items():
        table.add_row(key, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))
    return table


def main() -> None:
    """The ``followme`` command."""
    app()
