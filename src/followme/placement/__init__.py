"""Step 2, stay or go where: policies and the decision process, the choice of a data centre, the path monitor.

All is pure but ``prober``, which sends the path monitor's probes, and ``uplinks``, which asks switches.
"""

from .mapper import Candidate, LocationMapper
from .mdp import MdpPolicy
from .paths import PathEstimate, PathMonitor
from .policy import Always, Myopic, Never, Threshold, policy_named
from .situation import Policy, Situation
from .stay_policy import StayOrGo

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
    "StayOrGo",
    "Threshold",
    "policy_named",
]
