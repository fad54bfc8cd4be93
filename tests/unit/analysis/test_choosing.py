"""What everyone gets, what one user gets, and what is kept of it in a file."""

from __future__ import annotations

from itertools import product
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from followme.analysis.cells import make_areas
from followme.analysis.choosing import OWN_WEIGHTS, RULES, _for_each, _for_everyone, _rules, choose
from followme.analysis.learning import learn
from followme.analysis.outcome import Costs
from followme.analysis.simulator import simulate
from followme.analysis.synthetic import make_city
from followme.analysis.visits import find_visits, split
from followme.placement import Situation
from followme.placement.learned_file import load_learned, save_learned

COUNT = len(RULES) + len(OWN_WEIGHTS)
ALWAYS, THRESHOLD, TABLES = RULES.index("always"), RULES.index("threshold"), len(RULES)


def costs_of(blocks: int, cheaper: float, noise: float, seed: int = 0) -> NDArray[np.float64]:
    """(candidates, blocks) of 100 each, but for tables, which are ``cheaper`` in the mean."""
    cost = np.full((COUNT, blocks), 100.0)
    cost[TABLES] -= cheaper + noise * np.random.default_rng(seed).standard_normal(blocks)
    cost[TABLES + 1 :] += 50.0
    return cost


def test_tables_are_taken_when_they_are_cheaper_beyond_doubt() -> None:
    assert _for_everyone(costs_of(400, 5.0, 20.0), THRESHOLD) == TABLES
    # Cheaper in the mean, but within what the hours differ by; then on too few hours.
    doubtful = costs_of(400, 0.5, 20.0, seed=3)
    assert doubtful[TABLES].sum() < doubtful[THRESHOLD].sum()
    assert _for_everyone(doubtful, THRESHOLD) == THRESHOLD
    assert _for_everyone(costs_of(12, 50.0, 1.0), THRESHOLD) == THRESHOLD
    assert _for_everyone(costs_of(400, -5.0, 20.0), ALWAYS) == ALWAYS


def test_a_user_who_differs_beyond_the_draw_of_hours_gets_another() -> None:
    users, hours = 30, 10
    block_user = np.repeat(np.arange(users), hours)
    noise = 10.0 * np.random.default_rng(1).standard_normal(users * hours)
    cost = np.full((COUNT, users * hours), 500.0)
    cost[TABLES] = 100.0
    cost[ALWAYS] = 110.0 + noise
    # Nothing but noise between users: some had better hours with it, and all keep what everyone gets.
    assert set(_for_each(cost, block_user, users, TABLES).tolist()) == {TABLES}
    cost[ALWAYS, block_user < 3] -= 60.0
    assert _for_each(cost, block_user, users, TABLES).tolist() == [ALWAYS] * 3 + [TABLES] * 27


def test_one_user_alone_has_nothing_to_be_shrunk_to() -> None:
    cost = costs_of(30, 50.0, 1.0)
    assert _for_each(cost, np.zeros(30, dtype=np.int64), 1, ALWAYS).tolist() == [ALWAYS]


def shrunk_by_definition(cost: NDArray[np.float64], block_user: NDArray[np.int64], everyone: int) -> list[int]:
    """DerSimonian and Laird's formulas, user by user."""
    users = range(int(block_user.max()) + 1)
    picked, least = [everyone for _ in users], [0.0 for _ in users]
    for candidate in range(COUNT):
        hours = [(cost[candidate] - cost[everyone])[block_user == user] for user in users]
        free = len(block_user) - len(users)
        noise = sum(float(((one - one.mean()) ** 2).sum()) for one in hours) / free
        if noise == 0.0:
            continue
        weight = [len(one) / noise for one in hours]
        total = sum(weight)
        mean = sum(w * float(one.mean()) for w, one in zip(weight, hours, strict=True)) / total
        q = sum(w * (float(one.mean()) - mean) ** 2 for w, one in zip(weight, hours, strict=True))
        between = max(0.0, (q - (len(users) - 1)) / (total - sum(w * w for w in weight) / total))
        if between == 0.0:
            continue
        for user in users:
            posterior = 1.0 / (weight[user] + 1.0 / between)
            expected = posterior * (weight[user] * float(hours[user].mean()) + mean / between)
            if expected + 2.0 * sqrt(posterior) < min(least[user], 0.0):
                picked[user], least[user] = candidate, expected + 2.0 * sqrt(posterior)
    return picked


@pytest.mark.parametrize("seed", range(20))
def test_users_are_shrunk_as_the_formulas_have_it(seed: int) -> None:
    draw = np.random.default_rng(seed)
    block_user = np.repeat(np.arange(12), draw.integers(2, 30, 12))
    cost = 100.0 + 10.0 * draw.standard_normal((COUNT, len(block_user)))
    cost += (4.0 * draw.standard_normal((COUNT, 12)))[:, block_user]
    picked = _for_each(cost, block_user, 12, TABLES)
    assert picked.tolist() == shrunk_by_definition(cost, block_user, TABLES)


@pytest.mark.parametrize("users", [1, 2, 20])
@pytest.mark.parametrize("service_bytes", [12.5e6, 125e6, 1e9])
def test_it_is_no_dearer_than_the_rule_on_held_out_hours(users: int, service_bytes: float) -> None:
    city = make_city(seed=11, users=users)
    areas, costs = make_areas(city.names, city.lat, city.lon), Costs(service_bytes=service_bytes)
    train, held_out = split(find_visits(city.trace, areas)[0], 16 * 3600.0)
    chosen = choose(train, areas, costs)
    ours = simulate(chosen.policy, held_out, areas, costs)
    assert chosen.rule in RULES
    rule = _rules(train, learn(train, areas), areas, costs)[RULES.index(chosen.rule)]
    assert ours.cost_s <= simulate(rule, held_out, areas, costs).cost_s * (1.0 + 1e-9)
    assert chosen.unsure or chosen.expected <= 0.0


def test_saved_and_loaded_it_decides_the_same(tmp_path: Path) -> None:
    city = make_city(seed=3, users=20)
    areas, costs = make_areas(city.names, city.lat, city.lon), Costs()
    train, held_out = split(find_visits(city.trace, areas)[0], 16 * 3600.0)
    policy = choose(train, areas, costs).policy
    save_learned(policy, tmp_path / "city.npz")
    loaded = load_learned(tmp_path / "city.npz")
    names = areas.names
    decisions = [
        (policy.decide(asked), loaded.decide(asked))
        for who, a, m in product(("user0", "user7", "nobody"), range(len(names)), range(len(names)))
        if (asked := Situation("s", names[m], names[a], int(areas.hops[a, m]), user=who))
    ]
    assert all(ours == theirs for ours, theirs in decisions)
    assert {ours.migrate for ours, _ in decisions} == {True, False}
    again = simulate(loaded, held_out, areas, costs, name="mdp")
    assert again.to_json() == simulate(policy, held_out, areas, costs, name="mdp").to_json()


def test_where_nothing_can_be_judged_it_is_a_rule() -> None:
    city = make_city(seed=2, users=1, hours=1.0)
    areas = make_areas(city.names, city.lat, city.lon)
    train, _ = split(find_visits(city.trace, areas)[0], 3600.0)
    assert train.handoffs
    chosen = choose(train, areas, Costs())
    assert chosen.unsure
    assert chosen.how == f"{chosen.rule} (1)"
    with pytest.raises(ValueError, match="no handoff to learn from"):
        choose(split(train, float(train.stay_s[0]) / 2.0)[0], areas, Costs())
