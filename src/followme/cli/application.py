"""The ``followme`` command: which commands there are. Each group of them is a file."""

from __future__ import annotations

import typer

from . import federation, figures, planning, run, show, trace

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Follow-Me Cloud: cloud services follow mobile users, and open sessions go on.",
)  # fmt: skip

for group in (show, figures, trace, planning, run, federation):
    group.add(app)


def main() -> None:
    """The ``followme`` command."""
    app()
