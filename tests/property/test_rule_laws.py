"""The rule model and the capacity planner, against literal sums and small worlds that are enumerated whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from followme.analysis import messages, rules
from followme.analysis.planning import OVERFULL, Demand, Limits, plan, switches_for
from followme.analysis.rules import network
from followme.analysis.table_load import Population, abroad, costs, moments, over, sample, sizes
from followme.continuity.binding import Binding
from followme.continuity.manipulator import node_rules
from followme.domain import Network, Node, NodeKind, Placement

few = st.integers(0, 30)


@given(st.lists(st.tuples(few, few, st.lists(few, max_size=5)), min_size=1, max_size=6), st.integers(0, 9))
def test_equations_are_the_papers_sums(migrations: list[tuple[int, int, list[int]]], switches: int) -> None:
    total = 2 * switches
    far = []
    for at_home, visiting, correspondents in migrations:
        rhs, rfs = 3 + at_home, 6 + visiting
        rcs = sum(3 + nodes for nodes in correspondents if nodes)
        total += rhs + rfs + rcs
        far.append(rhs + rcs)
    most = max(len(correspondents) for _, _, correspondents in migrations)
    padded = np.array([each + [0] * (most - len(each)) for _, _, each in migrations], dtype=np.int64)
    home, foreign = [one[0] for one in migrations], [one[1] for one in migrations]
    assert rules.central_entries(home, foreign, padded, switches) == total
    assert messages.central_messages(home, padded).tolist() == far
    networks = [sum(nodes > 0 for nodes in each) for _, _, each in migrations]
    assert rules.reactive_foreign_entries(foreign, networks, 7).tolist() == [
        7 + nodes + told for nodes, told in zip(foreign, networks, strict=True)
    ]


@given(st.integers(0, 200), st.integers(1, 200), st.integers(0, 40))
def test_ours_depend_on_networks_only_and_stay_below_the_paper(home: int, foreign: int, networks: int) -> None:
    found = rules.ours(home, foreign, networks)
    assert found == rules.ours(0, 1, networks)
    assert rules.ours(0, 1, networks + 1).foreign == found.foreign + 1
    assert found.home < rules.home_entries(home)
    assert found.foreign <= rules.reactive_foreign_entries(foreign, networks)
    if networks:
        assert found.correspondent < rules.correspondent_entries(1)


def worlds(
    networks: int, share: list[Fraction], away: Fraction, peers: int
) -> Iterator[tuple[Fraction, list[int]]]:
    """Every fate of one node, with its probability and the entries that the manipulator makes of it everywhere."""
    names = [f"n{number}" for number in range(networks)]
    everywhere = {name: network(name, number) for number, name in enumerate(names, start=1)}
    for home in range(networks):
        own = everywhere[names[home]].prefix[5]
        node = Node("vm", NodeKind.MACHINE, b"\2\0\0\0\0\1", own, own, names[home])
        for here in range(networks):
            if here == home:
                at_home = Binding(node, Placement("vm", node.home, 2, node.identifier, 1))
                yield share[home] * (1 - away), entries(at_home, everywhere)
                continue
            chance = share[home] * away * share[here] / (1 - share[home]) / Fraction(networks) ** peers
            where = everywhere[names[here]]
            for talks in product(range(networks), repeat=peers):
                told = frozenset({names[one] for one in talks} | {node.home})
                gone = Binding(node, Placement("vm", where.name, 2, where.locators[1], 2), told=told)
                yield chance, entries(gone, everywhere)


def entries(binding: Binding, everywhere: dict[str, Network]) -> list[int]:
    made = node_rules(binding, everywhere)
    return [len(made.get(one.datapath, ())) for one in everywhere.values()]


@settings(max_examples=25)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(0, 10), st.integers(0, 3), few)
def test_moments_are_those_of_all_fates_enumerated(weights: list[int], tenths: int, peers: int, nodes: int) -> None:
    share = [Fraction(one, sum(weights)) for one in weights]
    away = Fraction(tenths, 10)
    fates = list(worlds(len(weights), share, away, peers))
    assert sum(chance for chance, _ in fates) == 1
    population = Population(nodes, float(away), float(peers), "fixed")
    found = moments([population], np.array([float(one) for one in share]))
    for at in range(len(weights)):
        mean = sum(chance * made[at] for chance, made in fates)
        central = [nodes * sum(chance * (made[at] - mean) ** power for chance, made in fates) for power in (2, 3)]
        expected = [costs().switch + nodes * mean, *central]
        assert [float(one[at]) for one in found] == pytest.approx([float(one) for one in expected], abs=1e-8)


@settings(max_examples=10)
@given(
    st.integers(2, 40), st.sampled_from(("fixed", "poisson", "geometric")), st.integers(0, 12), st.floats(0.0, 0.8),
    st.integers(0, 1000),
)  # fmt: skip
def test_a_sample_has_the_moments(networks: int, kind: str, peers: int, uneven: float, seed: int) -> None:
    populations = [Population(4000, 0.4, float(peers), kind), Population(1000, 0.9, 1.0, "fixed")]
    share = sizes(networks, uneven)
    mean, variance, _ = moments(populations, share)
    drawn = np.array([sample(populations, share, seed + number)[0] for number in range(40)])
    far = (drawn.mean(axis=0) - mean) / np.sqrt(variance / len(drawn))
    assert np.abs(far).max() < 6.0
    spread = (drawn - mean).var() / variance.mean()
    assert 0.5 < spread < 2.0


def test_both_ways_of_drawing_give_the_same() -> None:
    """Node by node where there are few in each network, and how many have each cost where there are many."""
    share = sizes(400, 0.0)
    for nodes in (2_000, 2_000_000):
        population = Population(nodes, 0.5, 4.0, "poisson")
        found, exact = sample([population], share, 3)
        mean, variance, _ = moments([population], share)
        assert exact
        assert abs(found.mean() - mean[0]) < 5.0 * (variance[0] / 400) ** 0.5
        assert 0.7 < found.var() / variance[0] < 1.4


@given(st.sampled_from(("fixed", "poisson", "geometric")), st.integers(0, 60), st.integers(2, 5000))
def test_what_a_node_costs_abroad_is_a_distribution(kind: str, peers: int, networks: int) -> None:
    values, chance = abroad(float(peers), kind, networks)
    assert chance.sum() == pytest.approx(1.0)
    assert chance.min() > 0.0
    told = (networks - 2) * Population(0, 0.0, float(peers), kind).reaches(networks)
    local = Population(0, 0.0, float(peers), kind).reaches(networks)
    price = costs()
    assert values @ chance == pytest.approx(price.foreign + price.told * told + price.local * local)


@settings(max_examples=30)
@given(
    st.integers(1, 3_000_000), st.integers(0, 3_000_000), st.floats(0.0, 30.0), st.floats(0.0, 1.0),
    st.sampled_from((0.0, 0.3)), st.integers(2_000, 1_000_000),
)  # fmt: skip
def test_more_users_never_need_less(
    users: int, more: int, peers: float, away: float, uneven: float, table: int
) -> None:
    demand, limits = Demand(users, peers=peers, away=away, uneven=uneven), Limits(table, instances=1)
    small, large = (plan(replace(demand, users=number), limits) for number in (users, users + more))
    assert small.switches <= large.switches
    assert small.controllers <= large.controllers
    assert small.moves_s <= large.moves_s
    assert small.messages_s <= large.messages_s or small.controllers < large.controllers


@settings(max_examples=20)
@given(st.integers(1, 3_000_000), st.integers(2_000, 1_000_000), st.sampled_from((0.0, 0.4)))
def test_switches_are_as_few_as_will_do(users: int, table: int, uneven: float) -> None:
    demand = Demand(users, uneven=uneven)
    switches = switches_for(demand, table)
    assert over(demand.populations, switches, uneven, table) < OVERFULL
    if switches > 2:
        assert over(demand.populations, switches - 1, uneven, table) >= OVERFULL
