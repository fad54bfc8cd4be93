"""The comparison of policies as a table, a verdict and a JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

from followme.placement.learned import LearnedTables
from followme.placement.learned_line import LearnedLine

from .cells import Areas
from .choosing import DOUBT, Chosen
from .outcome import Costs, Crowding, Margin, Outcome
from .visits import Visits


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """``outcomes`` in the order asked for, on the held-out hours; ``margin`` compares ``mdp`` with the cheapest
    of the others, if any ran. ``notes`` say what was read, left out and learned; ``chosen`` is what ``mdp`` is made
    of, ``learned`` the policy that the controller can load, if one that learns tables ran."""

    areas: Areas
    costs: Costs
    train: Visits
    held_out: Visits
    outcomes: tuple[Outcome, ...]
    margin: Margin | None
    notes: tuple[str, ...]
    counts: dict[str, Any]
    chosen: Chosen | None
    learned: LearnedTables | LearnedLine | None

    def lines(self) -> list[str]:
        """The notes, the table (right-aligned), and who is cheapest."""
        crowded = any(one.crowding for one in self.outcomes)
        head = ("policy", "distance, hops", "latency, ms", "migrations", "moved, GB", "waiting, s", "migrating, s",
                "cost, s", "cost, s/h", *(_CROWDING if crowded else ()), "how")  # fmt: skip
        rows = [head, *(self._row(one) for one in self.outcomes)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = []
        for row in rows:
            name, *numbers, how = (text.rjust(width) for text, width in zip(row, widths, strict=True))
            table.append("  ".join([name.strip().ljust(widths[0]), *numbers, how.strip()]))
        return [*self.notes, "", *table, *self._verdict()]

    def _row(self, one: Outcome) -> tuple[str, ...]:
        return (
            one.policy,
            f"{one.mean_distance_hops:.3f}",
            f"{1e3 * one.mean_latency_s:.2f}",
            f"{one.migrations:,}",
            f"{1e-9 * one.moved_bytes:,.1f}",
            f"{one.waiting_s:,.0f}",
            f"{one.migrating_s:,.0f}",
            f"{one.cost_s:,.0f}",
            f"{3600.0 * one.cost_s / one.watched_s:,.2f}",
            *_crowding(one.crowding),
            one.how,
        )

    def _verdict(self) -> list[str]:
        if self.margin is None:
            return []
        one = self.margin
        lines = [
            "",
            f"{one.policy} costs {100.0 * one.share:+.2f} % against {one.against}, the cheapest of the others "
            f"(95 % of draws of users: {100.0 * one.low:+.2f} to {100.0 * one.high:+.2f} %)",
        ]
        return lines if self.chosen is None else [*lines, *warnings(one, self.chosen)]

    def to_json(self) -> dict[str, Any]:
        """One object; SI units in the key names."""
        costs = self.costs
        return {
            **self.counts,
            "areas": len(self.areas),
            "held_out": {
                "visits": len(self.held_out),
                "sessions": self.held_out.sessions,
                "handoffs": self.held_out.handoffs,
                "watched_s": float(self.held_out.stay_s.sum()),
            },
            "costs": {
                "requests_per_s": costs.requests_per_s,
                "service_bytes": costs.service_bytes,
                "bandwidth_bit_s": costs.bandwidth_bit_s,
                "pause_s": costs.pause_s,
                "link_weight": costs.link_weight,
            },
            "policies": [one.to_json() for one in self.outcomes],
            "margin": None if self.margin is None else self.margin.to_json(),
            "warnings": [] if self.margin is None or self.chosen is None else warnings(self.margin, self.chosen),
        }


def warnings(margin: Margin, chosen: Chosen) -> list[str]:
    """One where ``mdp`` lost on the held-out hours, one where training is too short to say that it will not."""
    rule, held_out = chosen.rule, f"{100.0 * margin.share:+.2f} % on the held-out hours against {margin.against}"
    error = 100.0 * DOUBT * chosen.error
    if isnan(chosen.expected):
        training = "nothing to judge on in training"
    else:
        training = f"{100.0 * chosen.expected:+.2f} % (+-{error:.2f}) in training against {rule}"
    found = []
    if margin.share > 0.0:
        found.append(f"warning: {margin.policy} is dearer: {held_out}; {training}")
    if chosen.unsure:
        found.append(f"warning: {chosen.hours:,} hours of use in training are too few to say what is cheaper than "
                     f"{rule}: {training}; {held_out}")  # fmt: skip
    return found


_CROWDING = ("refused", "displaced", "elsewhere", "fullest", "gap, s")


def _crowding(one: Crowding | None) -> tuple[str, ...]:
    if one is None:
        return ()
    return f"{one.refused:,}", f"{one.displaced:,}", f"{one.elsewhere:,}", f"{one.most:,}", f"{one.gap_s:,.1f}"


def cheapest_without_model(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Of those that solve no decision process; ``None`` if there is none."""
    others = [one for one in outcomes if not one.policy.startswith("mdp")]
    return min(others, key=lambda one: one.cost_s, default=None)
