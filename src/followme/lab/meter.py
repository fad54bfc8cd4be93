"""What the user sees: pings and a TCP session, measured in a process of its own.

The controller's process carries the machine's memory while it is carried; a meter in it would count its own
waiting as the network's. ``Meter`` starts this module as a child and reads what it found.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from ipaddress import IPv4Address
from types import TracebackType
from typing import Any, Self

from followme.lab.pinger import Ping, Pinger
from followme.lab.tcpmeter import TcpMeter, TcpReport
from followme.system.process import Child

TICK_S = 0.1
_READY_S = 20.0
_END_S = 20.0
_LINE_LIMIT = 64 << 20


class MeterError(RuntimeError):
    """The meter's process failed; the text is its own complaint."""


class Meter:
    """Pings ``target`` and talks to its echo service while the ``async with`` block runs; then read ``pings``,
    ``duplicates`` and ``tcp``. Times are ``time.monotonic()``, which processes of one machine share."""

    def __init__(
        self,
        namespace: str,
        target: IPv4Address,
        *,
        interval_s: float = 0.010,
        tick: Callable[[float | None], None] | None = None,
    ) -> None:
        self.pings: Sequence[Ping] = ()
        self.duplicates = 0
        self.tcp: TcpReport
        self._arguments = [namespace, str(target), str(interval_s)]
        self._tick = tick
        self._found: dict[str, Any] | None = None

    async def __aenter__(self) -> Self:
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "followme.lab.meter", *self._arguments]
        self._child = await Child.start(command, name="meter", stdin=pipe, stdout=pipe, limit=_LINE_LIMIT)
        ready = asyncio.Event()
        self._reader = asyncio.create_task(self._read(ready))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((waiting, self._reader), timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not ready.is_set():
            await self._child.stop()
            raise MeterError(f"the meter did not begin: {self._child.stderr_tail or 'no connection to the target'}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                assert self._child.stdin is not None
                self._child.stdin.close()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(self._reader), _END_S)
        finally:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
            await self._child.stop()
        if kind is None:
            self._take()

    def _take(self) -> None:
        if self._found is None:
            raise MeterError(f"the meter ended without a result: {self._child.stderr_tail or 'it said nothing'}")
        self.pings = [Ping(*ping) for ping in self._found["pings"]]
        self.duplicates = self._found["duplicates"]
        stalls = tuple((begin, end) for begin, end in self._found["tcp"].pop("stalls"))
        self.tcp = TcpReport(**self._found["tcp"], stalls=stalls)

    async def _read(self, ready: asyncio.Event) -> None:
        assert self._child.stdout is not None
        while line := await self._child.stdout.readline():
            message = json.loads(line)
            if "tick" in message:
                ready.set()
                if self._tick is not None:
                    self._tick(message["tick"])
            else:
                self._found = message


async def _measure(namespace: str, target: IPv4Address, interval_s: float) -> dict[str, Any]:
    """The child's work: until standard input ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, lambda: None if sys.stdin.read(1) else ended.set())
    async with (
        TcpMeter(namespace, target, interval_s=interval_s) as meter,
        Pinger(namespace, target, interval_s=interval_s) as pinger,
    ):
        while not ended.is_set():
            rtt = pinger.pings[-20].rtt_s if len(pinger.pings) > 20 else None
            print(json.dumps({"tick": rtt}), flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), TICK_S)
        loop.remove_reader(sys.stdin)
    return {
        "pings": [(ping.sequence, ping.sent_s, ping.rtt_s) for ping in pinger.pings],
        "duplicates": pinger.duplicates,
        "tcp": asdict(meter.report()),
    }


def main() -> None:
    namespace, target, interval = sys.argv[1:]
    try:
        found = asyncio.run(_measure(namespace, IPv4Address(target), float(interval)))
    except OSError as error:
        sys.exit(str(error))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
