"""Which data centre: limits exclude, weights order, and every place has its words."""

from __future__ import annotations

from math import hypot, inf, nan

import pytest

from followme.placement.criteria import CRITERIA, UserClass, Weights
from followme.placement.facts import CandidateFacts
from followme.placement.limits import Requirements
from followme.placement.ranking import Method, Noise, rank
from followme.placement.tariff import Tariff

BOTH: tuple[Method, ...] = ("weighted-sum", "topsis")
NOTHING = dict.fromkeys((criterion.name for criterion in CRITERIA), 0.0)


def counting(**weights: float) -> Weights:
    return Weights(**{**NOTHING, **weights})


NEAR = CandidateFacts("near", 4.0, latency_s=0.002, utilisation=0.9)
FAR = CandidateFacts("far", 4.0, latency_s=0.030, utilisation=0.1)
MIDDLE = CandidateFacts("middle", 4.0, latency_s=0.010, utilisation=0.3)


def test_weighted_sum_by_hand() -> None:
    ranking = rank([NEAR, FAR, MIDDLE], weights=counting(latency=3.0, utilisation=1.0))
    # Latency: 1, 0, 20/28; utilisation: 0, 1, 6/8.
    assert [(one.name, one.place) for one in ranking] == [("near", 1), ("middle", 2), ("far", 3)]
    assert [one.score for one in ranking] == pytest.approx([0.75, 0.75 * 20 / 28 + 0.25 * 6 / 8, 0.25])
    assert ranking[1].contributions["latency"] == pytest.approx(0.75 * 20 / 28)
    assert ranking.unknown == 0


def test_topsis_by_hand() -> None:
    ranking = rank([NEAR, FAR, MIDDLE], weights=counting(latency=3.0, utilisation=1.0), method="topsis")
    latency, load = (0.002, 0.030, 0.010), (0.9, 0.1, 0.3)
    first = [0.75 * one / hypot(*latency) for one in latency]
    second = [0.25 * one / hypot(*load) for one in load]
    expected = {}
    for name, x, y in zip(("near", "far", "middle"), first, second, strict=True):
        good = hypot(x - min(first), y - min(second))
        bad = hypot(x - max(first), y - max(second))
        expected[name] = bad / (good + bad)
    assert {one.name: one.score for one in ranking} == pytest.approx(expected)
    assert list(ranking.names) == sorted(expected, key=lambda name: -expected[name])


@pytest.mark.parametrize("method", BOTH)
def test_weights_belong_to_the_service_and_the_users_class(method: Method) -> None:
    facts = [NEAR, FAR]
    assert rank(facts, weights=counting(latency=2.0, utilisation=1.0), method=method).names == ("near", "far")
    assert rank(facts, weights=counting(latency=1.0, utilisation=2.0), method=method).names == ("far", "near")
    careful = UserClass("careful", {"utilisation": 4.0})
    weights = counting(latency=2.0, utilisation=1.0)
    assert rank(facts, weights=weights, method=method, user_class=careful).names == ("far", "near")
    ranked = rank(facts, weights=weights, method=method, user_class=UserClass("other"))
    assert ranked.scores == rank(facts, weights=weights, method=method).scores


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize(
    ("criterion", "worse", "better"),
    [
        ("latency", {"latency_s": 0.2}, {"latency_s": 0.1}),
        ("bandwidth", {"bandwidth_bit_s": 1e6}, {"bandwidth_bit_s": 1e7}),
        ("loss", {"loss": 0.1}, {"loss": 0.0}),
        ("utilisation", {"utilisation": 0.9}, {"utilisation": 0.8}),
        ("throughput", {"throughput_per_s": 10.0}, {"throughput_per_s": 11.0}),
        ("network_price", {"network_tariff": Tariff(((0, 2.0),))}, {"network_tariff": Tariff(((0, 1.0),))}),
        ("server_price", {"server_tariff": Tariff(((0, 2.0),))}, {"server_tariff": Tariff(((0, 1.0),))}),
        ("storage_price", {"storage_tariff": Tariff(((0, 2.0),))}, {"storage_tariff": Tariff(((0, 1.0),))}),
        ("preference", {"provider": "other"}, {"provider": "ours"}),
    ],
)
def test_each_criterion_points_the_right_way(
    criterion: str, worse: dict[str, object], better: dict[str, object], method: Method
) -> None:
    facts = [CandidateFacts("a", 1.0, **worse), CandidateFacts("b", 1.0, **better)]  # type: ignore[arg-type]
    needs = Requirements(1.0, 100.0, 100.0, preferred=frozenset({"ours"}))
    ranking = rank(facts, needs, counting(**{criterion: 1.0}), method)
    assert ranking.names == ("b", "a")
    assert (ranking[0].score, ranking[1].score) == (1.0, 0.0)
    assert ranking[0].contributions == pytest.approx({**NOTHING, criterion: 1.0})


