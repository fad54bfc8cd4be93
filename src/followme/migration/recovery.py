"""After a crash: which copy of a machine shall run, from what was recorded last and what the hosts say.

The table (first line that fits; "usable" is a copy that holds the whole machine: at the source ``running``,
``paused`` or ``postmigrate``; at the target ``running``, or ``paused``, which it is once it has loaded
everything and was not told to run):

    source usable   target running                finish at the target; but before `switched` the target
                                                  cannot have been told to run: then, and only if the
                                                  source runs too, the source is kept
    source running  anything else                 resume at the source (it never stopped, or was resumed)
    source stopped  target paused                 finish at the target from `switched` on: traffic waits
                                                  there; else resume at the source
    source stopped  target holds nothing whole    resume at the source
    source gone     target running or paused      finish at the target
    source gone     target holds nothing whole    lost: no whole copy is left

A target on another agent's host is asked over that agent's channel. Where it does not answer, neither copy is
touched (``Unreachable``): the source may have stopped for good, and the target be the machine.

Whatever is not kept is ended before what is kept is told to run: so there are never two that run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from followme.domain import Migration, MigrationState
from followme.migration.bounce import Bounce
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.monitor import Monitor

_END_WAIT, _POLL = 5.0, 0.02


class CopyStatus(StrEnum):
    """What a host says of its copy of a machine."""

    RUNNING = "running"
    PAUSED = "paused"
    POSTMIGRATE = "postmigrate"
    INMIGRATE = "inmigrate"
    GONE = "gone"


def copy_status(said: str) -> CopyStatus:
    """QEMU's run state as a copy's: ``paused`` stands for all states in which a whole machine is stopped."""
    return CopyStatus(said) if said in set(CopyStatus) else CopyStatus.PAUSED


class Copy(Protocol):
    """A host's copy of a machine. All methods raise ``MigrationError``."""

    @property
    def name(self) -> str:
        """Whose host it is, in words."""

    @property
    def status(self) -> CopyStatus:
        """As found."""

    async def end(self) -> None:
        """Return when its process has ended. Harmless where it is gone."""

    async def bounce(self) -> None:
        """Frames for the machine that reach this host go back to its switch."""

    async def run(self) -> None:
        """It is the machine: it gets its frames, and runs."""

    async def close(self) -> None:
        """Leave it alone from now on."""


class Verdict(StrEnum):
    """What recovery does."""

    FINISH_AT_TARGET = "finish at the target"
    RESUME_AT_SOURCE = "resume at the source"
    LOST = "lost"


_USABLE_AT_SOURCE = {CopyStatus.RUNNING, CopyStatus.PAUSED, CopyStatus.POSTMIGRATE}
# A target that says `postmigrate` has handed the machine on to yet another host: its copy is stale.
_USABLE_AT_TARGET = {CopyStatus.RUNNING, CopyStatus.PAUSED}
_SWITCH_BEGUN = {MigrationState.SWITCHED, MigrationState.RELEASED}


def recover(migration: Migration, source: CopyStatus, target: CopyStatus) -> Verdict:
    """The table above."""
    begun = migration.state in _SWITCH_BEGUN
    if source not in _USABLE_AT_SOURCE:
        return Verdict.FINISH_AT_TARGET if target in _USABLE_AT_TARGET else Verdict.LOST
    if target is CopyStatus.RUNNING:
        both = source is CopyStatus.RUNNING
        return Verdict.RESUME_AT_SOURCE if both and not begun else Verdict.FINISH_AT_TARGET
    if source is CopyStatus.RUNNING:
        return Verdict.RESUME_AT_SOURCE
    if target is CopyStatus.PAUSED and begun:
        return Verdict.FINISH_AT_TARGET
    return Verdict.RESUME_AT_SOURCE


class Lost(MigrationError):
    """No host holds the whole machine any more: it can only be started anew."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What ``settle`` found and did."""

    verdict: Verdict
    source: CopyStatus
    target: CopyStatus


