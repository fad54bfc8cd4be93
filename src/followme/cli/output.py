"""Options and files that several commands share: figures as JSON, plots."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from .ending import failed, wrong

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures as one JSON object (-: stdout).")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Write the plot (PNG, SVG or PDF).")]
WIDE = 200
"""Columns of a table that goes into a pipe or a file, which has no width of its own."""


def console_for(json_file: Path | None) -> Console:
    """Words go to stderr if the JSON goes to stdout."""
    return Console(stderr=str(json_file) == "-", highlight=False, soft_wrap=True)


def print_table(
    console: Console, title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], *, words: bool = False
) -> None:
    """Aligned right, but for the first column if that has ``words``."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if words and number == 0 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    (console if console.is_terminal else Console(file=console.file, width=WIDE, highlight=False)).print(table)


def check_outputs(json_file: Path | None, plot_file: Path | None, other: Path | None = None) -> None:
    """Complain before the work, not after it."""
    if plot_file is not None and plot_file.suffix.lower() not in (".png", ".svg", ".pdf"):
        wrong(f"--plot {plot_file}: the name must end in .png, .svg or .pdf")
    for file in (json_file, plot_file, other):
        if file is not None and str(file) != "-":
            _try(file)


def _try(file: Path) -> None:
    """Whether it can be written; what had to be made to know that is taken away again, for the work may fail."""
    made = [one for one in (file, *file.parents) if not os.path.lexists(one)]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("ab").close()
    except OSError as error:
        wrong(f"{file}: cannot be written: {error.strerror}")
    finally:
        with contextlib.suppress(OSError):
            for one in made:
                one.rmdir() if one.is_dir() else one.unlink(missing_ok=True)


def write(file: Path, work: Callable[[Path], object]) -> None:
    """Has it written, in a directory that is made if need be; a failure is the command's."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        work(file)
    except OSError as error:  # it does not always know of which file
        failed(f"{file}: cannot be written: {error.strerror or error}")


def hand_over(
    figures: dict[str, Any], draw: Callable[[Path], None] | None, json_file: Path | None, plot_file: Path | None,
    console: Console,
) -> None:  # fmt: skip
    """Write what was asked for, and say where it is."""
    if draw is not None and plot_file is not None:
        write(plot_file, draw)
        console.print(f"plot: {plot_file}")
    if json_file is None:
        return
    text = json.dumps(figures, indent=2) + "\n"
    if str(json_file) == "-":
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError as error:
            failed(f"the figures: standard output cannot be written: {error.strerror}")
    else:
        write(json_file, lambda file: file.write_text(text))
        console.print(f"figures: {json_file}")
