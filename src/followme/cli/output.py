"""Options and files that several commands share: figures as JSON, plots."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .ending import failed, wrong

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures as one JSON object (-: stdout).")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Write the plot (PNG, SVG or PDF).")]


def console_for(json_file: Path | None) -> Console:
    """Words go to stderr if the JSON goes to stdout."""
    return Console(stderr=str(json_file) == "-", highlight=False, soft_wrap=True)


def check_outputs(json_file: Path | None, plot_file: Path | None, other: Path | None = None) -> None:
    """Complain before the work, not after it."""
    if plot_file is not None and plot_file.suffix.lower() not in (".png", ".svg", ".pdf"):
        wrong(f"--plot {plot_file}: the name must end in .png, .svg or .pdf")
    for file in (json_file, plot_file, other):
        if file is not None and str(file) != "-":
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.open("ab").close()
            except OSError as error:
                wrong(f"{file}: cannot be written: {error.strerror}")


def hand_over(
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
        failed(f"{error.filename}: cannot be written: {error.strerror}")
