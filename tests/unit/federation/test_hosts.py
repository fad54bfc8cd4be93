"""A host's requests and its controller's answers, over controllers that refuse, are slow, or die."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

import pytest

from followme.domain import NodeKind
from followme.federation.bus import BusError
from followme.federation.engine import FederationError, NotYet
from followme.federation.hosts import HostClient, HostDesk, HostRequest, decode
from followme.federation.memory import MemoryHub

from .domains import Four, OneDomain

NODE = IPv4Address("10.1.0.10")
MAC = b"\x02\0\0\0\0\1"


Left = Callable[[IPv4Address], Awaitable[None]]


class Arrivals:
    def __init__(self, reason: str = "") -> None:
        self.seen: list[tuple[str, HostRequest]] = []
        self.reason = reason

    async def __call__(self, host: str, request: HostRequest) -> None:
        self.seen.append((host, request))
        if self.reason:
            raise FederationError(self.reason)


async def _nobody_comes_that_way(identifier: IPv4Address) -> None:
    assert identifier == NODE


def _hosts(one: OneDomain) -> Callable[[HostRequest], set[str]]:
    """``h1`` is the host of n1, and so on."""

    def hosts(request: HostRequest) -> set[str]:
        where = request.network if request.phase == "arrived" else one.place(request.identifier) or "n1"
        return {f"h{where[1:]}"}

    return hosts


async def _desk(one: OneDomain, arrivals: Arrivals, left: Left = _nobody_comes_that_way) -> None:
    await HostDesk(one.engine, arrivals, left, _hosts(one)).serve(one.bus)


async def test_a_host_carries_a_machine() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        arrivals = Arrivals()
        await _desk(four.alpha, arrivals)
        await _desk(four.beta, arrivals)
        host = HostClient(four.hub.host_bus("alpha", "h1"))
        target = HostClient(four.hub.host_bus("beta", "h2"))
        await host.prepare(NODE, "n2", "m1")
        await host.flipped(NODE, "m1")
        await target.arrived(NODE, "m1", "n2", MAC)
        await host.released(NODE, "m1")
        await four.settled(("alpha", "beta"), "n2")
        assert arrivals.seen == [("h2", HostRequest("arrived", NODE, "m1", "n2", MAC))]


async def test_a_refusal_comes_with_its_reason() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        await _desk(four.alpha, Arrivals("who is that"))
        host = HostClient(four.hub.host_bus("alpha", "h1"))
        with pytest.raises(FederationError, match="no such network"):
            await host.prepare(NODE, "nowhere", "m1")
        with pytest.raises(FederationError, match="who is that"):
            await host.arrived(NODE, "m1", "n1", MAC)


async def test_an_arrival_of_which_nothing_is_known_yet_is_told_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("followme.federation.hosts.AGAIN_S", 0.01)
    async with Four() as four:
        arrivals, times = Arrivals(), 0

        async def not_yet(host: str, request: HostRequest) -> None:
            nonlocal times
            times += 1
            if times < 4:
                raise NotYet("host h2 does not say whether it has it")
            await arrivals(host, request)

        await HostDesk(four.alpha.engine, not_yet, _nobody_comes_that_way, _hosts(four.alpha)).serve(four.alpha.bus)
        await asyncio.wait_for(HostClient(four.hub.host_bus("alpha", "h1")).arrived(NODE, "m1", "n1", MAC), 5)
        assert (times, len(arrivals.seen)) == (4, 1)
        said = [record for record in caplog.records if "host h2 does not say" in record.getMessage()]
        assert [record.levelname for record in said] == ["WARNING"]


async def test_the_source_is_released_when_no_packet_takes_the_way_over_it() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        quiet = asyncio.Event()

        async def left(identifier: IPv4Address) -> None:
            await quiet.wait()

        await _desk(four.alpha, Arrivals(), left)
        host = HostClient(four.hub.host_bus("alpha", "h1"))
        await host.prepare(NODE, "n2", "m1")
        await host.flipped(NODE, "m1")
        releasing = asyncio.create_task(host.released(NODE, "m1"))
        await asyncio.sleep(0.2)
        view = four.alpha.engine.federate.view(NODE)
        assert view is not None
        assert view.mapping is not None
        assert view.mapping.leaving is not None
        quiet.set()
        await asyncio.wait_for(releasing, 5)
        await four.settled(("alpha", "beta"), "n2")


async def test_an_aborted_move_leaves_the_machine_where_it_was() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        await _desk(four.alpha, Arrivals())
        host = HostClient(four.hub.host_bus("alpha", "h1"))
        await host.prepare(NODE, "n2", "m1")
        await host.aborted(NODE, "m1")
        await host.aborted(NODE, "m1")
        assert four.alpha.place(NODE) in (None, "n1")
        await host.prepare(NODE, "n3", "m2")
        assert four.gamma.place(NODE) == "n1", "and n3 is told so"


async def test_a_controller_that_dies_meanwhile_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("followme.federation.hosts.ANSWER_S", 0.5)
    async with Four(kind=NodeKind.MACHINE) as four:
        first = four.alpha
        await _desk(first, Arrivals())
        host = HostClient(four.hub.host_bus("alpha", "h1"))
        await host.prepare(NODE, "n2", "m1")
        first.bus.cut = True  # type: ignore[attr-defined]
        flipping = asyncio.create_task(host.flipped(NODE, "m1"))
        await asyncio.sleep(0.3)
        assert not flipping.done()
        await first.stop()
        second = OneDomain(four.hub.bus("alpha"), first.store)
        four.all["alpha"] = await second.start(2)
        second.engine.know(four.cards[0])
        await _desk(second, Arrivals())
        await asyncio.wait_for(flipping, 10)
        await host.released(NODE, "m1")
        await four.settled(("alpha", "beta"), "n2")


async def test_a_preparation_gives_up_in_time_when_nobody_answers() -> None:
    hub = MemoryHub()
    host = HostClient(hub.host_bus("alpha", "h1"))
    with pytest.raises(FederationError, match="no controller of alpha"):
        await host.prepare(NODE, "n2", "m1", timeout=0.5)


async def test_while_it_takes_too_long_there_is_no_answer() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        four.hub.part("alpha", "beta")
        desk = HostDesk(four.alpha.engine, Arrivals(), _nobody_comes_that_way, _hosts(four.alpha))
        asking = asyncio.create_task(desk.receive("h1", HostRequest("prepare", NODE, "m1", "n2").encode()))
        await asyncio.sleep(0.1)
        await four.alpha.engine.close()
        with pytest.raises(BusError):
            await asking


@pytest.mark.parametrize("payload", [
    b"", b"[]", b"{}", b"\xff", b'["prepare", 1, "m", "n"]', b'["steal", 1, "m", "n", ""]',
    b'["prepare", -1, "m", "n", ""]', b'["prepare", 4294967296, "m", "n", ""]', b'["prepare", true, "m", "n", ""]',
    b'["prepare", 1, "", "n", ""]', b'["prepare", 1, "m", "n", "020000000001"]', b'["arrived", 1, "m", "n", "02"]',
    b'["arrived", 1, "m", "n", "zz0000000001"]', b"[" * 4000, b"[" * 5000,
])  # fmt: skip
async def test_what_is_no_request_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(payload)


async def test_one_that_was_frozen_answers_nobody_by_what_it_knew() -> None:
    async with Four() as four:
        desk = HostDesk(four.alpha.engine, Arrivals(), _nobody_comes_that_way, _hosts(four.alpha))
        request = HostRequest("arrived", NODE, "m1", "n1", MAC).encode()
        assert await desk.receive("h1", request) == b'[""]'
        four.alpha.valid = False
        with pytest.raises(BusError, match="not the active one"):
            await desk.receive("h1", request)


async def test_a_host_speaks_only_for_machines_that_it_has() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        arrivals = Arrivals()
        await _desk(four.alpha, arrivals)
        await _desk(four.beta, arrivals)
        stranger = HostClient(four.hub.host_bus("alpha", "operator"))
        for ask in (stranger.prepare(NODE, "n2", "m1"), stranger.flipped(NODE, "m1"), stranger.released(NODE, "m1"),
                    stranger.aborted(NODE, "m1"), stranger.arrived(NODE, "m1", "n1", MAC)):  # fmt: skip
            with pytest.raises(FederationError, match="host operator does not have"):
                await ask
        host = HostClient(four.hub.host_bus("alpha", "h1"))
        await host.prepare(NODE, "n2", "m1")
        with pytest.raises(FederationError, match="host operator does not have"):
            await stranger.flipped(NODE, "m1")
        await host.flipped(NODE, "m1")
        await host.released(NODE, "m1")  # it is elsewhere now
        with pytest.raises(FederationError, match="host h1 does not have"):
            await HostClient(four.hub.host_bus("beta", "h1")).arrived(NODE, "m1", "n2", MAC)
        assert not arrivals.seen
