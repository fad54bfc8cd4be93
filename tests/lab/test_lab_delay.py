"""Delays: accuracy, and what happens when the delay line dies."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network

import pytest

from followme.lab.delay import Delay, DelayedPath, add_loop
from followme.lab.pinger import Pinger
from followme.lab.rundir import Run
from followme.system import needs, netns
from followme.system.process import ProcessError, run

PROBLEMS = needs.check(needs.NETWORK_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]

RIGHT = IPv4Network("10.92.0.0/24")


@pytest.fixture
async def three() -> AsyncIterator[tuple[str, str, str]]:
    """A left host, a router and a right host."""
    made = Run.open()
    try:
        left, router, right = [await made.add_namespace(role) for role in ("left", "router", "right")]
        off = {"ipv4/ip_forward": 1, "ipv4/conf/all/rp_filter": 0, "ipv4/conf/default/rp_filter": 0}
        netns.sysctl(router, off)
        for number, (host, name) in enumerate(((left, "left"), (right, "right")), start=91):
            peer = f"peer name {name} netns {router}"
            await netns.ip(host, [f"link add name eth0 type veth {peer}", "link set eth0 up"])
            await netns.ip(router, [f"address add 10.{number}.0.1/24 dev {name}", f"link set {name} up"])
            routes = [f"address add 10.{number}.0.2/24 dev eth0", f"route add default via 10.{number}.0.1"]
            await netns.ip(host, routes)
        yield left, router, right
    finally:
        await made.close()


async def test_a_delay_is_kept_precisely(three: tuple[str, str, str]) -> None:
    left, router, _ = three
    delay = await Delay.start(router, [DelayedPath("left", RIGHT, 0.010)])
    try:
        async with Pinger(left, IPv4Address("10.92.0.2")) as pinger:
            await asyncio.sleep(1.5)
        statistics = await delay.statistics()
    finally:
        await delay.stop()
    times = sorted(ping.rtt_s for ping in pinger.pings if ping.rtt_s is not None)
    median, slow = times[len(times) // 2], times[len(times) * 95 // 100]
    print(f"{delay.kind}: asked 10 ms, median {median * 1e3:.3f} ms, 95% {slow * 1e3:.3f} ms, {statistics}")
    assert pinger.lost == []
    assert pinger.duplicates == 0
    assert times[0] >= 0.010
    assert median < 0.020, "only one direction is delayed, so a median of twice the delay is wrong"
    assert statistics.packets == len(pinger.pings)


async def test_if_the_delay_line_dies_packets_are_lost_rather_than_early(three: tuple[str, str, str]) -> None:
    left, router, _ = three
    delay = await Delay.start(router, [DelayedPath("left", RIGHT, 0.005)], kind="delayline")
    await run(["ping", "-c", "1", "-W", "2", "10.92.0.2"], namespace=left)
    delay.check()
    await delay.stop()
    with pytest.raises(ProcessError, match="delay line"):
        delay.check()
    with pytest.raises(ProcessError, match="100% packet loss"):
        await run(["ping", "-c", "1", "-W", "1", "10.92.0.2"], namespace=left)


async def test_the_loop_that_netem_uses_brings_packets_back(three: tuple[str, str, str]) -> None:
    left, router, _ = three
    # A queue that every kernel has stands in for netem: the way there and back is the same.
    await add_loop(router, "delay0", "pfifo")
    rules = [f"rule add iif left to {RIGHT} lookup 100", "route add default dev delay0 table 100"]
    await netns.ip(router, rules)
    await run(["ping", "-c", "3", "-i", "0.05", "-W", "2", "10.92.0.2"], namespace=left)
    shown = await run(["ip", "-s", "-o", "link", "show", "dev", "delay0-back"], namespace=router)
    received = int(shown.split("RX:")[1].split("\\")[1].split()[1])
    assert received == 3
