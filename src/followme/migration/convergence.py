"""When to hold the stream: the one decision of live migration, as arithmetic without I/O.

QEMU copies all memory in a first pass, then in further passes what the machine wrote to meanwhile. Stopping
the machine costs the time to send what is left of this pass plus what was written since the pass began,
which only shows when the next begins. So the moment to stop is near the end of a pass, once the writing
since its beginning, estimated from the pass before, is small. Never after its end: there QEMU decides by
itself, and stops the machine if what was written takes no longer than its downtime limit, 1 ms at least, at
the rate of its last 100 ms. An idle machine writes less than that on a fast path; hence the brake before the
end of the first pass, after which QEMU believes that the path is slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

# The stream may run ahead of what we last heard by the relay's and the sockets' buffers.
END_OF_PASS = 256 << 10
NEAR_END, VERY_NEAR_END = 64 << 20, 8 << 20
SMALLEST_QUANTUM, LARGEST_QUANTUM = 32 << 10, 1 << 20
FIRST_PASS_QUANTUM = 128 << 10
# QEMU measures its rate over 100 ms or more: one hold ends a measurement, a second makes the next one low.
BRAKE_TIME = 0.105
BRAKE_HOLDS = 0.08
LONG_PASS = 0.25
DOUBT = 3


class Step(Enum):
    """What the relay should do next."""

    FREE = "free"
    QUANTUM = "quantum"
    BRAKE = "brake"
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
        self._pass_time = LONG_PASS
        self._stalled = 0
        self._free = True
        self._braked = float("-inf")
        self._brake_below = NEAR_END

    def decide(self, now: Progress) -> Step:
        """The next step; for ``QUANTUM`` and ``BRAKE``, ``quantum`` says how many bytes."""
        self._measure(now)
        step = self._choose(now)
        self._free = step is Step.FREE
        return step

    def _choose(self, now: Progress) -> Step:
        start = self._pass
        assert start is not None
        if now.number <= 1:
            self.quantum = FIRST_PASS_QUANTUM
            if now.remaining > NEAR_END:
                return Step.FREE
            return Step.BRAKE if self._must_brake(now) else Step.QUANTUM
        self.expected = now.remaining + self._written(now, start)
        if now.remaining > END_OF_PASS:
            ahead = now.remaining - END_OF_PASS
            self.quantum = max(SMALLEST_QUANTUM, min(ahead // 2, LARGEST_QUANTUM))
            return Step.FREE if ahead > NEAR_END else Step.QUANTUM
        worst = now.remaining + start.remaining if self._pass_time > LONG_PASS else self.expected
        if self.expected <= self._worth(self._target_pause) and worst <= self._worth(self._max_pause):
            return Step.HOLD
        if self._stalled >= self.PATIENCE or now.number >= self._max_passes:
            return Step.HOLD if self.expected <= self.rate * self._max_pause else Step.GIVE_UP
        self.quantum = LARGEST_QUANTUM
        return Step.QUANTUM

    @property
    def expected_pause(self) -> float:
        """How long sending what is left would take at the measured rate."""
        return self.expected / self.rate if self.rate else float("inf")

    def _worth(self, pause: float) -> float:
        """The bytes that a pause is worth; what is in buffers at the end of a pass takes no decision."""
        return max(self.rate * pause, 2 * END_OF_PASS)

    def _written(self, now: Progress, start: Progress) -> int:
        """How much was written since this pass began, judged by the pass before."""
        likely = min(int(start.remaining / self._pass_time * (now.at - start.at)), start.remaining)
        # A pass that was long says which memory the machine writes to, but not how fast: it may have
        # written the same again and again, and then all of it is written by now. Not to be believed in
        # full: the next pass of a machine that writes slowly is so short that QEMU ends it by itself.
        return max(likely, start.remaining // DOUBT) if self._pass_time > LONG_PASS else likely

    def _must_brake(self, now: Progress) -> bool:
        # Zero pages take next to nothing in the stream, so the end of a pass can come from afar at once:
        # a first brake far from it, and a second near it unless QEMU still goes by the first.
        if now.remaining > self._brake_below or now.at - self._braked < BRAKE_HOLDS:
            return False
        self._brake_below = VERY_NEAR_END if now.remaining > VERY_NEAR_END else -1
        self._braked = now.at + 2 * BRAKE_TIME
        self._last = None
        return True

    def _measure(self, now: Progress) -> None:
        last, start = self._last, self._pass
        if last is None or now.at - last.at >= 0.02:
            if last is not None:
                rate = (now.passed - last.passed) / (now.at - last.at)
                # Between quanta we poll, so they can show that the path is faster, but not that it is slower.
                self.rate = (self.rate + rate) / 2 if self.rate and self._free else max(self.rate, rate)
            self._last = now
        if start is None:
            self._pass = now
        elif now.number > start.number:
            passes = now.number - start.number
            self._pass_time = max(now.at - start.at, 1e-3)
            shrunk = start.number == 1 or now.remaining < 0.9 * start.remaining
            self._stalled = 0 if shrunk else self._stalled + passes
            self._pass = now
