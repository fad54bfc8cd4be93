"""Two agents that share nothing but a key and the network, for the tests of machines carried between them.

The hosts, the little switch and the pings are those of ``carrying``. Each agent is a server on the
management network; the connection to it can be cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from tests import until as waiting
from tests.lab.carrying import (
    Lab,
    Network,
    end_all,
    machine,
    ready,
)

from followme.domain import Migration
from followme.lab.guest import GuestImage
from followme.migration.host import MachineSpec, MigrationError
from followme.migration.mover import Options
from followme.migration.recovery import Verdict
from followme.remote.channel import ChannelError
from followme.remote.client import Client
from followme.remote.hypervisor import Hypervisor
from followme.remote.keys import Key
from followme.remote.machines import SiteMachines
from followme.remote.server import Server
from followme.remote.specs import Rules
from followme.store import Store, StoreError
from followme.system import netns

KEY = Key(b"a key that two agents share, for a test")
PORT = 4360
ALIVE_S = 0.5
until = partial(waiting.until, seconds=15.0)


async def connect(lab: Lab, name: str, server: str) -> Client:
    """From host ``name``'s namespace, for others from the server's own, to the agent at host ``server``."""
    space = lab.hosts[name if name in lab.hosts else server].namespace
    sock = netns.socket_in(space, socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    address = lab.hosts[server].management_address
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, (address, PORT)), 2.0)
    except (OSError, TimeoutError) as error:
        sock.close()
        raise ChannelError(f"{server}: {error!r}") from None
    return await Client.connect(address, PORT, name=name, server=server, key=KEY, alive_s=ALIVE_S, sock=sock)


@dataclass
class Router:
    """The site's router as the agent sees it: hooks for the little switch, and what it was told."""

    lab: Lab
    calls: list[str] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)

    def hooks(self, migration: Migration, spec: MachineSpec, client: Client) -> Network:
        self.networks.append(Network(self.lab, migration.target, self.calls))
        return self.networks[-1]

    async def settled(self, migration: Migration, spec: MachineSpec, verdict: Verdict) -> None:
        self.calls.append(f"settled {verdict}")
        self.lab.at = migration.target if verdict is Verdict.FINISH_AT_TARGET else migration.source
        await self.lab.send_to(self.lab.at)
        with contextlib.suppress(Exception):
            await self.lab.disarm()

    def here(self, spec: MachineSpec) -> None:
        self.calls.append("here")

    def gone(self, spec: MachineSpec) -> None:
        self.calls.append("gone")


class Agent:
    """One site: its machines, and the server by which others reach them."""

    def __init__(self, lab: Lab, name: str, guest: GuestImage, store: Path, patience_s: float) -> None:
        self.lab, self.name, self.router = lab, name, Router(lab)
        images = Rules((guest.kernel.parent, guest.initrd.parent), max_waiting=2)
        self.hypervisor = Hypervisor(lab.hosts[name], images, patience_s=patience_s)
        self.store = Store(store / f"{name}.db")
        self.connections: list[Client] = []
        self.machines = SiteMachines(name, self.hypervisor, self.store, self.router, self.connect,
                                     options=Options(survive=True, stall_timeout=2.0))
        self.server: Server | None = None

    async def connect(self, site: str) -> Client:
        self.connections.append(await connect(self.lab, self.name, site))
        return self.connections[-1]

    async def start(self, *specs: MachineSpec) -> None:
        # Before the server: nobody may ask for a machine that is not known yet.
        await self.machines.start(specs)
        space = self.lab.hosts[self.name].namespace
        sock = netns.socket_in(space, socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((self.lab.hosts[self.name].management_address, PORT))
        keys = dict.fromkeys(["a", "b", "ctl"], KEY)
        self.server = await Server.start(self.machines.handlers(), keys, name=self.name, sock=sock,
                                         errors=(MigrationError, StoreError), alive_s=ALIVE_S)

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.close()
        await self.machines.close()
        self.store.close()


@dataclass
class Sites:
    lab: Lab
    image: GuestImage
    spec: MachineSpec
    directory: Path
    agents: dict[str, Agent] = field(default_factory=dict)

    @property
    def a(self) -> Agent:
        return self.agents["a"]

    @property
    def b(self) -> Agent:
        return self.agents["b"]

    async def begin(self, name: str, *specs: MachineSpec, patience_s: float = 1.0) -> Agent:
        agent = self.agents[name] = Agent(self.lab, name, self.image, self.directory, patience_s)
        await agent.start(*specs)
        return agent

    async def end(self, name: str) -> None:
        await self.agents.pop(name).stop()

    async def running(self) -> list[str]:
        """The hosts whose copy runs, by asking the QEMUs that their agents have."""
        found = []
        for name, agent in self.agents.items():
            qemus = [*agent.hypervisor.machines.values(), *(g.qemu for g in agent.hypervisor.guests.values())]
            for qemu in qemus:
                if qemu is not None and not qemu.ended.is_set() and await qemu.status() == "running":
                    found.append(name)
        return found


@pytest.fixture
async def sites(lab: Lab, image: GuestImage, tmp_path: Path) -> AsyncIterator[Sites]:
    sites = Sites(lab, image, machine(image), tmp_path)
    try:
        yield sites
    finally:
        for name in list(sites.agents):
            await sites.end(name)
        await end_all(lab)


async def both(sites: Sites) -> None:
    await sites.lab.send_to("a")
    await sites.begin("b")
    await sites.begin("a", sites.spec)
    await ready(sites.lab)
