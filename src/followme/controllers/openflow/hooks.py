"""What the redirect does at a migration's moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from followme.domain import Migration
from followme.migration.transfer import TransferProgress
from followme.store import StoreError

if TYPE_CHECKING:
    from followme.controllers.openflow.machines import Machines


class RedirectHooks:
    """What the network does at a migration's moments (``mover.Hooks``)."""

    def __init__(self, machines: Machines, migration: Migration, port: int) -> None:
        self._machines = machines
        self._migration = migration
        self._port = port
        self._paper = migration.mode == "paper"
        self._flipped = False

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
        self._flipped = True
        text = f"{self._migration.machine}'s packets go to {place.network} ({place.locator}) from now on"
        self._machines.watchers.tell("continuity", text, place)

    async def commit(self) -> None:
        """The place was stored with the flip, unless the store failed then."""
        if not self._flipped:
            await self.flip()

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
        except StoreError:
            self._machines.remember(machine)
            raise
        finally:
            # Also if a switch is away: its rules are right when it comes back.
            self._machines.retire(machine, self._machines.redirect.bindings[machine].old)

    async def drained(self) -> None:
        machines, migration = self._machines, self._migration
        for place in machines.redirect.bindings[migration.machine].old:
            if place.network == migration.target:
                await machines.quiet(migration.machine, place)

    def progress(self, progress: TransferProgress) -> None:
        self._machines.watchers.tell(
            "migration", f"{self._migration.machine}: {progress.sent_bytes / 1e6:.0f} MB sent, "
            f"{progress.remaining_bytes / 1e6:.0f} MB left, pass {progress.passes}", progress,
        )  # fmt: skip