async def settle(migration: Migration, spec: MachineSpec, source: Host,
                 target: Host | Callable[[], Awaitable[Copy]]) -> Recovered:
    """Ask both hosts, decide, and make it so: one copy runs, the other is gone, frames go where it runs.

    ``target`` is a host of ours, or asks another agent for its copy; it is asked first, and where it cannot be
    nothing has been touched.

    Frames that still reach the other host bounce back to its switch until ``forget`` is called for it.

    The QEMUs must have been started with ``survive``. Raises ``Lost`` if no whole copy is left (then what
    waits for one is ended), and another ``MigrationError`` if a copy cannot be ended or told to run.
    """
    async with contextlib.AsyncExitStack() as opened:
        theirs: Copy = await (_Copy.open(target, spec) if isinstance(target, Host) else target())
        opened.push_async_callback(theirs.close)
        ours: Copy = await _Copy.open(source, spec)
        opened.push_async_callback(ours.close)
        copies = [ours, theirs]
        found = [copy.status for copy in copies]
        verdict = recover(migration, *found)
        if verdict is Verdict.LOST:
            for copy in copies:
                if copy.status is CopyStatus.INMIGRATE:
                    await copy.end()
            raise Lost(
                f"machine {migration.machine} is lost: {ours.name} says {found[0]}, {theirs.name} says "
                f"{found[1]}, neither holds the whole machine"
            )
        kept, ended = copies if verdict is Verdict.RESUME_AT_SOURCE else reversed(copies)
        await ended.end()
        await kept.run()
        await ended.bounce()
        return Recovered(verdict, *found)


def forget(host: Host, spec: MachineSpec) -> None:
    """Stop bouncing at the host that was not kept, once the network sends nothing there any more."""
    with contextlib.closing(Bounce(host, None, spec.mac)) as bounce:
        bounce.clear()


class _Copy:
    """A host's copy of a machine, found by its QMP socket."""

    def __init__(self, host: Host, spec: MachineSpec, monitor: Monitor | None) -> None:
        self.status = CopyStatus.GONE
        self.host, self._spec, self._monitor = host, spec, monitor
        self.name = host.name

    @classmethod
    async def open(cls, host: Host, spec: MachineSpec) -> _Copy:
        path = host.qmp_path(spec.name)
        deadline = time.monotonic() + _END_WAIT
        while await _answers(path):
            try:
                self = cls(host, spec, await Monitor.open(path, f"{spec.name} on {host.name}"))
                self.status = await self._ask()
            except MigrationError:
                # A target whose stream was cut is just ending: then it is gone in a moment.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_POLL)
                continue
            return self
        return cls(host, spec, None)

    async def _ask(self) -> CopyStatus:
        assert self._monitor is not None
        said = str((await self._monitor.execute("query-status"))["status"])
        if said == "finish-migrate":
            # The stream's end is under way and cannot be cut short by a command: cancel, it stays stopped.
            await self._monitor.execute("migrate_cancel")
            deadline = time.monotonic() + _END_WAIT
            while said == "finish-migrate" and time.monotonic() < deadline:
                await asyncio.sleep(_POLL)
                said = str((await self._monitor.execute("query-status"))["status"])
        return copy_status(said)

    async def end(self) -> None:
        """End the process and forget its traffic."""
        if self._monitor is None:
            return
        with contextlib.suppress(MigrationError):  # it may close the connection before it answers
            await self._monitor.execute("quit")
        path = self.host.qmp_path(self._spec.name)
        deadline = time.monotonic() + _END_WAIT
        while await _answers(path):
            if time.monotonic() > deadline:
                raise MigrationError(f"{self._spec.name} on {self.host.name}: QEMU does not quit; end it by hand, "
                                     "then recover again")
            await asyncio.sleep(_POLL)
        path.unlink(missing_ok=True)

    async def bounce(self) -> None:
        with contextlib.closing(Bounce(self.host, None, self._spec.mac)) as bounce:
            bounce.flip()

    async def run(self) -> None:
        tap = self.host.tap_name(self._spec.name)
        with contextlib.closing(Bounce(self.host, tap, self._spec.mac)) as bounce:
            bounce.to_tap()
        assert self._monitor is not None
        # A migration that a dead controller's relay cut, or left hanging, ends before the machine goes on.
        await self._monitor.execute("migrate_cancel")
        if await self._ask() is not CopyStatus.RUNNING:
            await self._monitor.execute("cont")

    async def close(self) -> None:
        if self._monitor is not None:
            await self._monitor.close()


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True
