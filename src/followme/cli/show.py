"""``followme demo``: the lab, and what was measured in it."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .ending import failed, run, wrong
from .output import JsonFile, PlotFile, check_outputs, hand_over


class Plane(StrEnum):
    OPENFLOW = "openflow"
    LISP = "lisp"


class Mode(StrEnum):
    LIVE = "live"
    COLD = "cold"
    PAPER = "paper"


class PolicyName(StrEnum):
    ALWAYS = "always"
    THRESHOLD = "threshold"
    MYOPIC = "myopic"
    MDP = "mdp"


def add(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    plane: Annotated[Plane, typer.Option(help="How sessions are kept.")] = Plane.OPENFLOW,
    json_file: JsonFile = None,
    plot_file: PlotFile = Path("followme-demo.png"),
    mode: Annotated[Mode, typer.Option(help="How the machine is carried.")] = Mode.LIVE,
    policy: Annotated[PolicyName, typer.Option(help="Who decides.")] = PolicyName.MDP,
    near_ms: Annotated[float, typer.Option(min=0.0, max=10_000.0, help="Round trip to the near site.")] = 1.0,
    far_ms: Annotated[float, typer.Option(min=0.0, max=10_000.0, help="Round trip to the far site.")] = 50.0,
    overlapping: Annotated[bool, typer.Option(help="Both data centres use one private address range.")] = False,
    domains: Annotated[
        int | None, typer.Option(min=3, max=6, help="Data centres, each with a controller of its own.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Watch for a shorter time.")] = False,
) -> None:
    """Show it: a user moves between two networks, its machine follows, its sessions go on. Needs root.

    With --domains a machine goes from controller to controller and home again, with sessions to all of them.
    """
    from followme.lab.latency import Windows

    if domains is not None:
        if plane is Plane.LISP or overlapping:
            wrong("--domains is for --plane openflow, without --overlapping")
        travel(domains, quick, json_file, plot_file, mode, far_ms)
        return
    windows = Windows(2.0, 2.5, 2.5) if quick else Windows()
    compare(windows, json_file, plot_file, mode, policy, near_ms, far_ms, overlapping, plane)


def compare(
    windows: Any, json_file: Path | None, plot_file: Path | None, mode: Mode, policy: PolicyName, near_ms: float,
    far_ms: float, overlapping: bool, plane: Plane = Plane.OPENFLOW,
) -> None:  # fmt: skip
    from followme.lab.comparison import plot
    from followme.system import needs

    if overlapping and plane is Plane.LISP:
        wrong("--overlapping is for --plane openflow: EIDs are unique in a LISP instance")
    problems = needs.check(needs.MACHINE_LAB if plane is Plane.OPENFLOW else needs.LISP_LAB)
    if problems:
        failed("this machine cannot run the lab: " + "; ".join(problems))
    check_outputs(json_file, plot_file)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    console = Console(stderr=str(json_file) == "-", highlight=False)
    delays = {"same_site_rtt_s": near_ms / 1e3, "between_sites_rtt_s": far_ms / 1e3}
    choices = {
        "policy": policy.value, "mode": mode.value,
        "parameters": {"distance": 1.0} if policy is PolicyName.THRESHOLD else {},
    }
    make = _openflow if plane is Plane.OPENFLOW else _lisp
    comparison = run(_show(make(delays, choices, overlapping), windows, console, BUILDING[plane]))
    figures = comparison.figures()
    console.print(_table(figures))
    hand_over(figures, lambda path: plot(comparison, path), json_file, plot_file, console)


def travel(
    domains: int, quick: bool, json_file: Path | None, plot_file: Path | None, mode: Mode, far_ms: float
) -> None:
    from followme.lab.domains_demo import Pace, plot
    from followme.lab.domains_document import DomainsConfig
    from followme.lab.domains_plan import CORRESPONDENTS, DomainsLabConfig
    from followme.lab.domains_scenario import missing

    problems = missing()
    if problems:
        failed("this machine cannot run the lab: " + "; ".join(problems))
    check_outputs(json_file, plot_file)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    console = Console(stderr=str(json_file) == "-", highlight=False)
    lab = DomainsLabConfig(
        centres=domains, correspondents=len(CORRESPONDENTS), between_domains_rtt_s=far_ms / 1e3
    )  # fmt: skip
    settings = DomainsConfig(lab=lab, mode=mode.value)
    journey = run(_travel(settings, Pace(2.0, 3.0) if quick else Pace(), console))
    figures = journey.figures()
    console.print(_table({key: value for key, value in figures.items() if key not in ("moves", "sessions")}))
    for move in figures["moves"]:
        console.print(_table(move, f"{move['from']} -> {move['to']}"))
    hand_over(figures, lambda path: plot(journey, path), json_file, plot_file, console)


async def _travel(settings: Any, pace: Any, console: Console) -> Any:
    from followme.lab import domains_demo
    from followme.lab.domains_scenario import DomainsScenario
    from followme.lab.story import Story

    with Story(console) as story:
        lab = settings.lab
        story.say(f"building the lab: {lab.centres + lab.correspondents} domains, each with a controller and an "
                  f"OpenFlow switch; a NATS server, {lab.centres} hypervisors with agents")  # fmt: skip
        async with DomainsScenario(settings) as scenario:
            delays = scenario.lab.delay.kind
            story.say(f"lab is up; path delays by {delays}, machines by QEMU with {scenario.accel}")
            return await domains_demo.travel(scenario, pace, story.say)


BUILDING = {
    Plane.OPENFLOW: "building the lab: four OpenFlow switches, a router, two hypervisors, a client",
    Plane.LISP: "building the lab: four LISP sites, a map server, a core, two hypervisors, a client",
}


def _openflow(delays: dict[str, Any], choices: dict[str, Any], overlapping: bool) -> Any:
    from followme.lab.plan import LabConfig
    from followme.lab.scenario import Scenario, ScenarioConfig

    return Scenario(ScenarioConfig(lab=LabConfig(overlapping=overlapping, **delays), **choices))


def _lisp(delays: dict[str, Any], choices: dict[str, Any], overlapping: bool) -> Any:
    from followme.lab.lisp_document import LispScenarioConfig
    from followme.lab.lisp_plan import LispLabConfig
    from followme.lab.lisp_scenario import LispScenario

    return LispScenario(LispScenarioConfig(lab=LispLabConfig(**delays), **choices))


async def _show(stage: Any, windows: Any, console: Console, building: str) -> Any:
    from followme.lab import comparison
    from followme.lab.story import Story

    with Story(console) as story:
        story.say(building)
        async with stage as scenario:
            story.say(f"lab is up; path delays by {scenario.delay_kind}, machines by QEMU with {scenario.accel}")
            scenario.watch(story.happened)
            return await comparison.compare(scenario, windows, story.say, story.tick)


def _table(figures: dict[str, Any], title: str = "What was measured") -> Table:
    table = Table(title=title)
    table.add_column("figure")
    table.add_column("value", justify="right")
    for key, value in figures.items():
        table.add_row(key, _shown(value))
    return table


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
