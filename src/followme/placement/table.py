"""All data centres as one service sees them, in arrays: their criteria, and which of them its limits exclude."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isnan, nan

import numpy as np

from .criteria import CRITERIA, UserClass, Weights, shares
from .facts import CandidateFacts
from .limits import Requirements
from .offers import Bools, Floats, Offer, Offers


class Asked:
    """What one service asks of some offers, worked out once: all that does not change between decisions.

    ``share`` (criteria,) is what each criterion counts (``None``: the service has no weights), ``allowed`` and
    ``preferred`` (n,) are ``Offers``'. ``ValueError`` if the user's class leaves nothing that counts.
    """

    __slots__ = ("allowed", "everywhere", "need", "preferred", "requirements", "share")

    def __init__(
        self,
        offers: Offers,
        requirements: Requirements,
        weights: Weights | None = None,
        user_class: UserClass | None = None,
    ) -> None:
        self.requirements = requirements
        self.share = None if weights is None else shares(weights, user_class)
        self.allowed = offers.allowed(requirements)
        self.everywhere = bool(self.allowed.all())
        self.preferred = offers.preferred(requirements) if requirements.preferred else 0.0
        self.need = np.array((requirements.network_bytes_per_h, requirements.demand, requirements.storage_bytes))


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """n data centres at one decision; NaN is unknown.

    ``measured`` (n, 5): one-way latency (s; infinite: nothing comes through), free bandwidth (bit/s), loss,
    utilisation (shares), throughput (1/s). ``in_use`` (n, 3): what is bought there already of network (bytes an
    hour), servers and storage (bytes), the service itself left out. ``free`` (n,): capacity.
    """

    offers: Offers
    measured: Floats
    in_use: Floats
    free: Floats

    @staticmethod
    def of(facts: Sequence[CandidateFacts]) -> Table:
        """``ValueError`` if there is none, or two have one name."""
        offers = {
            one.name: Offer(
                one.free_capacity, one.provider, one.locality, one.service_classes, one.throughput_per_s,
                one.network_tariff, one.server_tariff, one.storage_tariff,
            )
            for one in facts
        }  # fmt: skip
        if len(offers) < len(facts):
            names = [one.name for one in facts]
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"two data centres are called {twice[0]!r}")
        packed = Offers(offers)
        measured = [
            [
                nan if value is None else value
                for value in (one.latency_s, one.bandwidth_bit_s, one.loss, one.utilisation, one.throughput_per_s)
            ]
            for one in facts
        ]
        in_use = [(one.network_in_use_bytes_per_h, one.servers_in_use, one.storage_in_use_bytes) for one in facts]
        return Table(packed, np.array(measured), np.array(in_use), packed.capacity)

    def values(self, asked: Asked) -> Floats:
        """All criteria of all candidates for one service: (candidates x criteria), SI units, NaN where unknown.

        Prices are money for an hour, each the service's share (``Tariff.share``).
        """
        found = np.empty((len(self.offers), len(CRITERIA)))
        found[:, :5] = self.measured
        together = self.in_use + asked.need
        total = (np.maximum(together, self.offers.begins) * self.offers.prices).min(axis=0)
        # Nothing at all costs nothing: 0 / 1 there in place of 0 / 0.
        found[:, 5:8] = asked.need * (total / (together + (together == 0.0)))
        found[:, 8] = asked.preferred
        return found

    def feasible(self, asked: Asked, current: int | None) -> Bools:
        """(n,): whom no limit excludes. ``current``, where the service runs, has room for it: it is there."""
        room = self.free >= asked.requirements.demand
        if current is not None:
            room[current] = True
        latency = self.measured[:, 0]
        at_most = asked.requirements.latency_at_most_s
        room &= latency != inf if at_most == inf else latency <= at_most
        if not asked.everywhere:
            room &= asked.allowed
        return room

    def full(self, asked: Asked, current: int | None) -> Bools:
        """(n,): whom nothing but the want of room excludes."""
        roomy = Table(self.offers, self.measured, self.in_use, np.full(len(self.offers), inf))
        lacking = self.free < asked.requirements.demand
        if current is not None:
            lacking[current] = False
        return roomy.feasible(asked, current) & lacking

    def broken(self, row: int, asked: Asked, current: int | None) -> str:
        """Which limits exclude the candidate, in words; empty if none does."""
        needs, reasons = asked.requirements, []
        if self.free[row] < needs.demand and row != current:
            reasons.append(f"capacity: {self.free[row]:g} free, {needs.demand:g} needed")
        reasons += self.offers.forbidden(row, needs)
        latency = float(self.measured[row, 0])
        if latency == inf:
            reasons.append("no probe comes through")
        elif needs.latency_at_most_s != inf and not latency <= needs.latency_at_most_s:
            seen = "not measured" if isnan(latency) else f"{1e3 * latency:.1f} ms"
            reasons.append(f"latency: {seen}, at most {1e3 * needs.latency_at_most_s:.1f} ms allowed")
        return "; ".join(reasons)
