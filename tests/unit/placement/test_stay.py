"""Stay or go: the rules of the papers first, then measured cost against gain."""

from __future__ import annotations

from math import inf, nan

import pytest

from followme.placement.criteria import NAMES, UserClass
from followme.placement.stay import (
    MOST_WORTH,
    RULES,
    Carry,
    Task,
    Use,
    Verdict,
    Worth,
    gain,
    nearly_over,
    stay_or_go,
    urgent,
)

FREE = Carry(0, 1e9)


def test_the_sum_by_hand() -> None:
    # 100 MB at 100 Mbit/s are 8 s; 42 s remain at 0.5 a second; half a second stalled at 4, and 1 to pay.
    verdict = stay_or_go(Use("desktop", 50.0), Carry(100e6, 100e6, 0.5, 1.0), 0.5, 4.0)
    assert verdict.migrate
    assert verdict.net == pytest.approx(42 * 0.5 - 0.5 * 4.0 - 1.0)
    assert verdict.why == (
        "21 to gain in 42 s of 50 s against a cost of 3 (1e+08 bytes in 8 s, 500 ms stalled, price 1)"
    )


@pytest.mark.parametrize(
    ("use", "carry", "gain_per_s", "stalled_cost", "migrate"),
    [
        (Use("s", 100.0), Carry(0, 1e9, 1.0), 1.0, 99.0, True),
        (Use("s", 100.0), Carry(0, 1e9, 1.0), 1.0, 100.0, False),  # a tie is a stay
        (Use("s", 100.0), Carry(0, 1e9, 0.0, 101.0), 1.0, 0.0, False),
        (Use("s", 100.0), Carry(1e9, 80e6), 1.0, 0.0, False),  # arrives as the user leaves
        (Use("s", 101.0), Carry(1e9, 80e6), 1.0, 0.0, True),
        (Use("s", 101.0, remaining_s=99.0), Carry(1e9, 80e6), 1.0, 0.0, False),  # the content ends before
        (Use("s", inf), Carry(1, 1, 1e6, 1e6), 1e-9, 1e6, True),
        (Use("s", inf), FREE, 0.0, 0.0, False),
        (Use("s", inf), FREE, -1.0, 0.0, False),
        (Use("s", 100.0), FREE, -1.0, 0.0, False),
        (Use("s", 0.0), FREE, 1.0, 0.0, False),
    ],
)
def test_gain_against_cost(use: Use, carry: Carry, gain_per_s: float, stalled_cost: float, migrate: bool) -> None:
    assert stay_or_go(use, carry, gain_per_s, stalled_cost).migrate is migrate


@pytest.mark.parametrize("bandwidth", [None, nan, 0.0])
def test_over_no_known_bandwidth_nobody_goes(bandwidth: float | None) -> None:
    verdict = stay_or_go(Use("s", inf), Carry(0, bandwidth), 1e9)
    assert verdict == Verdict(
        False, "the free bandwidth to the target is not known, so neither is the cost of going"
    )


@pytest.mark.parametrize("task", [Task.EMERGENCY, Task.MEASUREMENT])
def test_urgent_tasks_go_whatever_it_costs(task: Task) -> None:
    use = Use("warning", 1.0, task, remaining_s=1.0)
    verdict = stay_or_go(use, Carry(1e12, None, 1e9, 1e9), -1.0, 1e9)
    assert verdict == Verdict(True, f"{task} tasks always go to the best data centre")
    assert not stay_or_go(Use("film", 1.0), Carry(1e12, None, 1e9, 1e9), -1.0, 1e9).migrate


def test_a_film_that_is_nearly_over_stays() -> None:
    assert not stay_or_go(Use("film", 3600.0, remaining_s=59.0), FREE, 1.0).migrate
    assert stay_or_go(Use("film", 3600.0, remaining_s=60.0), FREE, 1.0).migrate
    assert stay_or_go(Use("desktop", 3600.0), FREE, 1.0).migrate
    patient = (urgent, nearly_over(600.0))
    verdict = stay_or_go(Use("film", 3600.0, remaining_s=599.0), FREE, 1.0, rules=patient)
    assert verdict == Verdict(False, "nearly over: 599 s remain, less than 600 s")


