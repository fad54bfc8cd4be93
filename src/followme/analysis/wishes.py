"""What a policy wants for many users at once: the controller's objects, asked in the form of arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from followme.placement import Policy, Situation
from followme.placement.batch import DecisionTable, decide, stay_or_go
from followme.placement.learned import LearnedTables
from followme.placement.learned_line import LearnedLine
from followme.placement.policy import Myopic

from .cells import Areas
from .outcome import Costs
from .trace import Ints

Bools = NDArray[np.bool_]
Wishes = Callable[[Ints, Ints, Ints], Bools]
"""(user, user's area, service's area), (m,) each, to whether the service should go to its user's area."""


def wishes_of(policy: Policy, areas: Areas, costs: Costs) -> Wishes:
    """The same answers as ``policy.decide`` gives one by one in ``simulator.places``.

    ``policy`` is one of ``placement``'s. One that knows neither users nor areas is asked once for each distance.
    """
    hops = areas.hops
    if isinstance(policy, LearnedTables):
        return policy.migrate
    if isinstance(policy, LearnedLine):
        lines, line_of = DecisionTable(policy.migrate[:, None, :]), policy.line_of
        return lambda user, here, service: decide(lines, hops[here, service], line_of[user, here], 0)
    if isinstance(policy, Myopic):
        return _weighed(policy, areas, costs)
    table = DecisionTable(np.array([[[_asked(policy, far, costs) for far in range(int(hops.max()) + 1)]]]))
    return lambda user, here, service: decide(table, hops[here, service], 0, 0)


def _asked(policy: Policy, hops: int, costs: Costs) -> bool:
    if hops == 0:
        return False
    delay_s, at_best_s = (float(costs.latency(far)) / 2.0 for far in (hops, 0))
    size, bandwidth = round(costs.service_bytes), costs.bandwidth_bit_s
    return policy.decide(Situation("", "there", "here", hops, delay_s, at_best_s, size, bandwidth)).migrate


def _weighed(policy: Myopic, areas: Areas, costs: Costs) -> Wishes:
    """Myopic is stay-or-go over one stay, with a price that holds the transfer too."""
    delay_s = costs.latencies(areas.hops) / 2.0
    fixed = policy.link_weight * (8 * round(costs.service_bytes) / costs.bandwidth_bit_s) + policy.pause_s

    def wishes(user: Ints, here: Ints, service: Ints) -> Bools:
        there_s, here_s = delay_s[here, service], delay_s[here, here]
        gain = policy.requests_per_s * 2.0 * (there_s - here_s)
        goes: Bools = stay_or_go(gain, policy.residence_s, 0.0, 1.0, price=fixed + there_s).migrate
        goes &= here != service
        return goes

    return wishes
