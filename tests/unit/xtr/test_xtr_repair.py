"""All that the kernel has lost is set again: in which order, and what happens meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from followme.lisp import EidPrefix
from followme.xtr import mender
from followme.xtr.config import check
from followme.xtr.errors import DataPlaneError
from followme.xtr.outputs import Way
from followme.xtr.router import TunnelRouter
from followme.xtr.state import Arm

from .play import FAR, MAC, MAC2, OTHER, OWN_MAC, Stage, eid, record

ONE, TWO = IPv4Address("10.3.0.8"), IPv4Address("10.3.0.9")


class Plane:
    """Notes what is set; an arm takes longer than a disarm."""

    lan_mac = OWN_MAC
    lan_addresses = ()

    def __init__(self) -> None:
        self.routes: list[str] = []
        self.armed: dict[EidPrefix, tuple[bytes, IPv4Address]] = {}
        self.tried = 0
        self.refuses = ""
        self.no_port = False
        self.punt: SimpleNamespace | None = None

    async def mend(self, punt: str) -> None:
        await asyncio.sleep(0)
        if self.punt is not None:
            self.punt.handle = -1  # it is gone again

    def strange(self, way: Way) -> bool:
        return False

    def set_route(self, eid: EidPrefix, way: Way) -> None:
        if str(eid).startswith(self.refuses or "-"):
            raise DataPlaneError(f"the kernel refused {eid}")
        self.routes.append(str(eid))

    async def arm(self, eid: EidPrefix, mac: bytes, rloc: IPv4Address) -> None:
        self.tried += 1
        await asyncio.sleep(0.02)
        if self.no_port:
            raise DataPlaneError("no interface port")
        self.armed[eid] = mac, rloc

    async def disarm(self, eid: EidPrefix, mac: bytes) -> None:
        await asyncio.sleep(0.002)
        self.armed.pop(eid, None)


class Made:
    def __init__(self, directory: Path, handle: int) -> None:
        self.plane, self.stage = Plane(), Stage()
        self.router = router = TunnelRouter(check({
            "site": "here", "rlocs": [{"address": "192.0.2.10"}], "prefixes": ["10.3.0.0/24"],
            "space": ["10.0.0.0/8"], "state_dir": str(directory),
            "map_servers": [{"address": "192.0.2.18", "key": "a key for the stage"}],
        }, "test"), plane=cast(Any, self.plane))  # fmt: skip
        router.control = self.stage.control
        self.punt = SimpleNamespace(handle=handle)
        router._punt, router._sensor = cast(Any, self.punt), cast(Any, SimpleNamespace(bind=lambda: None))
        for address, mac in ((ONE, MAC), (TWO, MAC2)):
            self.arm(address, mac, FAR)

    def arm(self, address: IPv4Address, mac: bytes, rloc: IPv4Address) -> None:
        key = EidPrefix.of(address)
        self.router._arms[key] = Arm(key, mac, rloc)

    @property
    def armed(self) -> dict[str, IPv4Address]:
        return {str(eid): rloc for eid, (_, rloc) in self.plane.armed.items()}

    def learn(self, *prefixes: str) -> None:
        for prefix in prefixes:
            self.stage.control.itr.place(record(prefix, FAR), eid(prefix), self.stage.now)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    ends = os.pipe()
    yield Made(tmp_path, ends[0])
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("after_s", [0.005, 0.03])
async def test_a_machine_that_is_disarmed_meanwhile_stays_disarmed(made: Made, after_s: float) -> None:
    repair = asyncio.ensure_future(made.router._repair())
    await asyncio.sleep(after_s)
    made.router._apply = lambda: None  # type: ignore[method-assign]
    await made.router.disarm(TWO)
    await repair
    assert made.armed == {"10.3.0.8/32": FAR}


async def test_a_machine_that_is_armed_anew_meanwhile(made: Made) -> None:
    repair = asyncio.ensure_future(made.router._repair())
    await asyncio.sleep(0.005)
    made.arm(ONE, MAC, OTHER)
    await repair
    assert made.armed == {"10.3.0.8/32": OTHER, "10.3.0.9/32": FAR}


async def test_arms_that_cannot_be_made_keep_nothing_else_waiting(
    made: Made, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mender, "PAUSE_S", 0.01)
    monkeypatch.setattr(mender, "RETRY_S", 0.01)
    made.learn("10.1.0.0/24")
    made.plane.no_port = True
    assert await made.router._repair() == 1
    assert made.plane.routes == ["10.1.0.0/24"]
    await asyncio.sleep(0.15)
    assert made.plane.tried > 4
    made.plane.no_port = False
    await asyncio.sleep(0.15)
    assert set(made.armed) == {"10.3.0.8/32", "10.3.0.9/32"}
    assert made.plane.routes == ["10.1.0.0/24"]  # only the arms were tried again
    assert caplog.text.count("not mended yet") == 1
    assert not made.router._arms_mender.busy


async def test_exceptions_come_before_what_covers_them_and_others_have_their_turns(made: Made) -> None:
    made.learn("10.0.0.0/8", "10.1.0.0/24", "10.1.0.9/32", *(f"10.2.{n // 200}.{n % 200}/32" for n in range(1000)))
    turns, done = 0, False

    async def others() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    made.router._arms.clear()
    task = asyncio.ensure_future(others())
    assert await made.router._repair() == 1003
    done = True
    await task
    assert made.plane.routes[0] == "10.1.0.9/32"
    assert made.plane.routes[-2:] == ["10.1.0.0/24", "10.0.0.0/8"]
    assert turns > 1003 // 64


async def test_what_the_kernel_refuses_is_said_once(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    made.learn("10.1.0.0/24", *(f"10.2.0.{n}/32" for n in range(100)))
    made.plane.refuses = "10.2.0."
    with caplog.at_level(logging.WARNING):
        assert await made.router._repair() == 1
    assert [line.getMessage() for line in caplog.records] == [
        "100 routes were refused, the first: the kernel refused 10.2.0.0/32"
    ]


async def test_a_punt_that_is_gone_again_is_tried_again(made: Made) -> None:
    made.plane.punt = made.punt
    with pytest.raises(DataPlaneError, match="lisp-punt is gone again"):
        await made.router._repair()
