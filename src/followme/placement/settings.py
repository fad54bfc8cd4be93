"""The config file's sections of step 2 as the objects that decide; every mistake names its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import TypeVar

from followme.config.document import ConfigError, short
from followme.config.lisp import LispConfig, SiteSection
from followme.config.openflow import Config, NetworkSection
from followme.config.placement import NeedsSection, OfferSection, WeightsSection
from followme.domain import NetworkKind

from .chooser import Chooser, Needs
from .criteria import UserClass, Weights, shares
from .learned import LearnedTables
from .learned_line import LearnedLine
from .limits import Requirements
from .mapper import LocationMapper
from .offers import Offer
from .policy import policy_named
from .situation import Policy
from .stay import Task, Worth
from .tariff import Tariff

T = TypeVar("T")

HYSTERESIS_S = 0.002
"""A data centre must be nearer by more than this, one way, before it is taken for better."""
KNOWS_DISTANCE_ONLY = ("threshold", "myopic", "mdp", "learned")


def policy_of(config: Config | LispConfig) -> Policy:
    """The config's policy; ``ConfigError`` lists all mistakes in the sections of step 2."""
    return _built(config)[0]


def chooser_of(config: Config | LispConfig) -> Chooser | None:
    """``None`` if no data centre can run machines; ``ConfigError`` as ``policy_of``."""
    _, offers, needs = _built(config)
    return Chooser(LocationMapper(config.networks, HYSTERESIS_S), offers, needs) if offers else None


