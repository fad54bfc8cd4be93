"""Routes to RLOCs that read other headers: they wait for the kernel, and nothing else waits for them."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from followme.lisp import EidPrefix
from followme.xtr import admission
from followme.xtr.admission import Admission
from followme.xtr.errors import DataPlaneError
from followme.xtr.kernel import DataPlane
from followme.xtr.outputs import Datagram, Encap, Output, Release, RemoveRoute, SetRoute, ToLan, Way
from followme.xtr.requests import MAX_PACKETS, MAX_WAITING_BYTES

from .play import FAR, OTHER, STRANGER, eid

PLAIN, PLAIN2, KNOWN = (Encap(((rloc, 1),)) for rloc in (FAR, OTHER, STRANGER))
NET, HOST, ELSE = eid("10.1.0.0/24"), eid("10.1.0.9/32"), eid("10.2.0.0/24")


class Plane:
    """FAR and OTHER are strange until ``gate`` opens."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.admitted: list[Way] = []
        self.problem: Exception | None = None

    def strange(self, way: Way) -> bool:
        return way in (PLAIN, PLAIN2) and way not in self.admitted

    async def admit(self, way: Way) -> None:
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        self.admitted.append(way)


class Stage:
    def __init__(self) -> None:
        self.plane = Plane()
        self.done: list[Output] = []
        self.known: set[EidPrefix] = set()
        self.admission = Admission(lambda: cast(DataPlane, self.plane), self.done.append, self.mapping)

    def mapping(self, eid: EidPrefix) -> EidPrefix | None:
        """As the map-cache, which has all that was ever wanted."""
        covering = [one for one in self.known if one.covers(eid)]
        return max(covering, key=lambda one: one.length, default=None)

    def want(self, *outputs: Output) -> list[Output]:
        self.done.clear()
        self.known |= {output.eid for output in outputs if isinstance(output, SetRoute)}
        for output in outputs:
            self.done += self.admission.pass_(output)
        return self.done

    async def open(self) -> list[Output]:
        self.done.clear()
        self.plane.gate.set()
        for _ in range(300):
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


async def test_packets_of_a_part_that_has_its_route_do_not_wait_for_the_rest() -> None:
    it = Stage()
    packets, route = Release(HOST, (b"a",)), SetRoute(HOST, KNOWN)
    assert it.want(SetRoute(NET, PLAIN), route, packets) == [route, packets]
    assert it.want(Release(eid("10.1.0.8/32"), (b"b",))) == []


@pytest.mark.parametrize("problem", [DataPlaneError("nftables\n  refused it"), OSError("nftables refused it")])
async def test_what_the_kernel_refuses_is_tried_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    """Nor does it go round: what came meanwhile has no route to take."""
    monkeypatch.setattr(admission, "RETRY_S", 0.01)
    it = Stage()
    it.plane.problem = problem
    assert it.want(SetRoute(NET, PLAIN), Release(HOST, (b"a",)), SetRoute(ELSE, PLAIN2)) == []
    assert await it.open() == []
    assert it.want(Release(HOST, (b"b",))) == []
    await asyncio.sleep(0.05)
    assert [record.getMessage() for record in caplog.records] == [
        "10.1.0.0/24 is not routed, and tried again each second: nftables refused it"
    ]
    it.plane.problem = None
    await asyncio.sleep(0.03)
    assert sorted(map(str, it.done)) == sorted(map(str, [SetRoute(NET, PLAIN), SetRoute(ELSE, PLAIN2)]))
    assert it.admission.dropped == 2
    late: list[Output] = [SetRoute(eid("10.5.0.0/24"), PLAIN), Release(HOST, (b"c",))]
    assert it.want(*late) == late


async def test_what_waits_is_bounded() -> None:
    it = Stage()
    assert it.want(SetRoute(NET, PLAIN), *(Release(HOST, (b"a",)) for _ in range(1000))) == []
    assert len(await it.open()) == 1 + MAX_PACKETS
    assert it.admission.dropped == 1000 - MAX_PACKETS
    it = Stage()
    nets = [eid(f"10.2.{number}.0/24") for number in range(250)]
    big = bytes(60_000)
    it.want(*(SetRoute(net, PLAIN) for net in nets), *(Release(net, (big,)) for net in nets * 3))
    done = await it.open()
    assert sum(isinstance(one, Release) for one in done) == MAX_WAITING_BYTES // 60_000
    it.want(SetRoute(NET, PLAIN2), Release(HOST, (big,)))
    assert it.admission.dropped == 750 - MAX_WAITING_BYTES // 60_000  # there is room again


async def test_an_end_in_between() -> None:
    it = Stage()
    it.want(SetRoute(NET, PLAIN))
    await it.admission.close()
    assert await it.open() == []