def test_limits_exclude_and_say_which() -> None:
    needs = Requirements(
        2.0, localities=frozenset({"FI", "SE"}), service_class="gold", latency_at_most_s=0.02
    )
    gold = frozenset({"gold"})
    facts = [
        CandidateFacts("fits", 2.0, 0.02, locality="FI", service_classes=gold),
        CandidateFacts("full", 1.5, 0.01, locality="FI", service_classes=gold),
        CandidateFacts("abroad", 9.0, 0.01, locality="DE", service_classes=gold),
        CandidateFacts("plain", 9.0, 0.01, locality="SE", service_classes=frozenset({"bronze"})),
        CandidateFacts("slow", 9.0, 0.021, locality="SE", service_classes=gold),
        CandidateFacts("silent", 9.0, nan, locality="SE", service_classes=gold),
        CandidateFacts("bad", 0.0, 0.5),
    ]
    ranking = rank(facts, needs)
    assert ranking.names == ("fits",)
    assert ranking.why == "fits is number 1 of 1 by weighted-sum, score 1.000: no other data centre is feasible" + (
        "; not known of it: bandwidth, loss, utilisation, throughput, network price, server price, storage price"
        " (taken as the worst)"
    )
    assert ranking.excluded == {
        "full": "capacity: 1.5 free, 2 needed",
        "abroad": "locality: it is in DE, data may be in FI, SE",
        "plain": "class of service: gold needed, bronze offered",
        "slow": "latency: 21.0 ms, at most 20.0 ms allowed",
        "silent": "latency: not measured, at most 20.0 ms allowed",
        "bad": "capacity: 0 free, 2 needed; locality: it is in no known place, data may be in FI, SE; "
        "class of service: gold needed, none offered; latency: 500.0 ms, at most 20.0 ms allowed",
    }


@pytest.mark.parametrize("method", BOTH)
def test_nothing_feasible_is_a_result(method: Method) -> None:
    ranking = rank([CandidateFacts("a", 0.0), CandidateFacts("b", 0.5)], method=method)
    assert (len(ranking), ranking.best, ranking.names) == (0, None, ())
    assert ranking.why == (
        "no data centre is feasible: a (capacity: 0 free, 1 needed); b (capacity: 0.5 free, 1 needed)"
    )
    with pytest.raises(IndexError):
        ranking[0]


def test_where_it_runs_it_has_room() -> None:
    full = CandidateFacts("full", 0.0, 0.001)
    assert rank([full, NEAR], weights=counting(latency=1.0), current="full").names == ("full", "near")
    assert rank([full, NEAR], weights=counting(latency=1.0)).names == ("near",)


@pytest.mark.parametrize("method", BOTH)
def test_ties_go_to_the_one_that_serves_then_by_name(method: Method) -> None:
    facts = [CandidateFacts(name, 1.0, 0.01) for name in "cab"]
    assert rank(facts, method=method).names == ("a", "b", "c")
    ranking = rank(facts, method=method, current="b")
    assert ranking.names == ("b", "a", "c")
    assert ranking.scores == (1.0, 1.0, 1.0)
    assert "level with a in all that counts" in ranking.why


@pytest.mark.parametrize("method", BOTH)
@pytest.mark.parametrize("missing", [None, nan])
def test_what_is_not_known_is_the_worst_and_counted(method: Method, missing: float | None) -> None:
    facts = [NEAR, MIDDLE, CandidateFacts("dark", 4.0, missing, utilisation=0.3)]
    ranking = rank(facts, weights=counting(latency=1.0, utilisation=1.0), method=method)
    same = rank(
        [*facts[:2], CandidateFacts("dark", 4.0, 0.010, utilisation=0.3)],
        weights=counting(latency=1.0, utilisation=1.0), method=method,
    )  # fmt: skip
    assert (ranking.scores, ranking.names) == (same.scores, same.names)
    assert (ranking.unknown, same.unknown) == (1, 0)
    dark = next(one for one in ranking if one.name == "dark")
    assert "not known of it: latency, bandwidth" in dark.why


def test_known_of_none_tells_none_apart() -> None:
    ranking = rank([NEAR, FAR], weights=counting(latency=1.0, loss=1.0))
    assert (ranking.names, ranking.scores, ranking.unknown) == (("near", "far"), (1.0, 0.5), 2)


def test_the_words_say_what_decided() -> None:
    ranking = rank([NEAR, FAR], weights=counting(latency=3.0, utilisation=1.0))
    assert ranking.why.startswith(
        "near is number 1 of 2 by weighted-sum, score 0.750: ahead of far in latency (2 ms against 30 ms, 0.750), "
        "though behind in utilisation (90 % against 10 %, 0.250)"
    )
    assert ranking[1].why.startswith(
        "far is number 2 of 2 by weighted-sum, score 0.250: behind near in latency (30 ms against 2 ms, 0.750), "
        "though ahead in utilisation (10 % against 90 %, 0.250)"
    )


