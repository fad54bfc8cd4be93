"""The policies with what the training hours say their parameters are."""

from __future__ import annotations

from math import inf

import numpy as np

from followme.placement import Always, Never, Policy, Threshold
from followme.placement.learned_line import LearnedLine
from followme.placement.policy import Myopic

from .cells import Areas
from .learning import NothingToLearn, learn, learn_away
from .line_process import learned_line
from .outcome import Costs
from .simulator import paid, places_at_once
from .visits import Visits
from .wishes import wishes_of

_PATIENCE = 2
"""Larger thresholds are tried until that many in a row were dearer than the best."""

SIMPLE = ("never", "always", "myopic", "threshold")
"""The policies that solve no decision process."""


def simple_policy(name: str, train: Visits, areas: Areas, costs: Costs) -> tuple[Policy, str]:
    """One of ``SIMPLE`` and its parameters in words. ``NothingToLearn`` if it needs to learn and cannot."""
    if name == "never":
        return Never(), ""
    if name == "always":
        return Always(), ""
    if name == "threshold":
        distance = best_threshold(train, areas, costs)
        return Threshold(distance), f"from {distance} hops on, the cheapest in training"
    if not len(train):
        raise NothingToLearn("there is no visit in the training hours")
    stay_s = float(train.stay_s.mean())
    myopic = Myopic(
        residence_s=stay_s, requests_per_s=costs.requests_per_s, transfer_s=costs.transfer_s,
        link_weight=costs.link_weight, pause_s=costs.pause_s,
    )  # fmt: skip
    return myopic, f"a stay is {stay_s:.0f} s"


def line_policy(train: Visits, areas: Areas, costs: Costs) -> tuple[LearnedLine, str]:
    """``mdp-line`` and the p that it has learned; ``NothingToLearn`` as ``learn_away``."""
    away = learn_away(train, areas)
    low, high = np.quantile(away.own[np.unique(train.user)], (0.05, 0.95))
    words = f"p {away.overall:.2f}, by user and place {low:.2f} to {high:.2f}"
    return learned_line(learn(train, areas), away, costs), words


def best_threshold(train: Visits, areas: Areas, costs: Costs) -> int:
    """The distance in hops from which on migrating was cheapest; 1 if there is nothing to go by."""
    if not len(train):
        return 1
    best, least = 1, inf
    for distance in range(1, int(areas.hops.max()) + 1):
        cost = cost_of(Threshold(distance), train, areas, costs)
        if cost < least:
            best, least = distance, cost
        elif distance - best >= _PATIENCE:
            break
    return best


def cost_of(policy: Policy, visits: Visits, areas: Areas, costs: Costs) -> float:
    """Seconds of waiting in all."""
    serving = places_at_once(wishes_of(policy, areas, costs), visits)
    return float(sum(one.sum() for one in paid(serving, visits, areas, costs)))
