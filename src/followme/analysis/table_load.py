"""How full the edge switches' tables get: entries per switch of a population of nodes, exact moments and samples.

The world: S edge networks with a switch each. A node has its home in network j with probability w_j, and is away
with probability a, then in another network with a probability in proportion to w. Its peers are k nodes, each in
any of the S networks alike; k is drawn from ``peers``. Nodes are independent. What a node costs a switch is what
the manipulator makes of it (``rules.ours``): at home, as home of one that is away, as the place where it is, as a
correspondent.

Exact: the first three moments of each switch's entries; in a sample, how many nodes have their home in each
network and are away (jointly, multinomial and binomial), what the nodes that are in a network cost it (each node's
own number of networks told), and how many correspondents' entries each switch has, given the former. Not drawn
jointly, each switch's own distribution being right: correspondents' entries with the networks told that they come
from; and with more than 1024 networks who is away whither (multinomial with the exact mean, which leaves out only
that nobody visits his own home).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp, lgamma, log

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, ndtri

from followme.analysis import rules

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

PEERS = ("fixed", "poisson", "geometric")
MOST_PEERS = 200.0
_TAIL = 1e-14
_LEAST_SKEW = 1e-3
_CHUNK = 1 << 22
_MOST_PAIRED = 1024
"""Networks up to which who is away whither is drawn for each home and each other network."""
_MOST_DRAWS = 200_000_000
"""More draws than this for one class of nodes take too long: the sums are then drawn as normal ones."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Entries, all from the manipulator: of any switch, of a node at home, of one that is away at its home, where
    it is (and more for each network told, and if peers are there too), and at a correspondent."""

    switch: int
    at_home: int
    home: int
    foreign: int
    told: int
    local: int
    correspondent: int


@lru_cache(maxsize=256)
def costs() -> Costs:
    alone, told, local = rules.ours(0, 0, 0), rules.ours(0, 0, 1), rules.ours(0, 1, 0)
    return Costs(rules.ours_of_a_switch(), rules.ours_at_home(), alone.home, alone.foreign,
                 told.foreign - alone.foreign, local.foreign - alone.foreign, told.correspondent)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Population:
    """``nodes`` of one sort. ``away``: their share that is. ``peers``: the mean of a node's, ``kind`` of ``PEERS``.
    ``ValueError`` if out of range."""

    nodes: int
    away: float
    peers: float
    kind: str = "poisson"

    def __post_init__(self) -> None:
        if self.nodes < 0:
            raise ValueError(f"{self.nodes} nodes: there cannot be fewer than none")
        if not 0.0 <= self.away <= 1.0:
            raise ValueError(f"share away {self.away} must be 0 to 1")
        if self.kind not in PEERS:
            raise ValueError(f"{self.kind!r} is no distribution of peers: {', '.join(PEERS)}")
        if not 0.0 <= self.peers <= MOST_PEERS:
            raise ValueError(f"{self.peers:g} peers must be 0 to {MOST_PEERS:g}")
        if self.kind == "fixed" and self.peers != int(self.peers):
            raise ValueError(f"{self.peers:g} peers: a fixed number must be whole")

    def counts(self) -> Floats:
        """(most + 1,) probability of 0, 1, ... peers."""
        return _peer_counts(self.peers, self.kind)

    def reaches(self, networks: int) -> float:
        """The probability that at least one peer is in a given one of so many networks: 1 - G(1 - 1 / networks)."""
        chance = self.counts()
        missed: Floats = np.power(1.0 - 1.0 / networks, np.arange(len(chance)))
        return float(1.0 - chance @ missed)


@lru_cache(maxsize=256)
def _peer_counts(mean: float, kind: str) -> Floats:
    if kind == "fixed" or mean == 0.0:
        chance = np.zeros(int(mean) + 1)
        chance[-1] = 1.0
        return chance
    if kind == "geometric":  # of 0, 1, ...
        rest = mean / (1.0 + mean)
        most = int(log(_TAIL) / log(rest)) + 1
        values = (1.0 - rest) * rest ** np.arange(most + 1)
    else:
        most = int(mean + 12.0 * mean**0.5 + 20.0)
        values = np.array([exp(k * log(mean) - mean - lgamma(k + 1.0)) for k in range(most + 1)])
    found: Floats = values / values.sum()
    return found


@lru_cache(maxsize=256)
def abroad(peers: float, kind: str, networks: int) -> tuple[Ints, Floats]:
    """Values (v,) and probabilities (v,) of what a node that is away costs the switch where it is.

    Peer after peer: it is in a network that is told already, in one that is not, where the node is, or at its home.
    """
    price, chance = costs(), _peer_counts(peers, kind)
    most = min(len(chance) - 1, networks - 2)
    told = np.arange(most + 1)
    state = np.zeros((2, most + 1))  # peers where the node is: no, yes; networks told
    state[0, 0] = 1.0
    total = chance[0] * state
    for probability in chance[1:]:
        again = state * ((told + 1.0) / networks)
        again[1] += state[0] / networks + state[1] / networks
        again[:, 1:] += (state * ((networks - 2.0 - told) / networks))[:, :-1]
        state = again
        total += probability * state
    values = price.foreign + price.told * told + np.array([[0], [price.local]])
    unique, place = np.unique(values, return_inverse=True)
    summed = np.bincount(place.ravel(), total.ravel(), len(unique)).astype(np.float64)
    # The most probable first: where few are drawn, the rest is never looked at.
    order = np.argsort(-summed, kind="stable")
    order = order[summed[order] > _TAIL]
    return unique[order].astype(np.int64), summed[order] / summed[order].sum()


def sizes(networks: int, uneven: float) -> Floats:
    """(networks,) shares of all nodes: lognormal with ``uneven`` as the logarithm's deviation, all alike if it is
    0."""
    if networks < 2:
        raise ValueError(f"{networks} networks: who is away needs another one than home, so there must be 2")
    if not uneven:
        return np.full(networks, 1.0 / networks)
    weight = np.exp(uneven * ndtri((np.arange(networks) + 0.5) / networks))
    share: Floats = weight / weight.sum()
    return share


def moments(populations: Sequence[Population], share: Floats, alike: int = 1) -> tuple[Floats, Floats, Floats]:
    """Mean, variance and third central moment (len(share),) of each switch's entries; ``alike`` networks have each
    of the shares."""
    price, networks = costs(), len(share) * alike
    visited = _visited(share, share, alike)
    mean = np.full(len(share), float(price.switch))
    variance, third = np.zeros(len(share)), np.zeros(len(share))
    for one in populations:
        values, chance = abroad(one.peers, one.kind, networks)
        told = one.away * (1.0 - share - visited) * one.reaches(networks)
        # What one node costs the switch, to the first three powers.
        raw = [
            share * (1.0 - one.away) * price.at_home**power + share * one.away * price.home**power
            + one.away * visited * float(values.astype(np.float64) ** power @ chance)
            + told * price.correspondent**power
            for power in (1, 2, 3)
        ]  # fmt: skip
        mean += one.nodes * raw[0]
        variance += one.nodes * (raw[1] - raw[0] ** 2)
        third += one.nodes * (raw[2] - 3.0 * raw[0] * raw[1] + 2.0 * raw[0] ** 3)
    return mean, np.maximum(variance, 0.0), third


def sample(populations: Sequence[Population], share: Floats, seed: int = 0) -> tuple[Ints, bool]:
    """(networks,) entries of each switch, once; and whether no sum was drawn as a normal one."""
    random, price, networks = np.random.default_rng(seed), costs(), len(share)
    entries, exact = np.full(networks, price.switch, dtype=np.int64), True
    for one in populations:
        born = random.multinomial(one.nodes, share)
        gone = random.binomial(born, one.away)
        away = int(gone.sum())
        entries += price.at_home * (born - gone) + price.home * gone
        if not away:
            continue
        here = _whither(random, share, gone)
        cost, whole = _abroad_sums(random, here, *abroad(one.peers, one.kind, networks))
        others = np.maximum(away - gone - here, 0)
        entries += cost + price.correspondent * random.binomial(others, one.reaches(networks))
        exact = exact and whole
    return entries, exact


def over(populations: Sequence[Population], networks: int, uneven: float, table: int) -> float:
    """How many switches are expected to need more entries than ``table``. Each has a gamma distribution's tail with
    its three moments: sums over many nodes are nearly normal, but far out their skewness counts."""
    share, alike = sizes(networks, uneven), 1
    if not uneven:
        share, alike = share[:1], networks
    mean, variance, third = moments(populations, share, alike)
    spread = np.sqrt(np.maximum(variance, 1e-12))
    skew = np.maximum(third / spread**3, _LEAST_SKEW)
    shape = 4.0 / skew**2
    away = (table + 0.5 - mean) / spread
    return alike * float(gammaincc(shape, np.maximum(shape + 2.0 * away / skew, 0.0)).sum())


def _visited(share: Floats, homes: Floats, alike: int = 1) -> Floats:
    """(networks,) where somebody is who is away, if homes of those are so distributed: anywhere but at home."""
    outward = homes / (1.0 - share)
    chance = np.maximum(share * (alike * outward.sum() - outward), 0.0)
    found: Floats = chance / (alike * chance.sum())
    return found


def _whither(random: np.random.Generator, share: Floats, gone: Ints) -> Ints:
    """(networks,) how many of those who are away from each network's homes, ``gone``, are in each."""
    networks = len(share)
    if networks > _MOST_PAIRED:
        away = int(gone.sum())
        return random.multinomial(away, _visited(share, gone / away))
    chance = np.tile(share, (networks, 1))
    np.fill_diagonal(chance, 0.0)
    chance /= chance.sum(axis=1, keepdims=True)
    here: Ints = random.multinomial(gone, chance).sum(axis=0)
    return here


