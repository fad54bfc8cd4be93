"""Which data centre is best for one service now: the location mapper, or the ranking where criteria are given.

The controller asks this one object. A service that says nothing of its needs goes to the nearest data centre
that has room; one that does is ranked by its own weights under its own limits (``ranking``). The rules that
the papers name (urgent tasks, content that is nearly over) come before any policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from .criteria import CandidateFacts, Requirements, Tariff, UserClass, Weights
from .mapper import LocationMapper
from .ranking import Method, rank
from .stay import RULES, Rule, Use, Verdict

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Offer:
    """What a data centre offers, as its operator says; the rest of the facts is measured."""

    capacity: float = inf
    provider: str = ""
    locality: str = ""
    service_classes: frozenset[str] = frozenset()
    throughput_per_s: float | None = None
    network_tariff: Tariff | None = None
    server_tariff: Tariff | None = None
    storage_tariff: Tariff | None = None


@dataclass(frozen=True, slots=True)
class Needs:
    """What a service asks for. Without ``weights`` the nearest data centre within the limits is the best."""

    requirements: Requirements = field(default_factory=Requirements)
    weights: Weights | None = None
    method: Method = "weighted-sum"
    user_class: UserClass | None = None
    use: Use | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """What the controller has measured: one-way delay (s), loss and free bandwidth (bit/s) by pair of (access
    network, data centre), and the capacity in use at each data centre."""

    delays: Mapping[Pair, float | None]
    losses: Mapping[Pair, float]
    bandwidths: Mapping[Pair, float]
    used: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Choice:
    """``best`` is ``None`` if no data centre is feasible; ``why`` says how it was chosen, ``excluded`` which
    limit excludes each of the others; ``verdict`` is what a rule decides before any policy is asked."""

    best: str | None
    why: str
    excluded: Mapping[str, str]
    verdict: Verdict | None = None


class Chooser:
    """``offers`` by data centre (those that can run machines), ``needs`` by service."""

    def __init__(
        self,
        mapper: LocationMapper,
        offers: Mapping[str, Offer],
        needs: Mapping[str, Needs],
        rules: Sequence[Rule] = RULES,
    ) -> None:
        self._mapper = mapper
        self._offers = dict(offers)
        self._needs = dict(needs)
        self._rules = tuple(rules)

    def demand(self, service: str) -> float:
        """The capacity that the service takes."""
        return self._needs.get(service, _NONE).requirements.demand

    def choose(self, service: str, access: str, current: str, measured: Measured) -> Choice:
        """The best data centre for a user at ``access``; ``current`` is where the service runs now."""
        needs = self._needs.get(service, _NONE)
        # The path monitor says infinity of a path through which nothing comes.
        own = needs.requirements.demand
        dead = {
            name: "no probe comes through" for name in self._offers if measured.delays.get((access, name)) == inf
        }
        alive = (item for item in self._offers.items() if item[0] not in dead)
        facts = [
            self._facts(name, offer, access, measured, own if name == current else 0.0) for name, offer in alive
        ]
        choice = self._best(needs, facts, dead, access, current, measured)
        verdict = self._verdict(needs)
        if verdict is None and current in choice.excluded and choice.best is not None:
            # A limit is no matter of taste: whoever may not be where it is goes, whatever the policy.
            verdict = Verdict(True, f"it cannot stay at {current}: {choice.excluded[current]}")
        return replace(choice, verdict=verdict)

    def _best(
        self,
        needs: Needs,
        facts: Sequence[CandidateFacts],
        dead: Mapping[str, str],
        access: str,
        current: str,
        measured: Measured,
    ) -> Choice:
        if needs.weights is not None and facts:
            ranking = rank(facts, needs.requirements, needs.weights, needs.method, current, needs.user_class)
            excluded = {**ranking.excluded, **dead}
            if ranking.best is None:
                return Choice(None, ranking.why, excluded)
            return Choice(ranking.best.name, ranking.best.why, excluded)
        excluded = {one.name: broken for one in facts if (broken := needs.requirements.broken_by(one, current))}
        excluded |= dead
        for candidate in self._mapper.rank(access, measured.delays, current):
            if candidate.network in self._offers and candidate.network not in excluded:
                return Choice(candidate.network, candidate.why, excluded)
        reasons = "; ".join(f"{name}: {why}" for name, why in sorted(excluded.items()))
        return Choice(None, f"no data centre is feasible ({reasons or 'none has a host'})", excluded)

    def _verdict(self, needs: Needs) -> Verdict | None:
        if needs.use is None:
            return None
        return next((found for rule in self._rules if (found := rule(needs.use)) is not None), None)

    def _facts(self, name: str, offer: Offer, access: str, measured: Measured, own: float) -> CandidateFacts:
        """``own`` is what the service itself takes there: it is no competitor of its own."""
        pair = (access, name)
        used = max(0.0, measured.used.get(name, 0.0) - own)
        return CandidateFacts(
            name,
            max(0.0, offer.capacity - used),
            latency_s=measured.delays.get(pair),
            bandwidth_bit_s=measured.bandwidths.get(pair),
            loss=measured.losses.get(pair),
            utilisation=min(1.0, used / offer.capacity) if 0.0 < offer.capacity < inf else None,
            throughput_per_s=offer.throughput_per_s,
            network_tariff=offer.network_tariff,
            server_tariff=offer.server_tariff,
            storage_tariff=offer.storage_tariff,
            servers_in_use=used,
            provider=offer.provider,
            locality=offer.locality,
            service_classes=offer.service_classes,
            distance=self._mapper.distance(access, name),
        )


_NONE = Needs()
