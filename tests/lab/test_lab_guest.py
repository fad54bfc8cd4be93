"""The guest boots, answers pings and echoes."""

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Interface

import pytest

from followme.lab.guest import ECHO_PORT, MEMORY_BYTES, READY, build_guest
from followme.lab.rundir import Run
from followme.lab.tcpmeter import TcpMeter
from followme.system import needs, netns
from followme.system.process import Child, run

PROBLEMS = needs.check(needs.MACHINE_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]
ADDRESS, GATEWAY = IPv4Interface("10.1.0.5/24"), IPv4Address("10.1.0.1")


@pytest.fixture
async def namespace() -> AsyncIterator[str]:
    """A namespace with a booted guest behind its ``tap0``."""
    image = await build_guest()
    made = Run.open()
    machine = None
    try:
        name = await made.add_namespace("host")
        tap = netns.open_tap(name, "tap0")
        await netns.ip(name, [f"address add {GATEWAY}/24 dev tap0", "link set tap0 up"])
        machine = await Child.start(
            [
                "qemu-system-x86_64",
                *("-accel", "tcg", "-m", str(MEMORY_BYTES >> 20), "-nodefaults", "-no-user-config"),
                *("-display", "none", "-serial", "stdio", "-kernel", image.kernel, "-initrd", image.initrd),
                *("-append", image.kernel_arguments(ADDRESS, GATEWAY, dirty_bytes_s=4 << 20)),
                *("-netdev", f"tap,id=n0,fd={tap}", "-device", "virtio-net-pci,netdev=n0,romfile="),
            ],
            namespace=name,
            pass_fds=[tap],
            stdout=subprocess.PIPE,
        )
        os.close(tap)
        assert machine.stdout is not None
        async with asyncio.timeout(60):
            async for line in machine.stdout:
                if READY in line.decode():
                    assert str(ADDRESS) in line.decode()
                    break
            else:
                pytest.fail(f"the guest never got ready: {machine.stderr_tail}")
        yield name
    finally:
        if machine is not None:
            await machine.stop()
        await made.close()


async def test_it_answers_pings_and_echoes_tcp_and_udp(namespace: str) -> None:
    await run(["ping", "-c", "3", "-i", "0.05", "-W", "2", str(ADDRESS.ip)], namespace=namespace)

    # Many sessions at once, each checked byte by byte.
    meters = [TcpMeter(namespace, ADDRESS.ip) for _ in range(20)]
    async with asyncio.TaskGroup() as group:
        for meter in meters:
            group.create_task(hold(meter, 1.0))
    for meter in meters:
        report = meter.report()
        assert report.alive, report
        assert report.intact, report
        assert report.received_bytes > 0

    with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(5)
        datagrams.sendto(b"x" * 1400, (str(ADDRESS.ip), ECHO_PORT))
        assert await asyncio.to_thread(datagrams.recv, 2000) == b"x" * 1400


async def test_it_echoes_more_than_it_can_buffer(namespace: str) -> None:
    data = os.urandom(1 << 20)
    with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM) as stream:
        stream.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30):
            await loop.sock_connect(stream, (str(ADDRESS.ip), ECHO_PORT))
            sending = asyncio.create_task(loop.sock_sendall(stream, data))
            received = bytearray()
            while len(received) < len(data):
                received += await loop.sock_recv(stream, 65536)
            await sending
    assert received == data


async def hold(meter: TcpMeter, seconds: float) -> None:
    async with meter:
        await asyncio.sleep(seconds)
