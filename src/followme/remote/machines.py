"""A site's machines as its agent has them: started, found again, and carried to another site's agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from followme.domain import Migration, MigrationState, Placement
from followme.migration.host import MachineSpec, MigrationError
from followme.migration.mover import MODES, MachineMover, Options, Result
from followme.migration.qemu import Qemu
from followme.migration.recovery import Lost, Verdict, forget, settle
from followme.migration.target import Unreachable
from followme.remote.channel import ChannelError
from followme.remote.client import Client
from followme.remote.guest import Guest
from followme.remote.hypervisor import Hypervisor
from followme.remote.network import Network
from followme.remote.orders import orders
from followme.remote.qemu import RemoteCopy, RemoteQemu, ask
from followme.remote.server import Handler
from followme.remote.specs import spec_document, spec_from
from followme.remote.told import Told
from followme.store import Store, StoreError
from followme.system.seldom import Seldom

log = logging.getLogger(__name__)

AGAIN_S = 2.0
"""How long after a failure what must be done after all is tried again."""
_KILL_S = 10.0
_NOWHERE = IPv4Address(0)  # where the site is in the core, the map server knows


class SiteMachines:
    """The machines of one host; one migration at a time for each.

    ``connect`` makes a new connection to a site's agent (``ChannelError``). The store keeps each saga, and where
    each machine was last known to be: what was carried away is never started here again.
    """

    def __init__(
        self, site: str, hypervisor: Hypervisor, store: Store, network: Network,
        connect: Callable[[str], Awaitable[Client]], *, mode: str = "live", options: Options | None = None,
        timeout_s: float = 120.0,
    ) -> None:
        self.site, self.hypervisor, self.network = site, hypervisor, network
        self.problems: dict[str, str] = {}
        self._store, self._connect, self._mode, self._timeout_s = store, connect, mode, timeout_s
        self._options = options or Options(survive=hypervisor.survive)
        self._busy: dict[str, asyncio.Event] = {}
        self.carried_to: dict[str, str] = {}
        self._movers: dict[str, MachineMover] = {}
        self._clearing: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing, self._said = False, Seldom(log, lines=256, every_s=60.0)
        hypervisor.on_kept, hypervisor.on_forgotten, hypervisor.arrived = self._kept, network.gone, self._arrived

    @property
    def running(self) -> Mapping[str, Qemu]:
        return self.hypervisor.machines

    def handlers(self) -> dict[str, Handler]:
        """For the agent's server: what controllers and other agents may ask."""
        return {**self.hypervisor.handlers(), **orders(self)}

    # --- start and end ------------------------------------------------------------------------------------

    async def start(self, specs: Iterable[MachineSpec]) -> None:
        """Have the machines run that belong here: ``specs`` are those at home here, to which come those that
        were carried here. One that cannot is in ``problems``, and does not keep the others from running."""
        home = {spec.name: spec for spec in specs}
        known = {**self.hypervisor.specs(), **home}
        for migration in self._store.unfinished_migrations():
            if migration.source == self.site:
                await self._resettle(migration, known.get(migration.machine))
        await self.hypervisor.recover()
        for name, spec in known.items():
            if name in self._busy or name in self.hypervisor.guests or name in self.running:
                continue
            try:
                await self._start(spec)
            except (MigrationError, StoreError, OSError) as error:
                self._problem(name, str(error))

    async def _start(self, spec: MachineSpec) -> None:
        qemu = await Qemu.adopt(self.hypervisor.host, spec)
        if qemu is not None:
            if (status := await qemu.status()) != "running":
                await qemu.detach()
                raise MigrationError(f"{qemu.who} is {status}, and no migration says why; it may run elsewhere: "
                                     "tell it to go on, or end it, by hand")
        else:
            place = self._store.placement(spec.name)
            if place is not None and place.network != self.site:
                self.hypervisor.disown(spec.name)
                log.info("%s was carried to %s, and is not started here", spec.name, place.network)
                return
            qemu = await Qemu.start(self.hypervisor.host, spec, survive=self.hypervisor.survive)
        self._place(spec.name, self.site)
        self._own(qemu)

    async def close(self) -> None:
        """Take back what is under way; then the machines go on without us (with ``survive``), or end."""
        self._closing = True
        for mover in self._movers.values():
            mover.cancel("the agent stops")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.hypervisor.close()

    # --- carry --------------------------------------------------------------------------------------------

    async def carry(self, machine: str, target: str, mode: str | None = None,
                    tell: Callable[[dict[str, Any]], None] | None = None) -> Result:
        """Carry the machine to another site. ``MigrationError`` says where it runs then; ``tell`` is given the
        events (see ``told``)."""
        qemu = self.running.get(machine)
        if qemu is None:
            raise MigrationError(f"{machine} does not run at {self.site}")
        if machine in self._busy or self._closing:
            raise MigrationError(f"{machine} is being carried, or settled, already")
        if target == self.site:
            raise MigrationError(f"{machine} is at {target} already")
        if (mode or self._mode) not in MODES:
            raise MigrationError(f"mode {mode!r:.40} is none of {', '.join(MODES)}")
        migration = Migration(secrets.token_hex(8), machine, self.site, target, mode or self._mode,
                              MigrationState.PLANNED, time.time(), {"spec": spec_document(qemu.spec)})
        self._busy[machine], self.carried_to[machine] = asyncio.Event(), target
        work = self._background(self._carry(migration, qemu, tell), f"carry {machine}")
        # Whoever ordered it may leave: the machine is under way.
        return await asyncio.shield(work)

    async def _carry(self, migration: Migration, qemu: Qemu,
                     tell: Callable[[dict[str, Any]], None] | None) -> Result:
        machine = migration.machine
        left, where = False, f"it runs at {self.site}"
        try:
            if (clearing := self._clearing.pop(machine, None)) is not None:
                clearing.cancel()
            async with contextlib.AsyncExitStack() as opened:
                client = await self._client(migration.target)
                opened.push_async_callback(client.close)
                copies: list[RemoteQemu] = []

                async def waiting(spec: MachineSpec) -> RemoteQemu:
                    copies.append(await RemoteQemu.start(client, spec, migration.id))
                    return copies[0]

                def record(now: Migration) -> None:
                    self._record(now)
                    told.state(now)

                told = Told(self.network.hooks(migration, qemu.spec, client), migration, tell)
                mover = MachineMover(migration, qemu, waiting, told, record, progress=told.progress,
                                     options=self._options)
                told.mover = self._movers[machine] = mover
                try:
                    async with asyncio.timeout(self._timeout_s):
                        result = await mover.run()
                except BaseException as error:
                    if mover.arrived or mover.unsettled:
                        where = f"it {'runs' if mover.arrived else 'may run'} at {migration.target}"
                    left = await self._failed(mover, copies, opened, error)
                    raise
                await self._leave(qemu, copies[0], migration)
                return result
        except (TimeoutError, StoreError, ChannelError) as error:
            said = str(error) or f"not done within {self._timeout_s:g} s"
            raise MigrationError(f"{machine}, carried to {migration.target}: {said}; {where}") from None
        finally:
            self._movers.pop(machine, None)
            if not left:
                self._idle(machine)

    async def _failed(self, mover: MachineMover, copies: list[RemoteQemu], opened: contextlib.AsyncExitStack,
                      error: BaseException) -> bool:
        """Whether something must be done before the machine can be carried again (``opened``: the connection)."""
        migration, qemu = mover.migration, mover.source
        if mover.arrived:
            error.add_note(f"{migration.machine} runs at {migration.target}")
            if not self._closing:  # else the next start settles it
                self._background(self._finish(mover, copies[0], opened.pop_all()), "finish")
            return True
        if mover.unsettled:
            del self.hypervisor.machines[migration.machine]
            await qemu.detach()
            self._problem(migration.machine, f"where it runs is not known: {error}")
            if not self._closing:
                self._background(self._settle_again(migration, qemu.spec), "settle")
            return True
        if copies and not copies[0].removed and not self._closing:
            self._clearing[migration.machine] = self._background(self._clear(migration), "clear")
        return False

    async def _leave(self, qemu: Qemu, copy: RemoteQemu, migration: Migration) -> None:
        self.hypervisor.disown(migration.machine)
        try:
            await copy.keep()
        except MigrationError as error:
            # It is without being told, when we are gone for a while.
            log.warning("%s cannot be told that %s is its own: %s", migration.target, migration.machine, error)
        self.network.gone(qemu.spec)

    async def _finish(self, mover: MachineMover, copy: RemoteQemu, opened: contextlib.AsyncExitStack) -> None:
        async with opened:
            while True:
                await asyncio.sleep(AGAIN_S)
                try:
                    await mover.finish()
                except Exception as error:
                    if self._said.due(mover.migration.id, time.monotonic()):
                        log.warning("migration %s cannot be finished yet: %s", mover.migration.id, error)
                else:
                    await self._leave(mover.source, copy, mover.migration)
                    self._idle(mover.migration.machine)
                    return

    async def _clear(self, migration: Migration) -> None:
        """A migration was taken back while the target could not be asked: nothing of it may stay there."""
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                client = await self._client(migration.target)
                try:
                    await ask(client, "kill", {"machine": migration.machine, "migration": migration.id}, _KILL_S)
                    return
                finally:
                    await client.close()
            except Unreachable:
                continue
            except MigrationError as error:
                log.warning("what is left of %s at %s: %s", migration.machine, migration.target, error)
                return

    def cancel(self, machine: str, reason: str = "cancelled") -> bool:
        """Take a migration back; False if there is none, or it is past the point of no return."""
        mover = self._movers.get(machine)
        return mover is not None and mover.cancel(reason)

    # --- settle -------------------------------------------------------------------------------------------

    async def _resettle(self, migration: Migration, spec: MachineSpec | None) -> None:
        machine = migration.machine
        try:
            spec = spec or spec_from(migration.detail.get("spec"), self.hypervisor.rules)
        except MigrationError as error:
            self._problem(machine, f"its interrupted migration to {migration.target} cannot be settled: {error}")
            return
        self._busy[machine], self.carried_to[machine] = asyncio.Event(), migration.target
        if not await self._settle(migration, spec):
            self._background(self._settle_again(migration, spec), "settle")

    async def _settle_again(self, migration: Migration, spec: MachineSpec) -> None:
        await asyncio.sleep(AGAIN_S)
        while not await self._settle(migration, spec):
            await asyncio.sleep(AGAIN_S)

    async def _settle(self, migration: Migration, spec: MachineSpec) -> bool:
        """One attempt to have one copy run, at the right place; where it fails no copy has been made a second
        one that runs, and ``problems`` says what is missing."""
        machine = migration.machine
        try:
            client = await self._client(migration.target)
            try:
                await self._settle_with(client, migration, spec)
            finally:
                await client.close()
        except Lost as error:
            self._record(replace(migration, state=MigrationState.FAILED,
                                 detail={**migration.detail, "lost": str(error)}))
            self._problem(machine, str(error))
            self.network.gone(spec)
        except Exception as error:
            self._problem(machine, f"its interrupted migration to {migration.target} is not settled, and neither "
                                   f"copy is touched until it is: {error}")
            return False
        else:
            self.problems.pop(machine, None)
        self._idle(machine)
        return True

    async def _settle_with(self, client: Client, migration: Migration, spec: MachineSpec) -> None:
        host, machine = self.hypervisor.host, migration.machine
        try:
            done = await settle(migration, spec, host, lambda: RemoteCopy.open(client, spec, migration.id))
        except Lost:  # the network must not wait for it for ever: it may be started anew, and carried then
            await self.network.settled(migration, spec, Verdict.LOST)
            raise
        await self.network.settled(migration, spec, done.verdict)
        at_target = done.verdict is Verdict.FINISH_AT_TARGET
        if at_target:
            forget(host, spec)
            self.hypervisor.disown(machine)
        else:
            await ask(client, "kill", {"machine": machine, "migration": migration.id}, _KILL_S)
        state = MigrationState.RELEASED if at_target else MigrationState.FAILED
        self._record(replace(migration, state=state,
                             detail={**migration.detail, "recovered": str(done.verdict)}))
        log.info("%s: an interrupted migration to %s is settled: %s", machine, migration.target, done.verdict)
        if at_target:
            self.network.gone(spec)
        # Last, for once its monitor is ours an attempt that failed could not be repeated.
        elif (qemu := await Qemu.adopt(host, spec)) is not None:
            self._own(qemu)
        else:
            raise MigrationError(f"{machine} on {host.name} has just ended")

    # --- what happens -------------------------------------------------------------------------------------

    def _kept(self, guest: Guest, qemu: Qemu) -> None:
        name = qemu.spec.name
        arrived = Migration(guest.migration, name, guest.peer, self.site, self._mode, MigrationState.RELEASED,
                            time.time())
        try:
            self._record(arrived)
        except StoreError as error:
            self._problem(name, f"runs here, which cannot be stored: {error}")
        self._own(qemu)

    def _arrived(self, migration: str) -> bool:
        found = self._store.migration(migration)
        return found is not None and found.target == self.site and found.state is MigrationState.RELEASED

    def _own(self, qemu: Qemu) -> None:
        self.hypervisor.own(qemu)
        self._background(self._watch(qemu), "watch")
        self.network.here(qemu.spec)

    async def _watch(self, qemu: Qemu) -> None:
        name = qemu.spec.name
        await qemu.ended.wait()
        while (busy := self._busy.get(name)) is not None:
            await busy.wait()  # a migration ends its source, and knows what to do where one dies
        if self.running.get(name) is qemu:
            del self.hypervisor.machines[name]
            self._problem(name, f"its QEMU ended by itself{qemu.complaint}; it is not started again before the "
                                "agent is, so that nothing hides the cause")
            await qemu.kill()
            self.network.gone(qemu.spec)

    async def _client(self, site: str) -> Client:
        try:
            return await self._connect(site)
        except ChannelError as error:
            raise Unreachable(str(error)) from None

    def _record(self, migration: Migration) -> None:
        with self._store.transaction():
            self._store.put_migration(migration, time.time())
            if migration.state is MigrationState.RELEASED:
                self._place(migration.machine, migration.target)

    def _place(self, machine: str, site: str) -> None:
        before = self._store.placement(machine)
        if before is None or before.network != site:
            version = 1 if before is None else before.version + 1
            self._store.put_placement(Placement(machine, site, 0, _NOWHERE, version))

    def _problem(self, machine: str, text: str) -> None:
        self.problems[machine] = text
        if self._said.due((machine, text), time.monotonic()):
            log.error("%s: %s", machine, text)

    def _idle(self, machine: str) -> None:
        self.carried_to.pop(machine, None)
        if (busy := self._busy.pop(machine, None)) is not None:
            busy.set()

    def _background(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)

        def done(task: asyncio.Task[Any]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.warning("%s: %s", name, error)

        task.add_done_callback(done)
        return task
