"""Section 7.1 of "When Cloud Services Follow Mobile Users", sentence by sentence, against the exact chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Sentence:
    """What the paper says (shortened), what the chain says, and whether the two agree."""

    paper: str
    exact: str
    holds: bool


def weigh(
    rings: Sequence[float],
    optimal: Sequence[float],
    distance: Sequence[float],
    latency_s: Sequence[float],
    share: Sequence[float],
    all_s: Sequence[float],
    tenth_s: Sequence[float],
) -> tuple[Sentence, ...]:
    """The sentences about figures 10 to 13. All arguments have one value for each k of ``rings``, ascending.

    They are the probability to be at the optimal data centre, the mean distance in hops, the mean latency,
    the share of handovers that move the service, and the disruption with all and with a tenth of it.
    """
    first, last = int(rings[0]), int(rings[-1])
    beyond_two = next(index for index, value in enumerate(distance) if value > 2.0)
    jump_ms = 1e3 * (latency_s[-1] - latency_s[0])
    ratio = all_s[0] / tenth_s[0]
    return (
        Sentence(
            "the probability to be at the optimal data centre decreases with k",
            f"from {optimal[0]:.4f} at k = {first} to {optimal[-1]:.4f} at k = {last}",
            _falls(optimal),
        ),
        Sentence(
            "the mean distance increases with k",
            f"from {distance[0]:.4f} at k = {first} to {distance[-1]:.4f} at k = {last} hops",
            _rises(distance),
        ),
        Sentence(
            "the mean distance exceeds two hops when k is higher than 6",
            f"from k = {int(rings[beyond_two])} on: {distance[beyond_two]:.4f} hops there",
            int(rings[beyond_two]) == 7,
        ),
        Sentence(
            "about 200 ms of latency between k = 2 and k = 7",
            f"{jump_ms:.1f} ms",
            abs(jump_ms - 200.0) < 25.0,
        ),
        Sentence(
            "the migration cost decreases with k",
            f"{share[0]:.4f} of the handovers move the service at k = {first}, {share[-1]:.4f} at k = {last}",
            _falls(share),
        ),
        Sentence(
            "k = 7 corresponds to a situation without Follow-Me Cloud",
            f"at k = {last} the service still moves, at one handover in {1.0 / share[-1]:.1f}",
            share[-1] == 0.0,
        ),
        Sentence(
            "the disruption increases with k",
            f"all of the service: from {all_s[0]:.1f} s at k = {first} to {all_s[-1]:.1f} s at k = {last}",
            _rises(all_s),
        ),
        Sentence(
            "how much of the service moves is not important to the disruption for low k",
            f"at k = {first} all takes {all_s[0]:.1f} s, a tenth {tenth_s[0]:.1f} s: {ratio:.1f} times as long",
            ratio < 2.0,
        ),
    )


def _falls(values: Sequence[float]) -> bool:
    return all(after < before for before, after in pairwise(values))


def _rises(values: Sequence[float]) -> bool:
    return all(after > before for before, after in pairwise(values))
