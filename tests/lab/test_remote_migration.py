"""Machines carried between two agents that share nothing but a key and the network, with everything going wrong.

The hosts, the little switch and the pings are those of ``test_migration_machine``. Each agent is a server on the
management network; the connection to it can be cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from followme.domain import Migration, MigrationState
from followme.lab.guest import GuestImage
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.mover import MachineMover, Options
from followme.migration.qemu import Qemu
from followme.migration.recovery import Verdict
from followme.remote.channel import ChannelError
from followme.remote.client import Client, Refused
from followme.remote.hypervisor import Hypervisor
from followme.remote.keys import Key
from followme.remote.machines import SiteMachines
from followme.remote.qemu import RemoteQemu
from followme.remote.server import Server
from followme.remote.specs import Rules, spec_document
from followme.store import Store, StoreError
from followme.system import netns
from tests.lab.test_migration_machine import (  # noqa: F401 (fixtures)
    Lab,
    Network,
    Prober,
    end_all,
    image,
    lab,
    machine,
    nothing_left,
    ready,
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces and taps"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86_64"),
]

KEY = Key(b"a key that two agents share, for a test")
PORT = 4360
ALIVE_S = 0.5


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
async def sites(lab: Lab, image: GuestImage, tmp_path: Path) -> AsyncIterator[Sites]:  # noqa: F811
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


async def until(done: Any, what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


async def test_there_and_back_by_a_controllers_order(sites: Sites) -> None:
    await both(sites)
    for source, target in (("a", "b"), ("b", "a")):
        agent, other = sites.agents[source], sites.agents[target]
        client = await connect(sites.lab, "ctl", source)
        events: list[dict[str, Any]] = []
        async with Prober(sites.lab) as prober:
            await asyncio.sleep(0.3)
            async with client.stream("carry", {"machine": "vm", "target": target}) as stream:
                events.extend([event async for event in stream])
                result = await stream.result()
            await asyncio.sleep(0.3)
        print(f"{source} -> {target}: pause {result['pause_s'] * 1e3:.1f} ms, {result['bytes'] / 1e6:.1f} MB in "
              f"{result['total_s']:.2f} s; pings {prober.sent} lost {len(prober.lost)} worst "
              f"{prober.worst_round_trip * 1e3:.1f} ms")
        assert prober.lost == []
        names = [event["event"] for event in events if event["event"] != "progress"]
        assert sorted(names[3:5]) == ["flipped", "switched"]
        assert names[:3] + names[5:] == ["planned", "prepared", "transferring", "resumed", "released"]
        resumed = next(event for event in events if event["event"] == "resumed")
        assert resumed["pause_s"] == result["pause_s"] > 0
        assert await sites.running() == [target]
        await until(lambda other=other: "vm" in other.machines.running, "the target keeps it")
        assert "vm" not in agent.machines.running
        assert agent.router.calls[-1] == "gone"
        assert other.router.calls[-1] == "here"
        for place in (agent.store.placement("vm"), other.store.placement("vm")):
            assert place is not None
            assert place.network == target
        await nothing_left(sites.lab, source)
        await client.close()
    # What was carried away is not started again where it was at home, and what was carried here is found.
    await sites.a.machines.carry("vm", "b")
    await sites.end("a")
    await sites.end("b")
    await sites.begin("a", sites.spec)
    await sites.begin("b")
    assert list(sites.a.machines.running) == []
    assert list(sites.b.machines.running) == ["vm"]
    assert await sites.running() == ["b"]


async def test_the_target_refuses(sites: Sites) -> None:
    await both(sites)
    qemu = sites.a.machines.running["vm"]
    real = qemu.spec
    for spec, match in ((replace(real, kernel=Path("/etc/hostname")), "no image /etc/hostname"),
                        (replace(real, memory_bytes=1 << 40), "memory_bytes"),
                        (replace(real, memory_bytes=96 << 20), "Size mismatch")):
        qemu.spec = spec
        async with Prober(sites.lab) as prober:
            with pytest.raises(MigrationError, match=match):
                await sites.a.machines.carry("vm", "b")
        assert prober.lost == []
        assert await sites.running() == ["a"]
        assert await netns.pids(str(sites.lab.hosts["b"].namespace)) == []
        assert sites.b.hypervisor.guests == {}
    await nothing_left(sites.lab, "b")
    qemu.spec = real
    for target, match in (("a", "is at a already"), ("c", "c")):
        with pytest.raises((MigrationError, KeyError), match=match):
            await sites.a.machines.carry("vm", target)
    with pytest.raises(MigrationError, match="none of live"):
        await sites.a.machines.carry("vm", "b", "by mail")


async def test_a_peer_may_do_no_more_than_a_migration_needs(sites: Sites) -> None:
    await both(sites)
    client = await connect(sites.lab, "a", "b")
    stranger = await connect(sites.lab, "ctl", "b")
    copy = await RemoteQemu.start(client, sites.spec)
    for command, arguments in (("migrate-incoming", {"uri": "exec:touch /tmp/owned"}), ("human-monitor-command", {}),
                               ("migrate-set-capabilities", {"capabilities": 7}), ("quit", {})):
        with pytest.raises(MigrationError, match="not one that a migration needs"):
            await copy.execute(command, arguments)
    for method, more in (("kill", {}), ("bounce", {"way": "flip"}), ("keep", {})):
        if method == "kill":  # harmless, but nothing happens either
            await stranger.call(method, {"machine": "vm"})
            assert (await copy.execute("query-status"))["status"] == "inmigrate"
            continue
        with pytest.raises(Refused, match="not being carried to b by ctl"):
            await stranger.call(method, {"machine": "vm", **more})
    with pytest.raises(Refused, match="from somewhere else"):
        async with stranger.stream("incoming", {"spec": spec_document(sites.spec)}) as stream:
            await anext(stream)
    with pytest.raises(MigrationError, match="does not run"):
        await copy.keep()
    await copy.kill()
    await nothing_left(sites.lab, "b")
    # Our own machine is no guest: nobody ends it.
    other = await connect(sites.lab, "b", "a")
    await other.call("kill", {"machine": "vm"})
    assert await sites.running() == ["a"]
    for one in (client, stranger, other):
        await one.close()


@pytest.mark.parametrize("how", ["connection", "agent", "silence"])
async def test_the_target_is_lost_while_memory_flows(sites: Sites, how: str) -> None:
    await both(sites)
    cut = False

    def tell(event: dict[str, Any]) -> None:
        nonlocal cut
        if event["event"] == "progress" and event["sent_bytes"] > 5e6 and not cut:
            cut = True
            if how == "connection":
                for connection in sites.a.connections:
                    connection._wire.end("cut")
            elif how == "agent":
                ended.append(asyncio.create_task(sites.end("b")))
            else:
                ended.append(asyncio.create_task(netns.ip(sites.lab.switch, ["link set dev m-b down"])))

    ended: list[asyncio.Task[None]] = []
    async with Prober(sites.lab) as prober:
        with pytest.raises(MigrationError) as caught:
            await sites.a.machines.carry("vm", "b", tell=tell)
        await asyncio.sleep(0.2)
    print(f"{how}: {caught.value} {getattr(caught.value, '__notes__', '')}; lost {len(prober.lost)}")
    await asyncio.gather(*ended)
    assert prober.lost == []
    assert await sites.a.machines.running["vm"].status() == "running"
    assert sites.a.store.migrations()[0].state is MigrationState.FAILED
    if how == "agent":
        await sites.begin("b")
    elif how == "silence":
        await netns.ip(sites.lab.switch, ["link set dev m-b up"])
    # What had come is removed, by the target's own patience or by the source when it comes through again.
    await until(lambda: not sites.b.hypervisor.guests, "the guest is forgotten")
    await nothing_left(sites.lab, "b")
    await sites.a.machines.carry("vm", "b")
    assert await sites.running() == ["b"]


async def test_the_connection_is_cut_when_the_target_was_told(
    sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it runs there is not known: nothing runs here until the target has said."""
    await both(sites)
    agent = sites.a
    reached = asyncio.Event()
    execute = RemoteQemu.execute

    async def cutting(self: RemoteQemu, command: str, *more: Any, **named: Any) -> Any:
        if command == "cont":
            asyncio.get_running_loop().call_soon(agent.connections[-1]._wire.end, "cut")
            reached.set()
        return await execute(self, command, *more, **named)

    monkeypatch.setattr(RemoteQemu, "execute", cutting)
    monkeypatch.setattr("followme.remote.machines.AGAIN_S", 0.5)
    with pytest.raises(MigrationError) as caught:
        await agent.machines.carry("vm", "b")
    assert reached.is_set()
    assert agent.store.migrations()[0].state is MigrationState.SWITCHED
    assert "may run at b" in "".join(caught.value.__notes__)
    assert "a" not in await sites.running()
    with pytest.raises(MigrationError, match="does not run|already"):
        await agent.machines.carry("vm", "b")
    await until(lambda: agent.store.migrations()[0].state is not MigrationState.SWITCHED, "it is settled")
    assert agent.store.migrations()[0].state is MigrationState.RELEASED
    assert await sites.running() == ["b"]
    await nothing_left(sites.lab, "a")
    async with Prober(sites.lab) as prober:
        await asyncio.sleep(0.2)
    assert prober.lost == []


