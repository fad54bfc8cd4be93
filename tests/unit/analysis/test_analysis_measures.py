"""Equations 7 to 11, worked by hand where a hand can."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log, nan

import numpy as np
import pytest

from followme.analysis.chain import hexagonal, stationary
from followme.analysis.measures import (
    Transfer,
    mean_distance,
    mean_latency,
    migration_cost,
    migration_share,
    optimal_probability,
)


def test_latency_is_distance_where_the_delay_is() -> None:
    steady = stationary(hexagonal(6))
    assert mean_latency(steady, lambda i: 0.01 * i) == pytest.approx(0.01 * mean_distance(steady), rel=1e-14)


def test_latency_counts_distance_0_as_well() -> None:
    steady = stationary(hexagonal(5))
    assert mean_latency(steady, lambda i: 0.003) == pytest.approx(0.003, rel=1e-14)
    assert mean_latency(steady, lambda i: float(i == 0)) == pytest.approx(optimal_probability(steady))


def test_latency_asks_for_the_distances_of_the_chain_only() -> None:
    asked: list[int] = []

    def delay(hops: int) -> float:
        asked.append(hops)
        return np.float32(1.0)  # type: ignore[return-value]

    assert mean_latency(stationary(hexagonal(4)), delay) == pytest.approx(1.0)
    assert asked == [0, 1, 2, 3]


@pytest.mark.parametrize("bad", [nan, inf, -1e-9, None, "1"])
def test_a_delay_that_is_none(bad: float) -> None:
    with pytest.raises(ValueError, match=r"latency\(2\) is .* finite number and not negative"):
        mean_latency(stationary(hexagonal(4)), lambda i: bad if i == 2 else 1.0)


@pytest.mark.parametrize("k", [2, 3, 4, 7, 8])
def test_equation_10(k: int) -> None:
    """3p of the corners' state and 2p of the others' of ring k-1, as the paper writes it."""
    steady = stationary(hexagonal(k))
    corner, *others = steady.probability[steady.chain.distance == k - 1]
    bracket = 3 / 6 * corner + 2 / 6 * sum(others)
    assert migration_share(steady) == pytest.approx(bracket, rel=1e-14)
    assert migration_cost(steady, 1000.0, 50.0) == pytest.approx(bracket * 1150.0, rel=1e-14)


@pytest.mark.parametrize("costs", [(-1.0, 1.0), (1.0, -1.0), (nan, 1.0), (1.0, inf)])
def test_a_cost_must_not_be_negative(costs: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be finite and not negative"):
        migration_cost(stationary(hexagonal(3)), *costs)


def test_equation_11_without_loss() -> None:
    """1000 packets: log_1.57 N round trips of slow start, 1 ms a packet, and what the window of 4 holds back."""
    transfer = Transfer(window=4.0, mss_bytes=1000.0)
    by_hand = log(1000) / log(1.57) * 0.2 + 1.0 + 10.6 / (4 * 4 * 2) * 1000 * 0.2
    assert transfer.disruption_s(999_001.0, 0.2) == pytest.approx(by_hand, rel=1e-14)
    assert replace(transfer, conversion_s=7.5).disruption_s(1e6, 0.2) == pytest.approx(by_hand + 7.5)


def test_equation_11_with_loss() -> None:
    transfer = Transfer(loss=0.1, window=4.0, mss_bytes=1000.0)
    rounds = log(1000) / log(1.57)
    # 2.32 (0.2 + 0.04 + 0.016) = 0.59392; (1 + 0.1) / (0.2 * 1000) = 0.0055; 10.6 / (4 * 0.9 * 8) a packet.
    trips = rounds + (0.59392 / 1.2**3 + 0.0055) * 1000 + 0.4 * rounds + 2.0 + 10.6 / 28.8 * 1000
    assert transfer.disruption_s(1e6, 0.2) == pytest.approx(trips * 0.2, rel=1e-14)
    printed = trips + 0.59392 / 1.2**3 * 1000 * 999
    assert replace(transfer, as_printed=True).disruption_s(1e6, 0.2) == pytest.approx(printed * 0.2, rel=1e-14)


def test_the_printed_equation_is_the_same_without_loss() -> None:
    assert Transfer(as_printed=True).disruption_s(1e8, 0.1) == Transfer().disruption_s(1e8, 0.1)


@pytest.mark.parametrize("loss", [0.01, 0.02, 0.05, 0.1])
def test_lost_packets_cost_what_tcp_pays_for_them(loss: float) -> None:
    """Why the second N must be a slip: a TCP under loss needs about sqrt(2p/3) round trips a packet
    (Mathis et al.) and its time-outs on top, whatever the number of packets."""
    packets, rtt = 1e5, 0.05
    wide = Transfer(loss=loss, window=1e6, mss_bytes=1000.0)
    # The last term of f is the sender's 1 ms a packet, no round trip.
    trips = wide.disruption_s(packets * 1000.0, rtt) / rtt / packets - (1.0 + loss) / (rtt * 1e3)
    assert 0.4 * (2 * loss / 3) ** 0.5 < trips < 3.0 * (2 * loss / 3) ** 0.5
    assert replace(wide, as_printed=True).disruption_s(packets * 1000.0, rtt) / rtt / packets > 1000.0


def test_disruption_grows_with_all_that_should_make_it_grow() -> None:
    base = Transfer(loss=0.01).disruption_s(1e7, 0.1)
    assert Transfer(loss=0.02).disruption_s(1e7, 0.1) > base
    assert Transfer(loss=0.01, window=20.0).disruption_s(1e7, 0.1) > base
    assert Transfer(loss=0.01).disruption_s(2e7, 0.1) > base
    assert Transfer(loss=0.01).disruption_s(1e7, 0.2) > base


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", -0.1), ("loss", 1.0), ("loss", nan),
        ("window", 0.0), ("window", nan), ("mss_bytes", 0.0), ("mss_bytes", inf),
        ("conversion_s", -1.0), ("conversion_s", nan),
    ],
)  # fmt: skip
def test_a_transfer_says_what_is_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{field} "):
        Transfer(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "rtt"), [(0.0, 0.1), (-1.0, 0.1), (nan, 0.1), (1.0, 0.0), (1.0, -0.1), (1.0, inf)]
)
def test_a_transfer_needs_a_size_and_a_round_trip(size: float, rtt: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Transfer().disruption_s(size, rtt)
