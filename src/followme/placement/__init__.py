"""Step 2, stay or go where: policies, the MDP, the location mapper and the path monitor's estimator. Pure."""

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
