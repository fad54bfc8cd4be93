"""When to hold the stream: the one decision of live migration, as arithmetic without I/O.

QEMU copies all memory in a first pass, then in further passes what the machine wrote to meanwhile. Stopping
the machine costs the time to send what is left of this pass plus what was written since the pass began,
which only shows when the next begins. So the moment to stop is near the end of a pass, once the writing
since its beginning, estimated from the pass before, is small. Never after its end: there QEMU decides by
itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# The stream may run ahead of what we last heard by the relay's and the sockets' buffers.
END_OF_PASS = 256 << 10
NEAR_END = 32 << 20
SMALLEST_QUANTUM, LARGEST_QUANTUM = 32 << 10, 1 << 20
FIRST_PASS_QUANTUM = 128 << 10


class Step(Enum):
    """What the relay should do next."""

    FREE = "free"
    QUANTUM = "quantum"
    HOLD = "hold"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Progress:
    """What QEMU and the relay say at a moment: pass number (from 1), bytes left in it, bytes sent so far."""

    at: float
    number: int
    remaining: int
    passed: int


class Convergence:
    """Decides from a sequence of ``Progress`` reports.

    ``target_pause`` is how long the machine may pause without further ado. Where the passes stop to
    shrink, up to ``max_pause`` is accepted; above that it gives up.
    """

    PATIENCE = 3

    def __init__(self, *, target_pause: float = 0.02, max_pause: float = 0.5, max_passes: int = 40) -> None:
        self.rate = 0.0
        self.quantum = 0
        self.expected = 0
        self._target_pause, self._max_pause, self._max_passes = target_pause, max_pause, max_passes
        self._pass: Progress | None = None
        self._last: Progress | None = None
        self._dirty_rate = 0.0
        self._stalled = 0

    def decide(self, now: Progress) -> Step:
        """The next step; for ``QUANTUM``, ``quantum`` says how many bytes."""
        self._measure(now)
        start = self._pass
        assert start is not None
        if now.number <= 1:
            self.quantum = FIRST_PASS_QUANTUM
            return Step.FREE if now.remaining > NEAR_END else Step.QUANTUM
        written = min(self._dirty_rate * (now.at - start.at), float(start.remaining))
        self.expected = now.remaining + int(written)
        if now.remaining > END_OF_PASS:
            ahead = now.remaining - END_OF_PASS
            self.quantum = max(SMALLEST_QUANTUM, min(ahead // 2, LARGEST_QUANTUM))
            return Step.FREE if ahead > NEAR_END else Step.QUANTUM
        if self.expected <= max(self.rate * self._target_pause, 2 * END_OF_PASS):
            return Step.HOLD
        if self._stalled >= self.PATIENCE or now.number >= self._max_passes:
            return Step.HOLD if self.expected <= self.rate * self._max_pause else Step.GIVE_UP
        self.quantum = LARGEST_QUANTUM
        return Step.QUANTUM

    @property
    def expected_pause(self) -> float:
        """How long sending what is left would take at the measured rate."""
        return self.expected / self.rate if self.rate else float("inf")

    def _measure(self, now: Progress) -> None:
        last, start = self._last, self._pass
        if last is None or now.at - last.at >= 0.02:
            if last is not None:
                # The best recent rate: one that a poll or a scan for zero pages held up says nothing.
                rate = (now.passed - last.passed) / (now.at - last.at)
                self.rate = max(rate, 0.9 * self.rate)
            self._last = now
        if start is None:
            self._pass = now
        elif now.number > start.number:
            passes = now.number - start.number
            self._dirty_rate = now.remaining / max(now.at - start.at, 1e-3)
            shrunk = start.number == 1 or now.remaining < 0.9 * start.remaining
            self._stalled = 0 if shrunk else self._stalled + passes
            self._pass = now
