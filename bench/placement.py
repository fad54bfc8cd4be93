"""Decisions: one in the controller, many at once, and who goes where when places are short.

A decision is ``Controller.decide`` of a whole controller whose paths have been probed (only its switches are
missing); its peer is NumPy's weighted sum and argmax over arrays that stand ready; the batch's is one
``take`` from the same table with indices that stand ready, which is a lookup and nothing else; an
assignment's is the bound below which no assignment can be.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from bench.figures import Figure, Say
from followme.config import openflow as config
from followme.controllers.openflow.controller import Controller
from followme.openflow import PacketOut
from followme.placement import batch
from followme.placement.assignment import assign
from followme.placement.mdp import line, linear_quality
from followme.store import Store

CENTRES = 50
DECISION_US = 100.0
DECISIONS_PER_S = 5e6
PS = (0.1, 0.3, 0.5, 0.7, 0.9)
TAUS = (0.1, 0.3, 0.5, 1.0)
ACCESS = 4
SERVICES = 40


def figures(quick: bool, say: Say) -> list[Figure]:
    return [*_one(300 if quick else 5000, say), *_many(500_000 if quick else 5_000_000, say), *_short(quick, say)]


def _median_us(work: Callable[[], object], rounds: int) -> float:
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return 1e6 * median(spent)


def _network(number: int, kind: str, draw: random.Random) -> dict[str, Any]:
    def tariff() -> list[list[float]]:
        return [[0.0, draw.uniform(2, 3)], [10.0, draw.uniform(1, 2)], [100.0, draw.uniform(0.1, 0.9)]]

    section: dict[str, Any] = {
        "name": f"{kind[:2]}{number}", "kind": kind, "datapath": number + 1, "area": draw.randrange(20),
        "uplink": {"port": 1, "router_mac": f"02:aa:00:00:00:{number:02x}"}, "uplink_bit_s": 1e9,
        "prefix": f"10.{number}.0.0/24", "gateway": f"10.{number}.0.1", "locators": f"10.{number}.0.128/25",
    }  # fmt: skip
    if kind == "datacentre":
        section["host"] = {"port": 2, "bridge": "br", "uplink": "e", "run_dir": "/run",
                           "management_address": f"10.250.0.{number + 1}"}  # fmt: skip
        section["offer"] = {
            "capacity": draw.randint(5, 20), "provider": f"provider{number % 3}",
            "locality": f"country{number % 4}", "throughput_per_s": 1e3,
            "service_classes": ["gold", "silver"] if number % 10 else ["silver"],
            "network_price": tariff(), "server_price": tariff(), "storage_price": tariff(),
        }  # fmt: skip
    return section


def _controller(needs: dict[str, Any] | None, policy: str) -> Controller:
    """A whole one but for its switches: 50 data centres, 4 access networks, 40 services, all paths probed."""
    draw = random.Random(1)
    kinds = ["datacentre"] * CENTRES + ["access"] * ACCESS
    data: dict[str, Any] = {
        "networks": [_network(number, kind, draw) for number, kind in enumerate(kinds)],
        "machines": [], "users": [], "services": [], "policy": {"name": policy},
    }  # fmt: skip
    for number in range(SERVICES):
        home, access = number % CENTRES, CENTRES + number % ACCESS
        data["machines"].append({"name": f"vm{number}", "home": f"da{home}", "mac": f"02:00:00:00:01:{number:02x}",
                                 "address": f"10.{home}.0.5"})  # fmt: skip
        data["users"].append({"name": f"user{number}", "home": f"ac{access}", "mac": f"02:00:00:00:02:{number:02x}",
                              "address": f"10.{access}.0.{10 + number}"})  # fmt: skip
        data["services"].append({"name": f"s{number}", "user": f"user{number}", "machine": f"vm{number}",
                                 **({} if needs is None else {"needs": needs})})  # fmt: skip
    controller = Controller(config.check(data, "bench"), {}, store=Store(":memory:"))
    controller._restore()
    _probe(controller, draw)
    return controller


def _probe(controller: Controller, draw: random.Random) -> None:
    """Twenty probes of each path, and what a switch would count at its uplink."""
    prober, southbound, now = controller.prober, controller.southbound, [time.monotonic()]
    sent: list[PacketOut] = []
    southbound.connected = lambda datapath: True  # type: ignore[method-assign]
    southbound.send = lambda datapath, messages: sent.extend(messages)  # type: ignore[method-assign, arg-type]
    prober._clock = lambda: now[0]
    networks = controller.networks
    for access, centre in itertools.product(list(networks.values())[CENTRES:], list(networks.values())[:CENTRES]):
        for one, other in ((access, centre), (centre, access)):
            begin, delay = now[0], draw.uniform(0.001, 0.1)
            for sequence in range(20):
                sent.clear()
                now[0] = begin + 0.01 * sequence
                prober._send(one, other, sequence)
                now[0] += delay
                prober.received(other, sent[0].data)
            now[0] = begin
    prober._clock = time.monotonic
    for network in networks.values():
        controller.uplinks._know(network, draw.uniform(1e6, 1e9))


WEIGHTS = ("latency", "bandwidth", "loss", "utilisation", "throughput", "network_price", "server_price",
           "storage_price", "preference")  # fmt: skip
NEEDS: dict[str, Any] = {
    "demand": 1.0, "network_bytes_per_h": 5.0, "storage_bytes": 5.0, "service_class": "gold",
    "localities": [f"country{number}" for number in range(4)], "latency_at_most_ms": 90,
    "preferred": ["provider1"], "weights": dict.fromkeys(WEIGHTS, 1.0), "user_class": {"latency": 3.0},
    "worth": {"latency": 1.0, "loss": 0.5, "server_price": 0.001},
}  # fmt: skip


def _one(rounds: int, say: Say) -> list[Figure]:
    """``Controller.decide`` itself, each round for another service and so from another access network."""
    share = np.full(9, 1 / 9)
    ready = np.random.default_rng(1).random((CENTRES, 9))

    def bare() -> int:
        worst = ready.min(axis=0)
        return int(((ready - worst) / (ready.max(axis=0) - worst) @ share).argmax())

    limit = _median_us(bare, rounds)
    found = []
    for what, needs, policy in (
        ("all criteria, limits, stay-or-go, weighted sum", {**NEEDS, "method": "weighted-sum"}, "stay-or-go"),
        ("all criteria, limits, stay-or-go, topsis", {**NEEDS, "method": "topsis"}, "stay-or-go"),
        ("the nearest with room, mdp", None, "mdp"),
    ):
        controller = _controller(needs, policy)
        services = itertools.cycle(controller.config.services)
        goes = [controller.deciding.decide(service) for service in controller.config.services]
        spent = _median_us(lambda one=controller, due=services: one.deciding.decide(next(due)), rounds)  # type: ignore[misc]
        say(f"{what}: {sum(one.migrate for one in goes if one is not None)} of {len(goes)} go")
        found.append(Figure(
            f"Controller.decide among {CENTRES}: {what}", "us", spent, limit, "a bare weighted sum", spent / limit,
            f"<= {DECISION_US:.0f} us", spent <= DECISION_US,
        ))  # fmt: skip
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
