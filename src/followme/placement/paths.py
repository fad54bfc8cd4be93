"""The path monitor's estimator: delay and loss of each directed path between two edge networks. Pure.

The controller sends a probe out of the source's switch and gets it back from the destination's, so what it
measures holds half a control channel's round trip at either end, which is taken off.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf, isfinite

# RFC 6298 section 2: the gains of the smoothed delay and of its mean deviation.
_ALPHA = 1 / 8
_BETA = 1 / 4

Pair = tuple[str, str]
"""(source network, destination network)."""


@dataclass(frozen=True, slots=True)
class PathEstimate:
    """What is known of one path. Delays are one way, in seconds.

    ``delay_s`` and ``variation_s`` are RFC 6298's SRTT and RTTVAR (a mean deviation) of the one-way delay,
    ``minimum_s`` the least of the last window's; all ``None`` before the first probe came through. ``loss``
    is the share of the window's probes that did not come, ``probes`` how many those are, ``last_at`` when
    the last one came. After ``alive_until`` nothing comes through the path any more: no probe within the
    staleness of the last one (of the first one sent, if none ever came), or none of a whole window of them.
    """

    delay_s: float | None
    variation_s: float | None
    minimum_s: float | None
    loss: float
    probes: int
    last_at: float | None
    alive_until: float


class _Path:
    """One directed pair. Bit i of ``seen`` says whether the probe ``highest - i`` came."""

    __slots__ = ("born_at", "delay", "first", "highest", "last_at", "recent", "seen", "sent", "variation")

    def __init__(self, window: int) -> None:
        self.delay: float | None = None
        self.variation = 0.0
        self.recent: deque[float] = deque(maxlen=window)
        self.sent: deque[tuple[int, float]] = deque(maxlen=window)
        self.first: int | None = None
        self.highest = -1
        self.seen = 0
        self.last_at: float | None = None
        self.born_at: float | None = None


class PathMonitor:
    """Feeds on probes, tells delays and losses; memory is bounded by ``window`` for each pair.

    ``window`` in sequence numbers, ``patience_s`` how long a probe that was sent may take before it counts
    as lost, ``stale_s`` how long a path lives on its last probe. ``ValueError`` if one is not positive.
    """

    def __init__(self, window: int = 64, patience_s: float = 2.0, stale_s: float = 10.0) -> None:
        if window < 1 or not patience_s > 0.0 or not stale_s > 0.0:
            raise ValueError(
                f"window {window}, patience {patience_s} s and staleness {stale_s} s must be positive"
            )
        self._stale_s = stale_s
        self._window = window
        self._mask = (1 << window) - 1
        self._patience_s = patience_s
        self._paths: dict[Pair, _Path] = {}

    def sent(self, source: str, destination: str, sequence: int, at: float) -> None:
        """Note that a probe goes out at ``at`` seconds: without this a path that died would seem idle."""
        path = self._path(source, destination)
        path.sent.append((sequence, at))
        if path.born_at is None:
            path.born_at = at
        if path.first is None:
            path.first = sequence

    def received(
        self,
        source: str,
        destination: str,
        sequence: int,
        sent_at: float,
        received_at: float,
        half_rtt_source_s: float = 0.0,
        half_rtt_destination_s: float = 0.0,
    ) -> bool:
        """Take a probe in; false if it does not count: a duplicate, or older than the window.

        Times are seconds of one clock, the controller's. A delay that comes out negative, because a control
        channel's round trip was less than usual, counts as 0. ``ValueError`` if a time is not finite.
        """
        delay = received_at - sent_at - half_rtt_source_s - half_rtt_destination_s
        if not isfinite(delay):
            raise ValueError(f"probe {sequence} from {source} to {destination} has times that are not finite")
        path = self._path(source, destination)
        if not self._mark(path, sequence):
            return False
        self._smooth(path, max(0.0, delay))
        path.last_at = received_at if path.last_at is None else max(path.last_at, received_at)
        return True

    def estimate(self, source: str, destination: str, now: float) -> PathEstimate | None:
        """What is known of the path at ``now`` seconds; ``None`` if no probe was sent or came."""
        path = self._paths.get((source, destination))
        if path is None:
            return None
        # The newest that is overdue: sequence numbers rise with the times they were sent at.
        overdue = next((seq for seq, at in reversed(path.sent) if at + self._patience_s <= now), -1)
        top = max(path.highest, overdue)
        probes, came = 0, 0
        if path.first is not None and top >= path.first:
            probes = min(self._window, top - path.first + 1)
            # Bits of probes that came, and of them those that are among the last ``probes`` up to ``top``.
            ahead = top - path.highest
            came = (path.seen & ((1 << max(0, probes - ahead)) - 1)).bit_count()
        since = path.last_at if path.last_at is not None else path.born_at
        all_lost = probes == self._window and came == 0
        return PathEstimate(
            delay_s=path.delay,
            variation_s=None if path.delay is None else path.variation,
            minimum_s=min(path.recent, default=None),
            loss=0.0 if probes == 0 else 1.0 - came / probes,
            probes=probes,
            last_at=path.last_at,
            alive_until=inf if since is None else -inf if all_lost else since + self._stale_s,
        )

    def _path(self, source: str, destination: str) -> _Path:
        path = self._paths.get((source, destination))
        if path is None:
            path = self._paths[source, destination] = _Path(self._window)
        return path

    def _mark(self, path: _Path, sequence: int) -> bool:
        """Set the bit of ``sequence``; false if it was set or has left the window."""
        if sequence > path.highest:
            ahead = sequence - path.highest
            path.seen = 1 if ahead >= self._window else (path.seen << ahead | 1) & self._mask
            path.highest = sequence
        else:
            behind = path.highest - sequence
            if behind >= self._window or path.seen >> behind & 1:
                return False
            path.seen |= 1 << behind
        path.first = sequence if path.first is None else min(path.first, sequence)
        return True

    @staticmethod
    def _smooth(path: _Path, delay: float) -> None:
        """RFC 6298 (2.2) and (2.3); the deviation is updated first, against the old mean."""
        path.recent.append(delay)
        if path.delay is None:
            path.delay, path.variation = delay, delay / 2
            return
        path.variation += _BETA * (abs(path.delay - delay) - path.variation)
        path.delay += _ALPHA * (delay - path.delay)