def test_bulk_discounts_hold_for_the_whole_quantity_and_the_total_never_falls() -> None:
    tariff = Tariff(((0, 1.0), (100, 0.8), (1000, 0.5)))
    assert [tariff.total(q) for q in (0, 50, 80, 90, 100, 500, 625, 700, 1000, 2000)] == pytest.approx(
        [0, 50, 80, 80, 80, 400, 500, 500, 500, 1000]
    )
    # Beside 990 in use ten more cost nothing at the margin; they carry their share all the same.
    assert tariff.share(10, 990) == pytest.approx(10 * 0.5)
    assert tariff.share(10) == pytest.approx(10)
    assert tariff.share(0, 500) == tariff.share(0) == 0.0


def test_volume_bought_already_can_decide() -> None:
    tariff = Tariff(((0, 1.0), (100, 0.4)))
    small = CandidateFacts("small", 9.0, server_tariff=Tariff(((0, 0.9),)))
    large = CandidateFacts("large", 9.0, server_tariff=tariff, servers_in_use=99.0)
    weights = counting(server_price=1.0)
    assert rank([small, large], weights=weights).names == ("large", "small")
    fresh = CandidateFacts("large", 9.0, server_tariff=tariff)
    assert rank([small, fresh], weights=weights).names == ("small", "large")


@pytest.mark.parametrize(
    "tiers",
    [
        (), ((1, 1.0),), ((0, -1.0),), ((0, nan),), ((0, 1.0), (0, 0.5)), ((0, 1.0), (5, 1.0)),
        ((0, 1.0), (inf, 0.5)), tuple((n, 9.0 - n) for n in range(9)),
    ],
)  # fmt: skip
def test_no_tariff(tiers: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="tier"):
        Tariff(tiers)


@pytest.mark.parametrize("quantity", [-1.0, nan, inf])
def test_no_quantity(quantity: float) -> None:
    with pytest.raises(ValueError, match="quantity"):
        Tariff(((0, 1.0),)).total(quantity)


@pytest.mark.parametrize("weight", [-1.0, nan, inf])
def test_no_weight(weight: float) -> None:
    with pytest.raises(ValueError, match="weight of loss"):
        Weights(loss=weight)


def test_something_must_count() -> None:
    with pytest.raises(ValueError, match="all weights are 0"):
        Weights(**NOTHING)
    with pytest.raises(ValueError, match="'blind' leaves no criterion"):
        rank([NEAR], weights=counting(latency=1.0), user_class=UserClass("blind", {"latency": 0.0}))
    with pytest.raises(ValueError, match="'latencey' is no criterion"):
        UserClass("x", {"latencey": 1.0})
    with pytest.raises(ValueError, match="must be finite and not negative"):
        UserClass("x", {"latency": -1.0})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latency_s", -0.1), ("latency_s", inf), ("bandwidth_bit_s", -1.0), ("loss", 1.1), ("utilisation", -0.1),
        ("throughput_per_s", inf), ("free_capacity", -1.0), ("free_capacity", nan), ("servers_in_use", -1.0),
        ("network_in_use_bytes_per_h", nan), ("storage_in_use_bytes", inf),
    ],
)  # fmt: skip
def test_no_facts(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"data centre 'dc': {key} {value} must"):
        CandidateFacts(**{"name": "dc", "free_capacity": 1.0, key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "value"),
    [("demand", -1.0), ("network_bytes_per_h", nan), ("storage_bytes", inf), ("latency_at_most_s", nan)],
)
def test_no_requirements(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        Requirements(**{key: value})  # type: ignore[arg-type]


def test_no_ranking() -> None:
    with pytest.raises(ValueError, match="no data centre to choose from"):
        rank([])
    with pytest.raises(ValueError, match="two data centres are called 'near'"):
        rank([NEAR, FAR, NEAR])
    with pytest.raises(ValueError, match="known are weighted-sum, topsis"):
        rank([NEAR], method="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a name"):
        CandidateFacts("", 1.0)


@pytest.mark.parametrize("method", BOTH)
def test_a_tenth_of_bandwidth_is_noise(method: Method) -> None:
    """Of two places what is free tells them apart, all of it; only the allowance keeps a service where it is."""

    def best(free: float, noise: Noise) -> str:
        here = CandidateFacts("here", 4.0, bandwidth_bit_s=100e6)
        there = CandidateFacts("there", 4.0, bandwidth_bit_s=free)
        found = rank([here, there], weights=counting(bandwidth=1.0), method=method, current="here", noise=noise)
        assert found.best is not None
        return found.best.name

    only = Noise(0.0, 0.0, 0.1, 0.0)
    assert [best(free, only) for free in (99e6, 101e6, 109e6, 111e6)] == ["here", "here", "here", "there"]
    assert best(101e6, Noise(0.0, 0.0, 0.0, 0.0)) == "there"
