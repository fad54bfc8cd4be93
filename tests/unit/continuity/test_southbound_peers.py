"""Peers that are no switches: each costs its own connection, and is named in the log."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from followme.openflow import FeaturesReply, Hello
from tests.until import until

from .switch import Bench

HEAD = Hello().pack(1)
WRONG = {
    "no OpenFlow": b"GET / HTTP/1.1\r\n\r\n" * 4000,
    "random": random.Random(1).randbytes(70_000),
    "length below the header's": bytes.fromhex("0400000400000001"),
    "only version 1": bytes.fromhex("0100000800000001"),
    "features before hello": FeaturesReply(1).pack(1),
    "features cut off": HEAD + b"\x04\x06\x00\x10" + bytes(12),
    "packet-in cut off": HEAD + FeaturesReply(1).pack(2) + b"\x04\x0a\x00\x10" + bytes(12),
    "packet-in with a broken match": HEAD + FeaturesReply(1).pack(2) + b"\x04\x0a\x00\x30" + b"\xff" * 44,
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
async def test_garbage_closes_its_own_connection_only(bench: Bench, data: bytes) -> None:
    good = await bench.switch(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    writer.write(data)
    with contextlib.suppress(ConnectionError):  # aborted, which the kernel may show as a reset
        await asyncio.wait_for(reader.read(), 5)
    writer.close()
    good.packet_in(b"still there")
    await until(lambda: bench.packets)
    assert bench.packets == [("dc1", b"still there")]
    assert bench.southbound.connected(1)
    await bench.southbound.barrier([1], timeout=5)


REASONS = {
    "no OpenFlow": "first message must be OFPT_HELLO",
    "random": "first message must be OFPT_HELLO",
    "length below the header's": "length 4 is less",
    "only version 1": "only version 4 is spoken here",
    "features before hello": "first message must be OFPT_HELLO",
    "features cut off": "16 bytes where 32 belong",
    "version 0": "0x00 is no version",
    "half a request": "first message must be OFPT_HELLO",
    "silent": "connection",
}


@pytest.mark.parametrize("kind", REASONS)
async def test_a_peer_that_is_no_switch_is_counted_and_named_with_the_reason(
    bench: Bench, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    more = {"version 0": bytes.fromhex("0000000800000001"), "half a request": b"GET / HT", "silent": b""}
    for number in range(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        host, port = writer.get_extra_info("sockname")
        writer.write({**WRONG, **more}[kind])
        if kind == "silent":
            writer.close()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 1)  # at once, and not at the handshake's deadline
        writer.close()
        await until(lambda: not bench.southbound._open)
        assert bench.southbound.counters.failed_peers == number + 1
        if number == 0:
            assert f"closed the connection of ('{host}', {port})" in caplog.text
    assert REASONS[kind] in caplog.text
    assert caplog.text.count("no switch of ours") == 1


async def test_a_switch_that_was_admitted_and_goes_is_no_strange_peer(bench: Bench) -> None:
    switch = await bench.switch(1)
    await switch.leave()
    await until(lambda: bench.gone)
    assert bench.southbound.counters.failed_peers == 0