async def test_a_guest_whose_source_is_gone(sites: Sites) -> None:
    """Half a copy is ended; one that runs is the machine; a whole one that is stopped is kept."""
    await both(sites)
    source = sites.a.machines.running["vm"]
    client = await connect(sites.lab, "a", "b")
    await RemoteQemu.start(client, sites.spec)
    await client.close()
    await until(lambda: not sites.b.hypervisor.guests, "half a copy is ended")
    await nothing_left(sites.lab, "b")
    assert sites.b.router.calls[-1] == "gone"

    client = await connect(sites.lab, "a", "b")
    copies: list[RemoteQemu] = []

    async def waiting(spec: MachineSpec) -> RemoteQemu:
        copies.append(await RemoteQemu.start(client, spec))
        return copies[-1]

    class Stuck(Exception):
        pass

    def record(migration: Migration) -> None:
        if migration.state is MigrationState.RELEASED:
            raise Stuck

    moved = Migration("m", "vm", "a", "b", "cold", MigrationState.PLANNED, 0.0)
    del sites.a.hypervisor.machines["vm"]
    with pytest.raises(Stuck):
        await MachineMover(moved, source, waiting, Network(sites.lab, "b"), record).run()
    await copies[0].execute("query-status")
    await client.close()
    assert list(sites.b.hypervisor.guests) == ["vm"]
    await until(lambda: "vm" in sites.b.machines.running, "it is the machine")
    assert await sites.running() == ["b"]

    # A guest that is whole, and stopped.
    guest = sites.b.machines.running["vm"]
    await guest.execute("stop")
    sites.b.hypervisor.disown("vm")
    from followme.remote.hypervisor import Guest

    kept = sites.b.hypervisor.guests["vm"] = Guest(sites.spec, "a", guest)
    sites.b.hypervisor._leave(kept)
    await asyncio.sleep(1.5)
    assert sites.b.hypervisor.guests["vm"].qemu is guest
    assert await guest.status() == "paused"


