"""Policies side by side on a trace: learned on its first hours, judged on the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np

from followme.placement import Always, Never, Policy, Threshold
from followme.placement.policy import Myopic

from .cells import Areas, make_areas, read_cells
from .learned_policies import AreaMdp, LineMdp
from .learning import learn, learn_away
from .outcome import Costs, Margin, Outcome, margin
from .simulator import simulate
from .synthetic import make_city
from .trace import Trace, TraceError, read_trace
from .visits import Mapped, Visits, find_visits, split

POLICY_NAMES = ("never", "always", "myopic", "threshold", "mdp-line", "mdp")
TRAIN_HOURS = 16.0
OWN_WEIGHTS = (inf, 100.0, 20.0, 5.0, 2.0)
"""How many handoffs of the population's a user's own stand against, in each area; which, the training hours say."""

_PATIENCE = 2
"""Larger thresholds are tried until that many in a row were dearer than the best."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """``outcomes`` in the order asked for, on the held-out hours; ``margin`` compares ``mdp`` with the cheapest
    policy that learns no model, if both ran. ``notes`` say what was read, left out and learned."""

    areas: Areas
    costs: Costs
    train: Visits
    held_out: Visits
    outcomes: tuple[Outcome, ...]
    margin: Margin | None
    notes: tuple[str, ...]
    counts: dict[str, Any]

    def lines(self) -> list[str]:
        """The notes, the table (right-aligned), and who is cheapest."""
        head = ("policy", "distance, hops", "latency, ms", "migrations", "moved, GB", "waiting, s", "migrating, s",
                "cost, s", "cost, s/h", "how")  # fmt: skip
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
            one.how,
        )

    def _verdict(self) -> list[str]:
        if self.margin is None:
            return []
        one = self.margin
        return [
            "",
            f"{one.policy} costs {100.0 * one.share:+.2f} % against {one.against}, the cheapest without a model "
            f"(95 % of draws of users: {100.0 * one.low:+.2f} to {100.0 * one.high:+.2f} %)",
        ]

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
        }


def simulate_trace(
    trace: Path | None = None,
    cells: Path | None = None,
    *,
    policies: Sequence[str] = POLICY_NAMES,
    train_hours: float = TRAIN_HOURS,
    cells_per_centre: int = 1,
    costs: Costs | None = None,
    seed: int = 0,
    say: Say = lambda text: None,
) -> Comparison:
    """What ``followme simulate`` does. Without files a small city is made from ``seed``.

    ``say`` is told the steps. ``TraceError``, a ``ValueError``, says what is wrong with a file; ``ValueError``
    names a wrong argument: files that do not come together, an unknown policy, hours that leave nothing.
    """
    if (trace is None) != (cells is None):
        raise ValueError("a trace needs a file of cells, and cells need a trace: give both or neither")
    if trace is None or cells is None:
        city = make_city(seed)
        positions, areas = city.trace, make_areas(city.names, city.lat, city.lon, cells_per_centre)
        say(f"made a city from seed {seed}")
    else:
        say(f"reading {trace}")
        positions, areas = read_trace(trace), make_areas(*read_cells(cells), cells_per_centre)
    return compare(positions, areas, policies=policies, train_hours=train_hours, costs=costs, say=say)


def compare(
    trace: Trace,
    areas: Areas,
    *,
    policies: Sequence[str] = POLICY_NAMES,
    train_hours: float = TRAIN_HOURS,
    costs: Costs | None = None,
    say: Say = lambda text: None,
) -> Comparison:
    """Learn on the first ``train_hours`` since the first visit, run every policy on the rest. ``ValueError``."""
    names = _check_names(policies)
    costs = costs or Costs()
    visits, mapped = find_visits(trace, areas)
    if not len(visits):
        raise TraceError("no user stays within range of a cell: are trace and cells from the same place?")
    if not (isfinite(train_hours) and train_hours > 0.0):
        raise ValueError(f"train_hours {train_hours} must be positive")
    train, held_out = split(visits, float(visits.start_s.min()) + 3600.0 * train_hours)
    if not len(held_out):
        hours = float((visits.start_s + visits.stay_s).max() - visits.start_s.min()) / 3600.0
        raise ValueError(f"train_hours {train_hours:g} leaves nothing to judge on: the trace has {hours:.1f} hours")
    outcomes = []
    for name in names:
        say(f"learning and running {name}")
        policy, how = _prepared(name, train, areas, costs)
        outcomes.append(simulate(policy, held_out, areas, costs, how))
    return Comparison(
        areas, costs, train, held_out, tuple(outcomes), _margin(outcomes),
        _notes(trace, mapped, areas, train, held_out, train_hours), _counts(trace, mapped, train_hours),
    )  # fmt: skip


def _check_names(policies: Sequence[str]) -> tuple[str, ...]:
    for name in policies:
        if name not in POLICY_NAMES:
            raise ValueError(f"policy {name!r} is unknown; known are {', '.join(POLICY_NAMES)}")
    if not policies:
        raise ValueError(f"name a policy: {', '.join(POLICY_NAMES)}")
    return tuple(dict.fromkeys(policies))


def _prepared(name: str, train: Visits, areas: Areas, costs: Costs) -> tuple[Policy, str]:
    """The policy with what the training hours say its parameters are, and those in words."""
    if name == "never":
        return Never(), ""
    if name == "always":
        return Always(), ""
    if name == "threshold":
        distance = best_threshold(train, areas, costs)
        return Threshold(distance), f"from {distance} hops on, the cheapest in training"
    if not len(train):
        raise ValueError("there is no visit in the training hours")
    if name == "myopic":
        stay_s = float(train.stay_s.mean())
        myopic = Myopic(
            residence_s=stay_s, requests_per_s=costs.requests_per_s, transfer_s=costs.transfer_s,
            link_weight=costs.link_weight, pause_s=costs.pause_s,
        )  # fmt: skip
        return myopic, f"a stay is {stay_s:.0f} s"
    if name == "mdp-line":
        learned, away = learn(train, areas), learn_away(train, areas)
        low, high = np.quantile(away.own[np.unique(train.user)], (0.05, 0.95))
        return LineMdp(learned, away, costs), f"p {away.overall:.2f}, by user and place {low:.2f} to {high:.2f}"
    weight = best_weight(train, areas, costs)
    how = "all users alike" if weight == inf else f"a user's own moves against {weight:g} of all users'"
    return AreaMdp(learn(train, areas, weight), costs), how


def best_threshold(train: Visits, areas: Areas, costs: Costs) -> int:
    """The distance in hops from which on migrating was cheapest; 1 if there is nothing to go by."""
    if not len(train):
        return 1
    best, least = 1, inf
    for distance in range(1, int(areas.hops.max()) + 1):
        cost = simulate(Threshold(distance), train, areas, costs).cost_s
        if cost < least:
            best, least = distance, cost
        elif distance - best >= _PATIENCE:
            break
    return best


def best_weight(train: Visits, areas: Areas, costs: Costs) -> float:
    """Which of ``OWN_WEIGHTS`` is cheapest in the last quarter of the training hours, learned on the others."""
    start, end = float(train.start_s.min()), float((train.start_s + train.stay_s).max())
    early, late = split(train, start + 0.75 * (end - start))
    if not early.handoffs or not len(late):
        return inf
    cost = {
        weight: simulate(AreaMdp(learn(early, areas, weight), costs), late, areas, costs).cost_s
        for weight in OWN_WEIGHTS
    }
    return min(cost, key=lambda weight: cost[weight])


def _margin(outcomes: Sequence[Outcome]) -> Margin | None:
    ours = next((one for one in outcomes if one.policy == "mdp"), None)
    theirs = cheapest_without_model(outcomes)
    return None if ours is None or theirs is None else margin(ours, theirs)


def cheapest_without_model(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Of those that solve no decision process; ``None`` if there is none."""
    others = [one for one in outcomes if not one.policy.startswith("mdp")]
    return min(others, key=lambda one: one.cost_s, default=None)


