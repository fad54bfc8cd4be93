"""Four domains with two controllers each, all of them processes of their own on real NATS servers.

Each domain's switch is connected to both of its controllers, its table is interpreted, and a router that knows
prefixes stands between the switches (``tests.unit.controller.domains``). A host's agent is played by the test: it
asks for a machine's migration as an agent does, over the bus. Sessions of hosts with the machine go on all the
time, and every packet is accounted for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from tests.interop.nats_lab import free_ports
from tests.interop.switches import Both, Gate
from tests.unit.continuity.fabric import Packet
from tests.unit.controller.domains import (
    DOMAINS,
    HOSTS,
    MACHINE_PORT,
    VM,
    VM_MAC,
    Domains,
    Host,
    document,
)

from followme.config import federation as config
from followme.controllers.openflow.instance import registry_of
from followme.federation.bus import BusError
from followme.federation.engine import FederationError
from followme.federation.federate import Federate
from followme.federation.hosts import HostClient
from followme.federation.keyfile import load_private_key, make_key_file
from followme.federation.kv import KvError
from followme.federation.nats import NatsBus, NatsHostBus
from followme.federation.nats_accounts import DomainLogins, Member, bucket_of, generate_logins
from followme.federation.nats_connection import NatsAccess
from followme.federation.nats_kv import JetStreamKeyValue
from followme.federation.nats_server import NatsServer, start_servers
from followme.store import StoreError
from followme.store.replicated import ReplicatedStore
from followme.system.process import Child

INSTANCES = ("1", "2")
PACE_S = 0.02
STARTS_S = 40.0


class Fleet(Domains):
    """``run`` it. Controllers have names as ``alpha/1``."""

    def __init__(self, directory: Path, servers: list[NatsServer], logins: dict[str, DomainLogins]) -> None:
        self.directory, self.servers, self.logins = directory, servers, logins
        self.switches: dict[str, Any] = {}
        self.out, self.at, self._pumped = [], "dc-a", {}
        self.answering = {}
        self.public = {domain: make_key_file(directory / f"{domain}.key") for domain in DOMAINS}
        ports = iter(free_ports(len(DOMAINS) * len(INSTANCES)))
        self.ports = {f"{domain}/{one}": next(ports) for domain in DOMAINS for one in INSTANCES}
        self.instances_of: dict[str, tuple[str, ...]] = dict.fromkeys(DOMAINS, INSTANCES)
        """Of the domains that run."""
        self.gates: dict[str, Gate] = {}
        self._urls: dict[str, str] = {}
        self._begun: dict[str, int] = {}
        self.children: dict[str, Child] = {}
        self.agents: dict[str, HostClient] = {}
        self.talking: asyncio.Task[None] | None = None
        self.sent, self.brought = 0, 0
        self.lost: Counter[str] = Counter()
        self.upward: Counter[str] = Counter()
        """Packets that went up to a controller, which sends them on later."""
        self.refusals: list[str] = []
        self._opened: list[Any] = []

    # ---- controllers

    @property
    def all(self) -> list[str]:
        return [f"{domain}/{one}" for domain, instances in self.instances_of.items() for one in instances]

    @property
    def hosts(self) -> list[Host]:
        return [HOSTS[DOMAINS[domain][0]] for domain in self.instances_of]

    def other(self, name: str) -> str:
        """The domain's other controller."""
        return next(one for one in self.all if one[:-1] == name[:-1] and one != name)

    def document(self, domain: str, instance: str) -> dict[str, Any]:
        made = document(domain, self.directory, self.public)
        password = self.directory / f"{domain}.password"
        password.write_text(self.logins[domain].controller.password)
        password.chmod(0o600)
        made["federation"] |= {
            "bus": self._urls.get(f"{domain}/{instance}") or ",".join(one.url for one in self.servers),
            "instance": instance,
            "user": self.logins[domain].controller.user, "password_file": str(password),
            "replicas": 1 if len(self.servers) == 1 else 3,
        }  # fmt: skip
        del made["store"]
        made["listen"] = {"address": "127.0.0.1", "port": self.ports[f"{domain}/{instance}"]}
        return made

    async def begin(self, *names: str, wrap: Sequence[str] = ()) -> None:
        """Start controllers (all that do not run, if none is named); ``wrap`` is a command to run them by."""
        for name in names or [one for one in self.all if one not in self.children]:
            domain, instance = name.split("/")
            file = self.directory / f"{domain}-{instance}.yaml"
            file.write_text(yaml.safe_dump(self.document(domain, instance)))
            self._begun[name] = self.log(name).stat().st_size if self.log(name).exists() else 0
            with self.log(name).open("ab") as log:
                argv = [*wrap, sys.executable, "-m", "followme.cli", "controller", "-c", str(file)]
                self.children[name] = await Child.start(["sh", "-c", 'exec "$@" 2>&1', "sh", *argv], stdout=log,
                                                        name=name)  # fmt: skip

    def log(self, name: str) -> Path:
        return self.directory / f"{name.replace('/', '-')}.log"

    def said(self, name: str) -> str:
        """Since it was begun."""
        return self.log(name).read_bytes()[self._begun[name] :].decode() if name in self._begun else ""

    def is_active(self, name: str) -> bool:
        said = self.said(name)
        return name in self.children and said.rfind("is served, epoch") > max(
            said.rfind("not the active one"), said.rfind("stands by"))  # fmt: skip

    async def active(self, domain: str, within_s: float = STARTS_S) -> str:
        """The controller that serves the domain now."""
        names = [f"{domain}/{one}" for one in INSTANCES]
        try:
            async with asyncio.timeout(within_s):
                while not (found := [name for name in names if self.is_active(name)]):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError({name: self.said(name)[-1500:] for name in names}) from None
        return found[0]

    async def until_said(self, name: str, text: str, times: int = 1, within_s: float = STARTS_S) -> None:
        try:
            async with asyncio.timeout(within_s):
                while self.said(name).count(text) < times:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{name} has not said {text!r}: {self.said(name)[-2500:]}") from None

    async def ready(self) -> None:
        """One controller of each domain is active, the others stand by, and switches are connected to all."""
        for domain, instances in self.instances_of.items():
            network = DOMAINS[domain][0]
            await self.active(domain)
            for one in instances:
                await self.until_said(f"{domain}/{one}", "stands by")
            async with asyncio.timeout(10):
                switch = self.switches[network]
                while len(switch.lines) < len(instances) or not switch.table.entries:
                    await asyncio.sleep(0.01)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.children[name].pid, number)

    async def kill(self, name: str) -> None:
        self.signal(name, signal.SIGKILL)
        await self.children.pop(name).wait()

    # ---- the machine's hosts

    async def agent(self, network: str) -> HostClient:
        if network not in self.agents:
            login = self.logins[self._domain(network)].hosts[network]
            access = NatsAccess(tuple(one.url for one in self.servers), login.user, login.password)
            bus = await NatsHostBus.open(access, self._domain(network), network)
            self._opened.append(bus)
            self.agents[network] = HostClient(bus)
        return self.agents[network]

    async def carry_by_host(self, target: str, migration: str) -> None:
        """As often as it takes: a preparation that is refused is given up, and begun again."""
        host = await self.agent(self.at)
        for number in range(10):
            try:
                await host.prepare(VM, target, migration)
                break
            except FederationError as error:
                self.refusals.append(str(error))
                await host.aborted(VM, migration)
                migration = f"{migration}-{number}"
        self.at = target
        await host.flipped(VM, migration)
        await host.released(VM, migration)

    # ---- sessions

    async def _converse(self) -> None:
        """Hosts and the machine send to each other all the time, by ``PACE_S``."""
        while True:
            self.out.clear()
            self.pump()
            self.brought += len(self.out)
            for host in self.hosts:
                to_vm = Packet(b"\x0e" * 6, host.mac, host.address, VM)
                to_host = Packet(b"\x0e" * 6, VM_MAC, VM, host.address)
                self._account(to_vm, host.network, host.port, self.at, MACHINE_PORT, VM_MAC)
                self._account(to_host, self.at, MACHINE_PORT, host.network, host.port, host.mac)
            await asyncio.sleep(PACE_S)

    def _account(self, packet: Packet, network: str, port: int, end: str, out: int, mac: bytes) -> None:
        self.out.clear()
        told = sum(switch.told for switch in self.switches.values())
        self.send(network, port, packet)
        self.sent += 1
        came = [(one.network, one.port, one.packet.eth_dst, one.packet.ipv4_src, one.packet.ipv4_dst)
                for one in self.out]  # fmt: skip
        if came == [(end, out, mac, packet.ipv4_src, packet.ipv4_dst)]:
            return
        way = f"{packet.ipv4_src} -> {packet.ipv4_dst}, from {network} to {end}"
        if not came and sum(switch.told for switch in self.switches.values()) > told:
            self.upward[way] += 1
        else:
            self.lost[f"{way}: {came}"] += 1

    async def first_words(self) -> None:
        """What hosts and the machine say first is brought by their controllers; from then on by the switches."""
        for host in self.hosts:
            await self.talks(host, self.at)
        self.talking = asyncio.ensure_future(self._converse())

    async def sessions_are_well(self) -> None:
        """No packet came out where it does not belong, none was lost on a way that stood; what a controller was
        to bring may have been lost while there was none. From now on all are brought by switches alone."""
        assert self.talking is not None
        if self.talking.done():
            self.talking.result()
        assert self.lost == {}
        async with asyncio.timeout(10):
            while True:
                before, sent = sum(self.upward.values()), self.sent
                await asyncio.sleep(5 * PACE_S)
                if sum(self.upward.values()) == before and self.sent > sent:
                    return

    # ---- what is kept

    async def mapping(self, domain: str) -> Any:
        """What the domain's bucket says of the machine, as a controller that starts now would see it."""
        login = self.logins[domain].controller
        access = NatsAccess(tuple(one.url for one in self.servers), login.user, login.password)
        bus = await NatsBus.open(access, domain, "test")
        store = ReplicatedStore()
        try:
            replicas = 1 if len(self.servers) == 1 else 3
            kv = await JetStreamKeyValue.open(bus.connection, bucket_of(domain), replicas=replicas)
            await store.restore(kv)
            checked = config.check(self.document(domain, "1"), "a test's config")
            registry, signer = registry_of(checked, load_private_key(checked.file.federation.key_file))
            view = Federate(registry, signer, store.facts()).view(VM)
            await kv.close()
            return None if view is None else view.mapping
        finally:
            store.close()
            await bus.close()

    async def same_everywhere(self, where: str, within_s: float = 30.0) -> dict[str, Any]:
        """Until each domain that knows the machine has it at ``where``, with nothing old left; their mappings."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(within_s):
                while True:
                    with contextlib.suppress(BusError, KvError, StoreError):  # the bus may be finding itself
                        found = {domain: await self.mapping(domain) for domain in self.instances_of}
                    known = [one for one in found.values() if one is not None]
                    good = all(one.here.network == where and not (one.arriving or one.leaving) for one in known)
                    same = len({(one.version, one.here) for one in known}) <= 1
                    if good and same and found and (known or where == "dc-a"):
                        return found
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"not all at {where}: {found}") from None

    async def close(self) -> None:
        if self.talking is not None:
            self.talking.cancel()
            await asyncio.gather(self.talking, return_exceptions=True)
        for child in self.children.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            await child.wait()
        for switch in self.switches.values():
            await switch.close()
        for one in self._opened:
            await one.close()
        for gate in self.gates.values():
            await gate.close()
        for server in self.servers:
            server.send_signal(signal.SIGCONT)
            await server.kill()


@asynccontextmanager
async def fleet(
    directory: Path, instances: Mapping[str, int], *, servers: int = 1, gated: Collection[str] = (),
    store: str = "", wrap: Mapping[str, Sequence[str]] | None = None,
) -> AsyncIterator[Fleet]:  # fmt: skip
    """All of it runs, and the machine, at home in alpha, has sessions with a host of each network.

    ``instances``: how many controllers of which domains; ``gated``: controllers with a ``Gate`` before the bus;
    ``wrap``: commands to run controllers by; ``store``: the server's directory.
    """
    logins = generate_logins({domain: [network] for domain, (network, _) in DOMAINS.items()})
    ports = free_ports(2 * servers)
    members = [Member(f"n{number}", f"127.0.0.1:{ports.pop()}", store, f"127.0.0.1:{ports.pop()}")
               for number in range(servers)]  # fmt: skip
    made = Fleet(directory, await start_servers(members, directory, logins), logins)
    made.instances_of = {domain: INSTANCES[:count] for domain, count in instances.items()}
    try:
        for domain, (network, number) in DOMAINS.items():
            names = [one for one in made.all if one.startswith(f"{domain}/")]
            made.switches[network] = Both(number, [made.ports[name] for name in names])
            made._pumped[network] = 0
        for name in gated:
            made.gates[name] = Gate(made.servers[0].url)
            made._urls[name] = await made.gates[name].start()
        for name, command in (wrap or {}).items():
            await made.begin(name, wrap=command)
        await made.begin()
        await made.ready()
        await made.first_words()
        yield made
    finally:
        await made.close()
