"""What holds of any ranking: units do not matter, order does not matter, dominance does."""

from __future__ import annotations

from dataclasses import fields, replace
from math import nan

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from followme.placement.criteria import CRITERIA, Weights
from followme.placement.facts import CandidateFacts
from followme.placement.limits import Requirements
from followme.placement.ranking import Method, rank
from followme.placement.table import Asked, Table
from followme.placement.tariff import Tariff

METHODS = st.sampled_from(("weighted-sum", "topsis"))
NEEDS = Requirements(2.0, 30.0, 400.0, preferred=frozenset({"ours"}))
MEASURED = ("latency_s", "bandwidth_bit_s", "loss", "utilisation", "throughput_per_s")


def values(facts: list[CandidateFacts]) -> NDArray[np.float64]:
    table = Table.of(facts)
    return table.values(Asked(table.offers, NEEDS))


small = st.integers(0, 100)
weights = st.builds(Weights, *[st.integers(1, 20) for _ in CRITERIA])


@st.composite
def tariffs(draw: st.DrawFn) -> Tariff:
    begins = [0, *sorted(draw(st.sets(st.integers(1, 1000), max_size=4)))]
    prices = sorted(draw(st.sets(st.integers(0, 50), min_size=len(begins), max_size=len(begins))), reverse=True)
    return Tariff(tuple(zip(begins, prices, strict=True)))


@st.composite
def centres(draw: st.DrawFn, name: str, gaps: bool = False) -> CandidateFacts:
    maybe = st.one_of(small, st.sampled_from((None, nan))) if gaps else small
    shares = maybe.map(lambda one: one if one is None else one / 100)
    return CandidateFacts(
        name, draw(st.integers(2, 9)), draw(shares), draw(maybe), draw(shares), draw(shares), draw(maybe),
        draw(tariffs()), draw(tariffs()), draw(st.one_of(st.none(), tariffs()) if gaps else tariffs()),
        draw(small), draw(small), draw(small), draw(st.sampled_from(("ours", "theirs"))),
    )  # fmt: skip


@st.composite
def choices(draw: st.DrawFn, gaps: bool = False) -> list[CandidateFacts]:
    return [draw(centres(f"dc{number}", gaps)) for number in range(draw(st.integers(1, 6)))]


@given(choices(gaps=True), weights, METHODS)
def test_scores_are_sums_of_contributions(facts: list[CandidateFacts], weigh: Weights, method: Method) -> None:
    ranking = rank(facts, NEEDS, weigh, method)
    assert sorted(ranking.names) == sorted(one.name for one in facts)
    scores = [one.score for one in ranking]
    assert scores == sorted(scores, reverse=True)
    for one in ranking:
        assert 0.0 <= one.score <= 1.0 + 1e-12
        assert sum(one.contributions.values()) == pytest.approx(one.score, abs=1e-12)
        assert min(one.contributions.values()) >= 0.0
        assert f"number {one.place} of {len(facts)}" in one.why


@given(choices(gaps=True), weights, METHODS, st.sampled_from(MEASURED[1::3]), st.integers(-20, 20))
def test_units_do_not_matter(
    facts: list[CandidateFacts], weigh: Weights, method: Method, key: str, power: int
) -> None:
    """By powers of two, which no rounding blurs: the same to the last bit."""
    other = [
        one if getattr(one, key) is None else replace(one, **{key: getattr(one, key) * 2.0**power})
        for one in facts
    ]
    ranking, scaled = rank(facts, NEEDS, weigh, method), rank(other, NEEDS, weigh, method)
    assert (ranking.names, ranking.scores) == (scaled.names, scaled.scores)


@given(choices(), weights, METHODS, st.floats(1e-3, 1e3))
def test_scale_of_weights_does_not_matter(
    facts: list[CandidateFacts], weigh: Weights, method: Method, factor: float
) -> None:
    more = Weights(*(factor * one for one in weigh.values()))
    scores = rank(facts, NEEDS, weigh, method).scores
    assert rank(facts, NEEDS, more, method).scores == pytest.approx(scores, abs=1e-12)


