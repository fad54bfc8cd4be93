"""Servers that run from what ``followme federation bus`` has written, and who may be, and keep what, there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.interop.nats_lab import free_ports, needs_nats, until
from tests.unit.controller.domains import DOMAINS, document
from typer.testing import CliRunner

from followme.cli import app
from followme.config import federation as config
from followme.controllers.openflow.instance import Instance
from followme.domain import NodeKind
from followme.federation.bus import BusError
from followme.federation.held import FULL, RECORD_OCTETS
from followme.federation.keyfile import make_key_file
from followme.federation.messages import Refused, Update
from followme.federation.nats import NatsBus, NatsHostBus
from followme.federation.nats_accounts import MIB, Member, bucket_of
from followme.federation.nats_connection import NatsAccess
from followme.federation.nats_kv import JetStreamKeyValue
from followme.federation.nats_server import NatsServer
from followme.federation.nouns import Card, Mapping, Place

pytestmark = needs_nats


def _write(directory: Path, *arguments: str) -> None:
    result = CliRunner().invoke(app, ["federation", "bus", str(directory), *arguments])
    assert result.exit_code == 0, result.output


async def _says(asking: Awaitable[bytes], what: bytes) -> bool:
    """Not at once, where servers have yet to tell each other who is served."""
    try:
        return await asking == what
    except BusError:
        return False


@pytest.mark.parametrize("count", [1, 3])
async def test_controllers_and_hosts_are_on_the_bus_by_their_files(tmp_path: Path, count: int) -> None:
    ports = [f"127.0.0.1:{port}" for port in free_ports(2 * count)]
    names = ["nats-server"] if count == 1 else [f"n{number}" for number in range(count)]
    where = ["--listen", ports[0]] if count == 1 else [
        part for number, name in enumerate(names)
        for part in ("--server", f"{name},{ports[number]},{ports[count + number]}")
    ]  # fmt: skip
    files = tmp_path / "bus"
    _write(files, "alpha:dc1", *where)
    _write(files, "alpha:dc1", "beta", *where)
    servers = [NatsServer(Member(name, ports[number]), tmp_path / name) for number, name in enumerate(names)]

    def access(user: str, whose: str) -> NatsAccess:
        password = (files / f"{whose}.password").read_text().strip()
        return NatsAccess(tuple(one.url for one in servers), user, password)

    async def answer(sender: str, payload: bytes) -> bytes:
        return f"{sender} says {payload.decode()}".encode()

    opened: list[NatsBus | NatsHostBus] = []
    try:
        for server in servers:
            server.configure((files / f"{server.member.name}.conf").read_text())
            await server.launch()
        for server in servers:
            await server.ready()
        alpha = await NatsBus.open(access("alpha", "alpha"), "alpha", "1")
        beta = await NatsBus.open(access("beta", "beta"), "beta", "1")
        host = await NatsHostBus.open(access("alpha.dc1", "alpha.dc1"), "alpha", "dc1")
        opened += [alpha, beta, host]
        await alpha.serve(answer)
        await alpha.serve_hosts(answer)
        await until(lambda: _says(beta.request("alpha", b"hello", 0.5), b"beta says hello"))
        await until(lambda: _says(host.request(b"hello", 0.5), b"dc1 says hello"))
        bucket = await JetStreamKeyValue.open(alpha.connection, bucket_of("alpha"), replicas=count, max_bytes=MIB)
        try:
            await bucket.create("a", b"1")
        finally:
            await bucket.close()
        with pytest.raises(BusError):
            opened.append(await NatsBus.open(access("alpha", "beta"), "alpha", "2"))
    finally:
        for one in reversed(opened):
            await one.close()
        for server in servers:
            await server.kill()


async def test_a_controller_gives_others_a_share_of_the_room_that_it_has_on_the_bus(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    _write(tmp_path, "delta", "--listen", f"127.0.0.1:{port}", "--mib", "16")
    server = NatsServer(Member("nats-server", f"127.0.0.1:{port}"), tmp_path / "server")
    server.configure((tmp_path / "nats-server.conf").read_text())
    public = {domain: make_key_file(tmp_path / f"{domain}.key") for domain in DOMAINS}
    made = document("delta", tmp_path, public)
    del made["store"]
    made["federation"] |= {"bus": server.url, "user": "delta", "password_file": str(tmp_path / "delta.password"),
                           "bucket_mib": 16}  # fmt: skip
    (beta,) = [one for one in made["federation"]["domains"] if one["name"] == "beta"]
    beta["networks"][0]["prefix"] = "10.2.0.0/16"
    running: asyncio.Future[None] | None = None
    try:
        await server.start()
        instance = Instance(config.check(made, "a test's config"), watch=lambda happening: None)
        running = asyncio.ensure_future(instance.run())
        await asyncio.wait_for(instance.active.wait(), 20)
        assert instance.controller is not None
        federate, octets = instance.controller.federate, 0
        for number in range(1 << 15):
            identifier = IPv4Address("10.2.1.0") + number
            node = Card("guest", NodeKind.USER, b"\6" + number.to_bytes(5, "big"), identifier, identifier, "dc-b")
            mapping = Mapping(node, 6, Place("dc-c", IPv4Address("10.3.0.130")), signature=bytes(64))
            answer = federate.receive("beta", Update(mapping, ("wlan-d",)), 1.0)
            if isinstance(answer, Refused):
                break
            octets += sum(len(fact) + RECORD_OCTETS for fact in federate.take().writes.values() if fact is not None)
        assert answer == Refused(FULL)
        assert octets == pytest.approx((16 * MIB) / 4 * (1 + 1 / 3), rel=0.01), "a quarter, and a third of one"
    finally:
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await server.kill()