def _built(config: Config | LispConfig) -> tuple[Policy, dict[str, Offer], dict[str, Needs]]:
    problems: list[str] = []

    def made(key: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except ValueError as error:
            problems.append(f"{config.name}: {key}: {error}")
            return None

    file = config.file
    policy = made("policy.parameters", lambda: policy_named(file.policy.name, file.policy.parameters))
    offers, needs = {}, {}
    for index, section in enumerate(_networks(config)):
        offer = made(f"networks[{index}].offer", lambda section=section: _offer(section.offer))  # type: ignore[misc]
        if offer is not None and section.runs_machines:
            offers[section.name] = offer
    for index, service in enumerate(file.services):
        if service.needs is not None:
            key = f"services[{index}].needs"
            one = made(key, lambda service=service: _needs(service.needs))  # type: ignore[misc]
            if one is not None:
                needs[service.name] = one
    if isinstance(policy, LearnedTables | LearnedLine):
        problems += [f"{config.name}: {problem}" for problem in _learned_elsewhere(policy, config)]
    problems += [f"{config.name}: {problem}" for problem in _without_effect(config)]
    if problems or policy is None:
        raise ConfigError(problems)
    return policy, offers, needs


def _networks(config: Config | LispConfig) -> list[NetworkSection | SiteSection]:
    return [*config.file.networks]


def _without_effect(config: Config | LispConfig) -> Iterator[str]:
    """What is well-formed and would do nothing, or not what it says."""
    networks = _networks(config)
    hosts = [one for one in networks if one.runs_machines]
    for index, network in enumerate(networks):
        if network.offer is not None and network.kind is not NetworkKind.DATACENTRE:
            yield f"networks[{index}].offer: {network.name} is an access network; only data centres offer something"
        elif network.offer is not None and not network.runs_machines:
            yield f"networks[{index}].offer: {network.name} has no 'host', so nothing can run there"
    for index, service in enumerate(config.file.services):
        yield from _too_large(f"services[{index}].needs.demand", service.needs or NeedsSection(), hosts)
        if service.needs is not None:
            yield from _unanswered(f"services[{index}].needs", service.needs, hosts)
            weighed = service.needs.weights is not None and service.needs.worth is None
            if weighed and config.file.policy.name in KNOWS_DISTANCE_ONLY:
                yield (f"services[{index}].needs.worth: missing; policy {config.file.policy.name!r} knows distance "
                       "only, so a service with weights is decided by stay-or-go, and that by what each criterion "
                       "is worth")  # fmt: skip


def _learned_elsewhere(policy: LearnedTables | LearnedLine, config: Config | LispConfig) -> Iterator[str]:
    """A service moves between two places that were learned of, or not at all."""
    hosts = [one.name for one in _networks(config) if one.runs_machines]
    common = [name for name in hosts if name in policy.areas]
    if len(common) < min(2, len(hosts)):
        found = f"only {common[0]}" if common else "none"
        yield (f"policy.parameters.file: of the data centres with a host ({', '.join(hosts)}) {found} is an area "
               f"in it; it has {_shown(policy.areas)}")  # fmt: skip


def _shown(names: tuple[str, ...]) -> str:
    """The first few of many names that somebody else has given."""
    return ", ".join(short(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _too_large(key: str, needs: NeedsSection, hosts: list[NetworkSection | SiteSection]) -> Iterator[str]:
    most = max(((one.offer or OfferSection()).capacity for one in hosts), default=inf)
    if needs.demand > most:
        yield (f"{key}: {needs.demand:g} is more than any data centre with a host has; the largest capacity is "
               f"{most:g}")  # fmt: skip


def _unanswered(key: str, needs: NeedsSection, hosts: list[NetworkSection | SiteSection]) -> Iterator[str]:
    """What the service asks for and no data centre with a host has."""
    offers = [one.offer or OfferSection() for one in hosts]
    known = {
        "localities": {one.locality for one in offers if one.locality},
        "service_class": {name for one in offers for name in one.service_classes},
        "preferred": {one.provider for one in offers if one.provider},
    }
    asked = {
        "localities": needs.localities or (),
        "service_class": () if needs.service_class is None else (needs.service_class,),
        "preferred": needs.preferred,
    }
    for field, names in asked.items():
        for name in names:
            if name not in known[field]:
                there = ", ".join(sorted(known[field])) or "nothing of the kind"
                yield f"{key}.{field}: {name!r} is offered by no data centre with a host; they offer {there}"
    if needs.localities == ():
        yield f"{key}.localities: an empty list allows no place at all; leave it out to allow all"
    if needs.preferred and (needs.weights is None or not needs.weights.preference):
        yield f"{key}.preferred: counts by needs.weights.preference, and that is 0"


def _offer(section: OfferSection | None) -> Offer:
    if section is None:
        return Offer()
    return Offer(
        capacity=section.capacity,
        provider=section.provider,
        locality=section.locality,
        service_classes=frozenset(section.service_classes),
        throughput_per_s=section.throughput_per_s,
        network_tariff=None if section.network_price is None else Tariff(section.network_price),
        server_tariff=None if section.server_price is None else Tariff(section.server_price),
        storage_tariff=None if section.storage_price is None else Tariff(section.storage_price),
    )


def _needs(section: NeedsSection) -> Needs:
    at_most = inf if section.latency_at_most_ms is None else section.latency_at_most_ms / 1e3
    requirements = Requirements(
        demand=section.demand,
        network_bytes_per_h=section.network_bytes_per_h,
        storage_bytes=section.storage_bytes,
        localities=None if section.localities is None else frozenset(section.localities),
        service_class=section.service_class,
        latency_at_most_s=at_most,
        preferred=frozenset(section.preferred),
    )
    if section.user_class and section.weights is None and section.worth is None:
        raise ValueError("user_class multiplies weights and worths, and there are none")
    weights = Weights(**section.weights.model_dump()) if section.weights else None
    user_class = UserClass("the user's", section.user_class) if section.user_class else None
    if weights is not None:
        shares(weights, user_class)  # says now, not at a decision, if nothing counts for this user
    worth = None if section.worth is None else Worth(_given(section.worth), user_class)
    if worth is not None and not worth:
        raise ValueError("worth: nothing in it counts (for this user), so going would never be worth anything")
    return Needs(
        requirements,
        weights,
        section.method,
        user_class,
        Task(section.task),
        None if section.ends_at is None else section.ends_at.timestamp(),
        worth,
    )


def _given(section: WeightsSection) -> dict[str, float]:
    """The worths that the file names, and no others: a measurement that is worth nothing may be missing."""
    return {name: value for name, value in section.model_dump().items() if name in section.model_fields_set}
