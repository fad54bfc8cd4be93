"""What comes at somebody else's rate is counted always and logged seldom."""

from __future__ import annotations

import logging

import pytest

from followme.system.seldom import LOG_EVERY_S, MAX_LINES, Refusals, Seldom

log = logging.getLogger(__name__)


def test_a_sender_is_counted_always_and_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    refusals = Refusals(log)
    for now in (0.0, 5.0, 9.0, 11.0):
        refusals.refuse("mac", "02:00:00:00:00:02", now, "claims to be alice")
    refusals.refuse("arp", "02:00:00:00:00:02", 11.0)
    refusals.refuse("mac", "02:00:00:00:00:03", 11.0)
    assert refusals.counts == {"mac": 5, "arp": 1}
    assert caplog.messages == [
        "refused (mac): 02:00:00:00:00:02: claims to be alice",
        "refused (mac): 02:00:00:00:00:02: claims to be alice",
        "refused (arp): 02:00:00:00:00:02",
        "refused (mac): 02:00:00:00:00:03",
    ]
    assert {record.name for record in caplog.records} == {log.name}


@pytest.mark.parametrize("lines", [MAX_LINES, 7])
def test_a_flood_from_ever_new_addresses_fills_neither_log_nor_memory(
    caplog: pytest.LogCaptureFixture, lines: int
) -> None:
    refusals = Refusals(log, lines)
    flood = 1000
    for number in range(flood):
        refusals.refuse("stranger", number, 100.0)
    assert refusals.counts["stranger"] == flood
    assert len(caplog.messages) == lines
    refusals.refuse("stranger", "alice", 100.0 + LOG_EVERY_S, "shows up")
    assert caplog.messages[lines:] == [
        f"{flood - lines} more such lines were not logged", "refused (stranger): alice: shows up",
    ]  # fmt: skip
    for number in range(flood):
        refusals.refuse("stranger", number, 120.0 + number)
    assert len(refusals._seldom._said) <= 2 * lines


def test_who_was_logged_late_in_a_full_window_is_still_known_in_the_next_full_one() -> None:
    seldom = Seldom(log, 5)
    assert seldom.due("first", 0.0)
    late = [f"late {number}" for number in range(4)]
    assert all(seldom.due(what, 9.0) for what in late)
    assert [seldom.due(what, 10.0) for what in range(6)] == [True] * 5 + [False]
    assert not any(seldom.due(what, 18.9) for what in late)
    assert not any(seldom.due(what, 19.9) for what in range(5))
    assert seldom.due(late[0], 20.0)
