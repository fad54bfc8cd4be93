"""Routes to RLOCs that read other headers: they wait for the kernel, and nothing else waits for them."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from followme.xtr.admission import Admission
from followme.xtr.errors import DataPlaneError
from followme.xtr.kernel import DataPlane
from followme.xtr.outputs import Datagram, Encap, Output, Release, RemoveRoute, SetRoute, ToLan, Way

from .play import FAR, OTHER, STRANGER, eid

PLAIN, PLAIN2, KNOWN = (Encap(((rloc, 1),)) for rloc in (FAR, OTHER, STRANGER))
NET, HOST, ELSE = eid("10.1.0.0/24"), eid("10.1.0.9/32"), eid("10.2.0.0/24")


class Plane:
    """FAR and OTHER are strange until ``gate`` opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.admitted: list[Way] = []
        self.broken = False

    def strange(self, way: Way) -> bool:
        return way in (PLAIN, PLAIN2) and way not in self.admitted

    async def admit(self, way: Way) -> None:
        await self.gate.wait()
        if self.broken:
            raise DataPlaneError("nftables refused it")
        self.admitted.append(way)


class Stage:
    def __init__(self) -> None:
        self.plane = Plane()
        self.done: list[Output] = []
        self.admission = Admission(lambda: cast(DataPlane, self.plane), self.done.append)

    def want(self, *outputs: Output) -> list[Output]:
        self.done.clear()
        for output in outputs:
            self.done += self.admission.pass_(output)
        return self.done

    async def open(self) -> list[Output]:
        self.done.clear()
        self.plane.gate.set()
        for _ in range(10):
            await asyncio.sleep(0)
        return self.done


async def test_only_what_needs_the_route_waits_for_it() -> None:
    it = Stage()
    packets, others = Release(HOST, (b"a",)), Release(ELSE, (b"b",))
    datagram, flip = Datagram(b"x", FAR, 4342), SetRoute(ELSE, KNOWN)
    assert it.want(SetRoute(NET, PLAIN), packets, datagram, flip, others) == [datagram, flip, others]
    assert it.want(SetRoute(HOST, ToLan())) == [SetRoute(HOST, ToLan())]
    assert await it.open() == [SetRoute(NET, PLAIN), packets]
    again: list[Output] = [SetRoute(ELSE, PLAIN), packets]
    assert it.want(*again) == again  # it is no stranger any more


@pytest.mark.parametrize("newer", [SetRoute(NET, ToLan()), SetRoute(NET, KNOWN), RemoveRoute(NET)])
async def test_a_newer_route_of_the_same_eid_does_not_wait(newer: SetRoute | RemoveRoute) -> None:
    """A machine comes back while its old route is being made ready."""
    it = Stage()
    packets = Release(HOST, (b"a",))
    assert it.want(SetRoute(NET, PLAIN), packets) == []
    assert it.want(newer) == [newer, packets]
    assert await it.open() == []


async def test_the_newest_strange_route_counts() -> None:
    it = Stage()
    packets = Release(HOST, (b"a",))
    assert it.want(SetRoute(NET, PLAIN), packets) == []
    await asyncio.sleep(0)
    assert it.want(SetRoute(NET, PLAIN2), SetRoute(ELSE, PLAIN2)) == []
    assert await it.open() == [SetRoute(NET, PLAIN2), packets, SetRoute(ELSE, PLAIN2)]


async def test_what_the_kernel_refuses_is_not_routed(caplog: pytest.LogCaptureFixture) -> None:
    it = Stage()
    it.plane.broken = True
    assert it.want(SetRoute(NET, PLAIN), Release(HOST, (b"a",))) == []
    assert await it.open() == []
    assert "10.1.0.0/24 is not routed: nftables refused it" in caplog.text
    it.plane.broken = False
    it.want(SetRoute(NET, PLAIN))
    assert await it.open() == [SetRoute(NET, PLAIN)]


async def test_an_end_in_between() -> None:
    it = Stage()
    it.want(SetRoute(NET, PLAIN))
    await it.admission.close()
    assert await it.open() == []
