"""The capacity planner: switches and controllers for so many users, and what each has to do.

Each user has a terminal and services; when the user moves, a share of the services follow. Every terminal and every
service is a node of ``table_load``'s world: away with the same probability, a terminal's peers are its services, a
service's are as many as is said. Switches are as few as hold all entries (the expected number of overfull ones is
below ``OVERFULL``); controllers as few as the busiest of four limits allows, and each runs as often as
``instances`` says.

Orders between domains for a move were counted (``lab.roles_counts``) with everybody in a domain of his own: so the
messages are an upper bound where domains own many networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import ceil, isfinite
from typing import Any

import numpy as np

from followme.analysis import rules
from followme.analysis.table_load import Ints, Population, costs, moments, over, sample, sizes

OVERFULL = 0.05
MOST_USERS = 1_000_000_000
MOST_SWITCHES = 1 << 22
SERVICE_MOVE = (16, 4)
"""Orders of a service's move from one foreign network to another: of all domains, and more for each correspondent
domain (counted)."""
USER_MOVE = (9, 2)
"""The same of a terminal that shows up by itself (counted)."""
QUANTILES = (0.5, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Demand:
    """What there is. ``away``: share of users (and of their services) that are not in their home network.
    ``follow``: share of moves after which the services follow. ``peers`` of a service: nodes that it talks to, its
    user among them, distributed as ``peers_kind`` (``table_load.PEERS``). ``uneven``: standard deviation of the
    logarithm of the networks' sizes. ``ValueError`` if out of range."""

    users: int = 1_000_000
    moves_per_hour: float = 2.0
    services_per_user: int = 1
    peers: float = 3.0
    peers_kind: str = "poisson"
    away: float = 0.3
    follow: float = 1.0
    uneven: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.users <= MOST_USERS:
            raise ValueError(f"{self.users} users must be 1 to {MOST_USERS}")
        if not 0 <= self.services_per_user <= 100:
            raise ValueError(f"{self.services_per_user} services per user must be 0 to 100")
        if not (isfinite(self.moves_per_hour) and 0.0 <= self.moves_per_hour <= 3600.0):
            raise ValueError(f"{self.moves_per_hour:g} moves an hour must be 0 to 3600")
        if not 0.0 <= self.follow <= 1.0:
            raise ValueError(f"share that follows {self.follow:g} must be 0 to 1")
        if not 0.0 <= self.uneven <= 2.0:
            raise ValueError(f"unevenness {self.uneven:g} must be 0 to 2")
        _ = self.populations

    @property
    def populations(self) -> tuple[Population, Population]:
        """Terminals, and services."""
        services = self.users * self.services_per_user
        return (Population(self.users, self.away, float(self.services_per_user), "fixed"),
                Population(services, self.away, self.peers, self.peers_kind))  # fmt: skip

    @property
    def moves_s(self) -> tuple[float, float]:
        """Moves a second of terminals and of services."""
        users = self.users * self.moves_per_hour / 3600.0
        return users, users * self.services_per_user * self.follow


@dataclass(frozen=True, slots=True)
class Limits:
    """What one of each can do. ``table``: entries of a switch; ``moves_s``: moves in which a controller takes part,
    in whichever role; ``entries_s``: entries that it can install; ``mappings``: that it can hold; ``switches``:
    connected to it; ``instances`` of each controller. ``ValueError`` if out of range."""

    table: int = 100_000
    moves_s: float = 1000.0
    entries_s: float = 15_000.0
    mappings: int = 1_000_000
    switches: int = 1000
    instances: int = 2

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{one.name} {value} must be more than 0")


@dataclass(frozen=True, slots=True)
class Plan:
    """``entries`` (switches,) is one sample, ``exact`` whether it was drawn as ``table_load`` says without falling
    back; ``mean_entries`` is exact. ``controllers``: domains; ``decided_by``: the limit that asks for most of them.
    Messages are orders and their answers."""

    demand: Demand
    limits: Limits
    switches: int
    mean_entries: float
    entries: Ints
    exact: bool
    controllers: int
    decided_by: str
    controllers_for: dict[str, int]
    moves_s: float
    messages_s: float

    @property
    def instances(self) -> int:
        return self.controllers * self.limits.instances

    @property
    def messages_per_controller_s(self) -> float:
        """Each message has a sender and a receiver."""
        return 2.0 * self.messages_s / self.controllers

    @property
    def overfull(self) -> int:
        """Switches of the sample that need more than their table has."""
        return int(np.count_nonzero(self.entries > self.limits.table))

    def quantiles(self) -> dict[str, int]:
        """Entries per switch: median, 99 % and 99.9 % of the switches have at most so many; and the most."""
        found = np.quantile(self.entries, QUANTILES, method="higher")
        median, p99, p99_9 = (int(one) for one in found)
        return {"median": median, "p99": p99, "p99_9": p99_9, "most": int(self.entries.max())}

    def as_json(self) -> dict[str, Any]:
        return {
            "demand": {one.name: getattr(self.demand, one.name) for one in fields(self.demand)},
            "limits": {one.name: getattr(self.limits, one.name) for one in fields(self.limits)},
            "switches": self.switches,
            "entries_per_switch": {"mean": round(self.mean_entries, 3), **self.quantiles(),
                                   "overfull_switches": self.overfull, "drawn_exactly": self.exact},
            "controllers": self.controllers, "decided_by": self.decided_by,
            "controllers_by_limit": self.controllers_for, "instances": self.instances,
            "moves_per_s": round(self.moves_s, 3), "messages_per_s": round(self.messages_s, 3),
            "messages_per_controller_s": round(self.messages_per_controller_s, 3),
        }  # fmt: skip


