"""The saga that carries a machine: planned, prepared, transferring, switched, released; or failed.

Each state is recorded before it is acted on, so what was recorded last says what may have begun:

    planned       the target's QEMU and tap, the network's preparation
    prepared      the stream is laid
    transferring  memory flows; the machine runs at the source
    switched      traffic turns, the machine stops at the source and runs at the target; what is left at the
                  source is removed
    released      nothing: recorded last, so that a crash before it leaves a saga that is settled, not an orphan
    failed        what was done is undone; the machine runs at the source
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from followme.domain import Migration, MigrationState
from followme.migration.convergence import Convergence
from followme.migration.handover import Handover
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.qemu import Qemu
from followme.migration.target import Target, TargetFactory, Unreachable
from followme.migration.transfer import Transfer, TransferProgress

log = logging.getLogger(__name__)

MODES = ("live", "cold", "paper")
_QEMU_DOWNTIME_MS = 300  # QEMU's own default, which `paper` leaves alone


class Hooks(Protocol):
    """What the network side does for a migration, at its moments."""

    async def prepare(self) -> None:
        """Before anything moves. On return the target's rules are confirmed and the source's switch sends
        frames for the machine that come back from its port on to the target, and the other way round."""

    async def flip(self) -> None:
        """Traffic has turned to the target: tell the switches. Runs beside the switch-over, which does not
        wait for it; not called again, and cancelled if the migration fails meanwhile."""

    async def commit(self) -> None:
        """The machine runs at the target, for good. ``flip`` has ended, but may have failed: then this makes
        up for it. Called again if it fails itself."""

    async def release(self) -> None:
        """Remove what only the old place needed, once no traffic uses it; frames still bounce until then."""

    async def rollback(self, reason: str) -> None:
        """The machine runs at the source again: undo ``prepare`` and ``flip``, whichever were called. Frames
        that wait at the target are sent back when this returns, so the way for them must stay."""

    async def drained(self) -> None:
        """After ``rollback`` of a ``flip``: return when nothing reaches the target's port any more. Frames
        that do bounce until then; the way back that was kept for them may go."""


@dataclass(frozen=True, slots=True)
class Options:
    """Seconds: the pause to aim at, the longest one to accept, and when to give up on a step.

    ``survive`` lets the target's QEMU outlive our process (see ``Qemu.start``).
    """

    target_pause: float = 0.02
    max_pause: float = 0.5
    max_passes: int = 40
    stall_timeout: float = 30.0
    switch_timeout: float = 30.0
    survive: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a migration did. ``pause_s``: from the machine's stop to its resumption, by the clocks of the two
    QEMUs' hosts (as good as these agree: exact where both hosts are one machine's namespaces).

    ``held_s``: how long traffic waited at most, from the flip to the resumption (0 where none was held).
    ``bounced``: frames that were left in the source's tap and sent after the others. ``resumed_at``: when it ran
    at the target (seconds of the Unix clock, that of the target's host).
    """

    mode: str
    pause_s: float
    total_s: float
    held_s: float
    bytes: int
    passes: int
    bounced: int
    resumed_at: float = 0.0


