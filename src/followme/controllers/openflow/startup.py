"""How machines come to run when the controller starts: settled, taken over, or started, each by itself.

What a crash left half done is finished or taken back first. Then every host is asked, not only the one that
the store names: a store may be lost or changed, and a machine must never run twice.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from followme.config.openflow import BootedMachineSection
from followme.continuity.southbound import SwitchError
from followme.domain import Migration, MigrationState, Placement
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.qemu import Qemu
from followme.migration.recovery import Lost, Verdict, forget, settle
from followme.store import Store, StoreError
from followme.system.process import ProcessError

if TYPE_CHECKING:
    from followme.controllers.openflow.machines import Machines

log = logging.getLogger(__name__)

SWITCHES_S = 30.0
"""How long switches may take, after our start, to take over the rules of where a machine is now."""

_TROUBLES = (MigrationError, StoreError, SwitchError, ProcessError, OSError)


def spec_of(section: BootedMachineSection) -> MachineSpec:
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


class Startup:
    """One start of all machines. Those without a kernel in the config are somebody else's: only their
    traffic is ours."""

    def __init__(
        self,
        machines: Machines,
        sections: Mapping[str, BootedMachineSection],
        ports: Mapping[str, int],
        store: Store,
    ) -> None:
        self._machines, self._redirect, self._store = machines, machines.redirect, store
        self._sections, self._ports = sections, ports

    async def run(self, survive: bool) -> None:
        unsettled = set()
        for migration in self._store.unfinished_migrations():
            try:
                await self._settle(migration)
            except _TROUBLES as error:
                # Where only the store failed, there is one copy already, and it is found below.
                if not isinstance(error, StoreError):
                    unsettled.add(migration.machine)
                    self._machines.problems[migration.machine] = str(error)
                text = (f"{migration.machine}: its interrupted migration {migration.source} -> {migration.target} "
                        f"cannot be settled; the next start tries again: {error}")  # fmt: skip
                self._tell(text, migration)
        for name, section in self._sections.items():
            if section.kernel is None or name in unsettled:
                continue
            try:
                await self._start(name, section, survive)
            except _TROUBLES as error:
                self._machines.problems[name] = str(error)
                state = "runs, but" if name in self._machines.running else "does not run:"
                self._tell(f"{name} {state} {error}")
        self._redirect.free_unused()

    async def _start(self, name: str, section: BootedMachineSection, survive: bool) -> None:
        spec = spec_of(section)
        hosts = self._machines.hosts
        pids = {network: pid for network, host in hosts.items() if (pid := Qemu.find(host, spec)) is not None}
        if len(pids) > 1:
            copies = " and ".join(f"at {network} (pid {pid})" for network, pid in pids.items())
            raise MigrationError(
                f"it runs more than once, {copies}; neither is touched: end by hand the one that is not wanted, "
                "then start the controller again"
            )
        for network in pids:
            qemu = await self._adopt(hosts[network], spec)
            if qemu is not None:
                self._tell(f"{name} runs at {network} already")
                self._machines.runs(name, qemu)
                self._place(name, network)
                return
        stored = self._redirect.bindings[name].here.network
        network = stored if stored in hosts else section.home
        qemu = await Qemu.start(self._machines.host(network), spec, survive=survive)
        self._machines.runs(name, qemu)
        self._place(name, network)

    async def _adopt(self, host: Host, spec: MachineSpec) -> Qemu | None:
        """The host's QEMU of the machine, unless it only waits for a machine that will not come any more."""
        qemu = await Qemu.adopt(host, spec)
        if qemu is None:
            return None
        try:
            status = await qemu.status()
            if status == "inmigrate":
                await qemu.kill()
                return None
            if status in ("postmigrate", "paused"):
                # The only copy there is, stopped by a migration that nobody remembers.
                await qemu.execute("migrate_cancel")
                await qemu.execute("cont")
        except MigrationError:
            await qemu.detach()
            raise
        return qemu

    def _place(self, name: str, network: str) -> None:
        """Bring the redirect to where the machine is."""
        binding = self._redirect.bindings[name]
        if binding.here.network == network:
            return
        self._tell(f"{name} was thought to be at {binding.here.network}, but is at {network}")
        self._redirect.move(name, network, self._ports[network], self._machines.peers(binding.node))
        self._machines.retire(name, self._redirect.bindings[name].old)

    async def _settle(self, migration: Migration) -> None:
        """Finish or take back what a crash interrupted, and bring the redirect to where the machine is."""
        name = migration.machine
        section = self._sections.get(name)
        if section is None or section.kernel is None:
            log.warning("migration %s of %s was not finished, and the machine is not in the config any more",
                        migration.id, name)  # fmt: skip
            return
        for network in (migration.source, migration.target):
            if network not in self._machines.hosts:
                self._lost(migration, f"data centre {network} has no host in the config any more")
                return
        spec = spec_of(section)
        hosts = {network: self._machines.host(network) for network in (migration.source, migration.target)}
        try:
            recovered = await settle(migration, spec, hosts[migration.source], hosts[migration.target])
        except Lost as error:
            self._lost(migration, str(error))
            return
        at_target = recovered.verdict is Verdict.FINISH_AT_TARGET
        kept, left = (migration.target, migration.source) if at_target else (migration.source, migration.target)
        binding = self._redirect.bindings[name]
        if binding.here.network != kept:
            self._redirect.move(name, kept, self._ports[kept], self._machines.peers(binding.node))
        state = MigrationState.RELEASED if at_target else MigrationState.FAILED
        self._record(migration, state, recovered=str(recovered.verdict))
        text = f"{name}: an interrupted migration was settled ({recovered.verdict}); it runs at {kept}"
        self._tell(text, migration)
        self._machines.tidy(name, self._tidy(name, hosts[left], spec, self._redirect.bindings[name].old))

    def _lost(self, migration: Migration, why: str) -> None:
        self._record(migration, MigrationState.FAILED, lost=why)
        self._tell(f"{migration.machine}: its interrupted migration {migration.source} -> {migration.target} "
                   f"cannot be finished or taken back: {why}", migration)  # fmt: skip

    async def _tidy(self, name: str, left: Host, spec: MachineSpec, old: Iterable[Placement]) -> None:
        """Late frames bounce at the host that was left until the switches have the rules of where it runs."""
        networks = self._redirect.networks
        try:
            with contextlib.suppress(SwitchError, TimeoutError):
                datapaths = [network.datapath for network in networks.values()]
                await self._redirect.southbound.barrier(datapaths, SWITCHES_S)
            for place in old:
                await self._machines.quiet(name, place)
        finally:
            forget(left, spec)
            for place in old:
                self._redirect.retire(name, place)

    def _record(self, migration: Migration, state: MigrationState, **detail: str) -> None:
        settled = replace(migration, state=state, detail={**migration.detail, **detail})
        self._store.put_migration(settled, time.time())

    def _tell(self, text: str, fact: object = None) -> None:
        self._machines.watchers.tell("migration", text, fact)
