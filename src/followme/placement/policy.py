"""The policies by name: the four that need no model here, the others where their model is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import ClassVar

from followme.domain import Decision

from .learned import LearnedTables
from .learned_file import load_learned
from .mdp import MdpPolicy
from .situation import Policy, Situation, check_numbers
from .stay_policy import StayOrGo

__all__ = ["POLICIES", "Always", "Myopic", "Never", "Policy", "Situation", "StayOrGo", "Threshold", "policy_named"]


@dataclass(frozen=True, slots=True)
class Always:
    """Follow the user to the best data centre at every handoff."""

    name: ClassVar[str] = "always"

    def decide(self, situation: Situation) -> Decision:
        if situation.best == situation.current:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        return situation.decide(self.name, True, f"{situation.best} is better than {situation.current}")


@dataclass(frozen=True, slots=True)
class Never:
    """Leave the service where it is: the network without Follow-Me Cloud."""

    name: ClassVar[str] = "never"

    def decide(self, situation: Situation) -> Decision:
        return situation.decide(self.name, False, f"services stay, here at distance {situation.distance}")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Migrate once the user is ``distance`` service areas or more away; ``ValueError`` if that is below 1."""

    distance: int = 1
    name: ClassVar[str] = "threshold"

    def __post_init__(self) -> None:
        if self.distance < 1:
            raise ValueError(f"distance {self.distance} must be at least 1")

    def decide(self, situation: Situation) -> Decision:
        if situation.best == situation.current:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        if situation.no_nearer:
            return situation.decide(self.name, False, situation.no_nearer)
        far = situation.distance >= self.distance
        relation = "has reached" if far else "is below"
        why = f"distance {situation.distance} {relation} the threshold {self.distance}"
        return situation.decide(self.name, far, why)


@dataclass(frozen=True, slots=True)
class Myopic:
    """Migrate if that pays off before the next handoff, whatever comes after it.

    A user sends ``requests_per_s`` during the ``residence_s`` until the next handoff, and waits a round trip
    for each answer. Against what migrating saves of that stand, in seconds of waiting too, the transfer (the
    situation's own where its bandwidth is known, else ``transfer_s``) times ``link_weight``, the pause of the
    machine and one path delay. Where no delay is known, a service area is ``hop_delay_s`` one way.
    ``ValueError`` names what is negative or not finite.
    """

    residence_s: float = 60.0
    requests_per_s: float = 1.0
    transfer_s: float = 10.0
    link_weight: float = 1.0
    pause_s: float = 1.0
    hop_delay_s: float = 0.01
    name: ClassVar[str] = "myopic"

    def __post_init__(self) -> None:
        check_numbers(self)

    def decide(self, situation: Situation) -> Decision:
        if situation.best == situation.current:
            return situation.decide(self.name, False, f"{situation.current} is the best data centre")
        here, there = situation.delay_current_s, situation.delay_best_s
        if here is None or there is None:
            here, there = (self.hop_delay_s * hops for hops in (situation.distance, situation.distance_best))
        transfer = self.transfer_s if situation.transfer_s is None else situation.transfer_s
        # The user is at the best data centre: the way there from the current one is the user's own.
        cost = self.link_weight * transfer + self.pause_s + here
        saving = self.requests_per_s * self.residence_s * 2.0 * (here - there)
        why = f"migrating saves {saving:.3g} s of waiting until the next handoff and costs {cost:.3g} s"
        return situation.decide(self.name, saving > cost, why)


POLICIES: Mapping[str, Callable[..., Policy]] = {
    **{policy.name: policy for policy in (Always, Never, Threshold, Myopic, MdpPolicy, StayOrGo)},
    LearnedTables.name: load_learned,
}
"""What makes each policy from its parameters. ``learned`` reads a file that ``followme simulate`` wrote."""

Parameter = float | str


def policy_named(name: str, parameters: Mapping[str, Parameter] | None = None) -> Policy:
    """The policy called ``name``, as the config gives it; its parameters are those of what makes it.

    ``ValueError`` says which name, key or value is wrong and, for names and keys, which are known. Whole
    numbers may be written as floats (YAML's ``3.0``).
    """
    if name not in POLICIES:
        raise ValueError(f"policy {name!r} is unknown; known are {', '.join(sorted(POLICIES))}")
    make = POLICIES[name]
    known = signature(make).parameters
    arguments: dict[str, Parameter] = {}
    for key, value in (parameters or {}).items():
        if key not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ValueError(f"policy {name!r} has no parameter {key!r}; known: {names}")
        try:
            # The annotation is text (PEP 563), which is all that is needed to tell what is meant.
            arguments[key] = _argument(str(known[key].annotation), value)
        except ValueError as error:
            raise ValueError(f"policy {name!r}: {key} {value!r} {error}") from None
    missing = [key for key, one in known.items() if one.default is one.empty and key not in arguments]
    if missing:
        raise ValueError(f"policy {name!r} needs the parameter {', '.join(missing)}")
    try:
        return make(**arguments)
    except ValueError as error:
        raise ValueError(f"policy {name!r}: {error}") from None


def _argument(hint: str, value: object) -> Parameter:
    if hint.startswith("str"):
        if not isinstance(value, str):
            raise ValueError("is not a text")
        return value
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError("is not a number") from None
    if hint != "int":
        return number
    if not number.is_integer():
        raise ValueError("is not a whole number")
    return int(number)
