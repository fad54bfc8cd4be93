"""The fast path of two xTRs: what it takes, what it leaves to the kernel, and that nobody can tell."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.lab.test_lisp_dataplane import (  # noqa: F401 (fixture)
    IID,
    PROBLEMS,
    R1,
    R2,
    R2_6,
    SITE2,
    Path,
    capture,
    outer_ip,
    path,
    tcp_transfer,
)

from followme.system import netns
from followme.system.process import ProcessError, run
from followme.xtr import fastpath
from followme.xtr.errors import DataPlaneError
from followme.xtr.fastpath import FastPath
from followme.xtr.headers import PlainHeaders
from followme.xtr.links import is_bare_veth
from followme.xtr.routemsg import Encap, Locator, Negative, Punt, RouteType
from followme.xtr.routes import MapCacheRoutes

pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]

LOCAL = ipaddress.IPv4Address("192.0.2.1")
HOST = ipaddress.ip_network("10.2.0.2/32")


@dataclass(slots=True)
class Fast:
    """The path, with the programs at both ends and routes that tell them."""

    path: Path
    one: FastPath
    two: FastPath
    routes: MapCacheRoutes
    handed: bool
    """Whether packets are handed to the other ends of the veths, or go by their queues."""

    async def tunnelled(self) -> tuple[int, int]:
        """Packets that xtr1's tunnel device has sent and received: those that the kernel's path took."""
        counts = await passed(self.path.xtr1, "lisp0")
        return counts["tx"], counts["rx"]


async def passed(namespace: str, device: str) -> dict[str, int]:
    text = await run(["ip", "-json", "-s", "link", "show", device], namespace=namespace)
    counts = json.loads(text)[0]["stats64"]
    return {way: counts[way]["packets"] for way in ("tx", "rx")}


async def start(path: Path, second: bool = False) -> FastPath:  # noqa: F811
    device, rloc = (path.two, R2) if second else (path.one, R1)
    assert isinstance(rloc, ipaddress.IPv4Address)
    fast = await fastpath.ensure(device, lan="e0", up="u0", local_rloc=rloc)
    if fast is None:
        pytest.skip("no eBPF here")
    return fast


@pytest.fixture(params=["handed", "queued"])
async def fast(path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Fast]:  # noqa: F811
    for name in (path.xtr1, path.xtr2):
        netns.sysctl(name, {"ipv4/conf/all/rp_filter": 0, "ipv4/conf/e0/rp_filter": 0})
        if request.param == "queued":
            await netns.tc(name, [f"qdisc add dev {device} root pfifo" for device in ("e0", "u0")])
    one, two = await start(path), await start(path, second=True)
    with contextlib.ExitStack() as closing:
        closing.callback(one.close)
        closing.callback(two.close)
        routes = [
            closing.enter_context(contextlib.closing(MapCacheRoutes(device, fastpath=programs)))
            for device, programs in ((path.one, one), (path.two, two))
        ]
        path.routes1.close()
        path.routes2.close()
        path.routes1, path.routes2 = routes
        path.connect()
        yield Fast(path, one, two, routes[0], request.param == "handed")


async def test_usual_packets_are_taken_and_all_others_pass_as_before(fast: Fast) -> None:
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2", "-s", "1000")
    assert await fast.tunnelled() == (0, 0)
    assert await tcp_transfer(fast.path, "10.2.0.2", 1 << 20) == bytes(range(256)) * 4096
    before = await fast.tunnelled()
    assert " 0% packet loss" in await fast.path.ping("2001:db8:2::2")
    assert await fast.tunnelled() == (before[0] + 3, before[1] + 3)


async def test_a_veth_without_a_queue_hands_packets_over_and_one_with_a_queue_sends_them(fast: Fast) -> None:
    await fast.path.ping("10.2.0.2")  # neighbours are known now
    devices = [(fast.path.xtr1, "u0"), (fast.path.xtr2, "e0")]
    before = [(await passed(*one))["tx"] for one in devices]
    await fast.path.ping("10.2.0.2", "-c", "40", "-i", "0.01")
    sent = [(await passed(*one))["tx"] - was for one, was in zip(devices, before, strict=True)]
    assert all(count < 20 if fast.handed else count >= 40 for count in sent)


async def test_super_packets_are_taken_on_both_sides_where_they_are_handed_over(fast: Fast) -> None:
    await fast.path.ping("10.2.0.2")
    places = [(fast.path.xtr1, "lisp0"), (fast.path.xtr2, "lisp0"), (fast.path.xtr2, "e0")]
    before = [await passed(*one) for one in places]
    assert await tcp_transfer(fast.path, "10.2.0.2", 1 << 23) == bytes(range(256)) * (1 << 15)
    into, out, lan = [await passed(*one) for one in places]
    came = out["rx"] - before[1]["rx"]
    sent = lan["tx"] - before[2]["tx"]
    assert came > 20  # the kernel takes them out of the tunnel
    assert into["tx"] - before[0]["tx"] == (0 if fast.handed else came)
    assert sent < came / 2 if fast.handed else sent >= came
    # At first their segments were too big for the tunnel.
    assert f"mtu {fast.path.one.mtu}" in await run(["ip", "route", "get", "10.2.0.2"], namespace=fast.path.client)


async def test_segments_too_big_for_the_lan_behind_the_tunnel_are_answered(fast: Fast) -> None:
    await netns.ip(fast.path.xtr2, ["link set e0 mtu 1300"])
    assert await tcp_transfer(fast.path, "10.2.0.2", 1 << 20) == bytes(range(256)) * 4096
    assert "mtu 1300" in await run(["ip", "route", "get", "10.2.0.2"], namespace=fast.path.client)


async def test_the_kernel_verifies_neighbours_that_packets_are_handed_to(fast: Fast) -> None:
    await fast.path.ping("10.2.0.2")
    mac = json.loads(await run(["ip", "-json", "link", "show", "e0"], namespace=fast.path.server))[0]["address"]
    await netns.ip(fast.path.xtr2, [f"neigh replace 10.2.0.2 lladdr {mac} dev e0 nud stale"])
    await fast.path.ping("10.2.0.2", "-c", "300", "-i", "0.004")
    assert "STALE" not in await run(["ip", "neigh", "show", "10.2.0.2"], namespace=fast.path.xtr2)


async def test_a_neighbour_that_is_not_known_is_asked_for_and_the_packet_waits(fast: Fast) -> None:
    await fast.path.ping("10.2.0.2")
    for name in (fast.path.xtr1, fast.path.xtr2):
        await netns.ip(name, ["neigh flush all"])
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2")
    assert await fast.tunnelled() == (0, 0)


async def test_on_the_wire_it_is_lisp_gpe_with_dscp_and_ecn_of_the_inner_packet(fast: Fast) -> None:
    with capture(fast.path.core, "k1") as raw:
        await fast.path.ping("10.2.0.2", "-Q", "0x2a", "-t", "9")
        seen = outer_ip(raw, str(R1))
    outer, udp, inner = seen[:20], seen[20:36], seen[36:]
    for header in (outer, inner[:20]):
        total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
        while total > 0xFFFF:
            total = (total & 0xFFFF) + (total >> 16)
        assert total == 0xFFFF
    assert (outer[0], outer[1], outer[6:8], outer[8], outer[9]) == (0x45, 0x2A, b"\0\0", 64, 17)
    assert outer[12:20] == R1.packed + R2.packed
    assert int.from_bytes(outer[2:4], "big") == len(seen) == len(inner) + 36
    assert int.from_bytes(udp[:2], "big") >= 0xC000
    assert udp[2:4] == b"\x10\xf5"
    assert int.from_bytes(udp[4:6], "big") == len(seen) - 20
    assert udp[6:8] == b"\0\0"
    assert udp[8:16] == bytes([0x0C, 0, 0, 1, 0, 0, IID, 0])
    assert (inner[1], inner[8]) == (0x2A, 8)


async def test_each_xtr_takes_one_off_the_ttl_and_the_kernel_answers_for_the_last(fast: Fast) -> None:
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2", "-t", "3")
    for ttl, router in (("1", "10.1.0.1"), ("2", "192.0.2.6")):
        with pytest.raises(ProcessError) as refused:
            await fast.path.ping("10.2.0.2", "-t", ttl, "-c", "1", "-W", "1")
        assert f"From {router}" in str(refused.value) or "100% packet loss" in str(refused.value)
    assert (await fast.tunnelled())[0] == 0


async def test_a_packet_too_big_is_answered(fast: Fast) -> None:
    fits = fast.path.one.mtu - 28
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2", "-M", "do", "-s", str(fits))
    assert await fast.tunnelled() == (0, 0)
    with pytest.raises(ProcessError, match=rf"mtu ?= ?{fast.path.one.mtu}"):
        await fast.path.ping("10.2.0.2", "-M", "do", "-s", str(fits + 1))


async def test_a_more_specific_entry_of_another_kind_is_obeyed(fast: Fast) -> None:
    fast.routes.replace(Negative(HOST, RouteType.UNREACHABLE))
    with pytest.raises(ProcessError):
        await fast.path.ping("10.2.0.2", "-c", "1", "-W", "1")
    assert fast.routes.delete(Negative(HOST))
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2")
    lan = netns.call_in(fast.path.xtr1, lambda: socket.if_nametoindex("e0"))
    fast.routes.replace(Punt(HOST, lan))
    with pytest.raises(ProcessError):  # nobody has it on the LAN
        await fast.path.ping("10.2.0.2", "-c", "1", "-W", "1")
    fast.routes.replace(Encap(HOST, IID, (Locator(R2),)))  # the mapping's metric is the better one
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2")
    fast.routes.delete(Negative(HOST))
    with pytest.raises(ProcessError):
        await fast.path.ping("10.2.0.2", "-c", "1", "-W", "1")
    fast.routes.delete(Punt(HOST, lan))
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2")
    assert (await fast.tunnelled())[0] == 0


@pytest.mark.parametrize("locators", [(Locator(R2, 1), Locator(R2, 2)), (Locator(R2_6),)], ids=["two", "of-ipv6"])
async def test_what_the_fast_path_cannot_do_is_the_kernels(fast: Fast, locators: tuple[Locator, ...]) -> None:
    fast.routes.replace(Encap(SITE2, IID, locators))
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2")
    assert (await fast.tunnelled())[0] == 3


async def test_an_eid_that_is_held_is_the_kernels_until_it_is_released(fast: Fast) -> None:
    fast.one.hold(HOST)
    await fast.path.ping("10.2.0.2")
    assert (await fast.tunnelled())[0] == 3
    fast.one.release(HOST)
    fast.one.release(HOST)
    await fast.path.ping("10.2.0.2")
    assert (await fast.tunnelled())[0] == 3


async def test_a_mapping_that_covers_our_locator_does_not_take_what_is_for_us(fast: Fast) -> None:
    fast.routes.replace(Encap(ipaddress.ip_network("192.0.2.0/30"), IID, (Locator(R2),)))
    assert " 0% packet loss" in await fast.path.ping(str(R1))
    assert await fast.tunnelled() == (0, 0)


async def test_a_restart_fills_a_new_trie_and_loses_no_packet(fast: Fast) -> None:
    argv = ["ping", "-q", "-c", "200", "-i", "0.005", "10.2.0.2"]
    pinging = asyncio.create_task(run(argv, namespace=fast.path.client))
    await asyncio.sleep(0.2)
    again = await start(fast.path)
    with contextlib.closing(again), contextlib.closing(MapCacheRoutes(fast.path.one, fastpath=again)) as routes:
        before = (await fast.tunnelled())[0]
        assert Encap(SITE2, IID, (Locator(R2),)) in routes.entries()
        await asyncio.sleep(0.05)
        filled = (await fast.tunnelled())[0]
        await fast.path.ping("10.2.0.2")
        assert (await fast.tunnelled())[0] == filled >= before
        assert "200 received" in await pinging
    listed = await run(["tc", "filter", "show", "dev", "e0", "ingress"], namespace=fast.path.xtr1)
    assert listed.count("handle 0x1") == 1


async def test_peers_with_plain_headers_get_them_and_theirs_are_taken(fast: Fast) -> None:
    ends = ((fast.path.one, fast.one, R2), (fast.path.two, fast.two, R1))
    headers = [PlainHeaders(device, ["u0"], fastpath=programs) for device, programs, _ in ends]
    for one, (_, _, peer) in zip(headers, ends, strict=True):
        await one.ensure([peer])
    word = bytes([0x08, 0, 0, 0, 0, 0, IID, 0])
    with capture(fast.path.core, "k1") as raw:
        assert " 0% packet loss" in await fast.path.ping("10.2.0.2")
        assert [outer_ip(raw, str(rloc))[28:36] for rloc in (R1, R2)] == [word, word]
    assert await fast.tunnelled() == (0, 3)  # without ``plain`` the kernel takes what comes in
    fast.one.attach(plain=True)
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2")
    assert await fast.tunnelled() == (0, 3)
    assert await tcp_transfer(fast.path, "10.2.0.2", 1 << 20) == bytes(range(256)) * 4096
    await headers[0].set_peers([])
    with capture(fast.path.core, "k1") as raw:
        await fast.path.ping("10.2.0.2")
        assert outer_ip(raw, str(R1))[28] == 0x0C


async def test_what_is_deleted_while_the_programs_are_off_is_not_there_when_they_come_back(fast: Fast) -> None:
    fast.one.remove()
    fast.routes.delete(Negative(SITE2))
    fast.one.attach(plain=False)
    with pytest.raises(ProcessError):
        await fast.path.ping("10.2.0.2", "-c", "1", "-W", "1")


async def test_removed_programs_leave_the_kernels_path(fast: Fast) -> None:
    fast.one.remove()
    fast.one.remove()
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2")
    assert await fast.tunnelled() == (3, 3)
    for name in ("e0", "u0", "lisp0"):
        assert await run(["tc", "filter", "show", "dev", name, "ingress"], namespace=fast.path.xtr1) == ""


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [("ipv4/conf/e0/rp_filter", 1, "rp_filter of e0"), ("ipv4/ip_forward", 0, "ip_forward is off")],
)
async def test_where_the_kernel_would_drop_there_is_no_fast_path(
    fast: Fast, setting: str, value: int, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    netns.sysctl(fast.path.xtr1, {setting: value})
    with caplog.at_level(logging.WARNING):
        assert await fastpath.ensure(fast.path.one, lan="e0", up="u0", local_rloc=LOCAL) is None
    assert reason in caplog.text
    assert await run(["tc", "filter", "show", "dev", "e0", "ingress"], namespace=fast.path.xtr1) == ""


async def test_what_a_device_is_like_is_asked_again_when_the_programs_are_attached(fast: Fast) -> None:
    index = netns.call_in(fast.path.xtr2, lambda: socket.if_nametoindex("e0"))
    assert is_bare_veth(fast.path.xtr2, index) is fast.handed
    with pytest.raises(DataPlaneError, match="device 99999"):
        is_bare_veth(fast.path.xtr2, 99999)
    assert not is_bare_veth(fast.path.xtr2, fast.path.two.index)
    await netns.tc(fast.path.xtr2, ["qdisc replace dev e0 root pfifo"])
    fast.two.attach(plain=False)
    assert await run(["tc", "filter", "show", "dev", "lisp0", "ingress"], namespace=fast.path.xtr2) == ""
    assert " 0% packet loss" in await fast.path.ping("10.2.0.2")


async def test_a_device_that_is_not_there_or_too_small_is_named(fast: Fast) -> None:
    said = fastpath.problem(fast.path.one, lan="none0", up="u0")
    assert said is not None
    assert "none0" in said
    await netns.ip(fast.path.xtr1, ["link set u0 mtu 1400"])
    said = fastpath.problem(fast.path.one, lan="e0", up="u0")
    assert said == f"the MTU of u0 is 1400: lisp0 needs {fast.path.one.mtu + 36}"
