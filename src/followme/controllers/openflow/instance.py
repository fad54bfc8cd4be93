"""One instance of a federated domain's controller: a standby until it has the lease, then the active one.

A standby has all that is known (it watches the bucket) and a connection from each switch, and changes nothing.
When it gets the lease it becomes the bucket's only writer, then the switches' master, then it answers others: so
whoever was active before is shut out of all three, even if it was only frozen and knows nothing of it. Whatever
ends its time makes it a standby again; the switches' connections stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from followme.config.federation import MEMORY, FederatedConfig
from followme.config.keys import read_key
from followme.continuity.ledger import CONNECTION_BITS, EPOCH_BITS, Ledger
from followme.continuity.southbound import DatapathGone, Handlers, Role, Southbound, SwitchError
from followme.controllers.events import Happening
from followme.controllers.openflow.edge import listen
from followme.controllers.openflow.federated import FederatedController
from followme.domain import NodeKind
from followme.federation.bus import Bus, BusError
from followme.federation.custody import Custodians
from followme.federation.engine import Engine, LeaseLost
from followme.federation.federate import Federate
from followme.federation.hosts import HostDesk
from followme.federation.keyfile import load_private_key
from followme.federation.kv import KvError
from followme.federation.lease import Lease
from followme.federation.memory import MemoryHub
from followme.federation.nats import NatsBus, inbox_of
from followme.federation.nats_accounts import LEASE_BYTES, MIB, bucket_of, lease_bucket_of
from followme.federation.nats_connection import NatsAccess, NatsConnection
from followme.federation.nats_kv import JetStreamKeyValue
from followme.federation.orders import OrderBus, OrderDesk
from followme.federation.registry import Domain, Registry
from followme.federation.signing import Ed25519Signer, public_key_of
from followme.store import Store, StoreError
from followme.store.replicated import ReplicatedStore
from followme.system.patience import patiently
from followme.system.seldom import Seldom

log = logging.getLogger(__name__)

AGAIN_S, ASTONISHED_S = 0.5, 3.0
"""How soon it stands by again, after it was active and something ended that; or something that nobody expects."""
LONELY_S, LONELY_MAX_S = 3.0, 60.0
"""How long an active instance may be without any switch before another one may try, doubling while that does not
help; and how much longer than others one without any switch waits for the lease."""
SWITCHES_S = 2.0
"""How long switches may take to have the rules of a new active instance before others are answered."""
MIN_PASSWORD = 8


class Instance:
    """``run`` it until it is cancelled. ``controller`` and ``engine`` are there while it is the active one."""

    def __init__(
        self, config: FederatedConfig, *, watch: Callable[[Happening], None], hub: MemoryHub | None = None,
        sock: socket.socket | None = None,
    ) -> None:  # fmt: skip
        """``hub`` is the bus of this process, where the config's is ``memory``; ``sock`` listens for switches."""
        self.config, self._watch, self._sock = config, watch, sock
        section = config.file.federation
        self._section = section
        self.registry, self.signer = registry_of(config, load_private_key(section.key_file))
        self._hub = hub or MemoryHub()
        self._machines = {node.name: node.identifier for node in config.nodes if node.kind is NodeKind.MACHINE}
        self._hosts = {one.name: one.host_name for one in config.file.networks}
        self.port = 0
        self.controller: FederatedController | None = None
        self.engine: Engine | None = None
        self.active = asyncio.Event()
        self._buckets: dict[str, JetStreamKeyValue] = {}
        self._connections: dict[str, NatsConnection] = {}
        self._lonely_s = LONELY_S
        self._astonishing = ""
        self._seldom = Seldom(log)

    async def run(self) -> None:
        """Stand by and be active by turns; ``OSError`` if it cannot listen. A bus that is away is waited for."""
        gc.set_threshold(50_000, 20, 100)  # records are no cycles: to look for some every 700 objects costs a tenth
        if self._section.bus == MEMORY:
            return await self._alone()
        async with contextlib.AsyncExitStack() as opened:
            southbound = self._southbound(opened, Role.STANDBY)
            await self._listen(southbound)
            bus = await self._on_bus(opened)
            opened.push_async_callback(self._close_buckets)
            while True:
                pause = AGAIN_S
                try:
                    await self._stand_by(bus, southbound)
                except (StoreError, KvError, BusError, SwitchError, LeaseLost) as error:
                    self._waits(error)
                except Exception as error:  # whatever it is: the other instances would end by it, too
                    pause = self._astonished(error)
                await asyncio.sleep(pause)

    def _waits(self, error: Exception) -> None:
        """What keeps us from being active is said now and then, however often it is tried again."""
        if self._seldom.due(str(error), time.monotonic()):
            log.warning("instance %s of %s: %s", self._section.instance, self._section.domain, error)

    def _astonished(self, error: Exception) -> float:
        """Say what has happened, and all of it once; how long to pause before it may happen again."""
        what = f"{type(error).__name__}: {error}"
        again, self._astonishing = what == self._astonishing, what
        log.error(
            "instance %s of %s stands by again in %g s: %s", self._section.instance, self._section.domain,
            ASTONISHED_S, what, exc_info=None if again else error,
        )  # fmt: skip
        return ASTONISHED_S

    async def _on_bus(self, opened: contextlib.AsyncExitStack) -> NatsBus:
        while True:
            try:
                bus = await NatsBus.open(self._access(), self._section.domain, self._section.instance)
            except BusError as error:
                self._waits(error)
                await asyncio.sleep(AGAIN_S)
                continue
            opened.push_async_callback(bus.close)
            return bus

    def _access(self) -> NatsAccess:
        section = self._section
        password = "" if section.password_file is None else read_key(section.password_file, MIN_PASSWORD).decode()
        servers = tuple(url.strip() for url in section.bus.split(","))
        return NatsAccess(servers, user=section.user or "", password=password, ca=section.ca)

    async def _alone(self) -> None:
        """Domains of one process: nobody else can be the active one."""
        if self.config.file.store is None:
            raise StoreError("store: missing; with the bus in memory what must survive is kept in a file")
        async with contextlib.AsyncExitStack() as opened:
            store = Store(self.config.file.store)
            opened.callback(store.close)
            southbound = self._southbound(opened, Role.ALONE)
            bus = self._hub.bus(self._section.domain)
            await self._be_active(opened, bus, store, southbound, 1, lambda: True)

    async def _stand_by(self, bus: NatsBus, southbound: Southbound) -> None:
        section = self._section
        async with contextlib.AsyncExitStack() as opened:
            lease_kv = await self._bucket(lease_bucket_of(section.domain), LEASE_BYTES)
            kv = await self._bucket(bucket_of(section.domain), section.bucket_mib * MIB)
            store = ReplicatedStore()
            opened.callback(store.close)
            await store.restore(kv)
            lease = Lease(lease_kv, section.domain, section.instance, section.lease_s)
            log.info("instance %s of %s stands by", section.instance, section.domain)
            opened.push_async_callback(lease.release)
            acquired = lease.acquire(
                lambda: 0.0 if _attended(southbound) else LONELY_S, lambda: southbound.newest.generation
            )  # fmt: skip
            epoch = await _unless(store.lost, acquired)
            log.info("instance %s of %s has the lease: epoch %d", section.instance, section.domain, epoch)
            ends = [asyncio.ensure_future(one) for one in (lease.hold(), _failed(store), self._lonely(southbound))]
            for one in ends:
                opened.push_async_callback(_cancel, one)
            opened.callback(self._stand_down, southbound)
            await store.lead(epoch)
            await self._be_active(opened, bus, store, southbound, epoch, lease.valid, *ends)

    async def _bucket(self, name: str, max_bytes: int) -> JetStreamKeyValue:
        """Opened once: it takes the connection's interruptions for itself. Each has a connection of its own:
        however much others send us, the lease does not wait behind it."""
        if name not in self._connections:
            section = self._section
            self._connections[name] = await NatsConnection.open(
                self._access(), f"{section.domain}/{section.instance}/{name}", inbox_of(section.domain)
            )  # fmt: skip
        if name not in self._buckets:
            self._buckets[name] = await JetStreamKeyValue.open(
                self._connections[name], name, replicas=self._section.replicas, max_bytes=max_bytes
            )  # fmt: skip
        return self._buckets[name]

    def _room(self) -> int:
        """Octets: a bucket that was there keeps the size that it was made with."""
        asked, made = self._section.bucket_mib * MIB, self._buckets[bucket_of(self._section.domain)].max_bytes
        return min(asked, made) if made > 0 else asked

    async def _close_buckets(self) -> None:
        for bucket in self._buckets.values():
            await bucket.close()
        for connection in self._connections.values():
            await connection.close()

    async def _lonely(self, southbound: Southbound) -> None:
        """Until no switch was connected for too long, though others may have them."""
        alone_since = time.monotonic()
        while time.monotonic() < alone_since + self._lonely_s:
            await asyncio.sleep(LONELY_S / 10)
            if _attended(southbound):
                alone_since, self._lonely_s = time.monotonic(), LONELY_S
        self._lonely_s = min(2 * self._lonely_s, LONELY_MAX_S)
        raise DatapathGone(f"no switch is connected to instance {self._section.instance}; perhaps to another")

    def _stand_down(self, southbound: Southbound) -> None:
        _step_down(southbound)
        gc.unfreeze()
        southbound.handlers = _no_handlers()
        section = self._section
        log.warning("instance %s of %s is not the active one any more", section.instance, section.domain)

    def _southbound(self, opened: contextlib.AsyncExitStack, role: Role) -> Southbound:
        ours = [network for network in self.config.networks if network.ours]
        southbound = Southbound(ours, Ledger(secrets.randbits(EPOCH_BITS)), _no_handlers(), role=role)
        opened.push_async_callback(southbound.close)
        return southbound

    async def _listen(self, southbound: Southbound) -> None:
        sock = None if self._sock is None else self._sock.dup()
        self.port = await listen(southbound, self.config.file.listen, sock)

    async def _be_active(
        self, opened: contextlib.AsyncExitStack, bus: Bus, store: Store, southbound: Southbound, epoch: int,
        valid: Callable[[], bool], *ends: asyncio.Future[None],
    ) -> None:  # fmt: skip
        """Until the engine cannot go on, a switch has another master, or one of ``ends`` is over."""
        if southbound.role is not Role.ALONE:
            southbound.ledger = Ledger(epoch << CONNECTION_BITS)  # nobody has a rule in the one before
        room = None if southbound.role is Role.ALONE else self._room()
        federate = Federate(self.registry, self.signer, load=store.fact, room=room)
        custodians = Custodians(bus.request_host, self._hosts)
        controller = FederatedController(self.config, federate, store, southbound, custodians)
        desk = OrderDesk(self.registry, bus, self._machines.get, controller.where, self._hosts.get)
        bus = OrderBus(bus, desk)
        controller.watchers.add(self._watch)
        engine = controller.engine = Engine(federate, bus, store, controller, epoch, valid=valid)
        deposed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        southbound.handlers.deposed = lambda: None if deposed.done() else deposed.set_result(None)
        southbound.handlers.stored = store.replicating
        opened.push_async_callback(controller.close)
        opened.push_async_callback(engine.close)
        opened.callback(self._inactive)
        with _uncollected():
            async for fact in patiently(store.facts()):
                federate.restore([fact])
            federate.resume()
            await controller.restore()
        await store.replicated()
        if southbound.role is Role.ALONE:
            await self._listen(southbound)
        else:
            await _take_over(southbound, epoch)
        await engine.start()
        await HostDesk(engine, controller.arrived, controller.left, controller.hosts).serve(bus)
        controller.start()
        self.controller, self.engine = controller, engine
        self.active.set()
        log.info("domain %s is served, epoch %d", self._section.domain, epoch)
        try:
            await _first(engine.wait(), deposed, *ends)
        finally:
            _step_down(southbound)  # before anything that takes time

    def _inactive(self) -> None:
        self.controller = self.engine = None
        self.active.clear()


