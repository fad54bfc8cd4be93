"""Routes that the kernel has lost: set again when a packet misses them, and all when a device comes back."""

from __future__ import annotations

import asyncio
import logging

import pytest

from followme.lisp import Action
from followme.xtr import mender
from followme.xtr.errors import DataPlaneError
from followme.xtr.itr import MAX_MISSED
from followme.xtr.mender import Mender
from followme.xtr.outputs import Encap, Native, Release, SetRoute, ToLan

from .play import FAR, MAC, Stage, eid, packet, record

NET = eid("10.1.0.0/24")


def stage() -> Stage:
    it = Stage()
    it.settle()
    it.learn("10.1.0.9", record("10.1.0.0/24", FAR))
    return it


def test_a_miss_of_what_is_known_sets_the_route_again_once_a_second() -> None:
    it = stage()
    release = Release(eid("10.1.0.7"), (packet("10.3.0.5", "10.1.0.7"),))
    assert it.miss("10.3.0.5", "10.1.0.7") == [release]  # it was under way
    it.wait(1.0)
    way = Encap(((FAR, 100),))
    assert it.miss("10.3.0.5", "10.1.0.7") == [SetRoute(NET, way), release]
    assert it.miss("10.3.0.5", "10.1.0.7") == [release]
    assert it.refused("route that the kernel has lost") == 1
    it.wait(1.0)
    assert SetRoute(NET, way) in it.miss("10.3.0.5", "10.1.0.7")


def test_packets_of_a_route_that_cannot_be_set_do_not_go_round_for_ever() -> None:
    it = stage()
    it.wait(1.0)
    released = sum(len(it.miss("10.3.0.5", "10.1.0.7")) for _ in range(5000))
    assert released == MAX_MISSED + 1


@pytest.mark.parametrize("action", [Action.NATIVELY_FORWARD, Action.DROP])
def test_a_lost_negative_route_comes_back(action: Action) -> None:
    it = Stage()
    it.settle()
    it.learn("10.9.0.9", record("10.9.0.0/24", ttl=15, action=action))
    it.wait(1.0)
    out = it.miss("10.3.0.5", "10.9.0.9")
    assert [one.eid for one in it.all(SetRoute)] == [eid("10.9.0.0/24")]
    way = it.all(SetRoute)[0].way
    native = action == Action.NATIVELY_FORWARD
    assert (isinstance(way, Native), any(isinstance(one, Release) for one in out)) == (native, native)


def test_a_user_that_is_here_gets_its_route_again() -> None:
    it, user = Stage(), eid("10.4.0.7/32")
    it.settle()
    it.control.appeared(user, MAC, it.now)
    it.take()
    release = Release(user, (packet("10.1.0.9", "10.4.0.7"),))
    assert it.miss("10.1.0.9", "10.4.0.7") == [SetRoute(user, ToLan()), release]
    assert it.miss("10.1.0.9", "10.4.0.7") == []
    it.wait(1.0)
    assert it.miss("10.1.0.9", "10.4.0.7") == [SetRoute(user, ToLan()), release]
    assert it.miss("10.1.0.9", "10.3.0.77") == []  # of our subnet, and no route of ours


async def test_what_is_lost_is_mended_whatever_goes_wrong(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender, "PAUSE_S", 0.01)
    monkeypatch.setattr(mender, "RETRY_S", 0.01)
    calls = 0

    async def repair() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ValueError("Invalid file descriptor: -1")
        return 7

    made = Mender(repair)
    made.lost("lisp-punt", "is gone")
    await asyncio.sleep(0.2)
    assert (calls, made.busy) == (3, False)
    assert [record.getMessage() for record in caplog.records][1:] == [
        "not mended yet: Invalid file descriptor: -1", "mended (lisp-punt): 7 routes were set again",
    ]  # fmt: skip


async def test_losses_are_mended_together_and_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender, "PAUSE_S", 0.01)
    monkeypatch.setattr(mender, "RETRY_S", 0.01)
    calls, down = 0, True

    async def repair() -> int:
        nonlocal calls
        calls += 1
        if down:
            raise DataPlaneError("lan is down")
        return 7

    made = Mender(repair)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            made.lost("lan", "is down: the kernel has dropped its routes")
        made.lost("lisp0", "is down")
        made.lost("lisp0", "is gone")
        await asyncio.sleep(0.1)
        assert calls > 2
        down = False
        await asyncio.sleep(0.05)
    assert not made.busy
    assert [record.getMessage() for record in caplog.records] == [
        "lan is down: the kernel has dropped its routes; what is lost is set again",
        "lisp0 is gone; what is lost is set again",
        "not mended yet: lan is down",
        "mended (lan, lisp0): 7 routes were set again",
    ]
    made.lost("lan", "is gone")
    await made.close()