def plan(demand: Demand, limits: Limits, seed: int = 0) -> Plan:
    """``ValueError`` if no number of switches or controllers is enough."""
    switches, needs = _needs(demand, limits)
    decided_by = max(needs, key=lambda name: needs[name])
    share = sizes(switches, demand.uneven)
    entries, exact = sample(demand.populations, share, seed)
    mean = float(moments(demand.populations, share)[0].mean())
    return Plan(demand, limits, switches, mean, entries, exact, needs[decided_by], decided_by, needs,
                sum(demand.moves_s), _messages_s(demand, needs[decided_by]))  # fmt: skip


def _needs(demand: Demand, limits: Limits) -> tuple[int, dict[str, int]]:
    """Switches, and the controllers that each limit asks for. A network has one controller: where more controllers
    than networks are needed, the networks are cut smaller."""
    switches = switches_for(demand, limits.table)
    while True:
        needs = _controllers(demand, limits, switches)
        most = max(needs.values())
        if most <= switches:
            return switches, needs
        if most > MOST_SWITCHES:
            raise ValueError(f"{most} controllers, and as many networks: a controller does too little")
        switches = most


def switches_for(demand: Demand, table: int) -> int:
    """As few as hold all entries. ``ValueError`` if even very many do not."""
    populations = demand.populations

    def enough(switches: int) -> bool:
        return over(populations, switches, demand.uneven, table) < OVERFULL

    if table <= costs().switch:
        raise ValueError(f"a table of {table} entries has no room: a switch has {costs().switch} without any node")
    return _least(enough, 2, MOST_SWITCHES, f"a table of {table} entries is too small for these networks")


def _least(enough: Callable[[int], bool], low: int, most: int, else_: str) -> int:
    """The least number from ``low`` to ``most`` that is ``enough``, and every greater one is."""
    high = low
    while not enough(high):
        if high >= most:
            raise ValueError(else_)
        low, high = high + 1, min(2 * high, most)
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return high


_TOO_FEW = {
    "moves": "a controller takes part in too few moves a second",
    "mappings": "a controller holds too few mappings",
}


def _controllers(demand: Demand, limits: Limits, switches: int) -> dict[str, int]:
    """Controllers that each limit asks for."""
    most = MOST_SWITCHES
    share = 1.0 / switches

    def moves(count: int) -> bool:
        return _parts_s(demand, count) <= limits.moves_s * count

    def mappings(count: int) -> bool:
        return _records(demand, count) <= limits.mappings * count

    entries = _changes_s(demand, share)
    needs = {
        "switches": ceil(switches / limits.switches),
        "moves": _least(moves, 1, most, _TOO_FEW["moves"]),
        "entries": max(1, ceil(entries / limits.entries_s)),
        "mappings": _least(mappings, 1, most, _TOO_FEW["mappings"]),
    }
    # With few controllers a move has fewer parts (both ends may be one's own), so what is enough for one number
    # may be too little for the greater one that another limit asks for.
    grows = {"moves": moves, "mappings": mappings}
    while short := [name for name, enough in grows.items() if not enough(max(needs.values()))]:
        for name in short:
            needs[name] = _least(grows[name], max(needs.values()), most, _TOO_FEW[name])
    return needs


def _others(one: Population, domains: int) -> float:
    """The mean number of domains that are correspondents of a node, besides those of its home and where it is."""
    return max(domains - 2, 0) * one.reaches(domains)


def _parts_s(demand: Demand, domains: int) -> float:
    """Parts in moves a second: home, the one left, the one gone to (as many as differ), and correspondents."""
    places = domains * (1.0 - (1.0 - 1.0 / domains) ** 3)
    return sum(rate * (places + _others(one, domains))
               for rate, one in zip(demand.moves_s, demand.populations, strict=True))  # fmt: skip


def _records(demand: Demand, domains: int) -> float:
    """Mappings that all controllers hold: home's of every node; of those that are away also the others'."""
    apart = 1.0 - 1.0 / domains
    return sum(one.nodes * (1.0 + one.away * (apart + _others(one, domains))) for one in demand.populations)


def _changes_s(demand: Demand, share: float) -> float:
    """Flow-mods a second for all moves, each of a node with the mean number of networks told."""
    networks = max(2, round(1.0 / share))
    total = 0.0
    for rate, one in zip(demand.moves_s, demand.populations, strict=True):
        told = (networks - 2) * one.reaches(networks)
        none, some = rules.ours_changes(0), rules.ours_changes(1)
        total += rate * (none + told * (some - none))
    return total


def _messages_s(demand: Demand, domains: int) -> float:
    """Orders between domains a second, and as many answers."""
    if domains == 1:
        return 0.0
    orders = sum(rate * (base + each * _others(one, domains)) for rate, one, (base, each) in
                 zip(demand.moves_s, demand.populations, (USER_MOVE, SERVICE_MOVE), strict=True))  # fmt: skip
    return 2.0 * orders


def sweep(demand: Demand, limits: Limits, users: Sequence[int]) -> list[tuple[int, int, int]]:
    """(users, switches, controllers) without samples: for a plot. Where it cannot be done, it is left out."""
    found = []
    for number in users:
        one = Demand(number, *(getattr(demand, each.name) for each in fields(demand)[1:]))
        try:
            switches, needs = _needs(one, limits)
            found.append((number, switches, max(needs.values())))
        except ValueError:
            continue
    return found