class _Network:
    """The hooks as one migration calls them: which were called, and the one that runs beside."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._prepared = False
        self._flip: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        self._prepared = True
        await self._hooks.prepare()

    def flip(self) -> None:
        self._flip = asyncio.create_task(self._hooks.flip())

    async def commit(self) -> None:
        if self._flip is not None:
            await asyncio.wait([self._flip])
            if not self._flip.cancelled() and (error := self._flip.exception()) is not None:
                log.warning("telling the switches of a flip failed, and is made up for: %s", error)
                self._flip = None
        await self._hooks.commit()

    async def release(self) -> None:
        await self._hooks.release()

    async def rollback(self, reason: str) -> None:
        if self._flip is not None:
            self._flip.cancel()
            await asyncio.gather(self._flip, return_exceptions=True)
        if self._prepared:
            await self._hooks.rollback(reason)

    async def drained(self) -> None:
        if self._flip is not None:
            await self._hooks.drained()


class MachineMover:
    """One migration of one machine. ``run`` it once; ``copy`` is then the machine's new QEMU.

    ``target`` is a host of ours, or what starts an empty QEMU on another's.
    """

    def __init__(
        self,
        migration: Migration,
        source: Qemu,
        target: Host | TargetFactory,
        hooks: Hooks,
        record: Callable[[Migration], None],
        *,
        target_spec: MachineSpec | None = None,
        progress: Callable[[TransferProgress], None] | None = None,
        options: Options | None = None,
    ) -> None:
        if migration.mode not in MODES:
            raise ValueError(f"migration {migration.id}: mode {migration.mode!r} is none of {', '.join(MODES)}")
        self.migration = migration
        self.source = source
        self.copy: Target | None = None
        self.result: Result | None = None
        """Known as soon as the machine runs at the target, so in ``Hooks.commit`` already."""
        self.unsettled = False
        """The target may run and cannot be asked: ``settle`` it once it can. Neither copy was touched."""
        self._start_target = self._starter(target) if isinstance(target, Host) else target
        # The cmdline and kernel are only read at boot; all else must equal the source's, or QEMU refuses.
        self._target_spec = target_spec or source.spec
        self._network = _Network(hooks)
        self._record_state = record
        self._progress = progress
        self._options = options or Options()
        self._transfer: Transfer | None = None
        self._handover: Handover | None = None
        self._work: asyncio.Task[Result] | None = None
        self._cancelled: str | None = None
        self._cleared = False

    @property
    def target(self) -> Qemu | None:
        """``copy``, where the target is a host of ours."""
        return self.copy if isinstance(self.copy, Qemu) else None

    def _starter(self, host: Host) -> TargetFactory:
        return lambda spec: Qemu.start(host, spec, incoming=True, survive=self._options.survive)

    def cancel(self, reason: str = "cancelled") -> bool:
        """Stop and go back; False where it is too late, because the target was told to run."""
        if self._work is None or self._work.done() or self._past_return:
            return False
        self._cancelled = reason
        self._work.cancel()
        return True

    async def run(self) -> Result:
        """Carry the machine. On ``MigrationError`` it runs at the source as before, unless the error says
        otherwise; ``migration.state`` is then ``failed``, unless ``unsettled``. Where ``arrived``, an error or
        a cancellation came after the switch, and the machine runs at the target: call ``finish`` once its cause
        is gone."""
        self._work = asyncio.create_task(self._carry())
        try:
            result = await self._shielded()
        except BaseException as error:
            if self.arrived:
                raise
            reason = self._cancelled or str(error) or type(error).__name__
            await asyncio.shield(asyncio.create_task(self._roll_back(reason, error)))
            if isinstance(error, asyncio.CancelledError) and self._cancelled is not None:
                raise MigrationError(f"migration {self.migration.id} of {self.migration.machine} from "
                                     f"{self.migration.source} to {self.migration.target}: {reason}") from None
            raise
        await self.finish()
        return result

    async def finish(self) -> None:
        """The steps after the switch: commit, release, remove what is left at the source. May be repeated
        when it has failed."""
        await self._network.commit()
        await self._network.release()
        if not self._cleared:
            self.source.bounce.clear()
            self._cleared = True
        await self.source.kill()
        if self._transfer is not None:
            await self._transfer.close()
        self._record(MigrationState.RELEASED)

    @property
    def arrived(self) -> bool:
        """Whether the machine runs at the target, whatever happened since."""
        return self._handover is not None and self._handover.ran

    @property
    def _past_return(self) -> bool:
        return self._handover is not None and self._handover.told

    async def _shielded(self) -> Result:
        # When our caller is cancelled: before the point of no return the work stops and is undone, after it
        # the work, a matter of milliseconds, comes first.
        assert self._work is not None
        try:
            return await asyncio.shield(self._work)
        except asyncio.CancelledError:
            if self._work.done():
                raise
            if not self._past_return:
                self._work.cancel()
            await asyncio.wait([self._work])
            raise

    def _record(self, state: MigrationState, **detail: object) -> None:
        self.migration = replace(self.migration, state=state, detail={**self.migration.detail, **detail})
        self._record_state(self.migration)

    async def _carry(self) -> Result:
        started = time.monotonic()
        self._record(MigrationState.PLANNED)
        target = self.copy = await self._start_target(self._target_spec)
        await self._network.prepare()
        self._record(MigrationState.PREPARED)
        transfer = self._transfer = Transfer(self.source, target, report=self._progress,
                                             stall_timeout=self._options.stall_timeout)
        handover = self._handover = Handover(transfer, self._network.flip)
        await transfer.connect()
        self._record(MigrationState.TRANSFERRING)
        if self.migration.mode == "live":
            await self._live(transfer, handover)
        elif self.migration.mode == "cold":
            await self._cold(transfer, handover)
        else:
            await self._paper(transfer, handover)
        self.result = self._result(transfer, handover, time.monotonic() - started)
        return self.result

    async def _live(self, transfer: Transfer, handover: Handover) -> None:
        options = self._options
        convergence = Convergence(target_pause=options.target_pause, max_pause=options.max_pause,
                                  max_passes=options.max_passes)
        # 1 ms is the least: with 0 QEMU would skip the last passes and stop the machine after the first.
        await transfer.begin(downtime_limit_ms=1)
        if await transfer.carry(convergence):
            await handover.in_flight()
            self._record(MigrationState.SWITCHED)
            handover.flip()
        else:
            # The machine has stopped already: each moment counts, and until the target is told to run
            # what was recorded before is as good.
            handover.flip()
            self._record(MigrationState.SWITCHED)
        await self._switch(transfer, handover)

    async def _switch(self, transfer: Transfer, handover: Handover) -> None:
        relay = transfer.relay
        assert relay is not None
        await handover.stop()
        await handover.go(self._options.switch_timeout)
        relay.open()
        handover.send_after()
        try:
            async with asyncio.timeout(self._options.switch_timeout):
                await transfer.completed()
        except TimeoutError:
            raise MigrationError(
                f"{self.source.who}: {transfer.target.host.name} did not load the machine within "
                f"{self._options.switch_timeout:g} s; check the management network"
            ) from None
        handover.send_after()
        await handover.resume()

    async def _cold(self, transfer: Transfer, handover: Handover) -> None:
        self._record(MigrationState.SWITCHED)
        handover.flip()
        await handover.stop()
        handover.send_after()
        await transfer.begin(downtime_limit_ms=1)
        await transfer.follow()
        await handover.resume()

    async def _paper(self, transfer: Transfer, handover: Handover) -> None:
        await transfer.begin(downtime_limit_ms=_QEMU_DOWNTIME_MS)
        self._record(MigrationState.SWITCHED)
        await transfer.follow()
        await handover.resume()
        self._network.flip()

    def _result(self, transfer: Transfer, handover: Handover, total: float) -> Result:
        resumed, stopped = handover.resumed_at, handover.stopped_at
        assert resumed is not None
        assert stopped is not None
        return Result(
            mode=self.migration.mode,
            pause_s=resumed - stopped,
            total_s=total,
            held_s=0.0 if handover.flipped_at is None else resumed - handover.flipped_at,
            bytes=transfer.passed,
            passes=transfer.passes,
            bounced=handover.bounced,
            resumed_at=resumed,
        )

    async def _roll_back(self, reason: str, error: BaseException) -> None:
        """Undo everything; what goes wrong meanwhile is noted on ``error`` and recorded."""
        problems: list[str] = []
        if self._handover is not None:
            try:
                await self._handover.back()
            except Unreachable as problem:
                # It may run there: so it must not run here, and traffic stays turned to the target.
                self.unsettled = True
                error.add_note(f"the machine may run at {self.migration.target}: {problem}")
                await self._handover.transfer.close()
                return
            except Exception as problem:
                problems.append(str(problem) or type(problem).__name__)
        steps = [
            lambda: self._network.rollback(reason),
            # Behind the network's roll-back: before it, the source's switch would send them here again.
            None if self._handover is None else self._handover.send_back,
            self._network.drained,
            None if self._handover is None else self._handover.forget,
            None if self.copy is None else self.copy.kill,
        ]
        for step in steps:
            if step is None:
                continue
            try:
                await step()
            except Exception as problem:
                problems.append(str(problem) or type(problem).__name__)
        self.copy = None
        if problems:
            error.add_note("while rolling back: " + "; ".join(problems))
        # Last: if we die or the store fails before it, the next start settles what is left.
        noted = {"rollback": "; ".join(problems)} if problems else {}
        try:
            self._record(MigrationState.FAILED, reason=reason, **noted)
        except Exception as problem:
            log.error("migration %s failed, but that cannot be recorded: %s", self.migration.id, problem)
