"""The switch-over, and the way back: in which order traffic, the machine and its copies are touched.

The order is what loses no frame:

1. Frames for the machine turn around at the source's uplink (flip). The switch sends what comes back to the
   target, where it waits in the tap's queue. What the machine sends still flows.
2. The source's tap runs empty while the machine still runs. A QEMU whose machine has stopped reads one more
   frame from its tap into memory that is not migrated, so the tap must be empty before step 3.
3. The machine stops at the source, what is left of it flows, and it runs at the target when we say so: that is
   said when it has stopped here, for the moment when it is whole there, so that no round trip lies between.

As the source was stopped by us and not by QEMU's own convergence, neither side starts the machine by
itself: there is one running copy at most, and until the target is told to run there is a way back.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from followme.migration.host import MigrationError
from followme.migration.monitor import migration_event, seconds
from followme.migration.transfer import Transfer, stop_event

_QUEUE_WAIT, _QUEUE_POLL = 0.005, 0.0003
# A frame that passed the bridge before the flip may still be on its way into the queue, or from the queue
# into the machine's memory.
_MARGIN = 0.001
_IN_FLIGHT_WAIT = 0.2
_CANCEL_WAIT = 5.0
_ANSWER_WAIT = 0.01


class Handover:
    """Moves traffic and the machine from ``transfer.source`` to ``transfer.target``."""

    def __init__(self, transfer: Transfer, on_flip: Callable[[], None]) -> None:
        self.transfer = transfer
        self.source, self.target = transfer.source, transfer.target
        self.flipped_at: float | None = None
        self.stopped_at: float | None = None
        self.resumed_at: float | None = None
        self.bounced = 0
        # From here on the target may run: the source must not be started unless the target is dead.
        self.told = False
        self._on_flip = on_flip
        self._stopped_by_us = False
        self._is_back = False
        self._stop: asyncio.Future[Any] | None = None
        self._going: asyncio.Task[None] | None = None
        self._since = 0

    def flip(self) -> None:
        """Step 1."""
        self.source.bounce.flip()
        self.flipped_at = time.time()
        self._on_flip()

    async def in_flight(self) -> None:
        """Wait until all that left the source has reached the target: it would be time in the pause."""
        relay = self.transfer.relay
        assert relay is not None
        for _ in range(int(_IN_FLIGHT_WAIT / _QUEUE_POLL)):
            if relay.ended.is_set() or not relay.unacknowledged:
                return
            await asyncio.sleep(_QUEUE_POLL)

    async def stop(self) -> None:
        """Steps 2 and 3: empty the tap, stop the machine."""
        for _ in range(int(_QUEUE_WAIT / _QUEUE_POLL)):
            if not self.source.queue.waiting:
                break
            await asyncio.sleep(_QUEUE_POLL)
        await asyncio.sleep(_MARGIN)
        if self.transfer.stopped is not None:
            return
        since = len(self.source.monitor.events)
        self._stop = asyncio.gather(self.source.execute("stop"), self.source.status())
        event = asyncio.create_task(self.source.monitor.wait(stop_event, since))
        try:
            waits: list[asyncio.Future[Any]] = [self._stop, event]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            # QEMU may have converged in this very moment and stopped the machine itself: then the event
            # comes, but no answer until the stream is open again.
            await asyncio.wait([self._stop], timeout=_ANSWER_WAIT)
            if self._stop.done():
                self._stopped_by_us = self._stop.result()[1] == "paused"
            self.stopped_at = seconds(await event)
        finally:
            event.cancel()
            await asyncio.gather(event, return_exceptions=True)

    async def go(self, timeout: float) -> None:
        """Have the target run the machine as soon as it is whole there; returns at once.

        Not where QEMU has stopped it by itself: it restarts a machine that it stopped if it believes that the
        migration failed, and then two would run.
        """
        if not self._stopped_by_us:
            return
        self._since = len(self.target.monitor.events)
        self.told = True
        self._going = asyncio.create_task(self.target.run_when_loaded(timeout))
        await asyncio.sleep(0)  # it is on its way before what is left of the machine is

    @property
    def ran(self) -> bool:
        """Whether the target is known to have run the machine: then there is no way back, whatever failed."""
        return self.resumed_at is not None or (
            self.told and any(event["event"] == "RESUME" for event in self.target.monitor.events[self._since :])
        )

    def send_after(self) -> None:
        """Send frames that were left in the source's tap after those that bounced."""
        self.bounced += self.source.send_on()

    async def resume(self) -> None:
        """Run the machine at the target, which has loaded it."""
        if not self._stopped_by_us:
            # QEMU restarts a machine that it stopped itself if it believes that the migration failed.
            await self.transfer.source_completed()
            self.stopped_at = self.transfer.stopped
        if self._stop is not None:
            await self._stop
        if self._going is not None:
            await self._going
        else:
            self._since = len(self.target.monitor.events)
            self.told = True
            await self.target.execute("cont")
        resume = await self.target.monitor.wait(lambda event: event["event"] == "RESUME", self._since)
        self.resumed_at = seconds(resume)

    async def back(self) -> None:
        """Undo, from wherever it failed: the machine runs at the source, the target's QEMU is gone.

        Frames that wait in the target's tap stay there: ``send_back`` them once the network leads here.
        ``Unreachable`` if the target may run and cannot be asked: then nothing was touched.
        """
        if self._going is not None:
            self._going.cancel()
            await asyncio.gather(self._going, return_exceptions=True)
        if self.told:
            await self.target.stop_process()
        await self.transfer.close()
        if self._stop is not None:
            await asyncio.gather(self._stop, return_exceptions=True)
        await self._cancel_migration()
        self.source.bounce.to_tap()
        if self.source.ended.is_set():
            raise MigrationError(f"{self.source.who}: cannot go back: the source's QEMU ended too"
                                 f"{self.source.complaint}")
        if await self.source.status() != "running":
            await self.source.execute("cont")
        self._is_back = True

    async def send_back(self) -> None:
        """Send what waits at the target, and what still comes there, back to the switch, until ``forget``."""
        # Two sides that both bounce would play ping-pong with every frame.
        if self._is_back:
            self.bounced += await self.target.send_back()

    async def forget(self) -> None:
        """Remove what is left of the target, once the network sends nothing there any more."""
        await self.target.forget()

    async def _cancel_migration(self) -> None:
        if not self.transfer.begun or self.source.ended.is_set():
            return
        finished = ("completed", "failed", "cancelled", "none")
        with contextlib.suppress(MigrationError):
            await self.source.execute("migrate_cancel")
        deadline = time.monotonic() + _CANCEL_WAIT
        while (await self.source.execute("query-migrate")).get("status", "none") not in finished:
            if time.monotonic() > deadline:
                raise MigrationError(f"{self.source.who}: QEMU does not end the migration although it was told to")
            with contextlib.suppress(TimeoutError):
                wait = self.source.monitor.wait(migration_event(*finished), len(self.source.monitor.events))
                await asyncio.wait_for(wait, 0.05)
