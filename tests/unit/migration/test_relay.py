"""The relay against two ends of our own: it lets pass what it was told, both ways, and shows every end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from followme.migration.carrier import Relay, stream_pair

DATA = os.urandom(1 << 20) * 3


class Ends:
    """QEMU's end at the source, and the target's end; both never block us."""

    def __init__(self) -> None:
        self.qemu, ours = stream_pair()
        self.target, remote = socket.socketpair()
        for end in (self.qemu, self.target):
            end.setblocking(False)
        self.relay = Relay(ours, remote)

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.qemu, data)

    async def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.target, 1 << 20), 2)
            if not more:
                break
            data += more
        return data

    async def silent(self) -> bool:
        await asyncio.sleep(0.05)
        try:
            return self.target.recv(1) == b"nothing is silent"
        except BlockingIOError:
            return True


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.relay.close()
    made.qemu.close()
    made.target.close()


async def test_it_holds_from_the_start(ends: Ends) -> None:
    await ends.write(b"x" * 1000)
    assert await ends.silent()
    assert ends.relay.passed == 0


async def test_open_lets_everything_pass_unchanged_and_the_end_too(ends: Ends) -> None:
    ends.relay.open()

    async def source() -> None:
        await ends.write(DATA)
        ends.qemu.shutdown(socket.SHUT_WR)

    writing = asyncio.create_task(source())
    assert await ends.read(len(DATA) + 1) == DATA
    await writing
    assert ends.relay.passed == len(DATA)


async def test_a_quantum_is_exact_and_the_writer_waits(ends: Ends) -> None:
    writing = asyncio.create_task(ends.write(DATA))
    for number in range(1, 4):
        assert await ends.relay.let(100_000, 2.0) == 100_000
        assert ends.relay.passed == number * 100_000
        assert await ends.read(100_000) == DATA[(number - 1) * 100_000:number * 100_000]
        assert await ends.silent()
    assert not writing.done()
    writing.cancel()


async def test_a_quantum_that_the_source_does_not_fill_ends_with_patience(ends: Ends) -> None:
    await ends.write(b"y" * 10)
    assert await ends.relay.let(100_000, 0.05) == 10
    await ends.write(b"z" * 10)
    assert await ends.read(10) == b"y" * 10
    assert await ends.silent()


async def test_hold_after_open_stops_it(ends: Ends) -> None:
    ends.relay.open()
    await ends.write(b"a" * 10)
    assert await ends.read(10) == b"a" * 10
    ends.relay.hold()
    await ends.write(b"b" * 10)
    assert await ends.silent()
    ends.relay.open()
    assert await ends.read(10) == b"b" * 10


async def test_the_way_back_flows_while_held(ends: Ends) -> None:
    ends.target.send(b"loaded")
    received = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ends.qemu, 100), 2)
    assert received == b"loaded"


async def test_a_target_that_goes_away_is_seen_by_the_source(ends: Ends) -> None:
    ends.relay.open()
    ends.target.close()
    await asyncio.wait_for(ends.relay.ended.wait(), 2)
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ends.qemu, 100), 2) == b""


async def test_writing_to_a_target_that_went_away_is_an_error(ends: Ends) -> None:
    ends.target.close()
    await asyncio.sleep(0)
    ends.relay.open()
    with pytest.raises(ConnectionError):
        await ends.write(DATA)
    assert ends.relay.ended.is_set()
    assert ends.relay.error is not None


async def test_close_cuts_both_ends_and_wakes_a_waiting_quantum(ends: Ends) -> None:
    waiting = asyncio.create_task(ends.relay.let(10, 5.0))
    await asyncio.sleep(0.01)
    ends.relay.close()
    assert await asyncio.wait_for(waiting, 1) == 0
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ends.qemu, 1), 1) == b""
    assert await ends.read(1) == b""
