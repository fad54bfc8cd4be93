"""The stream between two QEMUs: set it up, carry it until it is time to hold, see it end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from followme.migration.carrier import Relay, connect, stream_pair
from followme.migration.convergence import BRAKE_TIME, Convergence, Progress, Step
from followme.migration.host import MigrationError
from followme.migration.monitor import Event, migration_event, seconds
from followme.migration.qemu import Qemu
from followme.migration.target import Target

_POLL = 0.02
_REPORT_EVERY = 0.1
_STREAM = "followme-stream"
_UNLIMITED = 1 << 40
_CAPABILITIES = {"capabilities": [{"capability": name, "state": True} for name in ("events", "return-path")]}


@dataclass(frozen=True, slots=True)
class TransferProgress:
    """How far a transfer is: bytes sent, bytes left in this pass, pass number, bytes a second."""

    sent_bytes: int
    remaining_bytes: int
    passes: int
    rate_bytes_s: float


def stop_event(event: Event) -> bool:
    return bool(event["event"] == "STOP")


class Transfer:
    """One attempt to send a machine from ``source`` to ``target``."""

    def __init__(self, source: Qemu, target: Target, *, stall_timeout: float,
                 report: Callable[[TransferProgress], None] | None = None) -> None:
        self.source, self.target = source, target
        self.relay: Relay | None = None
        self.passes = 0
        self.begun = False
        self._stall_timeout = stall_timeout
        self._report = report
        self._reported = 0.0
        self._query: asyncio.Task[dict[str, Any]] | None = None
        self._moved = (0.0, -1)  # when something passed last, and how much had then
        self._since = len(source.monitor.events)

    @property
    def passed(self) -> int:
        return 0 if self.relay is None else self.relay.passed

    async def connect(self) -> None:
        """Have the target listen and lay the relay to it; the machine is not concerned yet."""
        await self.target.execute("migrate-set-capabilities", _CAPABILITIES)
        # One announcement, not five: it names the machine's MAC only, and the switches know already.
        await self.target.execute("migrate-set-parameters", {"announce-rounds": 1})
        # Port 0: the kernel picks a free one and QEMU tells us which, so nobody can take it in between.
        await self.target.execute("migrate-incoming", {"uri": f"tcp:{self._bracketed}:0"})
        listening = (await self.target.execute("query-migrate"))["socket-address"][0]
        remote = await connect(self.source.host, (listening["host"], int(listening["port"])))
        self._theirs, ours = stream_pair()
        self.relay = Relay(ours, remote)

    @property
    def _bracketed(self) -> str:
        address = self.target.host.management_address
        return f"[{address}]" if ":" in address else address

    async def begin(self, downtime_limit_ms: int) -> None:
        """Start QEMU's migration; nothing passes before the relay is opened."""
        source = self.source
        await source.execute("migrate-set-capabilities", _CAPABILITIES)
        await source.execute("migrate-set-parameters", {
            "downtime-limit": downtime_limit_ms, "max-bandwidth": _UNLIMITED,
        })
        with self._theirs as theirs:
            await source.monitor.give(theirs.fileno(), _STREAM)
        self._since = len(source.monitor.events)
        self.begun = True
        await source.execute("migrate", {"uri": f"fd:{_STREAM}"})

    async def carry(self, convergence: Convergence) -> bool:
        """Let the stream flow until it is time to hold, and hold it: True.

        False if QEMU stopped the machine by itself before. ``MigrationError`` if it fails or does not
        converge.
        """
        relay = self._relay
        stop = asyncio.create_task(self.source.monitor.wait(stop_event, self._since))
        try:
            while True:
                query = self._query = asyncio.create_task(self.query())
                await asyncio.wait([query, stop], return_when=asyncio.FIRST_COMPLETED)
                # A QEMU that has stopped the machine answers nothing until all is sent, which we hold.
                if stop.done() and not stop.exception():
                    relay.hold()
                    return False
                if await self._step(await query, convergence):
                    relay.hold()
                    return True
        finally:
            stop.cancel()
            await asyncio.gather(stop, return_exceptions=True)

    async def _step(self, state: dict[str, Any], convergence: Convergence) -> bool:
        """Let the next part pass; True where it is time to hold instead."""
        relay, now = self._relay, time.monotonic()
        self._check_stall(now)
        ram = state.get("ram")
        if ram is None:  # QEMU still sets up
            relay.open()
            await asyncio.sleep(_POLL)
            return False
        step = convergence.decide(Progress(now, self.passes, int(ram["remaining"]), relay.passed))
        self._tell(now, int(ram["remaining"]), convergence.rate)
        if step is Step.GIVE_UP:
            raise MigrationError(
                f"{self.source.who}: it writes to its memory faster than the path to "
                f"{self.target.host.name} carries ({convergence.rate / 1e6:.0f} MB/s): after {self.passes} "
                f"passes it would still pause for {convergence.expected_pause:.2f} s; raise max_pause or "
                "use mode cold"
            )
        if step is Step.FREE:
            relay.open()
            await asyncio.sleep(_POLL)
        elif step is Step.BRAKE:
            relay.hold()
            await asyncio.sleep(BRAKE_TIME)
            await relay.let(convergence.quantum, _POLL)
            await asyncio.sleep(BRAKE_TIME)
        elif step is Step.QUANTUM:
            await relay.let(convergence.quantum, _POLL)
        return step is Step.HOLD

    async def follow(self) -> None:
        """Let QEMU have its way, and see the target complete."""
        self._relay.open()
        done = asyncio.create_task(self.completed())
        try:
            while not done.done():
                state = await self.query()
                self._check_stall(time.monotonic())
                if "ram" in state:
                    self._tell(time.monotonic(), int(state["ram"]["remaining"]), state["ram"]["mbps"] * 125e3)
                await asyncio.wait([done], timeout=_POLL)
            await done
        finally:
            done.cancel()

    async def query(self) -> dict[str, Any]:
        """QEMU's view at the source; ``MigrationError`` if either side or the relay has failed."""
        if self.target.ended.is_set():
            raise MigrationError(f"{self.target.who}: the target's QEMU is gone{self.target.complaint}")
        state: dict[str, Any] = await self.source.execute("query-migrate")
        if state.get("status") in ("failed", "cancelled"):
            # A target that refuses ends at once: its last words say more than the source's "broken pipe".
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.target.ended.wait(), 0.2)
            why = state.get("error-desc") or state["status"]
            raise MigrationError(f"{self.source.who}: migration to {self.target.host.name} failed: "
                                 f"{why}{self.target.complaint}")
        if self._relay.error is not None and state.get("status") != "completed":
            raise MigrationError(f"{self.source.who}: the stream to {self.target.host.name} was cut: "
                                 f"{self._relay.error}{self.target.complaint}")
        if "ram" in state:
            self.passes = int(state["ram"]["dirty-sync-count"])
        return state

    async def completed(self) -> None:
        """Wait until the target has loaded everything; ``MigrationError`` if it will not."""
        loaded = asyncio.create_task(self.target.monitor.wait(migration_event("completed", "failed")))
        failed = self.source.monitor.wait(migration_event("failed", "cancelled"), self._since)
        others = [asyncio.create_task(failed), asyncio.create_task(self._target_ended())]
        try:
            await asyncio.wait([loaded, *others], return_when=asyncio.FIRST_COMPLETED)
            # The source's end says nothing about the target's: give what is on its way time to arrive.
            await asyncio.wait([loaded], timeout=0.5)
            if loaded.done() and not loaded.exception() and loaded.result()["data"]["status"] == "completed":
                return
            await self.query()
            raise MigrationError(f"{self.target.who}: the target did not load the machine{self.target.complaint}")
        finally:
            for wait in (loaded, *others):
                wait.cancel()
            await asyncio.gather(loaded, *others, return_exceptions=True)

    async def _target_ended(self) -> Event:
        await self.target.ended.wait()
        return {}

    async def source_completed(self) -> None:
        """Wait until the source knows too, after which it cannot start the machine again by itself."""
        event = await self.source.monitor.wait(migration_event("completed", "failed", "cancelled"), self._since)
        if event["data"]["status"] != "completed":
            await self.query()

    @property
    def stopped(self) -> float | None:
        """When the machine stopped at the source since this began; None while it runs."""
        events = self.source.monitor.events[self._since:]
        return next((seconds(event) for event in events if stop_event(event)), None)

    @property
    def _relay(self) -> Relay:
        assert self.relay is not None
        return self.relay

    def _check_stall(self, now: float) -> None:
        if self.passed != self._moved[1]:
            self._moved = (now, self.passed)
        elif now - self._moved[0] > self._stall_timeout:
            raise MigrationError(
                f"{self.source.who}: nothing passed to {self.target.host.name} for {self._stall_timeout:g} s; "
                "check the management network and the target's QEMU"
            )

    def _tell(self, now: float, remaining: int, rate: float) -> None:
        if self._report is not None and now - self._reported >= _REPORT_EVERY:
            self._reported = now
            self._report(TransferProgress(self.passed, remaining, self.passes, rate))

    async def close(self) -> None:
        """Cut the stream."""
        if self._query is not None:
            self._query.cancel()
            await asyncio.gather(self._query, return_exceptions=True)
        if self.relay is not None:
            self.relay.close()
            self._theirs.close()
