"""The config file's sections of step 2 as the objects that decide; every mistake names its key."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeVar

from followme.config import Config
from followme.config_placement import NeedsSection, OfferSection

from .chooser import Chooser, Needs, Offer
from .criteria import Requirements, Tariff, UserClass, Weights, shares
from .mapper import LocationMapper
from .policy import policy_named
from .situation import Policy
from .stay import Task, Use

T = TypeVar("T")

HYSTERESIS_S = 0.002
"""A data centre must be nearer by more than this, one way, before it is taken for better."""


def policy_of(config: Config) -> Policy:
    """The config's policy; ``ValueError`` names the key."""
    section = config.file.policy
    return _at("policy.parameters", lambda: policy_named(section.name, section.parameters))


def chooser_of(config: Config) -> Chooser | None:
    """``None`` if no data centre can run machines; ``ValueError`` names the key of a mistake."""
    offers = {
        section.name: _at(f"networks[{index}].offer", lambda section=section: _offer(section.offer))  # type: ignore[misc]
        for index, section in enumerate(config.file.networks)
        if section.host is not None
    }
    needs = {
        section.name: _at(f"services[{index}].needs", lambda section=section: _needs(section.name, section.needs))  # type: ignore[misc]
        for index, section in enumerate(config.file.services)
        if section.needs is not None
    }
    return Chooser(LocationMapper(config.networks, HYSTERESIS_S), offers, needs) if offers else None


def _at(key: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _offer(section: OfferSection | None) -> Offer:
    if section is None:
        return Offer()
    return Offer(
        capacity=section.capacity,
        provider=section.provider,
        locality=section.locality,
        service_classes=frozenset(section.service_classes),
        throughput_per_s=section.throughput_per_s,
        network_tariff=Tariff(section.network_price) if section.network_price else None,
        server_tariff=Tariff(section.server_price) if section.server_price else None,
        storage_tariff=Tariff(section.storage_price) if section.storage_price else None,
    )


def _needs(service: str, section: NeedsSection) -> Needs:
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
    task = Task(section.task)
    special = task is not Task.ORDINARY or section.remaining_s is not None
    if section.user_class and section.weights is None:
        raise ValueError("user_class multiplies weights, and there are none")
    weights = Weights(**section.weights.model_dump()) if section.weights else None
    user_class = UserClass("the user's", section.user_class) if section.user_class else None
    if weights is not None:
        shares(weights, user_class)  # says now, not at a decision, if nothing counts for this user
    return Needs(
        requirements,
        weights,
        section.method,
        user_class,
        Use(service, inf, task, section.remaining_s) if special else None,
    )
