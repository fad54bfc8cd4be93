"""The recovery table, all of it: every recorded state with every pair of answers of the hosts."""

from __future__ import annotations

from itertools import product

import pytest

from followme.domain import Migration, MigrationState
from followme.migration.recovery import CopyStatus, Verdict, recover

WHOLE_AT_SOURCE = {CopyStatus.RUNNING, CopyStatus.PAUSED, CopyStatus.POSTMIGRATE}
WHOLE_AT_TARGET = {CopyStatus.RUNNING, CopyStatus.PAUSED}
ALL = list(product(MigrationState, CopyStatus, CopyStatus))


def verdict(state: MigrationState, source: CopyStatus, target: CopyStatus) -> Verdict:
    return recover(Migration("m", "vm", "a", "b", "live", state, 0.0), source, target)


@pytest.mark.parametrize(("state", "source", "target"), ALL)
def test_what_is_kept_is_whole_and_lost_only_if_none_is(
    state: MigrationState, source: CopyStatus, target: CopyStatus
) -> None:
    said = verdict(state, source, target)
    if said is Verdict.FINISH_AT_TARGET:
        assert target in WHOLE_AT_TARGET
    elif said is Verdict.RESUME_AT_SOURCE:
        assert source in WHOLE_AT_SOURCE
    else:
        assert source not in WHOLE_AT_SOURCE
        assert target not in WHOLE_AT_TARGET


@pytest.mark.parametrize(("state", "source", "target"), ALL)
def test_a_copy_that_alone_runs_is_never_ended(
    state: MigrationState, source: CopyStatus, target: CopyStatus
) -> None:
    runs = [status is CopyStatus.RUNNING for status in (source, target)]
    if runs == [True, False]:
        assert verdict(state, source, target) is Verdict.RESUME_AT_SOURCE
    if runs == [False, True]:
        assert verdict(state, source, target) is Verdict.FINISH_AT_TARGET


@pytest.mark.parametrize("state", MigrationState)
def test_where_both_run_what_was_recorded_says_which_is_right(state: MigrationState) -> None:
    target_was_told = state in (MigrationState.SWITCHED, MigrationState.RELEASED)
    expected = Verdict.FINISH_AT_TARGET if target_was_told else Verdict.RESUME_AT_SOURCE
    assert verdict(state, CopyStatus.RUNNING, CopyStatus.RUNNING) is expected


@pytest.mark.parametrize("source", [CopyStatus.PAUSED, CopyStatus.POSTMIGRATE])
@pytest.mark.parametrize(("state", "expected"), [
    (MigrationState.PLANNED, Verdict.RESUME_AT_SOURCE),
    (MigrationState.PREPARED, Verdict.RESUME_AT_SOURCE),
    (MigrationState.TRANSFERRING, Verdict.RESUME_AT_SOURCE),
    (MigrationState.SWITCHED, Verdict.FINISH_AT_TARGET),
    (MigrationState.RELEASED, Verdict.FINISH_AT_TARGET),
    (MigrationState.FAILED, Verdict.RESUME_AT_SOURCE),
])
def test_two_stopped_whole_copies_go_on_where_the_traffic_waits(
    source: CopyStatus, state: MigrationState, expected: Verdict
) -> None:
    assert verdict(state, source, CopyStatus.PAUSED) is expected


@pytest.mark.parametrize("target", [CopyStatus.INMIGRATE, CopyStatus.GONE, CopyStatus.POSTMIGRATE])
@pytest.mark.parametrize("state", MigrationState)
def test_a_target_that_holds_half_is_no_copy(state: MigrationState, target: CopyStatus) -> None:
    assert verdict(state, CopyStatus.POSTMIGRATE, target) is Verdict.RESUME_AT_SOURCE
    assert verdict(state, CopyStatus.GONE, target) is Verdict.LOST
