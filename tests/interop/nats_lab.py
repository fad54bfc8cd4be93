"""Real NATS servers for the tests: ports and directories of their own, all gone at the end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from followme.federation.nats import NatsBus, NatsHostBus
from followme.federation.nats_accounts import MIB, DomainLogins, Login, Member, bucket_of, generate_logins
from followme.federation.nats_connection import NatsAccess
from followme.federation.nats_kv import JetStreamKeyValue
from followme.federation.nats_server import NatsServer, program, start_servers

needs_nats = pytest.mark.skipif(program() is None, reason="nats-server is not installed (Debian: nats-server)")
DOMAINS = {"alpha": ["h1", "h2"], "beta": [], "gamma": []}


class Nats:
    """Servers that run, their users, and every connection that was opened to them."""

    def __init__(self, servers: list[NatsServer], logins: dict[str, DomainLogins]) -> None:
        self.servers = servers
        self.logins = logins
        self._opened: list[Any] = []

    def access(self, login: Login, servers: list[NatsServer] | None = None) -> NatsAccess:
        return NatsAccess(tuple(one.url for one in servers or self.servers), login.user, login.password)

    async def bus(self, domain: str, instance: str = "1") -> NatsBus:
        bus = await NatsBus.open(self.access(self.logins[domain].controller), domain, instance)
        self._opened.append(bus)
        return bus

    async def host(self, domain: str, host: str) -> NatsHostBus:
        bus = await NatsHostBus.open(self.access(self.logins[domain].hosts[host]), domain, host)
        self._opened.append(bus)
        return bus

    async def bucket(self, domain: str, instance: str = "1", **options: Any) -> JetStreamKeyValue:
        bus = await self.bus(domain, instance)
        options.setdefault("max_bytes", 16 * MIB)
        kv = await JetStreamKeyValue.open(bus.connection, bucket_of(domain), **options)
        self._opened.append(kv)
        return kv

    async def close(self) -> None:
        for one in reversed(self._opened):
            await one.close()
        for server in self.servers:
            await server.kill()


@asynccontextmanager
async def nats(directory: Path, count: int = 1, **options: Any) -> AsyncIterator[Nats]:
    """``count`` servers below ``directory``; ``options`` as of ``start_servers``."""
    logins = generate_logins(DOMAINS)
    ports = free_ports(2 * count)
    members = [
        Member(f"n{number}", f"127.0.0.1:{ports.pop()}", cluster=f"127.0.0.1:{ports.pop()}")
        for number in range(count)
    ]
    lab = Nats(await start_servers(members, directory, logins, **options), logins)
    try:
        yield lab
    finally:
        await lab.close()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Below those that the kernel gives to connections: they are listened at later, and again."""
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in found:
                found.append(port)
    return found
