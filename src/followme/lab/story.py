"""What a person sees while the lab runs: a line for each step, and on a terminal a live round trip and bar."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from followme.controllers.events import Happening, Step
from followme.migration.mover import Result
from followme.migration.transfer import TransferProgress

COLOURS: dict[Step, str] = {
    "mobility": "cyan", "placement": "yellow", "migration": "magenta", "continuity": "green", "control": "white",
}  # fmt: skip
NUMBERS: dict[Step, str] = {"mobility": "1", "placement": "2", "migration": "3", "continuity": "4", "control": " "}


class Story:
    """Prints what happens; shows the bar only on a terminal, so that a pipe gets lines and nothing else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TransferSpeedColumn(),
            console=console, transient=True, disable=not self._live,
        )  # fmt: skip
        self._rtt: TaskID | None = None
        self._carry: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._line(time.monotonic(), f"[bold]{text}[/bold]")

    def happened(self, happening: Happening) -> None:
        if isinstance(happening.fact, TransferProgress):
            self._show_carry(happening.fact)
            return
        if isinstance(happening.fact, Result) and self._carry is not None:
            self._progress.remove_task(self._carry)
            self._carry = None
        colour, number = COLOURS[happening.step], NUMBERS[happening.step]
        self._line(happening.at, f"[{colour}]{number} {happening.step:10}[/{colour}] {happening.text}")

    def tick(self, rtt_s: float | None) -> None:
        """The user's round trip now."""
        if not self._live:
            return
        if self._rtt is None:
            self._rtt = self._progress.add_task("round trip", total=60.0, note="")
        note = "lost" if rtt_s is None else f"{rtt_s * 1e3:.1f} ms"
        self._progress.update(self._rtt, completed=min(60.0, (rtt_s or 0.06) * 1e3), note=note)

    def _show_carry(self, progress: TransferProgress) -> None:
        if not self._live:
            return
        total = progress.sent_bytes + progress.remaining_bytes
        if self._carry is None:
            self._carry = self._progress.add_task("carrying", total=total, note="")
        note = f"pass {progress.passes}, {progress.remaining_bytes / 1e6:.0f} MB left"
        self._progress.update(self._carry, total=total, completed=progress.sent_bytes, note=note)

    def _line(self, at: float, text: str) -> None:
        self._console.print(f"[dim]{at - self._started:7.2f} s[/dim]  {text}", soft_wrap=True)
