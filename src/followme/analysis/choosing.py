"""Which policy a user gets, the learned tables or something simpler, as the training hours say.

A table for each pair of areas that is learned from little is worse than a rule with one parameter. So to begin with
everyone gets the cheapest rule of all training hours; rules are the policies without a model and the paper's line
with p by place, which has few parameters too. Every candidate is learned on the first part of the training hours
and judged on the part that follows, twice (``FOLDS``). The population gets tables only if they were cheaper there
than the rule by more than two standard errors. A user gets another candidate if that user's own hours say so after
they are shrunk to all users' by empirical Bayes: what users differ in beyond what the draw of hours explains
(DerSimonian and Laird, Meta-analysis in clinical trials, 1986) sets how much one's own count.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np

from followme.placement import Never, Policy
from followme.placement.learned import LearnedTables

from .cells import Areas
from .learning import Learned, NothingToLearn, learn, learn_away
from .line_process import by_place, learned_line
from .outcome import Costs
from .relocation import advantage, own_gains, relocate
from .simulator import paid, places_at_once
from .trace import Floats, Ints
from .training import SIMPLE, cost_of, simple_policy
from .visits import Visits, split
from .wishes import wishes_of

OWN_WEIGHTS = (inf, 100.0, 20.0, 5.0, 2.0)
"""How many handoffs of the population's a user's own stand against, in each state: one candidate each."""
FOLDS = ((0.5, 0.75), (0.75, 1.0))
"""Learned up to the first share of the training hours, judged from there to the second."""
FEWEST_HOURS = 20
"""Hours of use (a user in an hour of the clock) that a learned one must have been judged on before it is taken."""
FEWEST_USERS = 10
"""Users who were judged, below which what users differ in cannot be told from the draw of hours."""
DOUBT = 2.0
"""Standard errors by which something must be cheaper before it takes the place of something simpler."""

_LINE = "the line by place"
RULES = (*SIMPLE, _LINE)
_BLOCK_S = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """``policy``, what it is made of in words (``how``), and what training says of it against ``rule``.

    ``expected`` is the difference in cost as a share of the rule's, ``error`` its standard error (both NaN if
    nothing could be judged), ``hours`` how many hours of use that was judged on.
    """

    policy: LearnedTables
    how: str
    rule: str
    expected: float
    error: float
    hours: int

    @property
    def unsure(self) -> bool:
        """Whether the training hours are too few to say that it is no dearer than the rule."""
        return self.hours < FEWEST_HOURS or not self.expected + DOUBT * self.error <= 0.0


def choose(train: Visits, areas: Areas, costs: Costs) -> Chosen:
    """The learned policy for everyone. ``NothingToLearn`` if there is no handoff to learn from."""
    learned = learn(train, areas)
    names = (*RULES, *OWN_WEIGHTS)
    judged = [one for one in (_judged(train, areas, costs, *fold) for fold in FOLDS) if one is not None]
    users = len(train.users)
    rules = _rules(train, learned, areas, costs)
    rule = int(np.argmin([cost_of(one, train, areas, costs) for one in rules]))
    picked = np.full(users + 1, rule)
    expected, error, blocks = nan, nan, 0
    if judged:
        block_user = np.concatenate([one.user for one in judged])
        cost = np.concatenate([one.cost for one in judged], axis=1)
        blocks, everyone = len(block_user), _for_everyone(cost, rule)
        picked = np.append(_for_each(cost, block_user, users, everyone), everyone)
        difference = cost[picked[block_user], np.arange(blocks)] - cost[rule]
        base = float(cost[rule].sum())
        if base > 0.0:
            expected, error = float(difference.sum()) / base, _error(difference) / base
    policy = _built(picked, names, rules, learned, areas, costs)
    return Chosen(policy, _words(picked, names), RULES[rule], expected, error, blocks)


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """``cost`` (candidates, blocks): a block is an hour of ``user`` (blocks,)."""

    user: Ints
    cost: Floats


def _judged(train: Visits, areas: Areas, costs: Costs, until: float, end: float) -> _Judged | None:
    """All candidates on one fold; ``None`` if it has nothing to learn from or to judge on."""
    start, stop = float(train.start_s.min()), float((train.start_s + train.stay_s).max())
    early, rest = split(train, start + until * (stop - start))
    late = split(rest, start + end * (stop - start))[0] if len(rest) and end < 1.0 else rest
    if not early.handoffs or not late.handoffs:
        return None
    learned = learn(early, areas)
    population = relocate(learned.population, areas, costs)
    gain = advantage(population)
    policies = _rules(early, learned, areas, costs)
    for weight in OWN_WEIGHTS:
        own = own_gains(learned, costs, population, [weight] * len(train.users))
        policies.append(_for_all(gain, learned, *own))
    hour = (late.start_s // _BLOCK_S).astype(np.int64)
    blocks, block_of = np.unique(np.stack([late.user, hour]), axis=1, return_inverse=True)
    rows = []
    for policy in policies:
        waiting, fee = paid(places_at_once(wishes_of(policy, areas, costs), late), late, areas, costs)
        rows.append(np.bincount(block_of.ravel(), waiting + fee, minlength=blocks.shape[1]))
    return _Judged(blocks[0], np.array(rows))


def _rules(visits: Visits, learned: Learned, areas: Areas, costs: Costs) -> list[Policy]:
    """``RULES``, learned on these visits."""
    rules = [simple_policy(name, visits, areas, costs)[0] for name in SIMPLE]
    try:
        away = learn_away(visits, areas)
    except NothingToLearn:
        # Nobody went further from a service or back: there is no line, and its place is taken by one that stays.
        return [*rules, Never()]
    line = learned_line(learned, away, costs, own=False)
    return [*rules, _for_all(by_place(line, learned), learned, np.zeros(0, dtype=np.int64), np.zeros(0))]


def _for_all(gain: Floats, learned: Learned, own_state: Ints, own_gain: Floats) -> LearnedTables:
    users, everyone = learned.users, np.zeros(len(learned.users) + 1, dtype=np.int64)
    return LearnedTables(learned.areas.names, users, ("",), gain[None], everyone, own_state, own_gain)


def _error(difference: Floats) -> float:
    """Standard error of the sum over blocks."""
    blocks = len(difference)
    return sqrt(blocks) * float(np.std(difference, ddof=1)) if blocks > 1 else inf


def _for_everyone(cost: Floats, rule: int) -> int:
    """``rule``, or the cheapest that was learned if that was cheaper beyond doubt, and judged on enough hours."""
    best = len(RULES) + int(np.argmin(cost[len(RULES) :].sum(axis=1)))
    difference = cost[best] - cost[rule]
    sure = float(difference.sum()) < -DOUBT * _error(difference)
    return best if sure and len(difference) >= FEWEST_HOURS else rule


def _for_each(cost: Floats, block_user: Ints, users: int, everyone: int) -> Ints:
    """(u,) the candidate of each user: ``everyone``'s, unless another is expected to be cheaper by more than two
    posterior standard deviations."""
    hours = np.bincount(block_user, minlength=users).astype(np.float64)
    seen = hours > 0.0
    picked = np.full(users, everyone)
    least = np.zeros(users)
    if np.count_nonzero(seen) < FEWEST_USERS or len(block_user) <= np.count_nonzero(seen):
        return picked
    for candidate in range(len(cost)):
        difference = cost[candidate] - cost[everyone]
        rate = np.bincount(block_user, difference, minlength=users)[seen] / hours[seen]
        within = np.bincount(block_user, difference**2, minlength=users)[seen] - hours[seen] * rate**2
        noise = float(within.sum()) / (len(block_user) - np.count_nonzero(seen))
        if not noise > 0.0:
            continue
        weight = hours[seen] / noise
        mean = float(weight @ rate / weight.sum())
        spread = float(weight @ (rate - mean) ** 2) - (np.count_nonzero(seen) - 1)
        between = max(0.0, spread / float(weight.sum() - (weight @ weight) / weight.sum()))
        trust = between / (between + 1.0 / weight)
        expected = mean + trust * (rate - mean)
        bound = np.full(users, inf)
        # With nothing between users, their hours say nothing of one user: all get what everyone gets.
        bound[seen] = expected + DOUBT * np.sqrt(trust / weight) if between > 0.0 else inf
        better = bound < np.minimum(least, 0.0)
        picked[better], least[better] = candidate, bound[better]
    return picked


def _built(
    picked: Ints, names: tuple[str | float, ...], rules: list[Policy], learned: Learned, areas: Areas, costs: Costs
) -> LearnedTables:
    """Learned on all of the training hours, with those tables that somebody was given."""
    population = relocate(learned.population, areas, costs)
    tables: dict[str, Floats] = {}
    table_of = np.zeros(len(picked), dtype=np.int64)
    for candidate in np.unique(picked).tolist():
        name = names[candidate]
        kind = name if isinstance(name, str) else "all users' moves"
        if kind not in tables:
            plain = isinstance(name, float)
            tables[kind] = advantage(population) if plain else _table(rules[candidate], areas, costs)
        table_of[picked == candidate] = list(tables).index(kind)
    chosen = [names[one] for one in picked[:-1].tolist()]
    weights = [name if isinstance(name, float) else inf for name in chosen]
    own_state, own_gain = own_gains(learned, costs, population, weights)
    gain = np.array(list(tables.values()))
    return LearnedTables(areas.names, learned.users, tuple(tables), gain, table_of, own_state, own_gain)


def _table(rule: Policy, areas: Areas, costs: Costs) -> Floats:
    """(n, n): the line's gains; of the others only which way they decide."""
    if isinstance(rule, LearnedTables):
        line: Floats = rule.gain[0]
        return line
    here, service = np.indices(areas.hops.shape).reshape(2, -1)
    goes = wishes_of(rule, areas, costs)(np.full(here.shape, -1), here, service)
    table: Floats = np.where(goes, inf, -inf).reshape(areas.hops.shape)
    return table


def _words(picked: Ints, names: tuple[str | float, ...]) -> str:
    users = picked[:-1]
    counts = {int(one): int(count) for one, count in zip(*np.unique(users, return_counts=True), strict=True)}
    words = []
    for candidate in sorted(counts, key=lambda one: -counts[one]):
        name = names[candidate]
        if isinstance(name, float):
            name = "tables of all" if name == inf else f"own tables, own moves against {name:g} of all"
        words.append(f"{name} ({counts[candidate]})")
    return "; ".join(words)
