"""What is learned, against counts by hand; the solution, against the best of all policies by enumeration."""

from __future__ import annotations

from itertools import product
from math import inf

import numpy as np
import pytest
from numpy.typing import NDArray

from followme.analysis.cells import make_areas
from followme.analysis.choosing import _for_all
from followme.analysis.learning import (
    PLACE_WEIGHT,
    PRIOR,
    Habits,
    Learned,
    by_area,
    find_handoffs,
    learn,
    learn_away,
)
from followme.analysis.line_process import by_place, learned_line
from followme.analysis.outcome import Costs
from followme.analysis.relocation import advantage, own_gains, relocate
from followme.analysis.visits import Visits
from followme.placement import Situation
from followme.placement.learned import LearnedTables

NAMES = "abcdef"
LINE = make_areas(NAMES, np.zeros(6), np.arange(6) / 100.0)


def visits_of(*sessions: tuple[int, str, float]) -> Visits:
    """Each session is a user, the areas one after the other, and the stay in each."""
    rows = [(who, NAMES.index(area), stay, i == 0) for who, way, stay in sessions for i, area in enumerate(way)]
    user, area, stay, first = (np.array(column) for column in zip(*rows, strict=True))
    names = tuple(f"u{index}" for index in range(int(user.max()) + 1))
    return Visits(names, user, area, np.cumsum(stay) - stay, stay.astype(float), first.astype(bool))


def test_handoffs_are_seen_from_where_the_user_was() -> None:
    seen = find_handoffs(visits_of((0, "abcb", 60.0), (1, "de", 60.0)))
    rows = {
        (NAMES[here], NAMES[service], NAMES[there])
        for here, service, there in zip(seen.here, seen.service, seen.there, strict=True)
    }
    # From a and d nobody had been elsewhere before; at the handoff c -> b the user had been at b and a.
    assert rows == {("b", "a", "c"), ("c", "b", "b"), ("c", "a", "b")}
    assert len(seen.user) == 3


def test_a_place_seen_twice_counts_once() -> None:
    seen = find_handoffs(visits_of((0, "ababc", 60.0)))
    at_last = (seen.here == 1) & (seen.there == 2)
    assert seen.service[at_last].tolist() == [0]


def test_moves_and_stays_by_hand() -> None:
    learned = learn(visits_of((0, "ababa", 100.0), (0, "abc", 10.0)), LINE)
    a, b, c = 0, 1, 2
    assert learned.moves[a, b] == pytest.approx(1.0)
    # From b once to c and twice to a; before anything is seen, evenly to both.
    to_a, to_c = (2 + PRIOR / 2) / (3 + PRIOR), (1 + PRIOR / 2) / (3 + PRIOR)
    assert learned.moves[b].tolist() == pytest.approx([to_a, 0, to_c, 0, 0, 0])
    assert learned.moves[c].tolist() == pytest.approx([0, 0.5, 0, 0.5, 0, 0])
    mean = 530 / 8
    assert learned.stay_s[b] == pytest.approx((210 + 5 * mean) / (3 + 5))
    assert learned.population.goes_on == pytest.approx(6 / 8)


def test_ahead_weighs_the_differences() -> None:
    """At b with the service at a, the user goes on to c; the rest is the area's habit."""
    learned = learn(visits_of(*[(0, "abc", 100.0)] * 40, *[(0, "cba", 100.0)] * 40), LINE)
    values = np.zeros((6, 6))
    values[2, 0], values[2, 1] = 7.0, 3.0
    row = int(np.flatnonzero(learned.population.states == 1 * 6 + 0)[0])
    on = (40 + PLACE_WEIGHT * learned.moves[1, 2]) / (40 + PLACE_WEIGHT)
    assert (learned.population.ahead @ values.ravel())[row] == pytest.approx(on * (7.0 - 3.0))
    assert on > 0.85 > learned.moves[1, 2]


def test_a_users_own_habits_are_shrunk_to_all() -> None:
    ways = [(0, "abc", 100.0)] * 30 + [(1, "aba", 20.0)] * 30
    state, values = 1 * 6 + 0, np.zeros((6, 6))
    values[2, 0] = 1.0
    shares = []
    for weight in (1e9, 10.0, 1e-6):
        one = learn(visits_of(*ways), LINE).of_user(0, weight)
        row = int(np.flatnonzero(one.states == state)[0])
        shares.append(((one.ahead @ values.ravel())[row], one.stay_s[row]))
    learned = learn(visits_of(*ways), LINE)
    everyone = learned.population
    of_all = (everyone.ahead @ values.ravel())[int(np.flatnonzero(everyone.states == state)[0])]
    assert shares[0][0] == pytest.approx(of_all)
    assert shares[0][0] < shares[1][0] < shares[2][0] == pytest.approx(1.0)
    assert shares[2][1] == pytest.approx(100.0)
    assert learned.of_user(0, inf) is everyone


def test_nothing_to_learn_from() -> None:
    with pytest.raises(ValueError, match="no handoff to learn from"):
        learn(visits_of((0, "a", 60.0), (1, "b", 60.0)), LINE)
    with pytest.raises(ValueError, match="so there is no p: too few training hours"):
        learn_away(visits_of((0, "ab", 60.0)), LINE)
    with pytest.raises(ValueError, match="own_weight"):
        learn(visits_of((0, "ab", 60.0)), LINE).of_user(0, 0.0)