@given(choices(gaps=True), weights, METHODS, st.randoms())
def test_order_does_not_matter(facts: list[CandidateFacts], weigh: Weights, method: Method, chance: object) -> None:
    shuffled = sorted(facts, key=lambda one: chance.random())  # type: ignore[attr-defined]
    first = {one.name: one.score for one in rank(facts, NEEDS, weigh, method)}
    assert {one.name: one.score for one in rank(shuffled, NEEDS, weigh, method)} == pytest.approx(first, abs=1e-12)


@given(choices(), weights, METHODS, st.integers(0, 2**9 - 1), st.data())
def test_who_is_dominated_is_never_above(
    facts: list[CandidateFacts], weigh: Weights, method: Method, worse_in: int, data: st.DataObject
) -> None:
    """A copy made worse in some criteria and better in none stands below its original."""
    original = data.draw(st.sampled_from(facts))
    steps = {
        "latency_s": 0.25, "bandwidth_bit_s": -1, "loss": 0.25, "utilisation": 0.25, "throughput_per_s": -1,
    }  # fmt: skip
    changes: dict[str, object] = {"name": "aaa"}  # ties go by name: the copy would win them
    for bit, (key, step) in enumerate(steps.items()):
        if worse_in >> bit & 1:
            most = 1.0 if key in ("loss", "utilisation") else 1e9
            changes[key] = min(max(getattr(original, key) + step, 0.0), most)
    if worse_in >> 5 & 1:
        dearer = tuple((begin, price + 1) for begin, price in original.server_tariff.tiers)  # type: ignore[union-attr]
        changes["server_tariff"] = Tariff(dearer)
    if worse_in >> 6 & 1:
        changes["provider"] = "theirs"
    copy = replace(original, **changes)  # type: ignore[arg-type]
    assume(not np.array_equal(values([original]), values([copy])))
    ranking = rank([*facts, copy], NEEDS, weigh, method)
    assert ranking.names.index(original.name) < ranking.names.index("aaa")


@given(choices(gaps=True))
def test_the_array_has_the_facts_and_the_tariffs_shares(facts: list[CandidateFacts]) -> None:
    def share(tariff: Tariff | None, quantity: float, in_use: float) -> float:
        return nan if tariff is None else tariff.share(quantity, in_use)

    expected = [
        [
            *(nan if getattr(one, key) is None else getattr(one, key) for key in MEASURED),
            share(one.network_tariff, NEEDS.network_bytes_per_h, one.network_in_use_bytes_per_h),
            share(one.server_tariff, NEEDS.demand, one.servers_in_use),
            share(one.storage_tariff, NEEDS.storage_bytes, one.storage_in_use_bytes),
            float(one.provider == "ours"),
        ]
        for one in facts
    ]
    np.testing.assert_array_equal(values(facts), expected)


@given(tariffs(), st.floats(0, 5000), st.floats(0, 5000), st.floats(0, 5000))
def test_bulk_discounts(tariff: Tariff, quantity: float, more: float, in_use: float) -> None:
    """The total never falls with the quantity, the mean price never rises, shares add up to the total."""
    assert tariff.total(quantity) <= tariff.total(quantity + more)
    assert tariff.share(quantity, in_use) <= tariff.share(quantity + more, in_use) * (1 + 1e-12)
    assert tariff.share(quantity, in_use + more) <= tariff.share(quantity, in_use) * (1 + 1e-12)
    both = tariff.share(quantity, in_use) + tariff.share(in_use, quantity)
    assert both == pytest.approx(tariff.total(quantity + in_use))
    tier = max(tier for tier, (begin, _) in enumerate(tariff.tiers) if begin <= quantity)
    assert tariff.total(quantity) <= quantity * tariff.tiers[tier][1]


def test_the_criteria_are_the_weights() -> None:
    assert [one.name for one in fields(Weights)] == [one.name for one in CRITERIA]
