"""What all experiments report with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from followme.lab.pinger import Ping

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Say = Callable[[str], None]
"""Is told a line for each step."""
Step = Callable[[], None]
"""Is called when one of so many runs is over."""
Tick = Callable[[float | None], None]
"""Is told the last ping's round trip in seconds, or None for a lost one."""


def ms(seconds: float) -> float:
    """Milliseconds, to the microsecond."""
    return round(seconds * 1e3, 3)


def draw_pings(
    axes: Axes, pings: Sequence[Ping], begin: float, lost_ms: float, label: str, colour: str | None = None
) -> None:
    """Round trips in ms over seconds since ``begin`` (``time.monotonic()``); crosses at ``lost_ms`` are lost."""
    answered = [(ping.sent_s - begin, ping.rtt_s * 1e3) for ping in pings if ping.rtt_s is not None]
    (dots,) = axes.plot(*zip(*answered, strict=True), ".", markersize=2.0, color=colour, label=label)
    if lost := [ping.sent_s - begin for ping in pings if ping.rtt_s is None]:
        axes.plot(lost, [lost_ms] * len(lost), "x", color=dots.get_color(), markersize=5,
                  label=f"lost, {label} ({len(lost)})")  # fmt: skip
