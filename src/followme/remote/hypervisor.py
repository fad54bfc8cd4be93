"""A host's QEMUs as its agent has them: the site's own machines, and guests that other agents carry here.

A guest is an empty QEMU that waits for a machine, until that is the site's own. Its source (the peer that asked
for it) decides over it as long as it is a guest:

    the source says ``keep``                                   it is the site's own machine
    the source is gone for ``patience_s``, and the guest
        runs                                                   it was told to: it is the site's own machine
        holds nothing whole (``inmigrate``), or has ended      it is ended and forgotten: it can never run
        is whole, but stopped (``paused``)                     it is kept and waits: the source may be dead, then
                                                               this is the only whole copy; only the source knows

Each guest is written to a file before its QEMU starts, so that an agent that was restarted knows whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from followme.migration.bounce import Bounce
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.monitor import Event
from followme.migration.qemu import Qemu
from followme.migration.recovery import CopyStatus
from followme.remote.commands import check_command
from followme.remote.guest import Guest, asked
from followme.remote.server import Caller, Handler
from followme.remote.specs import Rules, machine_name, spec_document, spec_from

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
_MAX_TIMEOUT_S = 30.0
_MAX_ID = 64


class Hypervisor:
    """All QEMUs of one host. ``machines`` are the site's own, by name; ``on_kept`` has a guest that runs become
    one, ``on_forgotten`` is told when one will never be (so that nothing is expected here any more). ``arrived``
    says whether the machine of a migration became one, even if it has gone elsewhere since."""

    def __init__(self, host: Host, rules: Rules, *, survive: bool = True, patience_s: float = PATIENCE_S) -> None:
        self.host, self.rules, self.survive = host, rules, survive
        self.machines: dict[str, Qemu] = {}
        self.guests: dict[str, Guest] = {}
        self.on_kept: Callable[[Guest, Qemu], None] = lambda guest, qemu: self.own(qemu)
        self.on_forgotten: Callable[[MachineSpec], None] = lambda spec: None
        self.arrived: Callable[[str], bool] = lambda migration: False
        self._patience_s = patience_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._taking = asyncio.Lock()

    def handlers(self) -> dict[str, Handler]:
        """What other agents may ask for; all raise ``MigrationError``."""
        return {"incoming": self.incoming, "qmp": self.qmp, "run_when_loaded": self.run_when_loaded,
                "bounce": self.bounce, "send_on": self.send_on,
                "stop_process": self.stop_process, "kill": self.kill, "keep": self.keep, "status": self.status}

    # --- our own ------------------------------------------------------------------------------------------

    def own(self, qemu: Qemu) -> None:
        """From now on it is one of the site's machines, whatever the disk says."""
        self.machines[qemu.spec.name] = qemu
        try:
            self._write(qemu.spec, "", "")
        except OSError as error:
            log.error("%s runs here, and that cannot be written: %s; after a restart it is not taken over "
                      "unless the config names it", qemu.spec.name, error)  # fmt: skip

    def disown(self, machine: str) -> None:
        """It is not any more; its QEMU is the caller's."""
        self.machines.pop(machine, None)
        self._file(machine).unlink(missing_ok=True)

    def specs(self) -> dict[str, MachineSpec]:
        """The site's own machines as files say, that an agent before us had."""
        return {guest.spec.name: guest.spec for guest in self._written() if not guest.peer}

    async def recover(self) -> None:
        """Take over the guests that an agent before us had; their sources have ``patience_s`` to come back."""
        for guest in self._written():
            if not guest.peer or guest.spec.name in self.machines:
                continue
            self.guests[guest.spec.name] = guest
            guest.trouble = "it has not been looked at yet"
            with contextlib.suppress(MigrationError):
                await self._take_over(guest)
            self._leave(guest)

    async def close(self) -> None:
        """Leave all QEMUs alone (with ``survive``), or end them."""
        self._closing = True
        for guest in self.guests.values():
            if guest.expiry is not None:
                guest.expiry.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for qemu in [*self.machines.values(), *(guest.qemu for guest in self.guests.values() if guest.qemu)]:
            await (qemu.detach() if self.survive else qemu.kill())

    # --- asked by peers -----------------------------------------------------------------------------------

    async def incoming(self, params: Mapping[str, Any], caller: Caller) -> None:
        """``{spec, migration}``: start an empty QEMU. Events: ``{"started": {"host", "management_address"}}``, then
        ``{"qmp": event}`` as they come, and ``{"ended": what it complained about}``, the last. A caller that
        leaves takes the guest's source with it."""
        spec = spec_from(params.get("spec"), self.rules)
        migration = params.get("migration")
        if not isinstance(migration, str) or not 0 < len(migration) <= _MAX_ID:
            raise MigrationError(f"{spec.name}: the migration has no id")
        guest = await self._admit(spec, caller.peer, migration)
        async with self._used(guest):
            if guest.qemu is None:
                try:
                    self._write(spec, caller.peer, migration)
                    guest.qemu = await Qemu.start(self.host, spec, incoming=True, survive=self.survive)
                except OSError as error:
                    self._forget(guest)
                    raise MigrationError(f"{self.host.name} cannot take {spec.name}: {error}") from None
                except BaseException:
                    self._forget(guest)
                    raise
            qemu = guest.qemu
            caller({"started": {"host": self.host.name, "management_address": self.host.management_address}})
            await self._follow(qemu, caller)

    async def _admit(self, spec: MachineSpec, peer: str, migration: str) -> Guest:
        name = spec.name
        if name in self.machines:
            raise MigrationError(f"{name} runs at {self.host.name} already")
        old = self.guests.get(name)
        if old is not None:
            if old.peer != peer:
                raise MigrationError(f"{name} is being carried to {self.host.name} from somewhere else")
            if await self._status(old) is CopyStatus.RUNNING:
                raise MigrationError(f"{name} runs at {self.host.name} already: it was told to")
            if old.users:
                raise MigrationError(f"{name} is being carried to {self.host.name} already")
            await self._end(old)
        if name in self.guests:  # another call came first while we looked
            raise MigrationError(f"{name} is being carried to {self.host.name} already")
        if Qemu.find(self.host, spec) is not None:
            raise MigrationError(f"{name} has a QEMU at {self.host.name} that is nobody's; end it by hand")
        if len(self.guests) >= self.rules.max_waiting:
            raise MigrationError(f"{self.host.name} waits for {len(self.guests)} machines already")
        guest = self.guests[name] = Guest(spec, peer, migration)
        return guest

    async def _follow(self, qemu: Qemu, caller: Caller) -> None:
        told = 0
        ended = asyncio.create_task(qemu.ended.wait())
        try:
            while not ended.done():
                event = asyncio.create_task(qemu.monitor.wait(lambda event: True, told))
                try:
                    await asyncio.wait([event, ended], return_when=asyncio.FIRST_COMPLETED)
                    if event.done() and event.exception() is not None:
                        # The connection to QEMU is gone, so it is ending.
                        await asyncio.wait([ended], timeout=1.0)
                        break
                finally:
                    event.cancel()
                    await asyncio.gather(event, return_exceptions=True)
                for happened in qemu.monitor.events[told:]:
                    caller({"qmp": _plain(happened)})
                told = len(qemu.monitor.events)
            for happened in qemu.monitor.events[told:]:
                caller({"qmp": _plain(happened)})
            caller({"ended": qemu.complaint})
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)

    async def qmp(self, params: Mapping[str, Any], caller: Caller) -> Any:
        """``{machine, command, arguments, timeout}``: what QEMU returns; only what a migration needs."""
        command, arguments = params.get("command"), params.get("arguments") or {}
        check_command(command, arguments, self.host.management_address)
        async with self._guest(params, caller) as guest:
            return await self._qemu(guest).execute(str(command), arguments or None, _timeout(params))

    async def run_when_loaded(self, params: Mapping[str, Any], caller: Caller) -> None:
        """``{machine, timeout}``: have it run as soon as it is whole here. Where its source leaves before, it
        stays stopped: only the source knows then whether it shall run."""
        async with self._guest(params, caller) as guest:
            await self._qemu(guest).run_when_loaded(_timeout(params))

    async def bounce(self, params: Mapping[str, Any], caller: Caller) -> None:
        """``{machine, way}``: ``flip``, ``clear`` or ``to_tap`` (see ``Bounce``)."""
        way = params.get("way")
        async with self._guest(params, caller) as guest:
            if way not in ("flip", "clear", "to_tap"):
                raise MigrationError(f"{way!r:.20} is none of flip, clear, to_tap")
            if guest.qemu is not None:
                getattr(guest.qemu.bounce, way)()
            else:
                with contextlib.closing(Bounce(self.host, None, guest.spec.mac)) as bounce:
                    getattr(bounce, way)()

    async def send_on(self, params: Mapping[str, Any], caller: Caller) -> int:
        """``{machine}``: send what waits in its tap back to the switch; the number of frames."""
        async with self._guest(params, caller) as guest:
            return 0 if guest.qemu is None else guest.qemu.send_on()

    async def stop_process(self, params: Mapping[str, Any], caller: Caller) -> None:
        """``{machine}``: return when its process has ended; its tap stays."""
        async with self._guest(params, caller) as guest:
            if guest.qemu is not None:
                await guest.qemu.stop_process()

    async def kill(self, params: Mapping[str, Any], caller: Caller) -> None:
        """``{machine, migration}``: end and forget the guest. Harmless where there is none of that migration; never
        one of our own."""
        mine = self._mine(params, caller)
        if mine is not None and params.get("migration", mine.migration) == mine.migration:
            async with self._guest(params, caller) as guest:
                await self._end(guest)

    async def keep(self, params: Mapping[str, Any], caller: Caller) -> None:
        """``{machine, migration}``: the guest runs, and is the site's own from now on. Harmless where it became
        that already."""
        if self._has_arrived(params):
            return
        async with self._guest(params, caller) as guest:
            if await self._status(guest) is not CopyStatus.RUNNING:
                raise MigrationError(f"{guest.spec.name} at {self.host.name} does not run")
            self._keep(guest)

    async def status(self, params: Mapping[str, Any], caller: Caller) -> dict[str, str]:
        """``{machine, migration}``: ``{"status": see CopyStatus}``. A machine that has become our own is
        ``running``, even if it has gone elsewhere since: the copy that its source has is stale. What is not known
        for sure is an error, for the source would let its own copy run."""
        name = machine_name(params.get("machine"))
        if self._has_arrived(params):
            return {"status": CopyStatus.RUNNING}
        if (qemu := self.machines.get(name)) is not None:
            return {"status": await asked(qemu)}
        if self._mine(params, caller) is None:
            nameless = MachineSpec(name, bytes(6), 0, Path(), Path(), "")
            if name in self.guests or Qemu.find(self.host, nameless) is not None:
                raise MigrationError(f"{name} has a QEMU at {self.host.name} that did not come from {caller.peer}")
            return {"status": CopyStatus.GONE}
        async with self._guest(params, caller) as guest:
            return {"status": await self._status(guest)}

    # --- guests -------------------------------------------------------------------------------------------

    def _mine(self, params: Mapping[str, Any], caller: Caller) -> Guest | None:
        guest = self.guests.get(machine_name(params.get("machine")))
        return guest if guest is not None and guest.peer == caller.peer else None

    @contextlib.asynccontextmanager
    async def _guest(self, params: Mapping[str, Any], caller: Caller) -> AsyncIterator[Guest]:
        guest = self._mine(params, caller)
        if guest is None:
            raise MigrationError(f"{params.get('machine')} is not being carried to {self.host.name} by "
                                 f"{caller.peer}")
        async with self._used(guest):
            yield guest

    @contextlib.asynccontextmanager
    async def _used(self, guest: Guest) -> AsyncIterator[None]:
        """The guest's source is here; ``patience_s`` begins when nobody is any more."""
        guest.users += 1
        if guest.expiry is not None:
            guest.expiry.cancel()
            guest.expiry = None
        try:
            yield
        finally:
            guest.users -= 1
            self._leave(guest)

    def _leave(self, guest: Guest) -> None:
        if not guest.users and not self._closing and self.guests.get(guest.spec.name) is guest:
            guest.expiry = asyncio.get_running_loop().call_later(self._patience_s, self._expired, guest)

    def _expired(self, guest: Guest) -> None:
        task = asyncio.create_task(self._expire(guest))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _expire(self, guest: Guest) -> None:
        name = guest.spec.name
        try:
            status = await self._status(guest)
            if guest.users or self.guests.get(name) is not guest:
                return
            if status is CopyStatus.RUNNING:
                log.warning("%s runs here, and %s, which carried it, is gone: it is ours now", name, guest.peer)
                self._keep(guest)
            elif status in (CopyStatus.INMIGRATE, CopyStatus.GONE):
                log.warning("%s was being carried here, and %s is gone: what came is removed", name, guest.peer)
                await self._end(guest)
            else:
                log.warning("%s is whole here, but stopped, and %s, which alone knows whether it shall run, is "
                            "gone: it waits; status %s", name, guest.peer, status)
        except MigrationError as error:
            log.error("%s, which %s was carrying here: %s", name, guest.peer, error)
            self._leave(guest)

    def _has_arrived(self, params: Mapping[str, Any]) -> bool:
        migration = params.get("migration")
        return isinstance(migration, str) and len(migration) <= _MAX_ID and self.arrived(migration)

    async def _take_over(self, guest: Guest) -> None:
        """Have the QEMU of a guest that an earlier agent started; it may be one that is just ending."""
        async with self._taking:
            if guest.trouble:
                try:
                    guest.qemu = await Qemu.adopt(self.host, guest.spec)
                    guest.trouble = ""
                except MigrationError as error:
                    guest.trouble = str(error)
                    raise

    async def _status(self, guest: Guest) -> CopyStatus:
        await self._take_over(guest)
        return CopyStatus.GONE if guest.qemu is None else await asked(guest.qemu)

    def _qemu(self, guest: Guest) -> Qemu:
        if guest.qemu is None:
            raise MigrationError(f"{guest.spec.name} at {self.host.name} has ended")
        return guest.qemu

    def _keep(self, guest: Guest) -> None:
        qemu = self._qemu(guest)
        del self.guests[guest.spec.name]
        self.on_kept(guest, qemu)

    async def _end(self, guest: Guest) -> None:
        await self._take_over(guest)
        if guest.qemu is not None:
            await guest.qemu.forget()
            guest.qemu = None
        else:
            with contextlib.closing(Bounce(self.host, None, guest.spec.mac)) as bounce:
                bounce.clear()
        self._forget(guest)

    def _forget(self, guest: Guest) -> None:
        if self.guests.get(guest.spec.name) is guest:
            del self.guests[guest.spec.name]
            self._file(guest.spec.name).unlink(missing_ok=True)
            self.on_forgotten(guest.spec)

    # --- files --------------------------------------------------------------------------------------------

    def _file(self, machine: str) -> Path:
        return self.host.file(machine, "json")

    def _write(self, spec: MachineSpec, peer: str, migration: str) -> None:
        self.host.run_dir.mkdir(parents=True, exist_ok=True)
        file = self._file(spec.name)
        new = file.with_suffix(".new")
        new.write_text(json.dumps({"spec": spec_document(spec), "peer": peer, "migration": migration}))
        new.replace(file)

    def _written(self) -> list[Guest]:
        found = []
        for file in sorted(self.host.run_dir.glob(f"*@{self.host.name}.json")):
            try:
                document = json.loads(file.read_text())
                spec = spec_from(document["spec"], self.rules)
                found.append(Guest(spec, str(document["peer"]), str(document["migration"])))
            except (OSError, ValueError, KeyError, TypeError, MigrationError) as error:
                log.error("%s: this machine cannot be taken over: %s", file, error)
        return found


def _plain(event: Event) -> dict[str, Any]:
    return {"event": event["event"], "data": event.get("data") or {}, "timestamp": event["timestamp"]}


def _timeout(params: Mapping[str, Any]) -> float:
    timeout = params.get("timeout", 10.0)
    if type(timeout) not in (int, float) or not 0 < timeout <= _MAX_TIMEOUT_S:
        raise MigrationError(f"a timeout of {timeout!r:.20} s is not possible")
    return float(timeout)
