"""How an outage and a slope are computed from pings."""

from __future__ import annotations

import math

import pytest

from followme.lab.outage import fit, outage
from followme.lab.pinger import Ping

RTT = 0.012


def pings(count: int, every_s: float = 0.001) -> list[Ping]:
    return [Ping(number, number * every_s, RTT) for number in range(count)]


def test_nothing_is_missed_where_all_answers_come_in_time() -> None:
    seen = outage(pings(4000), 1.0, 4.0)
    assert seen.downtime_s == pytest.approx(0.0, abs=1e-9)
    assert (seen.sent, seen.lost) == (3000, 0)


def test_lost_answers_count_from_when_the_first_was_due_until_any_comes() -> None:
    row = pings(4000)
    for ping in row[2000:2050]:
        ping.rtt_s = None
    seen = outage(row, 1.0, 3.5)
    assert seen.downtime_s == pytest.approx(0.050, abs=1e-6)
    assert seen.lost == 50


def test_answers_that_were_held_count_though_none_is_lost() -> None:
    row = pings(4000)
    for ping in row[2000:2030]:
        ping.rtt_s = 2.030 + RTT - ping.sent_s  # all at once, when the machine runs again
    seen = outage(row, 1.0, 3.5)
    assert seen.downtime_s == pytest.approx(0.030, abs=1e-6)
    assert seen.lost == 0


def test_what_a_stopped_machine_answers_later_does_not_end_the_outage() -> None:
    row = pings(4000)
    for ping in row[2000:2100]:
        ping.rtt_s = None
    row[1999].rtt_s = 0.050
    assert outage(row, 1.0, 3.5).downtime_s == pytest.approx(0.100, abs=1e-6)


def test_a_sender_that_was_late_itself_is_no_outage() -> None:
    row = [ping for ping in pings(4000) if not 2.0 <= ping.sent_s < 2.2]
    assert outage(row, 1.0, 3.5).downtime_s == pytest.approx(0.0, abs=1e-9)


def test_a_shorter_path_afterwards_shortens_what_the_user_sees() -> None:
    row = pings(4000)
    for ping in row[2000:]:
        ping.rtt_s = None if ping.sent_s < 2.010 else 0.002
    assert outage(row, 1.0, 3.5).downtime_s == pytest.approx(0.0, abs=0.0011)


def test_a_machine_that_never_comes_back_and_pings_that_never_began() -> None:
    row = pings(4000)
    for ping in row[2000:]:
        ping.rtt_s = None
    assert math.isinf(outage(row, 1.0, 3.5).downtime_s)
    assert outage(row, 1.0, 1.5, usual_s=RTT + 1.0).downtime_s == 0.0
    with pytest.raises(ValueError, match="no ping was answered"):
        outage(row, 3.5, 3.9)


def test_a_line_through_points_and_its_error() -> None:
    xs = [0.0, 0.05, 0.1, 0.0, 0.05, 0.1]
    exact = fit(xs, [0.01 + 0.5 * x for x in xs])
    assert exact.slope == pytest.approx(0.5)
    assert exact.intercept == pytest.approx(0.01)
    assert exact.slope_error == pytest.approx(0.0, abs=1e-9)
    assert not exact.flat
    noisy = fit(xs, [0.010, 0.014, 0.011, 0.013, 0.009, 0.012])
    # The textbook's formula: s^2 = RSS / (n - 2), error = s / sqrt(Sxx).
    mean = sum([0.010, 0.014, 0.011, 0.013, 0.009, 0.012]) / 6
    assert noisy.slope == pytest.approx(0.0, abs=1e-9)
    assert noisy.slope_error == pytest.approx(
        math.sqrt(sum((y - mean) ** 2 for y in (0.010, 0.014, 0.011, 0.013, 0.009, 0.012)) / 4 / 0.01))
    assert noisy.flat
    assert noisy.doubt == pytest.approx(2.776 * noisy.slope_error)
    # Three points leave one degree of freedom: two standard errors would be no evidence at all.
    few = fit([0.001, 0.05, 0.1], [0.049, 0.023, 0.016])
    assert abs(few.slope) > 2 * few.slope_error
    assert few.flat


@pytest.mark.parametrize("xs", [[0.0, 0.1], [0.1, 0.1, 0.1], []])
def test_what_is_no_line_is_said_so(xs: list[float]) -> None:
    with pytest.raises(ValueError, match="line"):
        fit(xs, xs)