def cost_of(
    migrate: NDArray[np.bool_], moves: NDArray[np.float64], stay_s: float, goes_on: float, costs: Costs
) -> NDArray[np.float64]:
    """(n, n): the cost to the session's end of a policy in each state on arrival, by a linear system."""
    n = len(moves)
    hops = np.abs(np.arange(n)[:, None] - np.arange(n))
    system, known = np.eye(n * n), np.zeros(n * n)
    for a, m in product(range(n), repeat=2):
        at = a if migrate[a, m] else m
        known[a * n + m] = costs.waiting(hops)[a, at] * stay_s + (costs.migration(hops)[a, m] if at != m else 0.0)
        for b in range(n):
            system[a * n + m, b * n + at] -= goes_on * moves[a, b]
    cost: NDArray[np.float64] = np.linalg.solve(system, known).reshape(n, n).astype(np.float64)
    return cost


@pytest.mark.parametrize("price", [3.0, 8.0, 20.0, 60.0])
def test_no_policy_is_cheaper_than_the_solution(price: float) -> None:
    """On three areas in a row there are 64 policies: the solution's is the cheapest from every state."""
    areas = make_areas("abc", np.zeros(3), np.arange(3) / 100.0)
    costs = Costs(service_bytes=price * 1e6 / 8, bandwidth_bit_s=1e6, latency=lambda hops: 0.05 * hops)
    learned = learn(visits_of(*[(0, "abcbabcb", 100.0)] * 5), areas)
    # The same moves wherever the service is, so that the policies that are enumerated have the same states.
    states, goes_on = learned.population.states, learned.population.goes_on
    habits = Habits(states, by_area(learned.moves, states), np.full(len(states), 100.0), goes_on)
    solved = relocate(habits, areas, costs)
    ours = cost_of(solved.stay > solved.go, learned.moves, 100.0, goes_on, costs)
    pairs = [(a, m) for a, m in product(range(3), repeat=2) if a != m]
    for choice in product((False, True), repeat=len(pairs)):
        migrate = np.zeros((3, 3), dtype=bool)
        for pair, go in zip(pairs, choice, strict=True):
            migrate[pair] = go
        assert (ours <= cost_of(migrate, learned.moves, 100.0, goes_on, costs) + 1e-3).all()
    # And the differences are those of the costs.
    assert np.minimum(solved.stay, solved.go) == pytest.approx(ours - np.diag(ours)[:, None], abs=1e-3)


# A stay at one hop costs 12 s, a migration 11: who goes on is followed, who comes back is waited for.
COSTS = Costs(service_bytes=125e6, latency=lambda hops: 0.12 * hops)


def learned_tables(learned: Learned, costs: Costs, own_weight: float = inf) -> LearnedTables:
    """The process for everyone and, with a finite ``own_weight``, with own values for each user."""
    population = relocate(learned.population, learned.areas, costs)
    own = own_gains(learned, costs, population, [own_weight] * len(learned.users))
    return _for_all(advantage(population), learned, *own)


def test_the_direction_of_the_user_decides() -> None:
    """Who comes to b from a goes on to f, who comes from c turns back at b: at one hop, one of them is followed."""
    ways = [(0, "abcdef", 100.0)] * 60 + [(1, "cbcbcbcbcbc", 100.0)] * 60
    policy = learned_tables(learn(visits_of(*ways), LINE), COSTS)
    from_a, from_c = (policy.decide(Situation("new", area, "b", 1, user="new")) for area in "ac")
    assert (from_a.migrate, from_a.target, from_c.migrate, from_c.target) == (True, "b", False, "c")
    assert from_a.why.startswith("migrating saves +")
    assert not policy.decide(Situation("new", "b", "b", 0)).migrate
    elsewhere = policy.decide(Situation("new", "a", "z", 1))
    assert (elsewhere.migrate, elsewhere.why) == (False, "nothing was learned of z")


def test_each_user_has_an_own_table() -> None:
    ways = [(0, "abcdef", 100.0)] * 30 + [(1, "ababababa", 100.0)] * 30
    policy = learned_tables(learn(visits_of(*ways), LINE), COSTS, 1.0)
    goes = [policy.decide(Situation("service", "a", "b", 1, user=name)).migrate for name in ("u0", "u1", "u0")]
    assert goes == [True, False, True]
    asked = Situation("u0", "a", "b", 1, user="u0")
    assert policy.decide(asked) == policy.decide(asked)


def test_p_by_user_and_place() -> None:
    away = learn_away(visits_of(*[(0, "abcdef", 100.0)] * 30, *[(1, "abababab", 100.0)] * 30), LINE)
    b = 1
    assert away.own[0, b] > away.place[b] > away.own[1, b]
    assert away.steps.sum(axis=0) == pytest.approx(np.ones(6))
    assert away.steps[1, 1:].max() == pytest.approx(1 / 3)
    # From one hop: 4 x 30 of the first user lead on, and of the second 3 x 30 lead back to a and as many to b.
    assert away.steps[:, 1] == pytest.approx(np.array([180, 0, 120]) / 300, abs=0.01)


def test_the_line_migrates_where_the_user_goes_on() -> None:
    ways = [(0, "abcdef", 100.0)] * 60 + [(1, "abababab", 100.0)] * 60
    visits = visits_of(*ways)
    learned = learn(visits, LINE)
    policy = learned_line(learned, learn_away(visits, LINE), COSTS)
    on, back = (policy.decide(Situation("service", "a", "b", 1, user=name)) for name in ("u0", "u1"))
    assert (on.migrate, back.migrate, on.policy) == (True, False, "mdp-line")
    assert "at distance 1" in on.why
    assert not policy.decide(Situation("u0", "b", "b", 0)).migrate
    assert all(policy.decide(Situation("new", "a", "f", hops)).migrate for hops in (4, 5))
    table = by_place(policy, learned)
    asked = [Situation("new", NAMES[m], NAMES[a], abs(a - m)) for a, m in product(range(6), repeat=2)]
    assert [policy.decide(one).migrate for one in asked] == (table > 0.0).ravel().tolist()