def _notes(
    trace: Trace, mapped: Mapped, areas: Areas, train: Visits, held_out: Visits, train_hours: float
) -> tuple[str, ...]:
    lost = ", ".join(f"{count:,} {reason}" for reason, count in trace.dropped.items() if count) or "none"
    return (
        f"read {trace.rows:,} rows of {len(trace.users):,} users; dropped: {lost}; "
        f"{trace.turned_back:,} behind a later one were sorted in",
        f"mapped {mapped.positions:,} positions to {len(areas)} service areas; {mapped.outside:,} out of range and "
        f"{mapped.alone:,} alone in a session were left out",
        f"learned on the first {train_hours:g} h: {train.sessions:,} sessions, {train.handoffs:,} handoffs; "
        f"judged on the rest: {held_out.sessions:,} sessions, {held_out.handoffs:,} handoffs, "
        f"{held_out.stay_s.sum() / 3600.0:,.0f} h of use",
    )


def _counts(trace: Trace, mapped: Mapped, train_hours: float) -> dict[str, Any]:
    return {
        "users": len(trace.users),
        "rows": trace.rows,
        "dropped": dict(trace.dropped),
        "sorted_in": trace.turned_back,
        "outside": mapped.outside,
        "alone": mapped.alone,
        "train_s": 3600.0 * train_hours,
    }