def test_rules_compose_and_the_first_that_decides_wins() -> None:
    def fixed(use: Use) -> Verdict | None:
        return Verdict(False, "by contract") if use.service == "bank" else None

    warning = Use("bank", 100.0, Task.EMERGENCY)
    assert stay_or_go(warning, FREE, 1.0, rules=(fixed, *RULES)).why == "by contract"
    assert stay_or_go(warning, FREE, 1.0, rules=(*RULES, fixed)).migrate
    assert stay_or_go(Use("film", 10.0, remaining_s=1.0), FREE, 1.0, rules=()).migrate


def test_a_gain_is_what_measurements_are_worth() -> None:
    def place(**known: float) -> list[float]:
        return [known.get(name, nan) for name in NAMES]

    here = place(latency=0.050, bandwidth=1e6, loss=0.01, server_price=6.0, preference=0.0)
    there = place(latency=0.010, bandwidth=1e7, server_price=10.0, preference=1.0)
    worth = {"latency": 10.0, "bandwidth": 1e-6, "loss": 100.0, "server_price": 0.25, "preference": 0.5}
    found = gain(here, there, Worth(worth))
    assert found.parts == pytest.approx(
        {"latency": 0.4, "bandwidth": 9.0, "server_price": -1.0, "preference": 0.5}
    )
    assert found.per_s == pytest.approx(8.9)
    assert found.unknown == ("loss",)
    assert gain(there, here, Worth(worth)).per_s == pytest.approx(-8.9)
    gold = UserClass("gold", {"latency": 3.0, "bandwidth": 0.0})
    assert gain(here, there, Worth(worth, gold)).per_s == pytest.approx(1.2 - 1.0 + 0.5)


@pytest.mark.parametrize("worth", [{"latency": -1.0}, {"latency": nan}, {"delay": 1.0}])
def test_no_worth(worth: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"worth of latency|'delay' is no criterion"):
        Worth(worth)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Use("s", -1.0), "stay_s"),
        (lambda: Use("s", nan), "stay_s"),
        (lambda: Use("s", 1.0, remaining_s=-1.0), "remaining_s"),
        (lambda: Use("s", 1.0, remaining_s=nan), "remaining_s"),
        (lambda: Carry(-1, 1.0), "bytes_"),
        (lambda: Carry(nan, 1.0), "bytes_"),
        (lambda: Carry(1, -1.0), "free_bit_s"),
        (lambda: Carry(1, 1.0, inf), "stalled_s"),
        (lambda: Carry(1, 1.0, 0.0, -1.0), "price"),
        (lambda: nearly_over(-1.0), "within_s"),
        (lambda: stay_or_go(Use("s", 1.0), FREE, nan), "gain_per_s"),
        (lambda: stay_or_go(Use("s", 1.0), FREE, 1.0, -1.0), "stalled_cost_per_s"),
    ],
)
def test_no_nonsense(make: object, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make()  # type: ignore[operator]


def test_no_gain_is_infinite() -> None:
    """Prices can be anything; what is beyond all sense counts as unknown, as infinite sums would at a decision."""
    worth = Worth({"server_price": MOST_WORTH, "storage_price": MOST_WORTH, "latency": 1.0})
    here, there = [0.5, *[1.7e308] * 8], [0.1, *[0.0] * 8]
    found = gain(here, there, worth)
    assert found.per_s == pytest.approx(0.4)
    assert found.unknown == ("server_price", "storage_price")
    for counts, factor in ((1.7e308, 1.0), (1e10, 1e10), (MOST_WORTH * 1.01, 1.0)):
        with pytest.raises(ValueError, match="must be at most 1e\\+15"):
            Worth({"latency": counts}, UserClass("dear", {"latency": factor}))
