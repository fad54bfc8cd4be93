"""Routes to RLOCs that read other headers than those we send: each waits until the kernel writes theirs.

That is a subprocess, so nothing waits for it but the route itself, and the packets that wait for that route. A
newer route of the same EID takes its place. Where it fails the route waits on, and is tried again each second; its
packets are lost meanwhile, as given back they would only be missed again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from followme.lisp import EidPrefix

from .kernel import DataPlane
from .outputs import Output, Release, RemoveRoute, SetRoute
from .requests import MAX_PACKETS, MAX_WAITING_BYTES

log = logging.getLogger(__name__)

RETRY_S = 1.0


@dataclass(eq=False, slots=True)
class _Waiting:
    route: SetRoute
    packets: deque[Release] = field(default_factory=deque)
    failed: bool = False


class Admission:
    """``plane`` returns the data plane; ``perform`` is given what has waited, in its order; ``mapping`` says by
    which prefix the map-cache routes an EID."""

    def __init__(
        self, plane: Callable[[], DataPlane], perform: Callable[[Output], None],
        mapping: Callable[[EidPrefix], EidPrefix | None],
    ) -> None:  # fmt: skip
        self._plane, self._perform, self._mapping = plane, perform, mapping
        self._waiting: dict[EidPrefix, _Waiting] = {}
        self._bytes = 0
        self.dropped = 0
        """Packets for which there was no room, or no route."""
        self._task: asyncio.Task[None] | None = None

    def pass_(self, output: Output) -> list[Output]:
        """What is to be done now that ``output`` is wanted: nothing if it waits; else it, and what it frees."""
        if isinstance(output, SetRoute | RemoveRoute):
            before = self._waiting.pop(output.eid, None)
            packets: deque[Release] = deque() if before is None else before.packets
            if isinstance(output, SetRoute) and self._plane().strange(output.way):
                self._waiting[output.eid] = _Waiting(output, packets, before is not None and before.failed)
                if self._task is None:
                    self._task = asyncio.ensure_future(self._admit())
                return []
            return [output, *self._freed(packets)]
        if isinstance(output, Release) and self._waiting:
            prefix = self._mapping(output.eid)
            waiting = None if prefix is None else self._waiting.get(prefix)
            if waiting is not None:
                self._wait(waiting, output)
                return []
        return [output]

    async def close(self) -> None:
        """What waits is forgotten."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _wait(self, waiting: _Waiting, release: Release) -> None:
        size = sum(map(len, release.packets))
        if waiting.failed or len(waiting.packets) >= MAX_PACKETS or self._bytes + size > MAX_WAITING_BYTES:
            self.dropped += len(release.packets)
            return
        waiting.packets.append(release)
        self._bytes += size

    def _freed(self, packets: deque[Release]) -> list[Release]:
        self._bytes -= sum(len(packet) for release in packets for packet in release.packets)
        return list(packets)

    async def _admit(self) -> None:
        said = ""
        try:
            while self._waiting:
                eid, waiting = next(iter(self._waiting.items()))
                try:
                    await self._plane().admit(waiting.route.way)
                except Exception as error:  # of the subprocess too: it is as good tomorrow
                    text = " ".join(str(error).split())
                    if text != said:
                        said = text
                        log.error("%s is not routed, and tried again each second: %s", eid, text)
                    if self._waiting.get(eid) is waiting:
                        self._fail(eid, waiting)
                    await asyncio.sleep(RETRY_S)
                    continue
                if said:
                    said = ""
                    log.warning("%s is routed now", eid)
                if self._waiting.get(eid) is waiting:
                    del self._waiting[eid]
                    waited: list[Output] = [waiting.route, *self._freed(waiting.packets)]
                    for output in waited:
                        self._perform(output)
        finally:
            self._task = None

    def _fail(self, eid: EidPrefix, waiting: _Waiting) -> None:
        """Its packets are lost, and the next one's turn comes first."""
        self.dropped += sum(len(release.packets) for release in self._freed(waiting.packets))
        waiting.packets.clear()
        waiting.failed = True
        self._waiting[eid] = self._waiting.pop(eid)
