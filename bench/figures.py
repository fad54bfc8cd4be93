"""What a benchmark hands to the runner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Say = Callable[[str], None]
"""Tells the one who waits how far it is, and what was seen besides the figures."""


class Skipped(Exception):
    """The benchmark cannot run on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured here, and beside it the peer or the limit.

    ``met`` says whether the target was met; it is None where there is none.
    """

    what: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None
