"""The location mapper: which data centre is best for a user at an access network.

The papers map each gateway to its data centres by hand ("Location Mapper" of the LISP paper); here the
path monitor's delays decide where they are known, and the line of service areas where they are not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

from followme.domain import NetworkKind


class Located(Protocol):
    """What the mapper needs of a network, by OpenFlow or by LISP."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> NetworkKind: ...
    @property
    def area(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """One data centre; ``delay_s`` is one way, if known, ``distance`` in service areas."""

    network: str
    delay_s: float | None
    distance: int
    why: str


class LocationMapper:
    """Orders the data centres among ``networks`` for each access network among them.

    ``hysteresis_s``: the data centre that serves now keeps its place until another is closer by more than
    that, so that the noise of two delays that are nearly equal moves nothing. ``ValueError`` if two networks
    have one name, there is no data centre, or the hysteresis is negative or not finite.
    """

    def __init__(self, networks: Iterable[Located], hysteresis_s: float = 0.0) -> None:
        if not (isfinite(hysteresis_s) and hysteresis_s >= 0.0):
            raise ValueError(f"hysteresis {hysteresis_s} s must be finite and not negative")
        self._hysteresis_s = hysteresis_s
        self._networks: dict[str, Located] = {}
        for network in networks:
            if network.name in self._networks:
                raise ValueError(f"two networks are called {network.name!r}")
            self._networks[network.name] = network
        if all(one.kind is not NetworkKind.DATACENTRE for one in self._networks.values()):
            raise ValueError("there is no data centre among the networks")

    def distance(self, access: str, centre: str) -> int:
        """Service areas between two networks; ``ValueError`` if one is unknown."""
        return abs(self._network(access).area - self._network(centre).area)

    def nearest(self, access: str, delays: Mapping[str, float], current: str | None = None) -> Candidate | None:
        """The best for a user at ``access`` of the data centres that ``delays`` has, seconds one way.

        The others are left out of all comparisons. Delays decide only if all are known (NaN, negative and infinite
        ones are not), for a mixture would compare what cannot be compared; else the areas do. Ties go to
        ``current``, the data centre that serves now, then by name. ``None`` if there is none; ``ValueError`` if
        ``access`` is unknown.
        """
        order = self._order(access, {name: _usable(delay) for name, delay in delays.items()}, current)
        return order.candidate(order.names[0]) if order.names else None

    def in_order(self, access: str, delays: Mapping[str, float], current: str | None = None) -> list[str]:
        """The names of those that ``delays`` has, the best first, as ``nearest``."""
        return self._order(access, {name: _usable(delay) for name, delay in delays.items()}, current).names

    def _order(self, access: str, known: Mapping[str, float | None], current: str | None) -> _Order:
        measured = {name: delay for name, delay in known.items() if delay is not None}
        if len(measured) < len(known):
            without = ", ".join(sorted(name for name in known if name not in measured))
            return self._by_area(access, known, current, f"no delay measured for {without}")
        names = sorted(measured, key=lambda name: (measured[name], name != current, name))
        kept = ""
        if current in measured and current != names[0]:
            lead = names[0]
            behind = measured[current] - measured[lead]
            if behind <= self._hysteresis_s:
                names.remove(current)
                names.insert(0, current)
                kept = (
                    f"; it serves now, and {lead} is closer by {1e3 * behind:.2f} ms only "
                    f"(hysteresis {1e3 * self._hysteresis_s:.2f} ms)"
                )
        return _Order(self, access, names, known, "", kept)

    def _by_area(
        self, access: str, known: Mapping[str, float | None], current: str | None, what: str
    ) -> _Order:
        """The nearest service area first; ``what`` says why that has to do."""
        distances = {name: self.distance(access, name) for name in known}
        names = sorted(known, key=lambda name: (distances[name], name != current, name))
        return _Order(self, access, names, known, what, "")

    def _network(self, name: str) -> Located:
        try:
            return self._networks[name]
        except KeyError:
            raise ValueError(f"network {name!r} is unknown") from None


@dataclass(frozen=True, slots=True)
class _Order:
    """The names, the best first; each one's words are made when they are asked for."""

    mapper: LocationMapper
    access: str
    names: list[str]
    known: Mapping[str, float | None]
    by_area: str
    kept: str

    def candidate(self, name: str) -> Candidate:
        delay, distance = self.known[name], self.mapper.distance(self.access, name)
        if self.by_area or delay is None:
            return Candidate(name, delay, distance, f"{distance} service areas from {self.access} ({self.by_area})")
        kept = self.kept if name == self.names[0] else ""
        return Candidate(name, delay, distance, f"{1e3 * delay:.2f} ms one way from {self.access}, measured{kept}")


def _usable(delay: float | None) -> float | None:
    return delay if delay is not None and isfinite(delay) and delay >= 0.0 else None
