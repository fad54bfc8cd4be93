"""How many flow entries a migration needs: equations 1 to 6 of the scalability paper, and what our manipulator
makes.

The paper counts for each migrated node i the entries at its home switch (2), its foreign switch (3) and each
correspondent one (4), their sum (1), and over all migrations those of a central controller (5); in the distributed
architecture the foreign controller has (6), and is the most loaded one. Arrays are of whole numbers, (m,) for m
migrations; correspondents are (m, J): the nodes that talk in each of J networks, 0 where nobody does, which then is
no correspondent network.

Ours are not formulas: ``ours`` asks ``continuity.manipulator`` for the rules of such a node and counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Any

import numpy as np
import numpy.typing as npt

from followme.continuity.binding import Binding
from followme.continuity.ledger import Ledger
from followme.continuity.manipulator import node_rules
from followme.continuity.pipeline import base_rules
from followme.domain import Network, NetworkKind, Node, NodeKind, Placement

Ints = npt.NDArray[np.int64]

ALPHA, BETA, GAMMA = 3, 6, 3
"""Footnote 2: entries per migration at the home, the foreign and each correspondent switch."""
DELTA = BETA
"""Equation 6 says only "a fixed number". The figure's printed curves hold no number that tells it, but the equation
does its work in the place of equation 3: a foreign switch that asks about correspondents (J more entries) still has
all that beta was for. So delta is at least beta; the smallest value makes the paper's curve the lowest, and a
comparison with it the hardest. (That FC is the most loaded of the distributed controllers asks for less: delta + J
is to be at least alpha where as many nodes talk at home as abroad.)"""
SWITCHES = 1
"""Equation 5's N in figure 5, which is for one migration: one home switch, and one foreign switch."""


def home_entries(home: npt.ArrayLike) -> Ints:
    """(2): alpha + H, for H nodes of the home network that talk to the migrated one."""
    return ALPHA + _counts(home)


def foreign_entries(foreign: npt.ArrayLike) -> Ints:
    """(3): beta + F."""
    return BETA + _counts(foreign)


def correspondent_entries(correspondents: npt.ArrayLike) -> Ints:
    """(4): gamma + C in each network where somebody talks to it, else 0."""
    nodes = _counts(correspondents)
    return np.where(nodes > 0, GAMMA + nodes, 0)


def migration_entries(home: npt.ArrayLike, foreign: npt.ArrayLike, correspondents: npt.ArrayLike) -> Ints:
    """(1): of each migration, (m,)."""
    there: Ints = correspondent_entries(correspondents).sum(axis=-1)
    return home_entries(home) + foreign_entries(foreign) + there


def central_entries(
    home: npt.ArrayLike, foreign: npt.ArrayLike, correspondents: npt.ArrayLike, switches: int = SWITCHES
) -> int:
    """(5): all that a central controller manages, with N home switches."""
    return 2 * switches + int(migration_entries(home, foreign, correspondents).sum())


def reactive_foreign_entries(foreign: npt.ArrayLike, networks: npt.ArrayLike, delta: int = DELTA) -> Ints:
    """(6): delta + F + J, for J correspondent networks."""
    return delta + _counts(foreign) + _counts(networks)


def _counts(values: npt.ArrayLike) -> Ints:
    found = np.asarray(values, dtype=np.int64)
    if found.size and int(found.min()) < 0:
        raise ValueError("a number of nodes or networks is negative")
    return found


@dataclass(frozen=True, slots=True)
class Entries:
    """Flow entries of one migrated node at its home switch, its foreign switch, and each correspondent one."""

    home: int
    foreign: int
    correspondent: int

    @property
    def most(self) -> int:
        """At the most loaded of controllers with one network each."""
        return max(self.home, self.foreign, self.correspondent)

    def total(self, networks: int) -> int:
        """At a controller of all, with ``networks`` correspondent ones."""
        return self.home + self.foreign + networks * self.correspondent


def ours(home: int, foreign: int, networks: int) -> Entries:
    """What ``manipulator.node_rules`` makes for a node that has settled abroad, with ``home`` nodes of its home
    network, ``foreign`` of the one that it is in and nodes of ``networks`` others that talk to it.

    It takes how many networks there are, for each is told once, and of the nodes only whether there are any.
    """
    binding, everywhere = _away(foreign > 0, networks)
    return _entries(binding, everywhere)


def ours_while_moving(home: int, foreign: int, networks: int) -> Entries:
    """The most that each switch has at any time of a move to the foreign network: before it, while it is prepared,
    after the flip, and until the places that it left are quiet."""
    settled, everywhere = _away(foreign > 0, networks)
    before = Binding(settled.node, _place(settled.node, everywhere["home"], at_home=True), told=settled.told)
    prepared = before.prepare(settled.here, settled.told)
    switched = prepared.switch()
    phases = [_entries(one, everywhere) for one in (before, prepared, switched, switched.release(), settled)]
    return Entries(*(max(getattr(one, role) for one in phases) for role in ("home", "foreign", "correspondent")))