def registry_of(config: FederatedConfig, private: bytes) -> tuple[Registry, Ed25519Signer]:
    """Who owns what in the federation of a domain with that key, and who signs how."""
    section = config.file.federation
    public = {domain.name: domain.public_key for domain in section.domains}
    public[section.domain] = public_key_of(private)
    networks = {domain.name: tuple(one.network() for one in domain.networks) for domain in section.domains}
    networks[section.domain] = tuple(network for network in config.networks if network.ours)
    registry = Registry(section.domain, {name: Domain(name, networks[name], public[name]) for name in networks})
    return registry, Ed25519Signer(private, public)


def _no_handlers() -> Handlers:
    return Handlers(packet_in=lambda network, message: None)


async def _take_over(southbound: Southbound, epoch: int) -> None:
    """``SwitchError`` if there was a higher epoch; then the next one is higher."""
    try:
        async with asyncio.timeout(SWITCHES_S):
            await southbound.take_over(epoch)
    except TimeoutError:
        return  # a switch that is slow gets its rules all the same
    except ValueError as error:  # the bus has forgotten what it was told: epochs begin anew
        raise SwitchError(str(error)) from None


def _step_down(southbound: Southbound) -> None:
    """Nothing is written to switches from now on."""
    if southbound.role is Role.MASTER:
        southbound.step_down()


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """What is restored here stays: it is not looked through for garbage, which with many nodes takes longer than a
    lease may go without being renewed."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _attended(southbound: Southbound) -> bool:
    return any(southbound.attending(datapath) for datapath in southbound.networks)


async def _failed(store: ReplicatedStore) -> None:
    raise StoreError(f"store: {await store.lost()}")


async def _unless(lost: Callable[[], Awaitable[str]], work: Awaitable[int]) -> int:
    """What ``work`` comes to; ``StoreError`` if a standby cannot be kept warm meanwhile."""
    losing, working = asyncio.ensure_future(lost()), asyncio.ensure_future(work)
    try:
        await asyncio.wait([losing, working], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise StoreError(f"store: {losing.result()}")
    finally:
        await _cancel(losing)
        await _cancel(working)


async def _first(*work: Awaitable[None]) -> None:
    """Until one of them ends; its error if it has one."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            await _cancel(task)


async def _cancel(task: asyncio.Future[Any]) -> None:
    while not task.done():  # what it waits for may lose a cancellation
        task.cancel()
        await asyncio.wait([task], timeout=1.0)
    await asyncio.gather(task, return_exceptions=True)
