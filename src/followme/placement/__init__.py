"""Step 2, stay or go where: policies and the decision process, the choice of a data centre, the path monitor.

All is pure but ``prober``, which sends the path monitor's probes.
"""

from .mapper import Candidate, LocationMapper
from .mdp import MdpPolicy
from .paths import PathEstimate, PathMonitor
from .policy import Always, Myopic, Never, Threshold, policy_named
from .situation import Policy, Situation

__all__ = [
    "Always",
    "Candidate",
    "LocationMapper",
    "MdpPolicy",
    "Myopic",
    "Never",
    "PathEstimate",
    "PathMonitor",
    "Policy",
    "Situation",
    "Threshold",
    "policy_named",
]
