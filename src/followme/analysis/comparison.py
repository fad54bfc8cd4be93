"""Policies side by side on a trace: learned on its first hours, judged on the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from followme.placement import Policy
from followme.placement.learned import LearnedTables
from followme.placement.learned_line import LearnedLine

from .capacity import Limits, places_within
from .cells import Areas, make_areas, read_cells
from .choosing import Chosen, choose
from .comparison_table import Comparison
from .learning import NothingToLearn, learn
from .outcome import Costs, Margin, Outcome, margin
from .simulator import outcome_of, simulate
from .synthetic import make_city
from .trace import Trace, TraceError, read_trace
from .training import SIMPLE, line_policy, simple_policy
from .visits import Mapped, Visits, find_visits, split
from .wishes import wishes_of

POLICY_NAMES = (*SIMPLE, "mdp-line", "mdp")
TRAIN_HOURS = 16.0

Say = Callable[[str], None]


def simulate_trace(
    trace: Path | None = None,
    cells: Path | None = None,
    *,
    policies: Sequence[str] = POLICY_NAMES,
    train_hours: float = TRAIN_HOURS,
    cells_per_centre: int = 1,
    costs: Costs | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    say: Say = lambda text: None,
) -> Comparison:
    """What ``followme simulate`` does. Without files a small city is made from ``seed``.

    ``say`` is told the steps. ``TraceError``, a ``ValueError``, says what is wrong with a file; ``ValueError``
    names a wrong argument: files that do not come together, an unknown policy, hours that leave nothing. What can
    be said without the trace is said before it is read.
    """
    if (trace is None) != (cells is None):
        raise ValueError("a trace needs a file of cells, and cells need a trace: give both or neither")
    _check(policies, train_hours)
    if trace is None or cells is None:
        city = make_city(seed)
        positions, areas = city.trace, make_areas(city.names, city.lat, city.lon, cells_per_centre)
        say(f"made a city from seed {seed}")
    else:
        areas = make_areas(*read_cells(cells), cells_per_centre)
        say(f"reading {trace}")
        positions = read_trace(trace)
    return compare(
        positions, areas, policies=policies, train_hours=train_hours, costs=costs, limits=limits, say=say
    )


def compare(
    trace: Trace,
    areas: Areas,
    *,
    policies: Sequence[str] = POLICY_NAMES,
    train_hours: float = TRAIN_HOURS,
    costs: Costs | None = None,
    limits: Limits | None = None,
    say: Say = lambda text: None,
) -> Comparison:
    """Learn on the first ``train_hours`` since the first visit, run every policy on the rest. ``ValueError``.

    A policy that finds nothing to learn is left out, which a note says; ``NothingToLearn`` if none is left.
    """
    names = _check(policies, train_hours)
    costs = costs or Costs()
    visits, mapped = find_visits(trace, areas)
    if not len(visits):
        raise TraceError(_nobody(mapped))
    train, held_out = split(visits, float(visits.start_s.min()) + 3600.0 * train_hours)
    if not len(held_out):
        hours = float((visits.start_s + visits.stay_s).max() - visits.start_s.min()) / 3600.0
        raise ValueError(f"train_hours {train_hours:g} leaves nothing to judge on: the trace has {hours:.1f} hours")
    stay_s = None if limits is None else learn(train, areas).stay_s
    outcomes, without = [], []
    chosen: Chosen | None = None
    learned: LearnedTables | LearnedLine | None = None
    for name in names:
        say(f"learning and running {name}")
        policy: Policy
        try:
            if name == "mdp":
                chosen = choose(train, areas, costs)
                policy, how = chosen.policy, chosen.how
            elif name == "mdp-line":
                policy, how = line_policy(train, areas, costs)
            else:
                policy, how = simple_policy(name, train, areas, costs)
        except NothingToLearn as error:
            without.append(f"{name} is left out: {error}")
            continue
        if isinstance(policy, LearnedTables) or (isinstance(policy, LearnedLine) and learned is None):
            learned = policy
        if limits is None or stay_s is None:
            outcomes.append(simulate(policy, held_out, areas, costs, how, name))
        else:
            wishes = wishes_of(policy, areas, costs)
            serving, crowding = places_within(wishes, held_out, areas, costs, stay_s, limits)
            outcomes.append(outcome_of(serving, held_out, areas, costs, name, how, crowding))
    if not outcomes:
        raise NothingToLearn("; ".join(without))
    notes = (*_notes(trace, mapped, areas, train, held_out, train_hours), *without)
    return Comparison(
        areas, costs, train, held_out, tuple(outcomes), _margin(outcomes), notes,
        _counts(trace, mapped, train_hours), chosen, learned,
    )  # fmt: skip


def _check(policies: Sequence[str], train_hours: float) -> tuple[str, ...]:
    for name in policies:
        if name not in POLICY_NAMES:
            raise ValueError(f"policy {name!r} is unknown; known are {', '.join(POLICY_NAMES)}")
    if not policies:
        raise ValueError(f"name a policy: {', '.join(POLICY_NAMES)}")
    if not (isfinite(train_hours) and train_hours > 0.0):
        raise ValueError(f"train_hours {train_hours} must be positive")
    return tuple(dict.fromkeys(policies))


def _nobody(mapped: Mapped) -> str:
    counts = f"of {mapped.positions:,} positions {mapped.outside:,} are out of range"
    found = f"no user stays within range of a cell: {counts}"
    if mapped.alone:
        return f"{found}, {mapped.alone:,} alone in a session, which say nothing of a stay"
    return f"{found}; are trace and cells from the same place?"


def _margin(outcomes: Sequence[Outcome]) -> Margin | None:
    ours = next((one for one in outcomes if one.policy == "mdp"), None)
    theirs = min((one for one in outcomes if one is not ours), key=lambda one: one.cost_s, default=None)
    return None if ours is None or theirs is None else margin(ours, theirs)


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