async def doomed(lab: Lab, guest: GuestImage, moment: str, directory: Path) -> None:  # noqa: F811
    """The source's agent, until it dies at ``moment``: a recorded state, or so long after the flip."""

    class Doom(Network):
        async def flip(self) -> None:
            asyncio.get_running_loop().call_later(float(moment), os._exit, 9)

        async def release(self) -> None:
            await asyncio.sleep(10)

    class DoomRouter(Router):
        def hooks(self, migration: Migration, spec: MachineSpec, client: Client) -> Network:
            return Doom(self.lab, migration.target) if moment[0].isdigit() else super().hooks(migration, spec,
                                                                                              client)

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == moment:
            os._exit(9)

    agent = Agent(lab, "a", guest, directory, 1.0)
    agent.machines.network = DoomRouter(lab)
    await agent.start(machine(guest))
    await ready(lab)
    await agent.machines.carry("vm", "b", tell=tell)


def run_doomed(lab: Lab, guest: GuestImage, moment: str, directory: Path) -> None:  # noqa: F811
    asyncio.run(doomed(lab, guest, moment, directory))


@pytest.mark.parametrize(("moment", "target_too"), [
    ("prepared", False), ("transferring", False), ("transferring", True), ("switched", False), ("0.004", False),
    ("0.015", False), ("0.1", False), ("0.1", True), ("resumed", True),
])
async def test_a_killed_agent_leaves_one_machine(sites: Sites, moment: str, target_too: bool) -> None:
    lab = sites.lab  # noqa: F811
    await lab.send_to("a")
    await sites.begin("b", patience_s=3.0)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run_doomed, args=(lab, sites.image, moment, sites.directory))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == 9
    if target_too:
        await sites.end("b")
        # Nobody to ask: both copies are left alone, and the agent says so.
        await sites.begin("a", sites.spec)
        assert "neither copy is touched" in sites.a.machines.problems["vm"]
        assert "vm" not in sites.a.machines.running
        with contextlib.suppress(MigrationError):
            await sites.a.machines.carry("vm", "b")
            pytest.fail("it is not settled yet")
        await sites.begin("b")
        await until(lambda: "vm" not in sites.a.machines.problems, str(sites.a.machines.problems))
    else:
        await sites.begin("a", sites.spec)
    assert sites.a.machines.problems == {}
    last = sites.a.store.migrations()[0]
    where, other = ("b", "a") if last.state is MigrationState.RELEASED else ("a", "b")
    print(f"killed at {moment}: {last.detail['recovered']}")
    if moment in ("prepared", "transferring", "switched"):
        assert where == "a"
    if moment in ("0.1", "resumed"):
        assert where == "b"
    assert await sites.running() == [where]
    assert list(sites.agents[where].machines.running) == ["vm"]
    async with Prober(lab) as prober:
        await asyncio.sleep(0.3)
    assert prober.lost == []
    await nothing_left(lab, other)
    # And it can be carried as if nothing had been.
    await sites.agents[where].machines.carry("vm", other)
    assert await sites.running() == [other]
