"""Routes to RLOCs that read other headers than those we send: each waits until the kernel writes theirs.

That is a subprocess, so nothing waits for it but the route itself, and the packets that wait for that route. A
newer route of the same EID takes its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from followme.lisp import EidPrefix
from followme.xtr.errors import DataPlaneError

from .kernel import DataPlane
from .outputs import Output, Release, RemoveRoute, SetRoute

log = logging.getLogger(__name__)


class Admission:
    """``plane`` returns the data plane; ``perform`` is given what has waited, in its order."""

    def __init__(self, plane: Callable[[], DataPlane], perform: Callable[[Output], None]) -> None:
        self._plane, self._perform = plane, perform
        self._waiting: dict[EidPrefix, tuple[SetRoute, list[Release]]] = {}
        self._task: asyncio.Task[None] | None = None

    def pass_(self, output: Output) -> list[Output]:
        """What is to be done now that ``output`` is wanted: nothing if it waits; else it, and what it frees."""
        if isinstance(output, SetRoute | RemoveRoute):
            _, packets = self._waiting.pop(output.eid, (None, []))
            if isinstance(output, SetRoute) and self._plane().strange(output.way):
                self._waiting[output.eid] = output, packets
                if self._task is None:
                    self._task = asyncio.ensure_future(self._admit())
                return []
            return [output, *packets]
        if isinstance(output, Release):
            for eid, (_, packets) in self._waiting.items():
                if eid.covers(output.eid):
                    packets.append(output)
                    return []
        return [output]

    async def close(self) -> None:
        """What waits is forgotten."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _admit(self) -> None:
        while self._waiting:
            eid, waiting = next(iter(self._waiting.items()))
            route, packets = waiting
            try:
                await self._plane().admit(route.way)
            except DataPlaneError as error:
                log.error("%s is not routed: %s", eid, error)
                if self._waiting.get(eid) is waiting:
                    del self._waiting[eid]  # its packets would only be missed again
                continue
            if self._waiting.get(eid) is waiting:
                del self._waiting[eid]
                waited: list[Output] = [route, *packets]
                for output in waited:
                    self._perform(output)
        self._task = None
