"""The controller's hand on machines: starts them, carries them, and ties each migration to its redirect."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from followme.config import Config, MachineSection
from followme.continuity.pipeline import Priority, Table
from followme.continuity.redirect import Redirect
from followme.continuity.southbound import SwitchError
from followme.domain import Migration, MigrationState, Node, Placement
from followme.events import Watchers
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.mover import MachineMover, Options, Result
from followme.migration.qemu import Qemu
from followme.migration.recovery import Verdict, forget, settle
from followme.migration.transfer import TransferProgress
from followme.store import Store

log = logging.getLogger(__name__)

QUIET_CHECK_S = 0.25
QUIET_LIMIT_S = 10.0
"""How long packets on the old way are waited for, at the most, before its rules go."""


FINISH_AGAIN_S = 2.0


def spec_of(section: MachineSection) -> MachineSpec:
    """The machine as QEMU must be told of it; ``MigrationError`` if the config does not say how it boots."""
    if section.kernel is None or section.initrd is None:
        raise MigrationError(
            f"machine {section.name}: 'kernel' and 'initrd' are missing in the config, so it cannot be started"
        )
    return MachineSpec(
        name=section.name,
        mac=section.mac,
        memory_bytes=section.memory_mib << 20,
        kernel=section.kernel,
        initrd=section.initrd,
        cmdline=section.cmdline,
    )


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
        self._survive = False
        self._retiring: set[asyncio.Task[None]] = set()

    async def start(self, *, survive: bool = False) -> None:
        """Have every machine run where it belongs: what a crash left half done is finished or taken back
        first, what runs already is taken over, what does not is started. With ``survive`` machines go on
        when we end. Machines without a kernel in the config are somebody else's: only their traffic is ours.
        """
        self._survive = survive
        for migration in self._store.unfinished_migrations():
            await self._settle(migration)
        for name, section in self._sections.items():
            if section.kernel is None:
                continue
            host, spec = self._host(self.redirect.bindings[name].here.network), spec_of(section)
            found = await Qemu.adopt(host, spec)
            if found is not None:
                self.watchers.tell("migration", f"{name} runs at {host.name} already")
            self.running[name] = found or await Qemu.start(host, spec, survive=survive)
        self.redirect.free_unused()

    async def _settle(self, migration: Migration) -> None:
        """Finish or take back what a crash interrupted, and bring the redirect to where the machine is."""
        section = self._sections.get(migration.machine)
        if section is None or section.kernel is None:
            log.warning("migration %s of %s was not finished, and the machine is not in the config any more",
                        migration.id, migration.machine)  # fmt: skip
            return
        source, target = self._host(migration.source), self._host(migration.target)
        recovered = await settle(migration, spec_of(section), source, target)
        kept = migration.target if recovered.verdict is Verdict.FINISH_AT_TARGET else migration.source
        binding = self.redirect.bindings[migration.machine]
        if binding.here.network != kept:
            self.redirect.move(migration.machine, kept, self._ports[kept], self.peers(binding.node))
        done = MigrationState.RELEASED if kept == migration.target else MigrationState.FAILED
        detail = {**migration.detail, "recovered": str(recovered.verdict)}
        self._record(replace(migration, state=done, detail=detail))
        text = f"{migration.machine}: an interrupted migration was settled ({recovered.verdict}); it runs at {kept}"
        self.watchers.tell("migration", text, migration)
        # Late frames bounced until the switches have the rules of where it runs.
        forget(target if kept == migration.source else source, spec_of(section))

    async def close(self) -> None:
        """Take back what is under way; then the machines end with us, or go on without."""
        for mover in self._movers.values():
            mover.cancel("the controller stops")
        for event in list(self._settled.values()):
            await event.wait()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
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
        host = self._host(target)
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
        try:
            async with asyncio.timeout(section.timeout_s):
                result = await mover.run()
        except BaseException as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, TimeoutError):
                reason = f"not done within {section.timeout_s:g} s"
            if mover.arrived:
                self._arrived_late(mover, reason)
            else:
                self.watchers.tell("migration", f"{machine} stays at {source}: {reason}", mover.migration)
            if isinstance(error, (TimeoutError, SwitchError)):
                where = target if mover.arrived else source
                raise MigrationError(f"{machine} runs at {where}: {reason}") from None
            raise
        else:
            assert mover.target is not None
            self.running[machine] = mover.target
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
            self._settled.pop(machine).set()

    def _arrived_late(self, mover: MachineMover, reason: str) -> None:
        """The machine runs at the target, but something after that failed (a switch is away): it is finished
        as soon as that works."""
        migration = mover.migration
        assert mover.target is not None
        self.running[migration.machine] = mover.target
        text = f"{migration.machine} runs at {migration.target}, but the migration is not finished: {reason}"
        self.watchers.tell("migration", text, migration)
        self._background(self._finish(mover))

    async def _finish(self, mover: MachineMover) -> None:
        while True:
            await asyncio.sleep(FINISH_AGAIN_S)
            try:
                await mover.finish()
            except (SwitchError, MigrationError) as error:
                log.warning("migration %s cannot be finished yet: %s", mover.migration.id, error)
            else:
                return

    def _host(self, network: str) -> Host:
        host = self.hosts.get(network)
        if host is None:
            raise MigrationError(f"data centre {network!r} has no host; give it one in the config")
        return host

    def _record(self, migration: Migration) -> None:
        self._store.put_migration(migration, time.time())

    def retire(self, machine: str, places: tuple[Placement, ...]) -> None:
        """Old places go once their rules see no packets any more."""
        self._background(self._retire(machine, places))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

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
        datapath = self.redirect.networks[place.network].datapath
        deadline = time.monotonic() + QUIET_LIMIT_S
        before: int | None = None
        with contextlib.suppress(SwitchError, TimeoutError):
            while time.monotonic() < deadline:
                flows = await self.redirect.southbound.flows(datapath, machine)
                late = sum(
                    flow.packet_count
                    for flow in flows
                    if flow.priority == Priority.LATE
                    or (flow.table_id == Table.FORWARD and flow.match.ipv4_dst == place.locator)
                )
                if late == before:
                    return
                before = late
                await asyncio.sleep(QUIET_CHECK_S)


class RedirectHooks:
    """What the network does at a migration's moments (``mover.Hooks``)."""

    def __init__(self, machines: Machines, migration: Migration, port: int) -> None:
        self._machines = machines
        self._migration = migration
        self._port = port
        self._paper = migration.mode == "paper"

    async def prepare(self) -> None:
        machines, migration = self._machines, self._migration
        if self._paper:
            # The papers' order: nothing is told before the machine shows up by a table miss.
            machines.expect(migration.machine, migration.target, self._port)
            return
        node = machines.redirect.bindings[migration.machine].node
        place = await machines.redirect.prepare(
            migration.machine, migration.target, self._port, machines.peers(node)
        )
        for service in machines.services:
            if service.machine == migration.machine and service.user in machines.redirect.bindings:
                await machines.redirect.tell(service.user, migration.target)
        machines.watchers.tell(
            "continuity", f"{migration.target} is prepared for {migration.machine}: locator {place.locator}, "
            f"source {migration.source} armed", place,
        )  # fmt: skip

    async def flip(self) -> None:
        if self._paper:
            return
        place = self._machines.redirect.switch(self._migration.machine)
        text = f"{self._migration.machine}'s packets go to {place.network} ({place.locator}) from now on"
        self._machines.watchers.tell("continuity", text, place)

    async def commit(self) -> None:
        """The place was stored with the flip."""

    async def release(self) -> None:
        machine = self._migration.machine
        machines = self._machines
        binding = machines.redirect.bindings[machine]
        if binding.leaving is not None:
            await self._machines.quiet(machine, binding.leaving)
            self._machines.retire(machine, machines.redirect.release(machine))
        elif binding.old:
            self._machines.retire(machine, binding.old)

    async def rollback(self, reason: str) -> None:
        machine = self._migration.machine
        if self._paper:
            self._machines.expect_no_more(machine)
            return
        try:
            await self._machines.redirect.roll_back(machine)
        finally:
            # Also if a switch is away: its rules are right when it comes back.
            self._machines.retire(machine, self._machines.redirect.bindings[machine].old)

    def progress(self, progress: TransferProgress) -> None:
        self._machines.watchers.tell(
            "migration", f"{self._migration.machine}: {progress.sent_bytes / 1e6:.0f} MB sent, "
            f"{progress.remaining_bytes / 1e6:.0f} MB left, pass {progress.passes}", progress,
        )  # fmt: skip
