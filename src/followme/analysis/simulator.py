"""The simulator: users move as a trace says, and at each handoff the controller's own policy objects decide."""

from __future__ import annotations

import numpy as np

from followme.placement import Policy, Situation

from .cells import Areas
from .outcome import Costs, Crowding, Outcome
from .trace import Floats, Ints
from .visits import Visits
from .wishes import Wishes

_HOUR_S = 3600.0


def places(policy: Policy, visits: Visits, areas: Areas, costs: Costs) -> Ints:
    """(n,): the area of the data centre that serves during each visit, as ``policy.decide`` has it.

    A service starts in the area where its user is when the session begins. At a handoff to an area where it
    is not, the policy is asked. A policy is pure, so one that was asked the same of the same user is not asked
    again. ``RuntimeError`` if it migrates to anywhere but the best data centre: nothing else was offered.
    """
    names = areas.names
    latency = costs.latencies(areas.hops)
    one_way = latency / 2.0
    size, bandwidth = round(costs.service_bytes), costs.bandwidth_bit_s
    decided: dict[tuple[int, int], bool] = {}
    serving = np.empty(len(visits), dtype=np.int64)
    current, user = -1, -1
    rows = zip(visits.user.tolist(), visits.area.tolist(), visits.first.tolist(), strict=True)
    for index, (who, best, first) in enumerate(rows):
        if who != user:
            # Visits are sorted by user: what was asked for another is not needed again.
            decided.clear()
            user = who
        if first:
            current = best
        elif best != current:
            migrate = decided.get((best, current))
            if migrate is None:
                decision = policy.decide(
                    Situation(
                        visits.users[who], names[current], names[best], int(areas.hops[best, current]),
                        float(one_way[best, current]), float(one_way[best, best]), size, bandwidth,
                        user=visits.users[who],
                    )
                )  # fmt: skip
                if decision.migrate and decision.target != names[best]:
                    raise RuntimeError(f"{policy.name} goes to {decision.target}, the best was {names[best]}")
                migrate = decided[best, current] = decision.migrate
            if migrate:
                current = best
        serving[index] = current
    return serving


def places_at_once(wishes: Wishes, visits: Visits) -> Ints:
    """``places`` for all sessions side by side: the k-th handoff of each is decided in one go, as arrays."""
    begin = np.flatnonzero(visits.first)
    length = np.diff(np.append(begin, len(visits)))
    serving = visits.area.copy()
    # Longest first, so that those still under way are a prefix.
    order = np.argsort(-length, kind="stable")
    begin, length = begin[order], length[order]
    for step in range(1, int(length.max(initial=1))):
        at = begin[: int(np.searchsorted(-length, -step, side="left"))] + step
        current, best = serving[at - 1], visits.area[at]
        goes = wishes(visits.user[at], best, current)
        serving[at] = np.where(goes, best, current)
    return serving


def paid(serving: Ints, visits: Visits, areas: Areas, costs: Costs) -> tuple[Floats, Floats]:
    """(n,) each: what waiting during a visit costs, and a migration at its begin if there is one."""
    before, after = visits.moves()
    moved = after[serving[before] != serving[after]]
    fee = np.zeros(len(visits))
    fee[moved] = costs.migration(areas.hops[serving[moved], serving[moved - 1]])
    return costs.waiting(areas.hops[visits.area, serving]) * visits.stay_s, fee


def simulate(
    policy: Policy, visits: Visits, areas: Areas, costs: Costs, how: str = "", name: str | None = None
) -> Outcome:
    """Run one policy over the visits; ``how`` says in words what its parameters are.

    ``name`` is what the outcome is called, by default as the policy. ``ValueError`` if there are no visits;
    ``RuntimeError`` as ``places``.
    """
    if not len(visits):
        raise ValueError("there is no visit to simulate")
    return outcome_of(places(policy, visits, areas, costs), visits, areas, costs, name or policy.name, how)


def outcome_of(
    serving: Ints, visits: Visits, areas: Areas, costs: Costs, name: str, how: str = "",
    crowding: Crowding | None = None,
) -> Outcome:  # fmt: skip
    """What it came to that visits were served from the areas ``serving`` (n,)."""
    waiting, fee = paid(serving, visits, areas, costs)
    hops = areas.hops[visits.area, serving]
    before, after = visits.moves()
    migrations = int(np.count_nonzero(serving[before] != serving[after]))
    watched = float(visits.stay_s.sum())
    at_hops = np.bincount(hops, visits.stay_s) / watched
    hour = ((visits.start_s - visits.start_s.min()) // _HOUR_S).astype(np.int64)
    return Outcome(
        policy=name,
        how=how,
        handoffs=visits.handoffs,
        watched_s=watched,
        mean_distance_hops=float(at_hops @ np.arange(len(at_hops))),
        mean_latency_s=float(costs.latencies(hops) @ visits.stay_s) / watched,
        migrations=migrations,
        moved_bytes=migrations * costs.service_bytes,
        waiting_s=float(waiting.sum()),
        migrating_s=float(fee.sum()),
        share_at_hops=at_hops,
        by_user=np.bincount(visits.user, waiting + fee, minlength=len(visits.users)).astype(np.float64),
        by_hour=np.bincount(hour, waiting + fee).astype(np.float64),
        crowding=crowding,
    )
