"""Decisions: one in the controller, many at once, and who goes where when places are short.

The ranking's peer is NumPy's weighted sum and argmax over arrays that stand ready; the batch's is one
``take`` from the same table with indices that stand ready, which is a lookup and nothing else; an
assignment's is the bound below which no assignment can be.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from bench.figures import Figure, Say
from followme.placement import batch
from followme.placement.assignment import assign
from followme.placement.criteria import CandidateFacts, Requirements, Tariff, UserClass
from followme.placement.mdp import line, linear_quality
from followme.placement.ranking import Method, rank
from followme.placement.stay import Carry, Use, gain, stay_or_go

CENTRES = 50
DECISION_US = 100.0
DECISIONS_PER_S = 5e6
PS = (0.1, 0.3, 0.5, 0.7, 0.9)
TAUS = (0.1, 0.3, 0.5, 1.0)
WORTH = {"latency": 1.0, "loss": 0.5, "server_price": 0.001}


def figures(quick: bool, say: Say) -> list[Figure]:
    return [*_one(300 if quick else 5000, say), *_many(500_000 if quick else 5_000_000, say), *_short(quick, say)]


def _median_us(work: Callable[[], object], rounds: int) -> float:
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return 1e6 * median(spent)


def _centre(number: int, draw: random.Random) -> CandidateFacts:
    def tariff() -> Tariff:
        return Tariff(((0.0, draw.uniform(2, 3)), (10.0, draw.uniform(1, 2)), (100.0, draw.uniform(0.1, 0.9))))

    return CandidateFacts(
        f"dc{number}", float(draw.randint(1, 9)), draw.uniform(0.001, 0.1), draw.uniform(1e6, 1e9),
        draw.uniform(0.0, 0.1), draw.random(), draw.uniform(1.0, 1e4), tariff(), tariff(), tariff(),
        draw.uniform(0.0, 200.0), draw.uniform(0.0, 200.0), draw.uniform(0.0, 200.0),
        f"provider{number % 3}", f"country{number % 4}", frozenset({"gold", "silver"}), number,
    )  # fmt: skip


def _one(rounds: int, say: Say) -> list[Figure]:
    draw = random.Random(1)
    facts = [_centre(number, draw) for number in range(CENTRES)]
    needs = Requirements(
        1.0, 5.0, 5.0, frozenset(f"country{n}" for n in range(4)), "gold", 0.2, frozenset({"provider1"})
    )
    gold = UserClass("gold", {"latency": 3.0})
    carry, use = Carry(1e8, 1e9, 0.02, 0.001), Use("desktop", 300.0)
    share = np.full(9, 1 / 9)
    ready = np.random.default_rng(1).random((CENTRES, 9))

    def bare() -> int:
        worst = ready.min(axis=0)
        return int(((ready - worst) / (ready.max(axis=0) - worst) @ share).argmax())

    def decide(method: Method) -> bool:
        ranking = rank(facts, needs, method=method, current="dc3", user_class=gold)
        best = ranking.best
        assert best is not None
        assert len(ranking) == CENTRES
        worth = gain(facts[3], best.facts, needs, WORTH, gold).per_s
        return bool(best.why) and stay_or_go(use, carry, worth, 0.1).migrate

    def anew() -> int:
        return len([one.why for one in rank([_centre(n, draw) for n in range(CENTRES)], needs, current="dc3")])

    limit = _median_us(bare, rounds)
    found = []
    for method in ("weighted-sum", "topsis"):
        spent = _median_us(lambda method=method: decide(method), rounds)  # type: ignore[misc]
        found.append(Figure(
            f"one decision of {CENTRES}, {method}, with its why and stay-or-go", "us", spent, limit,
            "a bare weighted sum", spent / limit, f"<= {DECISION_US:.0f} us", spent <= DECISION_US,
        ))  # fmt: skip
    spent = _median_us(anew, rounds // 10)
    say(f"with all facts made and checked anew and all {CENTRES} sentences written: {spent:,.0f} us")
    return found


def _many(users: int, say: Say) -> list[Figure]:
    draw = np.random.default_rng(1)
    quality = linear_quality(10, 10.0, 1.0)
    table = batch.DecisionTable.of_problems([[line(10, p, 10.0 * tau, 0.9, quality) for tau in TAUS] for p in PS])
    distance = draw.integers(0, 14, users)
    p_class, cost_class = draw.integers(0, len(PS), users), draw.integers(0, len(TAUS), users)
    index = (p_class * len(TAUS) + cost_class) * table.migrate.shape[2] + np.minimum(distance, 11)
    flat = table.migrate.ravel()
    bare = users / (1e-6 * _median_us(lambda: flat.take(index), 7))
    looked_up = users / (1e-6 * _median_us(lambda: batch.decide(table, distance, p_class, cost_class), 7))
    worth = draw.normal(size=users)
    stay, size, free, stalled, price = (draw.exponential(mean, users) for mean in (300.0, 1e8, 1e9, 0.05, 0.01))
    remaining, urgent = draw.exponential(1000.0, users), draw.random(users) < 0.01
    weighed = users / (1e-6 * _median_us(
        lambda: batch.stay_or_go(worth, stay, size, free, stalled, price, 0.1, remaining, urgent), 5
    ))  # fmt: skip
    both = 1.0 / (1.0 / looked_up + 1.0 / weighed)
    say(f"{users:,} users, int64 and float64 arrays, checked in the same run")
    target = f">= {DECISIONS_PER_S:,.0f}"
    return [
        Figure("batch: table lookups", "/s", looked_up, bare, "a bare take", looked_up / bare, target,
               looked_up >= DECISIONS_PER_S),
        Figure("batch: stay or go", "/s", weighed, bare, "a bare take", weighed / bare, target,
               weighed >= DECISIONS_PER_S),
        Figure("batch: both, one after the other", "/s", both, bare, "a bare take", both / bare, target,
               both >= DECISIONS_PER_S),
    ]  # fmt: skip


def _short(quick: bool, say: Say) -> list[Figure]:
    draw = np.random.default_rng(1)
    found = []
    for users, centres, equal, method in (
        (1000, 10, True, "exact"), (200, 8, False, "exact"),
        (2000 if quick else 20_000, 20, True, "greedy"), (2000 if quick else 20_000, 20, False, "greedy"),
    ):  # fmt: skip
        cost = draw.uniform(1.0, 10.0, (users, centres))
        cost[draw.random((users, centres)) < 0.1] = np.inf
        demand = np.ones(users) if equal else draw.integers(1, 20, users).astype(np.float64)
        capacity = np.floor(draw.uniform(0.4, 1.2, centres) * demand.sum() / centres)
        begin = time.perf_counter()
        result = assign(cost, capacity, 9.0, demand, method, time_limit_s=2.0)  # type: ignore[arg-type]
        spent = time.perf_counter() - begin
        what = f"assignment, {users:,} users to {centres}, {'equal' if equal else 'unequal'} demands, {method}"
        say(f"{what}: gap {100 * result.relative_gap:.2g} % of the savings, {len(result.stays)} stay")
        over = int(np.count_nonzero(result.load > capacity))
        found += [
            Figure(what, "s", spent),
            Figure("  cost against its lower bound", "", result.cost, result.lower_bound, "no one can do better",
                   result.cost / result.lower_bound),
            Figure("  data centres over their capacity", "", over, target="0", met=over == 0),
        ]  # fmt: skip
    return found
