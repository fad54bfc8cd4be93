"""A figure of panels that is drawn into a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@contextmanager
def picture(path: Path, size: tuple[float, float], rows: int = 1, columns: int = 1) -> Iterator[list[Axes]]:
    """The panels, row by row, of a figure of ``size`` (inches). It is written at the block's end: PNG, SVG or PDF
    by the suffix. ``OSError`` where it cannot be, ``ValueError`` for another suffix."""
    # Imported here: matplotlib takes half a second that other commands need not spend.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    yield list(figure.subplots(rows, columns, squeeze=False).flat)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
