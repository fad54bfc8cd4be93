"""The sections of the YAML file that say what data centres offer and services need (step 2)."""

from __future__ import annotations

from math import inf
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from followme.config.fields import Moment, Name, Number

Share = Annotated[Number, Field(ge=0.0)]
Tier = Annotated[tuple[Share, Share], Field(description="from this quantity on, price of a unit")]


def _few(tiers: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    # Not by Field: that counts what is left of a list with a mistake in it, and complains of that too.
    if not 1 <= len(tiers) <= 8:
        raise ValueError(f"there must be 1 to 8 tiers, not {len(tiers)}")
    return tiers


Tiers = Annotated[tuple[Tier, ...], AfterValidator(_few)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OfferSection(_Section):
    """What a data centre offers. Prices are money for an hour: by byte an hour, unit of demand, byte stored."""

    capacity: Share = inf
    provider: str = ""
    locality: str = ""
    service_classes: tuple[Name, ...] = ()
    throughput_per_s: Share | None = None
    network_price: Tiers | None = None
    server_price: Tiers | None = None
    storage_price: Tiers | None = None


class WeightsSection(_Section):
    """How much each criterion counts, or is worth; those that are left out do not."""

    latency: Share = 0.0
    bandwidth: Share = 0.0
    loss: Share = 0.0
    utilisation: Share = 0.0
    throughput: Share = 0.0
    network_price: Share = 0.0
    server_price: Share = 0.0
    storage_price: Share = 0.0
    preference: Share = 0.0


class NeedsSection(_Section):
    """What a service needs, and what it will not do without."""

    demand: Share = 1.0
    network_bytes_per_h: Share = 0.0
    storage_bytes: Share = 0.0
    localities: tuple[str, ...] | None = None
    service_class: Name | None = None
    latency_at_most_ms: Share | None = None
    preferred: tuple[str, ...] = ()
    weights: WeightsSection | None = None
    method: Literal["weighted-sum", "topsis"] = "weighted-sum"
    user_class: dict[str, Share] = {}
    worth: WeightsSection | None = None
    task: Literal["ordinary", "emergency", "measurement"] = "ordinary"
    ends_at: Moment | None = None
