"""The controller's hand on machines: starts them, carries them, and ties each migration to its redirect."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from followme.config.openflow import Config
from followme.continuity.quiet import quiet
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import SwitchError
from followme.controllers.events import Watchers
from followme.controllers.openflow.hooks import RedirectHooks
from followme.controllers.openflow.startup import Startup
from followme.domain import Migration, MigrationState, Node, Placement
from followme.migration.host import Host, MigrationError
from followme.migration.mover import MachineMover, Options, Result
from followme.migration.qemu import Qemu
from followme.store import Store, StoreError

log = logging.getLogger(__name__)

FINISH_AGAIN_S = 2.0
"""How long after a failure what must be done after all is tried again."""


class Machines:
    """All machines of the config, by name; one migration at a time for each."""

    def __init__(
        self,
        config: Config,
        hosts: Mapping[str, Host],
        redirect: Redirect,
        store: Store,
        watchers: Watchers,
        *,
        peers: Callable[[Node], frozenset[str]],
        expect: Callable[[str, str, int], None],
        expect_no_more: Callable[[str], None],
    ) -> None:
        self.hosts = dict(hosts)
        self.running: dict[str, Qemu] = {}
        self.problems: dict[str, str] = {}
        """Machines that could not be started, and why."""
        self.results: dict[str, Result] = {}
        self.mode = config.file.migration.mode
        self.redirect, self.watchers, self.services = redirect, watchers, config.services
        self.peers, self.expect, self.expect_no_more = peers, expect, expect_no_more
        self._store = store
        self._settings = config.file.migration
        self._sections = {section.name: section for section in config.file.machines}
        self._ports = {
            section.name: section.host.port for section in config.file.networks if section.host
        }
        self._movers: dict[str, MachineMover] = {}
        self._settled: dict[str, asyncio.Event] = {}
        self._bandwidth: dict[frozenset[str], float] = {}
        self._survive = self._closing = False
        self._retiring: set[asyncio.Task[None]] = set()
        self._finishing: set[asyncio.Task[None]] = set()
        self._watching: set[asyncio.Task[None]] = set()
        self._leftovers: dict[str, asyncio.Task[None]] = {}

    async def start(self, *, survive: bool = False) -> None:
        """Have every machine run where it belongs (see ``Startup``); with ``survive`` machines go on when we
        end. A machine that cannot be started is reported, and does not keep the others from running."""
        self._survive, self._closing = survive, False
        self.problems.clear()
        await Startup(self, self._sections, self._ports, self._store).run(survive)

    async def close(self) -> None:
        """Take back what is under way; then the machines end with us, or go on without."""
        self._closing = True
        for mover in self._movers.values():
            mover.cancel("the controller stops")
        await _cancelled(self._finishing)
        for machine in self._settled.keys() - self._movers.keys():  # of one that had not even begun
            self._settled.pop(machine).set()
        for event in list(self._settled.values()):
            await event.wait()
        await _cancelled(self._retiring)
        await _cancelled(self._watching)
        for qemu in self.running.values():
            await (qemu.detach() if self._survive else qemu.kill())
        self.running.clear()

    async def settled(self, machine: str) -> None:
        """Return when the machine is not being carried."""
        while (event := self._settled.get(machine)) is not None:
            await event.wait()

    def cancel(self, machine: str, reason: str = "cancelled") -> bool:
        """Take a migration back; False if there is none, or it is past the point of no return."""
        mover = self._movers.get(machine)
        return mover.cancel(reason) if mover else False

    def expected_bytes(self, machine: str) -> int:
        """What carrying it would cost: what it cost last time, its whole memory before that is known."""
        result = self.results.get(machine)
        return result.bytes if result else self._sections[machine].memory_mib << 20

    def bandwidth_bit_s(self, source: str, target: str) -> float | None:
        """Of the management network between two data centres, as the last migration there measured it."""
        return self._bandwidth.get(frozenset((source, target)))

    async def carry(self, machine: str, target: str, mode: str | None = None) -> Result:
        """Carry the machine to data centre ``target``; ``MigrationError`` if it stays where it was."""
        binding = self.redirect.bindings.get(machine)
        qemu = self.running.get(machine)
        if binding is None or qemu is None:
            raise MigrationError(f"machine {machine!r} is not one that runs here: {', '.join(self.running)}")
        source = binding.here.network
        if source == target:
            raise MigrationError(f"{machine} is at {target} already")
        if machine in self._settled:
            raise MigrationError(f"{machine} is being carried already")
        host = self.host(target)
        section = self._settings
        migration = Migration(
            id=secrets.token_hex(8), machine=machine, source=source, target=target, mode=mode or self.mode,
            state=MigrationState.PLANNED, started=time.time(),
        )  # fmt: skip
        hooks = RedirectHooks(self, migration, self._ports[target])
        options = Options(max_pause=section.max_pause_ms / 1e3, stall_timeout=min(30.0, section.timeout_s),
                          survive=self._survive)  # fmt: skip
        mover = MachineMover(migration, qemu, host, hooks, self._record, progress=hooks.progress, options=options)
        self._movers[machine] = mover
        self._settled[machine] = asyncio.Event()
        self.watchers.tell("migration", f"{machine}: {migration.mode} migration {source} -> {target} begins",
                                 migration)  # fmt: skip
        late = False
        try:
            if (leftovers := self._leftovers.pop(machine, None)) is not None:
                # What an earlier controller left is bounced no longer: it would be in this migration's way.
                await _cancelled({leftovers})
            async with asyncio.timeout(section.timeout_s):
                result = await mover.run()
        except BaseException as error:
            late = mover.arrived and not self._closing
            reason = str(error) or type(error).__name__
            if isinstance(error, TimeoutError):
                reason = f"not done within {section.timeout_s:g} s"
            if mover.arrived:
                self._arrived_late(mover, reason)
            else:
                self.watchers.tell("migration", f"{machine} stays at {source}: {reason}", mover.migration)
            if isinstance(error, (TimeoutError, SwitchError, StoreError)):
                where = target if mover.arrived else source
                raise MigrationError(f"{machine} runs at {where}: {reason}") from None
            raise
        else:
            assert mover.target is not None
            self.runs(machine, mover.target)
            self.results[machine] = result
            self._bandwidth[frozenset((source, target))] = 8 * result.bytes / max(result.total_s, 1e-9)
            self.watchers.tell(
                "migration",
                f"{machine} runs at {target}: {result.bytes / 1e6:.1f} MB in {result.total_s:.2f} s, paused for "
                f"{result.pause_s * 1e3:.1f} ms", result,
            )  # fmt: skip
            return result
        finally:
            del self._movers[machine]
            if not late:
                self._settled.pop(machine).set()

    def _arrived_late(self, mover: MachineMover, reason: str) -> None:
        """The machine runs at the target, but something after that failed (a switch is away): it is finished
        as soon as that works."""
        migration = mover.migration
        assert mover.target is not None
        self.runs(migration.machine, mover.target)
        text = f"{migration.machine} runs at {migration.target}, but the migration is not finished: {reason}"
        self.watchers.tell("migration", text, migration)
        if not self._closing:  # else the next start settles it
            self._background(self._finish(mover), self._finishing)

    async def _finish(self, mover: MachineMover) -> None:
        machine = mover.migration.machine
        try:
            while True:
                await asyncio.sleep(FINISH_AGAIN_S)
                try:
                    await mover.finish()
                except (SwitchError, MigrationError, StoreError) as error:
                    log.warning("migration %s cannot be finished yet: %s", mover.migration.id, error)
                else:
                    self.watchers.tell("migration", f"{machine}: the migration is finished", mover.migration)
                    return
        finally:
            # Only now: while its old tap and its old place are there, it cannot be carried again.
            if (event := self._settled.pop(machine, None)) is not None:
                event.set()

    def remember(self, machine: str) -> None:
        """Have the machine's place written into the store as soon as the store can."""
        self._background(self._remember(machine))

    async def _remember(self, machine: str) -> None:
        while True:
            await asyncio.sleep(FINISH_AGAIN_S)
            try:
                return self.redirect.remember(machine)
            except StoreError as error:
                log.warning("the place of %s cannot be stored yet: %s", machine, error)

    def runs(self, machine: str, qemu: Qemu) -> None:
        """From now on this is the machine's QEMU; its end is noticed."""
        self.running[machine] = qemu
        self._background(self._watch(machine, qemu), self._watching)

    async def _watch(self, machine: str, qemu: Qemu) -> None:
        pid = qemu.pid
        await qemu.ended.wait()
        await self.settled(machine)  # a migration ends its source, and knows what to do where one dies
        if self.running.get(machine) is not qemu:
            return
        del self.running[machine]
        complaint = qemu.complaint
        await qemu.kill()  # what it has left: its tap, its pid and its socket
        self.watchers.tell(
            "migration", f"{machine} has stopped: its QEMU at {qemu.host.name} (pid {pid}) ended by itself"
            f"{complaint}; it is not started again before the controller is, so that nothing hides the cause"
        )  # fmt: skip

    def tidy(self, machine: str, work: Coroutine[Any, Any, None]) -> None:
        """Do what removes an earlier controller's leftovers; the machine's next migration cuts it short."""
        self._leftovers[machine] = self._background(work)

    def host(self, network: str) -> Host:
        host = self.hosts.get(network)
        if host is None:
            raise MigrationError(f"data centre {network!r} has no host; give it one in the config")
        return host

    def _record(self, migration: Migration) -> None:
        self._store.put_migration(migration, time.time())

    def retire(self, machine: str, places: tuple[Placement, ...]) -> None:
        """Old places go once their rules see no packets any more."""
        self._background(self._retire(machine, places))

    def _background(
        self, work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]] | None = None
    ) -> asyncio.Task[None]:
        """Do it beside all else; ``tasks`` is what holds it until it is done (and ends it when we close)."""
        held = self._retiring if tasks is None else tasks
        task = asyncio.ensure_future(work)
        held.add(task)

        def done(task: asyncio.Task[None]) -> None:
            held.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("work in the background failed", exc_info=error)

        task.add_done_callback(done)
        return task

    async def retired(self) -> None:
        """Return when no old place is waiting to go."""
        while self._retiring:
            await asyncio.wait(list(self._retiring))

    async def _retire(self, machine: str, places: tuple[Placement, ...]) -> None:
        for place in places:
            await self.quiet(machine, place)
            self.redirect.retire(machine, place)

    async def quiet(self, machine: str, place: Placement) -> None:
        """Wait until no packet takes the old way over ``place``: its switch's counters stand still."""
        redirect = self.redirect
        await quiet(redirect.southbound, redirect.networks[place.network].datapath, machine, place)


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