def ours_changes(networks: int) -> int:
    """Flow-mods of all switches in a move from one foreign network to another, with ``networks`` correspondents:
    from the first that prepares it to the last that forgets the old place."""
    settled, everywhere = _away(False, networks)
    everywhere["next"] = network("next", len(everywhere) + 1)
    there = Placement(settled.node.name, "next", 2, everywhere["next"].locators[1], 3)
    ledger, count = Ledger(0), 0
    ledger.set(settled.node.name, node_rules(settled, everywhere))
    prepared = settled.prepare(there, settled.told)
    switched = prepared.switch()
    released = switched.release()
    for one in (prepared, switched, replace(switched, seen=True), replace(released, seen=True),
                replace(released, old=(), seen=True)):  # fmt: skip
        changes = ledger.set(one.node.name, node_rules(one, everywhere))
        count += sum(len(mods) for mods in changes.values())
    return count


def ours_at_home() -> int:
    """Entries of a node that never moved, at its own switch: with or without migrations they are there."""
    everywhere = _networks(0)
    node = _node(everywhere["home"])
    return _entries(Binding(node, _place(node, everywhere["home"], at_home=True)), everywhere).home


def ours_of_a_switch() -> int:
    """Entries that each switch has before it knows any node."""
    return len(base_rules(_networks(0)["home"]))


def _away(talks_abroad: bool, networks: int) -> tuple[Binding, dict[str, Network]]:
    everywhere = _networks(networks)
    node = _node(everywhere["home"])
    # Home has the mapping, and the node speaks to it, always; the network where it is only if somebody there talks.
    told = set(everywhere) - (set() if talks_abroad else {"foreign"})
    return Binding(node, _place(node, everywhere["foreign"]), told=frozenset(told)), everywhere


def _entries(binding: Binding, everywhere: Mapping[str, Network]) -> Entries:
    rules = node_rules(binding, everywhere)
    count = {name: len(rules.get(network.datapath, ())) for name, network in everywhere.items()}
    others = {number for name, number in count.items() if name not in ("home", "foreign")}
    if len(others) > 1:
        raise RuntimeError(f"correspondents differ: {count}")
    return Entries(count["home"], count["foreign"], others.pop() if others else 0)


def _networks(correspondents: int) -> dict[str, Network]:
    names = ("home", "foreign", *(f"correspondent{number}" for number in range(correspondents)))
    return {name: network(name, number) for number, name in enumerate(names, start=1)}


def network(name: str, number: int, kind: NetworkKind = NetworkKind.DATACENTRE) -> Network:
    """One of up to 32 767 networks of a model: ``number`` is its datapath, and its prefix a /17 of its own."""
    prefix = IPv4Network((number << 17, 17))
    router = bytes((2, 0, 0, 0, number >> 8, number & 0xFF))
    locators = IPv4Network((int(prefix[1 << 14]), 24))
    return Network(name, kind, number, 1, router, prefix, prefix, prefix[1], locators)


def _node(home: Network) -> Node:
    return Node("vm", NodeKind.MACHINE, b"\x52\x54\0\0\0\x01", home.prefix[5], home.prefix[5], home.name)


def _place(node: Node, where: Network, at_home: bool = False) -> Placement:
    return Placement(node.name, where.name, 2, node.identifier if at_home else where.locators[1], 1)


# Figure 5


@dataclass(frozen=True, slots=True)
class RuleCurves:
    """Figure 5 for one migration, by the number of nodes n: n of the home network, n of the foreign one, and one in
    each of n correspondent networks talk to the migrated node. All (len(nodes),)."""

    nodes: Ints
    central: Ints
    """(5): a central controller, the paper's constants."""
    distributed: Ints
    """(6): the foreign controller, the most loaded one, the paper's constants."""
    our_central: Ints
    our_distributed: Ints
    """The most loaded controller with our rules."""
    our_moving: Ints
    """The same at the worst moment of the move."""

    def as_json(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes.tolist(),
            "paper": {"central": self.central.tolist(), "foreign_controller": self.distributed.tolist()},
            "ours": {"central": self.our_central.tolist(), "most_loaded_controller": self.our_distributed.tolist(),
                     "most_loaded_while_moving": self.our_moving.tolist()},
        }  # fmt: skip


def figure5(nodes: Iterable[int], delta: int = DELTA) -> RuleCurves:
    """The paper's text says of the axis that nodes grow linearly at home, abroad and in correspondent networks, and
    of figure 6's, which is the same, that these are "the number of nodes in HN, FN and the number of CNets": so
    there is one node in each correspondent network."""
    n = _counts(list(nodes))
    settled = [ours(one, one, one) for one in n.tolist()]
    moving = [ours_while_moving(one, one, one) for one in n.tolist()]
    return RuleCurves(
        n,
        np.array([central_entries([one], [one], np.ones((1, one), dtype=np.int64)) for one in n.tolist()]),
        reactive_foreign_entries(n, n, delta),
        np.array([one.total(count) for one, count in zip(settled, n.tolist(), strict=True)]),
        np.array([one.most for one in settled]),
        np.array([one.most for one in moving]),
    )