def _abroad_sums(random: np.random.Generator, here: Ints, values: Ints, chance: Floats) -> tuple[Ints, bool]:
    """(networks,) what the nodes in each network cost it, in sum, and whether it was drawn exactly."""
    networks, away = len(here), int(here.sum())
    if networks * len(values) <= min(8 * away, _MOST_DRAWS):
        step = max(1, _CHUNK // len(values))
        parts = [random.multinomial(here[at : at + step], chance) @ values for at in range(0, networks, step)]
        return np.concatenate(parts), True
    if away <= _MOST_DRAWS:
        bounds = np.cumsum(chance)[:-1]
        sums = np.zeros(networks + 1, dtype=np.int64)
        whose = np.concatenate(([0], np.cumsum(here)))
        for at in range(0, away, _CHUNK):
            drawn = values[np.searchsorted(bounds, random.random(min(_CHUNK, away - at)), side="right")]
            running = np.concatenate(([0], np.cumsum(drawn)))
            sums += running[np.clip(whose - at, 0, len(drawn))]
        return np.diff(sums), True
    mean = float(values @ chance)
    spread = float((values**2) @ chance) - mean**2
    normal = np.rint(random.normal(here * mean, np.sqrt(here * spread))).astype(np.int64)
    return np.clip(normal, here * values.min(), here * values.max()), False
