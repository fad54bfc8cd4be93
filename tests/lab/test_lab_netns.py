"""Sockets, taps and tuns inside namespaces, while our own namespace stays what it was."""

import os
import socket
from collections.abc import AsyncIterator

import pytest

from followme.lab.rundir import Run
from followme.system import needs, netns
from followme.system.process import ProcessError, run

PROBLEMS = needs.check(needs.NETWORK_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]


@pytest.fixture
async def namespace() -> AsyncIterator[str]:
    made = Run.open()
    try:
        yield await made.add_namespace("test")
    finally:
        await made.close()


async def test_a_socket_lives_in_the_namespace_and_we_stay_outside(namespace: str) -> None:
    before = os.readlink("/proc/thread-self/ns/net")
    with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM) as inside:
        inside.bind(("127.0.0.1", 6653))
        inside.listen()
        assert ":6653" in await run(["ss", "-ltn"], namespace=namespace)
        assert os.readlink("/proc/thread-self/ns/net") == before
        with socket.socket() as outside, pytest.raises(ConnectionRefusedError):
            outside.connect(("127.0.0.1", 6653))


async def test_a_tap_and_a_tun_go_when_their_descriptors_close(namespace: str) -> None:
    tap, tun = netns.open_tap(namespace, "tap7"), netns.open_tun(namespace, "tun7")
    shown = await run(["ip", "-d", "link"], namespace=namespace)
    assert "tap7" in shown
    assert "tun7" in shown
    assert "tap7" not in await run(["ip", "link"])
    os.close(tap)
    os.close(tun)
    left = await run(["ip", "link"], namespace=namespace)
    assert "tap7" not in left
    assert "tun7" not in left


async def test_what_goes_wrong_is_named(namespace: str) -> None:
    with pytest.raises(FileNotFoundError, match="no network namespace fm-none"):
        netns.open_tap("fm-none", "tap0")
    with pytest.raises(ValueError, match="1 to 15 bytes"):
        netns.open_tap(namespace, "a-name-that-is-too-long")
    tap = netns.open_tap(namespace, "tap0")
    with pytest.raises(OSError, match=f"cannot make device tap0 in {namespace}"):
        netns.open_tap(namespace, "tap0")
    os.close(tap)
    with pytest.raises(ProcessError, match="link set nowhere up"):
        await netns.ip(namespace, ["link set nowhere up"])
