"""A tunnel router and devices that vanish, kernels with little memory, machines with like MACs; on the kernel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests import until as waiting

from followme.lisp import EidPrefix, Locator, MapNotify, MappingRecord, sign
from followme.system import needs, netns
from followme.system.process import run
from followme.xtr.arms import Arms
from followme.xtr.config import check
from followme.xtr.errors import DataPlaneError
from followme.xtr.outputs import Departed, Event
from followme.xtr.residents import Resident
from followme.xtr.router import TunnelRouter

PROBLEMS = needs.check([needs.Need.ROOT, needs.Need.NETWORKS, needs.Need.VXLAN_GPE])
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]
until = partial(waiting.until, seconds=10.0)


@pytest.fixture
async def namespace() -> AsyncIterator[str]:
    name = f"fmv{os.getpid()}"
    await netns.add(name)
    try:
        await netns.ip(name, [
            "link set lo up", "link add lan type veth peer name host", "link add name up type veth peer name core",
            "addr add 10.1.0.1/24 dev lan", "addr add 192.0.2.1/24 dev up",
            *(f"link set dev {device} up" for device in ("lan", "host", "up", "core")),
        ])  # fmt: skip
        netns.sysctl(name, {"ipv4/ip_forward": 1})
        yield name
    finally:
        await netns.delete(name)


def router(namespace: str, directory: Path, **more: object) -> TunnelRouter:
    return TunnelRouter(check({
        "site": "here", "namespace": namespace, "rlocs": [{"address": "192.0.2.1"}], "prefixes": ["10.1.0.0/24"],
        "space": ["10.0.0.0/8"], "dynamic": {"prefixes": ["10.9.0.0/16"], "max_eids": 8192},
        "state_dir": str(directory), "map_servers": [{"address": "192.0.2.18", "key": "a key for the lab"}],
        "probe_s": 0.0, **more,
    }, "test"))  # fmt: skip


def send(namespace: str, target: str) -> None:
    with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", (target, 9))


async def test_the_punt_device_is_made_anew(
    namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = router(namespace, tmp_path)
    async with AsyncExitStack() as opened:
        await made.start()
        opened.push_async_callback(made.close, leave=False)
        pending = made.control.itr.requests.pending
        send(namespace, "10.2.0.9")
        await until(lambda: EidPrefix.of("10.2.0.9") in pending)
        with caplog.at_level(logging.ERROR):
            await netns.ip(namespace, ["link del lisp-punt"])
            await until(lambda: "is gone" in caplog.text)
            await until(lambda: not made._mender.busy)
        assert len(caplog.records) == 1
        send(namespace, "10.2.0.10")
        await until(lambda: EidPrefix.of("10.2.0.10") in pending)


@pytest.mark.parametrize(("memory", "users", "cut"), [(20480, 500, False), (4096, 500, True), (256, 500, True)])
async def test_a_kernel_with_little_memory_for_the_filter(
    namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, memory: int, users: int, cut: bool
) -> None:
    """A kernel before 6.8 has 20480."""
    try:
        netns.sysctl(namespace, {"core/optmem_max": memory})
    except OSError:
        pytest.skip("this kernel has one optmem_max for all namespaces")
    made = router(namespace, tmp_path)
    async with AsyncExitStack() as opened:
        await made.start()
        opened.push_async_callback(made.close, leave=False)
        await asyncio.sleep(0.05)
        for number in range(users):
            mac = bytes.fromhex("0200000a") + number.to_bytes(2)
            made.control.residents.put(Resident(EidPrefix.of(IPv4Address(0x0A090000 + number)), mac, pinned=False))
            made._apply()
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
    said = [record.getMessage() for record in caplog.records if "the LAN's filter" in record.getMessage()]
    assert len(said) == cut
    assert not [record for record in caplog.records if record.exc_info]


async def test_what_was_said_before_a_restart_does_not_count_again(namespace: str, tmp_path: Path) -> None:
    """Who records what the map server says can say it once more, in its name."""
    server, machine = IPv4Address("192.0.2.18"), EidPrefix.of("10.1.0.5")
    believed = []
    for _ in range(2):
        events: list[Event] = []
        made = router(namespace, tmp_path)
        made._on_event = events.append
        async with AsyncExitStack() as opened:
            await made.start()
            opened.push_async_callback(made.close, leave=True)
            made.claim(IPv4Address("10.1.0.5"), bytes.fromhex("020000000001"))
            moved = MappingRecord(machine, (Locator(IPv4Address("192.0.2.5")),))
            said = MapNotify(1000, (moved,), made.config.identity, 0)
            made.control.receive(sign(said, b"a key for the lab").encode(), server, 4342, time.monotonic() + 60.0)
            made._apply()
            believed.append(any(isinstance(event, Departed) for event in events))
    assert believed == [True, False]


@pytest.mark.parametrize("more", [{"lan": "nolan"}, {"up": "noup"}, {"host_port": "nosuch"}])
async def test_a_device_that_is_not_there(namespace: str, tmp_path: Path, more: dict[str, str]) -> None:
    (missing,) = more.values()
    with pytest.raises(DataPlaneError, match=f"{missing}.* make it, or write its name in the config"):
        await router(namespace, tmp_path, **more).start()


async def test_a_punt_that_is_another_device(namespace: str, tmp_path: Path) -> None:
    with pytest.raises(DataPlaneError, match="punt: there is a device host that is no tun device"):
        await router(namespace, tmp_path, punt="host").start()


async def test_the_first_arm_of_a_port_loses_no_packet(namespace: str, tmp_path: Path) -> None:
    """A clsact that is added to a device makes the kernel drop what is being sent there."""
    made, protocol = router(namespace, tmp_path, host_port="host"), 0x88B5
    kind = socket.AF_PACKET, socket.SOCK_RAW, 0
    machine = bytes.fromhex("020000000001")
    with netns.socket_in(namespace, *kind) as port, netns.socket_in(namespace, *kind) as behind:
        port.bind(("host", 0))
        behind.bind(("lan", protocol))
        behind.setblocking(False)
        ended, sent, came = threading.Event(), 0, set[int]()

        def send_on() -> None:
            nonlocal sent
            while not ended.wait(0.0002):
                port.send(bytes.fromhex("020000000009") + machine + protocol.to_bytes(2) + sent.to_bytes(50))
                sent += 1
                with contextlib.suppress(BlockingIOError):
                    while True:
                        came.add(int.from_bytes(behind.recv(100)[14:]))

        async with AsyncExitStack() as opened:
            await made.start()
            opened.push_async_callback(made.close, leave=False)
            assert "clsact" in await run(["tc", "qdisc", "show", "dev", "host"], namespace=namespace)
            made.claim(IPv4Address("10.1.0.5"), machine)
            sending = asyncio.create_task(asyncio.to_thread(send_on))
            await asyncio.sleep(0.1)
            await made.arm(IPv4Address("10.1.0.5"), machine, IPv4Address("192.0.2.5"))
            await made.disarm(IPv4Address("10.1.0.5"))
            await asyncio.sleep(0.1)
            ended.set()
            await sending
    assert sent > 100
    assert sorted(set(range(sent - 1)) - came) == []


async def test_machines_whose_macs_end_alike_have_arms_of_their_own(namespace: str) -> None:
    async def filters() -> list[tuple[str, str]]:
        text = await run(["tc", "filter", "show", "dev", "host", "ingress"], namespace=namespace)
        return sorted(re.findall(r"match 000(\S+)/0000ffff at -16\n *match (\S+)/f", text))

    macs = [bytes.fromhex(text) for text in ("525400010001", "525400020001", "5354000100ff", "5254ff010001")]
    arms = Arms(namespace, "lan", "host")
    await asyncio.gather(*map(arms.add, macs))
    shown = sorted((mac[:2].hex().rjust(5, "0"), mac[2:].hex()) for mac in macs)
    assert await filters() == shown
    again = Arms(namespace, "lan", "host")  # after a restart
    for mac in macs[:2]:
        await again.add(mac)
    assert await filters() == shown
    await netns.tc(namespace, ["filter add dev host ingress protocol all pref 9 u32 match u32 0 0 flowid 1:1"])
    await again.remove(macs[0])
    shown.remove(("05254", "00010001"))
    assert await filters() == shown
    for mac in macs:
        await again.remove(mac)
    assert await filters() == []
    assert "pref 9" in await run(["tc", "filter", "show", "dev", "host", "ingress"], namespace=namespace)
