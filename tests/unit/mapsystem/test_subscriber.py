"""The asyncio shell of ``MapClient`` on loopback, with the real map server's core behind a socket."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator
from ipaddress import IPv4Address

import pytest
import pytest_asyncio

from followme.lisp import MappingRecord
from followme.mapsystem import Outcome
from followme.mapsystem import client as client_module
from followme.mapsystem.client import MapClient
from followme.mapsystem.subscriber import MapSystemError, Subscriber

from .fakes import IDS, KEYS, RLOCS, Router, eid, server


class Served(asyncio.DatagramProtocol):
    """A map server on a port of loopback; ``deaf``: it hears nothing."""

    def __init__(self) -> None:
        self.core = server()
        self.deaf = False
        self.router = Router(self.core, "wlan2")

    def on(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport
        self.port: int = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        if not self.deaf:
            self.say(self.core.receive(data, source, time.monotonic()))

    def say(self, outcome: Outcome) -> None:
        for data, host, port, _ in outcome.datagrams:
            if host == "127.0.0.1":
                self.transport.sendto(data, (host, port))


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        Served, local_addr=("127.0.0.1", 0)
    )
    protocol.on(transport)
    yield protocol
    transport.close()


def subscriber(served: Served, told: list[MappingRecord], key: bytes = KEYS["ctl"]) -> Subscriber:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    client = MapClient(
        IPv4Address("127.0.0.1"), sock.getsockname()[1], ("127.0.0.1", served.port), key, site_id=IDS["ctl"],
        xtr_id=bytes(16), wall_s=time.time(),
    )  # fmt: skip
    return Subscriber(client, sock, told.append)


async def until(said: list[MappingRecord], count: int) -> None:
    async with asyncio.timeout(5):
        while len(said) < count:
            await asyncio.sleep(0.01)


async def test_a_move_is_told_at_once(served: Served) -> None:
    told: list[MappingRecord] = []
    async with subscriber(served, told) as one:
        one.subscribe(eid("10.3.0.0/24"))
        await one.confirmed(5)
        told.clear()
        begin = time.monotonic()
        served.say(served.router.own("10.3.0.10/32", now=time.monotonic()))
        await until(told, 1)
        assert time.monotonic() - begin < 0.4, "without a retransmission"
    assert [str(record.eid) for record in told] == ["10.3.0.10/32"]
    assert str(told[0].locators[0].address) == RLOCS["wlan2"]


async def test_a_question_is_answered(served: Served) -> None:
    served.router.own("10.4.0.0/24")
    async with subscriber(served, []) as one:
        first, second = await asyncio.gather(one.ask(eid("10.4.0.0/24")), one.ask(eid("198.51.100.0/24")))
    assert str(first.locators[0].address) == RLOCS["wlan2"]
    assert second.locators == ()


async def test_a_map_server_that_hears_late_is_asked_again(served: Served) -> None:
    served.deaf = True
    async with subscriber(served, []) as one:
        one.subscribe(eid("10.3.0.0/24"))
        asking = asyncio.create_task(one.ask(eid("198.51.100.0/24")))
        await asyncio.sleep(0.1)
        served.deaf = False
        await one.confirmed(5)
        assert (await asking).locators == ()


async def test_one_that_does_not_confirm_is_named_with_what_was_refused(served: Served) -> None:
    async with subscriber(served, [], key=b"not the key") as one:
        one.subscribe(eid("10.3.0.0/24"))
        with pytest.raises(MapSystemError, match=r"map server 127.0.0.1 .* within 0.3 s.*wrong key 1"):
            await one.confirmed(0.3)


async def test_a_map_server_that_does_not_confirm_is_logged_once_with_what_was_refused(
    served: Served, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RETRY_S", (0.02,) * 4)
    caplog.set_level("INFO", "followme.mapsystem.subscriber")
    async with subscriber(served, [], key=b"not the key") as one:
        one.subscribe(eid("10.3.0.0/24"))
        await asyncio.sleep(0.4)
        (line,) = caplog.messages
        port = served.port
        assert line.startswith(f"map server 127.0.0.1 port {port} does not confirm our subscriptions")
        assert re.search(r"refused here: wrong key [1-9]", line)
        one.client._key = KEYS["ctl"]
        await one.confirmed(5)
        await asyncio.sleep(0.05)
        assert caplog.messages[1:] == [f"map server 127.0.0.1 port {port} confirms our subscriptions again"]


async def test_what_waits_for_an_answer_at_the_end_is_cancelled(served: Served) -> None:
    served.deaf = True
    async with subscriber(served, []) as one:
        asking = asyncio.create_task(one.ask(eid("10.4.0.0/24")))
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_port_where_nobody_listens_is_no_error(served: Served) -> None:
    served.transport.close()
    await asyncio.sleep(0.01)
    async with subscriber(served, []) as one:
        one.subscribe(eid("10.3.0.0/24"))
        with pytest.raises(MapSystemError, match="does not confirm our subscriptions"):
            await one.confirmed(0.8)  # ICMP says that the port is closed; it goes on asking
        assert not one.client.confirmed
