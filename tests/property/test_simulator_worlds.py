"""What holds of every run of the simulator, whatever the cells, the ways and the policy."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from followme.analysis.capacity import Limits, places_within
from followme.analysis.cells import Areas, make_areas
from followme.analysis.choosing import _for_all
from followme.analysis.learning import learn, learn_away
from followme.analysis.line_process import learned_line
from followme.analysis.outcome import Costs
from followme.analysis.relocation import advantage, own_gains, relocate
from followme.analysis.simulator import places, places_at_once, simulate
from followme.analysis.visits import Visits, split
from followme.analysis.wishes import wishes_of
from followme.placement import Always, Never, Policy, Threshold
from followme.placement.policy import Myopic


@st.composite
def cities(draw: st.DrawFn) -> Areas:
    """Cells at some of the crossings of a grid, shaken so that no four are on a circle."""
    places_taken = draw(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
    shake = np.random.default_rng(draw(st.integers(0, 99))).uniform(-0.2, 0.2, (len(places_taken), 2))
    points = (np.array(sorted(places_taken)) + shake) / 100.0
    per = draw(st.integers(1, max(1, len(points) // 2)))
    return make_areas([f"c{index}" for index in range(len(points))], points[:, 0], points[:, 1], per)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Areas, Visits]:
    """Areas and users who jump among them, sessions of up to 12 visits."""
    areas = draw(cities())
    rows: list[tuple[int, int, float, float, bool]] = []
    for user in range(draw(st.integers(1, 3))):
        at = 0.0
        for _ in range(draw(st.integers(1, 3))):
            last = -1
            for area in draw(st.lists(st.integers(0, len(areas) - 1), min_size=1, max_size=12)):
                if area != last:
                    stay = float(draw(st.integers(1, 1000)))
                    rows.append((user, area, at, stay, last < 0))
                    at, last = at + stay, area
            at += 5000.0
    user_of, area_of, start, stays, first = (np.array(column) for column in zip(*rows, strict=True))
    return areas, Visits(("a", "b", "c"), user_of, area_of, start, stays, first)


policies = st.one_of(
    st.sampled_from([Always(), Never()]),
    st.builds(Threshold, st.integers(1, 6)),
    st.builds(Myopic, residence_s=st.floats(1.0, 1000.0)),
)


@given(cities())
def test_hops_are_a_distance(areas: Areas) -> None:
    hops = areas.hops
    assert (np.diag(hops) == 0).all()
    assert (hops == hops.T).all()
    assert ((hops + np.eye(len(areas), dtype=np.int64)) > 0).all()
    # Every area can be reached, and no way over a third is shorter.
    assert hops.max() < len(areas)
    assert (hops <= (hops[:, :, None] + hops[None, :, :]).min(axis=1)).all()


@settings(deadline=None)
@given(worlds(), policies)
def test_the_books_balance(world: tuple[Areas, Visits], policy: Policy) -> None:
    areas, visits = world
    one = simulate(policy, visits, areas, Costs())
    assert one.by_user.sum() == pytest.approx(one.cost_s)
    assert one.by_hour.sum() == pytest.approx(one.cost_s)
    assert one.share_at_hops.sum() == pytest.approx(1.0)
    assert 0 <= one.migrations <= one.handoffs == visits.handoffs
    serving = places(policy, visits, areas, Costs())
    assert (serving[visits.first] == visits.area[visits.first]).all()
    # A service is where it was, or where its user is now.
    before, after = visits.moves()
    assert ((serving[after] == serving[before]) | (serving[after] == visits.area[after])).all()
    # Nobody is nearer than with always, or moves less than with never.
    assert one.waiting_s >= simulate(Always(), visits, areas, Costs()).waiting_s - 1e-9
    assert simulate(Never(), visits, areas, Costs()).migrating_s == 0.0


@settings(deadline=None)
@given(worlds(), st.floats(0.0, 12_000.0))
def test_a_cut_loses_no_time(world: tuple[Areas, Visits], at_s: float) -> None:
    areas, visits = world
    before, after = split(visits, at_s)
    assert before.stay_s.sum() + after.stay_s.sum() == pytest.approx(visits.stay_s.sum())
    assert (before.stay_s > 0.0).all()
    assert (after.stay_s > 0.0).all()
    for area in range(len(areas)):
        spent = [float(part.stay_s[part.area == area].sum()) for part in (before, after, visits)]
        assert spent[0] + spent[1] == pytest.approx(spent[2])


@settings(deadline=None, max_examples=40)
@given(worlds(), st.floats(0.0, 3.0))
def test_learned_tables_are_fixed_points(world: tuple[Areas, Visits], scale: float) -> None:
    """Bellman's equation holds in every state, and whom nobody knows gets the population's table."""
    areas, visits = world
    if not visits.handoffs:
        return
    costs = Costs(service_bytes=125e6 * scale)
    learned = learn(visits, areas)
    table = relocate(learned.population, areas, costs)
    habits = learned.population
    value = np.minimum(table.stay, table.go).ravel()
    user, service = np.divmod(habits.states, len(areas))
    loss = costs.waiting(areas.hops[user, service]) - costs.waiting(areas.hops[user, user])
    staying = loss * habits.stay_s + habits.goes_on * (habits.ahead @ value)
    assert table.stay[user, service] == pytest.approx(staying, abs=1e-4 * float(table.go.max()))
    assert (np.diag(table.stay) == 0.0).all()


@settings(deadline=None)
@given(worlds(), policies)
def test_arrays_decide_as_the_controllers_objects(world: tuple[Areas, Visits], policy: Policy) -> None:
    areas, visits = world
    costs = Costs()
    one_by_one = places(policy, visits, areas, costs)
    assert places_at_once(wishes_of(policy, areas, costs), visits).tolist() == one_by_one.tolist()


@settings(deadline=None, max_examples=40)
@given(worlds(), st.sampled_from([np.inf, 20.0, 1.0]))
def test_learned_tables_decide_alike_one_by_one_and_as_arrays(world: tuple[Areas, Visits], weight: float) -> None:
    areas, visits = world
    if not visits.handoffs:
        return
    costs, learned = Costs(), learn(visits, areas)
    population = relocate(learned.population, areas, costs)
    own = own_gains(learned, costs, population, [weight] * len(visits.users))
    found: list[Policy] = [_for_all(advantage(population), learned, *own)]
    # Where nobody went further or back there is no line.
    with suppress(ValueError):
        found.append(learned_line(learned, learn_away(visits, areas), costs))
    for policy in found:
        one_by_one = places(policy, visits, areas, costs)
        assert places_at_once(wishes_of(policy, areas, costs), visits).tolist() == one_by_one.tolist()


@settings(deadline=None, max_examples=60)
@given(worlds(), policies, st.integers(1, 3), st.sampled_from([1.0, 60.0, 3600.0]))
def test_never_over_capacity(world: tuple[Areas, Visits], policy: Policy, capacity: int, window_s: float) -> None:
    areas, visits = world
    costs = Costs()
    if capacity * len(areas) < visits.sessions:
        return  # windows may be so long that all sessions lie in one, and it is refused
    wishes, stay_s = wishes_of(policy, areas, costs), np.full(len(areas), 300.0)
    serving, found = places_within(wishes, visits, areas, costs, stay_s, Limits(capacity, window_s))
    # Who is where just after each begin, counted without the simulator's books.
    until = visits.start_s + visits.stay_s
    for at in visits.start_s:
        there = serving[(visits.start_s <= at) & (at < until)]
        assert np.bincount(there).max() <= capacity
    assert (found.over, found.most <= capacity) == (0, True)
    assert found.gap_s >= 0.0
    if not (found.refused or found.displaced or found.elsewhere):
        assert serving.tolist() == places(policy, visits, areas, costs).tolist()
    enough = Limits(visits.sessions + visits.handoffs, window_s)
    free, _ = places_within(wishes, visits, areas, costs, stay_s, enough)
    assert free.tolist() == places(policy, visits, areas, costs).tolist()
