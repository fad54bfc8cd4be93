"""What is seen at a tap, of frames written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from followme.lab.rundir import Run
from followme.lab.tapwatch import Kind, TapWatch
from followme.system import needs, netns

_missing = needs.check(needs.NETWORK_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_missing), reason="; ".join(_missing))]

TAP, OTHER = "door", "window"
MACHINE, ROUTER = bytes.fromhex("02000000000a"), bytes.fromhex("020000000001")
REQUEST, ANSWER = 8, 0
LONGER_THAN_A_POLL_S = 0.2


def ping(kind: int, number: int, protocol: int = 1) -> bytes:
    ip = struct.pack(">BBHHHBBH8s", 0x45, 0, 84, 0, 0, 64, protocol, 0, bytes(8))
    icmp = struct.pack(">BBHHH", kind, 0, 0, 0xABCD, number) + bytes(56)
    ends = MACHINE + ROUTER if kind == REQUEST else ROUTER + MACHINE
    return ends + b"\x08\x00" + ip + icmp


def arp() -> bytes:
    return b"\xff" * 6 + MACHINE + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + bytes(20)


@pytest.fixture
async def namespace() -> AsyncIterator[str]:
    made = Run.open()
    try:
        name = await made.add_namespace("test")
        netns.sysctl(name, {"ipv6/conf/default/disable_ipv6": 1})
        yield name
    finally:
        await made.close()


@contextlib.contextmanager
def tap(namespace: str, name: str) -> Iterator[int]:
    """A tap until the end of the block."""
    descriptor = netns.open_tap(namespace, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def test_a_tap_that_comes_later_shows_what_goes_in_and_comes_out_and_nothing_else(namespace: str) -> None:
    began = time.time()
    async with TapWatch(namespace, TAP) as watch:
        with (
            tap(namespace, OTHER) as other,
            tap(namespace, TAP) as door,
            netns.socket_in(namespace, socket.AF_PACKET, socket.SOCK_RAW) as out,
        ):
            await netns.ip(namespace, [f"link set {name} up" for name in (OTHER, TAP)])
            for name, inside in ((OTHER, other), (TAP, door)):
                out.bind((name, 0))
                out.send(ping(REQUEST, 1))
                os.write(inside, arp())
                os.write(inside, ping(ANSWER, 1))
                # Not the machine's answer, not a request to it, no ping at all.
                out.send(ping(ANSWER, 2))
                out.send(arp())
                os.write(inside, ping(REQUEST, 3))
                os.write(inside, ping(ANSWER, 4, protocol=17))
                os.write(inside, bytes(60))
            await asyncio.sleep(LONGER_THAN_A_POLL_S)
            out.bind((TAP, 0))
            out.send(ping(REQUEST, 5))
            os.write(door, ping(ANSWER, 5))
        # The last two are read when the tap is gone.
    assert [(one.kind, one.ping) for one in watch.frames] == [
        (Kind.REQUEST, b"\xab\xcd\x00\x01"), (Kind.ARP, b""), (Kind.ANSWER, b"\xab\xcd\x00\x01"),
        (Kind.REQUEST, b"\xab\xcd\x00\x05"), (Kind.ANSWER, b"\xab\xcd\x00\x05"),
    ]  # fmt: skip
    stamps = [began, *(one.at for one in watch.frames), time.time()]
    assert stamps == sorted(stamps)
