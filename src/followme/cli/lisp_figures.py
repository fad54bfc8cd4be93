"""The LISP paper's figures: what ``followme reproduce lisp-...`` runs, prints and writes."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .ending import failed, run
from .output import console_for, hand_over, print_table


def reproduce_lisp(name: str, quick: bool, json_file: Path | None, plot_file: Path | None) -> None:
    """``name`` is one of ``MEASURES``; the plot goes to ``name``.png if nothing else is said."""
    from followme.system import needs

    problems = needs.check(needs.LISP_LAB)
    if problems:
        failed("this machine cannot run the lab: " + "; ".join(problems))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    MEASURES[name](quick, json_file, plot_file or Path(f"{name}.png"), console_for(json_file))


def _round_trips(quick: bool, json_file: Path | None, plot_file: Path, console: Console) -> None:
    from followme.lab import lisp_plots, lisp_rtt

    found = run(_watch(quick, console))
    headings = ("figure", *lisp_rtt.MODES)
    print_table(console, "round trip between a user and its machine", headings, found.rows(), words=True)
    hand_over(found.as_json(), lambda path: lisp_plots.plot_round_trips(found, path), json_file, plot_file, console)


async def _watch(quick: bool, console: Console) -> Any:
    from followme.lab import lisp_rtt
    from followme.lab.lisp_scenario import LispScenario
    from followme.lab.story import Story

    with Story(console) as story:
        story.say("building the lab: four LISP sites, a map server, a core, two hypervisors, a client")
        async with LispScenario(lisp_rtt.setting()) as scenario:
            story.say(f"lab is up; path delays by {scenario.delay_kind}, machines by QEMU with {scenario.accel}")
            scenario.watch(story.happened)
            windows = lisp_rtt.QUICK if quick else lisp_rtt.FULL
            return await lisp_rtt.measure(scenario, windows, story.say, story.tick)


def _downtimes(quick: bool, json_file: Path | None, plot_file: Path, console: Console) -> None:
    from followme.lab import lisp_downtime, lisp_plots

    sweep = lisp_downtime.QUICK if quick else lisp_downtime.FULL
    found = run(_counted(console, "migrations", sweep.total,
                         lambda say, step: lisp_downtime.measure(sweep, say, step)))  # fmt: skip
    headings = ("varied", "case", "order", "round trip, ms", "downtime, ms", "least - most", "machine's pause",
                "guest's first answer", "network", "lost", "migrations")  # fmt: skip
    title = "downtime against the controller's round trip to an end"
    print_table(console, title, headings, found.rows(), words=True)
    for sentence in found.sentences():
        console.print(sentence, markup=False)
    hand_over(found.as_json(), lambda path: lisp_plots.plot_downtimes(found, path), json_file, plot_file, console)


def _sizes(quick: bool, json_file: Path | None, plot_file: Path, console: Console) -> None:
    from followme.lab import lisp_plots, lisp_sizes

    found = run(_counted(console, "migrations", lisp_sizes.total(quick),
                         lambda say, step: lisp_sizes.measure(quick, say, step)))  # fmt: skip
    headings = ("memory, MiB", "written, MB/s", "carried, MB", "transfer, s", "in all, s", "of the link", "in all",
                "pause, ms", "passes")  # fmt: skip
    title = f"migrations over a link of 100 Mbit/s, which can carry {lisp_sizes.PAYLOAD:.3f} of that"
    print_table(console, title, headings, found.rows(), words=True)
    hand_over(found.as_json(), lambda path: lisp_plots.plot_sizes(found, path), json_file, plot_file, console)


async def _counted(
    console: Console, what: str, total: int,
    work: Callable[[Callable[[str], None], Callable[[], None]], Awaitable[Any]],
) -> Any:  # fmt: skip
    """A line for each result, and on a terminal a bar; a pipe gets the lines only."""
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
        transient=True, disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task(what, total=total)
        return await work(lambda text: console.print(text, markup=False), lambda: bar.advance(task))


MEASURES: dict[str, Callable[[bool, Path | None, Path, Console], None]] = {
    "lisp-rtt": _round_trips, "lisp-downtime": _downtimes, "lisp-sizes": _sizes,
}  # fmt: skip
