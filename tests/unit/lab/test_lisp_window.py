"""Where the window of a downtime begins, and which frames at a tap are the machine's first answer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from followme.lab.lisp_watch import shares, stops
from followme.lab.tapwatch import FirstAnswer, Frame, Kind, first_answer, last_answer
from followme.migration.mover import Result


@pytest.mark.parametrize(("held_s", "least_s"), [(0.0, 0.2), (0.21, 0.21)])
def test_the_window_begins_where_the_machine_stops_or_its_traffic_turns(held_s: float, least_s: float) -> None:
    resumed_at = time.time()
    result = Result("paper", pause_s=0.2, total_s=7.5, held_s=held_s, bytes=1, passes=2, bounced=0,
                    resumed_at=resumed_at)  # fmt: skip
    assert stops(result) == pytest.approx(time.monotonic() - least_s, abs=0.02)


def request(at: float, ping: bytes) -> Frame:
    return Frame(at, Kind.REQUEST, ping)


def answer(at: float, ping: bytes) -> Frame:
    return Frame(at, Kind.ANSWER, ping)


@pytest.mark.parametrize(
    ("frames", "cold_s"),
    [
        # Waiting when it resumes at 5.
        ([request(4.0, b"a"), request(4.5, b"b"), answer(5.5, b"a"), answer(5.6, b"b")], 0.5),
        # The network is later than the machine: its wait is not the machine's.
        ([request(7.0, b"a"), answer(7.25, b"a")], 0.25),
        # What it had received before it stopped came by no network of the target's.
        ([request(7.0, b"b"), answer(7.1, b"a"), answer(7.5, b"b")], 0.5),
        ([answer(5.1, b"a"), request(7.0, b"b"), answer(7.5, b"b")], 0.5),
        # The first request may be lost in it: it is reached once it answers any.
        ([request(4.0, b"a"), request(4.5, b"b"), answer(5.5, b"b")], 0.5),
        # From where it asks for its gateway's address the network is in the way.
        ([request(4.0, b"a"), Frame(5.25, Kind.ARP), answer(6.0, b"a")], 0.25),
        # What is sent while it is not running is its QEMU's.
        ([request(4.0, b"a"), Frame(4.5, Kind.ARP), answer(5.5, b"a")], 0.5),
    ],
)
def test_the_machines_first_answer_is_timed_from_where_it_runs_and_is_asked(
    frames: Sequence[Frame], cold_s: float
) -> None:
    assert first_answer(frames, 5.0).cold_s == pytest.approx(cold_s)


def test_only_pings_from_the_first_that_waited_count_and_their_numbers_wrap() -> None:
    def key(number: int, sender: int = 7) -> bytes:
        return sender.to_bytes(2) + number.to_bytes(2)

    frames = [
        request(4.0, key(0xFFFE)), request(4.1, key(0xFFFF)), request(4.2, key(1)), request(4.2, key(1, sender=8)),
        answer(5.1, key(0xFFFE)), answer(5.2, key(1, sender=8)), answer(5.5, key(1)),
    ]  # fmt: skip
    assert first_answer(frames, 5.0, key(0xFFFE)).cold_s == pytest.approx(0.1)
    found = first_answer(frames, 5.0, key(0xFFFF))
    assert (found.asked_at, found.answered_at) == (4.1, 5.5)


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (0.5, 3.5, (1.0, 0.5, 1.5)),  # half a second before the stop, 1 until a request comes
        (2.6, 4.0, (0.0, 0.5, 0.9)),  # a later wait than the switch: the pause is not in it
        (0.2, 0.9, (0.0, 0.0, 0.7)),
    ],
)
def test_the_longest_wait_is_shared_out(begin: float, end: float, expected: tuple[float, float, float]) -> None:
    found = shares(begin, end, 1.0, FirstAnswer(runs_at=2.0, asked_at=3.0, answered_at=3.5))
    assert (found.pause_s, found.cold_s, found.network_s) == pytest.approx(expected)


def test_a_machine_that_answers_nothing_is_told() -> None:
    with pytest.raises(ValueError, match="of 1 requests at the machine's tap it answered none"):
        first_answer([request(4.0, b"a"), answer(5.5, b"b")], 5.0)


def test_the_last_answer_before_the_stop() -> None:
    frames = [answer(1.0, b"a"), answer(2.0, b"b"), request(2.5, b"c"), answer(4.0, b"c")]
    assert last_answer(frames, 3.0) == 2.0
    assert last_answer(frames, 0.5) is None
