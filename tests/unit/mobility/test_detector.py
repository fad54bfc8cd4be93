"""Has it moved, or does another pretend?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from followme.domain import Node
from followme.mobility import detector
from followme.mobility.detector import MoveChecks

from .world import ALICE, BOB


def checks(react: Callable[[MoveChecks, Node], None] = lambda checks, node: None) -> tuple[MoveChecks, list[str]]:
    """Checks whose question is put down and met with ``react``."""
    asked: list[str] = []

    async def ask(node: Node) -> None:
        asked.append(node.name)
        react(made, node)

    made = MoveChecks(ask)
    return made, asked


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "ALIVE_WAIT_S", 0.005)


async def test_who_does_not_answer_has_left() -> None:
    made, asked = checks()
    assert await made.has_left(ALICE) is True
    assert asked == ["alice"] * detector.ALIVE_TRIES


async def test_who_answers_is_still_there() -> None:
    made, asked = checks(lambda made, node: made.answered(node.name))
    assert await made.has_left(ALICE) is False
    assert asked == ["alice"]


async def test_an_answer_to_the_second_question_counts() -> None:
    made, asked = checks(lambda made, node: made.answered(node.name) if len(asked) == 2 else None)
    assert await made.has_left(ALICE) is False


async def test_a_port_that_goes_ends_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "ALIVE_WAIT_S", 60.0)
    made, _ = checks()
    check = asyncio.ensure_future(made.has_left(ALICE))
    await asyncio.sleep(0)
    made.left("alice")
    assert await asyncio.wait_for(check, 5) is True


async def test_one_check_a_node_and_others_answers_do_not_count() -> None:
    made, _ = checks(lambda made, node: made.answered("bob"))
    check = asyncio.ensure_future(made.has_left(ALICE))
    await asyncio.sleep(0)
    assert await made.has_left(ALICE) is None
    assert await check is True
    assert await made.has_left(BOB) is False, "the next check is possible"


async def test_checks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "MAX_CHECKS", 1)
    made, _ = checks()
    check = asyncio.ensure_future(made.has_left(ALICE))
    await asyncio.sleep(0)
    assert await made.has_left(BOB) is None
    check.cancel()
    await asyncio.gather(check, return_exceptions=True)
    assert await made.has_left(BOB) is True, "a cancelled check leaves its place"


async def test_all_who_wait_hear_the_same_verdict() -> None:
    made, asked = checks()
    own = asyncio.ensure_future(made.has_left(ALICE))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(made.verdict(ALICE)) for _ in range(3)]
    assert await own is True
    assert await asyncio.gather(*others) == [True] * 3
    assert asked == ["alice"] * detector.ALIVE_TRIES


async def test_who_waits_for_a_check_that_is_cancelled_asks_for_himself() -> None:
    made, asked = checks(lambda made, node: made.answered(node.name) if len(asked) == 2 else None)
    own = asyncio.ensure_future(made.has_left(ALICE))
    await asyncio.sleep(0)
    others = [asyncio.ensure_future(made.verdict(ALICE)) for _ in range(2)]
    await asyncio.sleep(0)
    own.cancel()
    assert await asyncio.gather(*others) == [False, False]
    assert asked == ["alice"] * 2
