"""The map server on real sockets: loopback, restart, several processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from followme.lisp import (
    EidPrefix,
    EidRecord,
    EncapsulatedControlMessage,
    Locator,
    MapNotify,
    MapNotifyAck,
    MappingRecord,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    decode,
    sign,
)
from followme.mapsystem import Registered
from followme.mapsystem.answers import Answers, Entry
from followme.mapsystem.config import MapServerConfig, check
from followme.mapsystem.events import Event
from followme.mapsystem.lookup import MAX_PACKET, READY, pack_changes, pack_passed, unpack_changes, unpack_passed
from followme.mapsystem.pool import Helper
from followme.mapsystem.serve import Service

from .fakes import eid, record

KEY = b"a shared secret"


def config(tmp_path: Path, **changes: Any) -> MapServerConfig:
    keys = [{"key": KEY.decode()}]
    sites = [
        {"name": "dc1", "site_id": 1, "keys": keys, "prefixes": ["10.1.0.0/16", "2001:db8::/48"]},
        {"name": "dc2", "site_id": 2, "keys": keys, "visitors": ["10.1.0.0/16"]},
    ]
    return check({"sites": sites, "store": str(tmp_path / "map.db"), "listen": {"port": 0}, **changes}, "map.yaml")


@asynccontextmanager
async def running(
    config: MapServerConfig, on_event: Callable[[Event], None] | None = None
) -> AsyncIterator[Service]:
    service = Service(config, on_event)
    await service.start()
    try:
        yield service
    finally:
        await service.close()


class Peer:
    """A UDP socket on which LISP is spoken."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.connect((host, port))
        self.socket.setblocking(False)
        self.nonce = 0

    async def receive(self, timeout: float = 5.0) -> Message:
        loop = asyncio.get_running_loop()
        return decode(await asyncio.wait_for(loop.sock_recv(self.socket, 65535), timeout))

    async def register(self, *records: MappingRecord, site_id: int = 1) -> Message:
        self.nonce += 1
        message = MapRegister(self.nonce, records, True, want_map_notify=True,
                              xtr_id=site_id.to_bytes(16, "big"), site_id=site_id)  # fmt: skip
        self.socket.send(sign(message, KEY).encode())
        return await self.receive()

    async def ask(self, text: str, rloc: str = "127.0.0.1") -> MapReply:
        self.socket.send(self.request(text, rloc))
        reply = await self.receive()
        assert isinstance(reply, MapReply)
        return reply

    def request(self, text: str, rloc: str = "127.0.0.1") -> bytes:
        address = eid(text).network.network_address
        request = MapRequest(5, (IPv4Address(rloc),), (EidRecord(eid(text)),))
        inner = IPv4Address(rloc) if address.version == 4 else type(address)(1)
        return EncapsulatedControlMessage(inner, address, request, self.socket.getsockname()[1]).encode()


