"""A map server that listens on several addresses, or stumbles: what leaves it, from where, and what goes on."""

from __future__ import annotations

import asyncio
import logging
import socket
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from followme.lisp import MapNotify
from followme.mapsystem.outbox import Datagram, Outcome
from followme.mapsystem.udp import Received, Wire, open_sockets

from .fakes import record
from .test_mapsystem_serve import Peer, config, eventually, running

TWO = ["127.0.0.2", "127.0.0.3"]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def test_what_another_process_passes_on_is_answered_from_the_address_that_it_came_to(tmp_path: Path) -> None:
    """A connected socket takes nothing from any other address."""
    port, nonce = free_port(), 0
    passed: list[int] = []
    both = config(tmp_path, processes=2, listen={"addresses": TWO, "port": port})
    async with running(both) as service:
        (helper,) = service.helpers
        right = helper._received

        def received(rest: list[Received], number: int) -> None:
            passed.append(number)
            right(rest, number)

        helper._received = received
        async with asyncio.timeout(20.0):
            while set(passed) != {0, 1}:
                for host in TWO:
                    peer = Peer(port, host)
                    peer.nonce = nonce = nonce + 1
                    assert isinstance(await peer.register(record("10.1.0.0/16", "192.0.2.1")), MapNotify)
                    peer.socket.close()
        assert service.wire.unsent == 0


async def test_what_a_timer_sends_leaves_from_there_too(tmp_path: Path) -> None:
    async with running(config(tmp_path, listen={"addresses": TWO, "port": free_port()})) as service:
        home, visited = Peer(service.port, TWO[1]), Peer(service.port, TWO[0])
        await home.register(record("10.1.0.0/16", "192.0.2.1"))
        await visited.register(record("10.1.0.5/32", "192.0.2.2"), site_id=2)
        told = await home.receive()
        assert isinstance(told, MapNotify)
        assert told.records == (record("10.1.0.5/32", "192.0.2.2"),)
        assert await home.receive(2.0) == told, "repeated by the timer"


def test_without_a_remembered_address_the_routes_choose(caplog: pytest.LogCaptureFixture) -> None:
    sockets = open_sockets([IPv4Address("127.0.0.2"), IPv4Address("127.0.0.1")], 0, False)
    wire = Wire(sockets)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(2.0)
        for local, source in (("", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("192.0.2.7", "127.0.0.1")):
            wire.send([Datagram(b"x", "127.0.0.1", peer.getsockname()[1], local)])
            assert peer.recvfrom(9)[1][0] == source
    assert wire.unsent == 0
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            wire.send([Datagram(b"x", "2001:db8::1", 4342)])
    assert (wire.unsent, len(caplog.messages)) == (3, 1)
    for one in sockets:
        one.close()


async def test_a_fault_of_ours_takes_nobody_elses_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(config(tmp_path)) as service:
        server, right = service.server, service.server.receive

        def wrong(data: bytes, source: tuple[str, int], now: float, local: str = "") -> Outcome:
            if data == b"poison":
                raise OverflowError("int too big to convert")
            return right(data, source, now, local)

        def late(now: float) -> Outcome:
            raise OverflowError("int too big to convert")

        monkeypatch.setattr(server, "receive", wrong)
        peer = Peer(service.port)
        for _ in range(5):
            peer.socket.send(b"poison")
        assert isinstance(await peer.register(record("10.1.0.0/16", "192.0.2.1")), MapNotify)
        assert server.refusals.counts["fault"] == 5
        assert len([line for line in caplog.messages if "OverflowError" in line]) == 1
        monkeypatch.setattr(server, "timer", late)
        monkeypatch.setattr(server, "next_timer", lambda: 0.0)
        service._schedule()
        await asyncio.sleep(0.3)
        assert 6 <= server.refusals.counts["fault"] <= 7, "tried again after a while only"
        assert isinstance(await peer.register(record("10.1.0.0/16", "192.0.2.2")), MapNotify)


async def test_a_store_that_stumbles_stops_neither_events_nor_helpers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []
    async with running(config(tmp_path), events.append) as service:

        def broken(*_: object) -> None:
            raise OverflowError("int too big to convert")

        store = service._store
        assert store is not None
        monkeypatch.setattr(store, "save", broken)
        await Peer(service.port).register(record("10.1.0.0/16", "192.0.2.1"))
        await eventually(lambda: bool(events))
        assert service._timer is not None
        assert not service.server.outbox.changes


async def test_a_helper_is_not_started_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("import pathlib; pathlib.Path('was-run').touch(); raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    shared = config(tmp_path, processes=2, listen={"addresses": ["127.0.0.1"], "port": free_port()})
    async with running(shared) as service:
        await eventually(lambda: service.helpers[0]._ready)
        await Peer(service.port).register(record("10.1.0.0/16", "192.0.2.1"))
    assert not (tmp_path / "was-run").exists()
