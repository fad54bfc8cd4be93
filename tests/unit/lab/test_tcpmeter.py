"""The TCP session meter, against echo servers on loopback: a good one and several bad ones."""

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address

import pytest

from followme.lab.tcpmeter import RECORD_BYTES, StreamCheck, TcpMeter, TcpReport, record

LOOPBACK = IPv4Address("127.0.0.1")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def test_records_have_one_size_and_all_differ() -> None:
    records = {record(number) for number in range(1000)}
    assert len(records) == 1000
    assert {len(item) for item in records} == {RECORD_BYTES}


def test_a_stall_runs_from_the_last_byte_while_bytes_are_awaited() -> None:
    check = StreamCheck()
    check.send(b"aaaa", 1.0)
    check.receive(b"aa", 1.1)
    check.send(b"bbbb", 1.2)
    check.receive(b"aabbbb", 3.1)
    check.send(b"cc", 9.0)  # nothing was awaited from 3.1 to 9.0: no stall
    check.receive(b"cc", 9.5)
    assert check.longest_stall_s == pytest.approx(2.0)
    assert check.longest_stall_at_s == pytest.approx(1.1)
    assert (check.intact, check.outstanding) == (True, 0)


@pytest.mark.parametrize("echoed", [b"abXd", b"bcd", b"aabcd", b"abcdd"])
def test_a_changed_lost_or_doubled_byte_is_noticed(echoed: bytes) -> None:
    check = StreamCheck()
    check.send(b"abcd", 0.0)
    check.receive(echoed, 0.1)
    assert not check.intact


async def measure(serve: Serve, seconds: float = 0.3) -> TcpReport:
    server = await asyncio.start_server(serve, str(LOOPBACK), 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with TcpMeter(None, LOOPBACK, port=port, linger_s=0.3) as meter:
            await asyncio.sleep(seconds)
        return meter.report()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)
    writer.close()


async def test_a_good_echo_is_alive_and_intact() -> None:
    report = await measure(echo)
    assert report.alive
    assert report.intact
    assert report.sent_bytes == report.received_bytes > 0
    assert report.sent_bytes % RECORD_BYTES == 0
    assert report.error is None


async def test_a_pause_is_measured() -> None:
    async def pause(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(RECORD_BYTES))
        await asyncio.sleep(0.4)
        await echo(reader, writer)

    report = await measure(pause, seconds=0.6)
    assert report.alive
    assert report.longest_stall_s >= 0.35


async def test_a_session_that_is_closed_is_not_alive() -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(RECORD_BYTES)
        writer.close()

    report = await measure(close)
    assert not report.alive
    assert report.error is not None


async def test_a_session_without_answers_is_not_alive() -> None:
    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass
        writer.close()

    report = await measure(swallow)
    assert not report.alive
    assert report.received_bytes == 0
    assert report.longest_stall_s >= 0.5  # the block and the time it waited at its end


async def test_a_refused_connection_names_the_target() -> None:
    server = await asyncio.start_server(echo, str(LOOPBACK), 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(OSError, match=f"127.0.0.1 port {port}"):
        async with TcpMeter(None, LOOPBACK, port=port):
            pass