async def test_both_families_are_served_and_answered_where_the_itr_is(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service:
        peer, other = Peer(service.port), Peer(service.port, "::1")
        assert isinstance(await peer.register(record("2001:db8::/48", "192.0.2.1")), MapNotify)
        other.socket.send(peer.request("2001:db8::7"))  # asked by IPv6, to be answered by IPv4
        reply = await peer.receive()
        assert isinstance(reply, MapReply)
        assert reply.records == (record("2001:db8::/48", "192.0.2.1"),)
        other.nonce = peer.nonce
        assert isinstance(await other.register(record("10.1.0.0/16", "192.0.2.1")), MapNotify)
        assert service.wire.unsent == 0


async def test_events_go_to_the_caller(tmp_path: Path) -> None:
    events: list[Event] = []
    async with running(config(tmp_path), events.append) as service:
        await Peer(service.port).register(record("10.1.0.0/16", "192.0.2.1"))
    (event,) = events
    assert isinstance(event, Registered)
    assert event.eid == eid("10.1.0.0/16")


async def test_after_a_restart_look_ups_are_answered_without_a_new_registration(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service:
        await Peer(service.port).register(record("10.1.0.0/16", "192.0.2.1"))
    async with running(config(tmp_path)) as service:
        reply = await Peer(service.port).ask("10.1.2.3")
        assert reply.records == (record("10.1.0.0/16", "192.0.2.1"),)


async def test_a_registration_that_cannot_be_stored_is_not_acknowledged(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service:
        peer = Peer(service.port)
        with sqlite3.connect(tmp_path / "map.db", isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(peer.register(record("10.1.0.0/16", "192.0.2.1")), 1.5)
            other.execute("ROLLBACK")
        assert service.server.refusals.counts["store"] == 1
        assert isinstance(await peer.register(record("10.1.0.0/16", "192.0.2.1")), MapNotify)
    assert sqlite3.connect(tmp_path / "map.db").execute("SELECT count(*) FROM registrations").fetchone() == (1,)


async def test_a_move_is_published_and_repeated_by_the_clock(tmp_path: Path) -> None:
    async with running(config(tmp_path)) as service:
        home, visited, subscriber = Peer(service.port), Peer(service.port), Peer(service.port)
        await home.register(record("10.1.0.0/16", "192.0.2.1"))
        request = MapRequest(50, (IPv4Address("127.0.0.1"),), (EidRecord(eid("10.1.0.0/16"), True),),
                             xtr_id=b"s" * 16, site_id=2)  # fmt: skip
        subscriber.socket.send(request.encode())
        first = await subscriber.receive()
        assert isinstance(first, MapNotify)
        subscriber.socket.send(sign(MapNotifyAck(50, first.records, first.xtr_id, 2), KEY).encode())
        await visited.register(record("10.1.0.5/32", "192.0.2.2"), site_id=2)
        published, told = await subscriber.receive(), await home.receive()
        for one in (published, told):
            assert isinstance(one, MapNotify)
            assert one.records == (record("10.1.0.5/32", "192.0.2.2"),)
        assert await subscriber.receive(2.0) == published, "not acknowledged"


async def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        service = Service(config(tmp_path, listen={"addresses": ["127.0.0.1"], "port": port}))
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}"):
            await service.start()
        async with running(config(tmp_path)):
            pass  # the store was given back


async def answered_by_helper(service: Service, text: str, rloc: str) -> MapReply:
    """Ask from many ports until the other process has its share; all must be answered alike."""
    mine = service.wire.answered
    asked = 0
    deadline = asyncio.get_running_loop().time() + 10.0
    while asyncio.get_running_loop().time() < deadline:
        peer = Peer(service.port)
        reply = await peer.ask(text)
        assert str(reply.records[0].locators[0].address) == rloc
        peer.socket.close()
        asked += 1
        if service.wire.answered - mine < asked:
            return reply
    raise TimeoutError("no other process has answered")


async def eventually(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


async def test_processes_share_the_port_the_table_and_pass_registrations_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = config(tmp_path, processes=2, listen={"addresses": ["127.0.0.1"], "port": port})
    async with running(shared) as service:
        (helper,) = service.helpers
        await Peer(port).register(record("10.1.0.0/16", "192.0.2.1"))
        await eventually(lambda: helper._ready)
        await answered_by_helper(service, "10.1.2.3", "192.0.2.1")
        for number in range(2, 30):  # by whichever process the port's hash chooses
            peer = Peer(port)
            peer.nonce = number
            notify = await peer.register(record("10.1.0.0/16", f"192.0.2.{number}"))
            assert isinstance(notify, MapNotify)
        await eventually(lambda: not helper._behind)
        await answered_by_helper(service, "10.1.2.3", "192.0.2.29")
        process = helper.process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await eventually(lambda: helper.process is not process and helper._ready)
        await answered_by_helper(service, "10.1.2.3", "192.0.2.29")
    assert helper.process is not None
    assert helper.process.returncode is not None, "it ended with the service"


async def test_a_helper_is_fed_the_whole_of_a_large_table() -> None:
    """Also where the channel takes a part of it only, and what changes meanwhile."""
    def here(number: int, rloc: str) -> tuple[EidPrefix, Entry]:
        prefix = eid(str(IPv4Address(0x0A010000 + number)))
        return prefix, Entry(MappingRecord(prefix, (Locator(IPv4Address(rloc)),)), False)

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        helper = Helper({}, [], Answers(), lambda received, number: None)
        helper._channel = ours
        table: dict[EidPrefix, Entry | None] = dict(here(number, "192.0.2.1") for number in range(20_000))
        helper.feed(table)
        assert 0 < len(helper._behind) < len(table), "the channel is full"
        later: dict[EidPrefix, Entry | None] = dict(here(number, "192.0.2.2") for number in (0, 19_999))
        helper.feed(later)
        got: dict[EidPrefix, Entry | None] = {}
        async with asyncio.timeout(10):
            while True:
                packet = await asyncio.get_running_loop().sock_recv(theirs, 2 * MAX_PACKET)
                if packet == READY:
                    break
                got.update(unpack_changes(packet))
        assert got == {**table, **later}
        assert not helper._behind


async def test_a_helper_has_the_whole_of_a_large_table_after_a_restart(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = config(tmp_path, processes=2, listen={"addresses": ["127.0.0.1"], "port": port})
    prefixes = [str(IPv4Address(0x0A010000 + number)) for number in range(4000)]
    async with running(shared) as service:
        peer = Peer(port)
        for begin in range(0, len(prefixes), 50):
            some = prefixes[begin : begin + 50]
            notify = await peer.register(*(record(f"{one}/32", "192.0.2.1") for one in some))
            assert isinstance(notify, MapNotify)
            assert len(notify.records) == 50
    async with running(shared) as service:
        (helper,) = service.helpers
        await eventually(lambda: helper._ready and not helper._behind)
        for one in prefixes[:: len(prefixes) // 40]:
            await answered_by_helper(service, one, "192.0.2.1")


async def test_a_helper_runs_nothing_of_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("open('was-run', 'w')")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with running(config(tmp_path, processes=2, listen={"addresses": ["127.0.0.1"], "port": port})) as service:
        (helper,) = service.helpers
        await eventually(lambda: helper._ready or (tmp_path / "was-run").exists())
    assert not (tmp_path / "was-run").exists()


def test_changes_are_packed_and_unpacked_in_packets_of_a_bounded_size() -> None:
    changes = {}
    for number in range(5000):
        prefix = eid(str(IPv4Address(0x0A010000 + number)))
        found = MappingRecord(prefix, (Locator(IPv4Address("192.0.2.1")),))
        changes[prefix] = None if number % 3 == 0 else Entry(found, number % 3 == 1)
    packets = list(pack_changes(b"T", changes.items()))
    assert len(packets) > 1
    assert all(len(packet) <= MAX_PACKET for packet, _ in packets)
    assert sum(count for _, count in packets) == 5000
    assert [one for packet, _ in packets for one in unpack_changes(packet)] == list(changes.items())


@pytest.mark.parametrize("source", [("192.0.2.1", 4342), ("2001:db8::1", 65535)])
def test_what_is_passed_on_keeps_its_source_and_where_it_came_in(source: tuple[str, int]) -> None:
    assert unpack_passed(pack_passed(b"data", source, 63)) == ((b"data", source), 63)
