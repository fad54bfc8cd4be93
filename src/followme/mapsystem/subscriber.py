"""The asyncio shell of ``MapClient``: one UDP socket, timers, and answers as awaitables."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from typing import Self

from followme.lisp import EidPrefix, MappingRecord
from followme.mapsystem.client import Answered, Changed, MapClient

log = logging.getLogger(__name__)

_READS = 256
_BIGGEST = 65535


class MapSystemError(RuntimeError):
    """The map system did not answer; the text says what was asked of whom."""


class Subscriber:
    """``changed`` is called with each mapping that the map server tells of. The socket is ours from now on."""

    def __init__(self, client: MapClient, sock: socket.socket, changed: Callable[[MappingRecord], None]) -> None:
        self.client = client
        self._socket = sock
        self._changed = changed
        self._answers: dict[int, asyncio.Future[MappingRecord | None]] = {}
        self._confirmed = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._silent = False

    async def __aenter__(self) -> Self:
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)
        self._pump()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.remove_reader(self._socket)
        if self._timer is not None:
            self._timer.cancel()
        for answer in self._answers.values():
            answer.cancel()
        self._socket.close()

    def subscribe(self, prefix: EidPrefix) -> None:
        """See ``MapClient.subscribe``."""
        self.client.subscribe(prefix, time.monotonic())
        self._pump()

    async def confirmed(self, timeout: float | None) -> None:
        """Return when every subscription is confirmed; ``MapSystemError`` if that takes longer."""
        try:
            async with asyncio.timeout(timeout):
                while not self.client.confirmed:
                    self._confirmed.clear()
                    await self._confirmed.wait()
        except TimeoutError:
            raise MapSystemError(self._trouble(f"within {timeout} s")) from None

    async def ask(self, eid: EidPrefix) -> MappingRecord:
        """The mapping of ``eid``; ``MapSystemError`` if the map system does not answer."""
        number = self.client.ask(eid, time.monotonic())
        answer = self._answers[number] = self._loop.create_future()
        self._pump()
        try:
            record: MappingRecord | None = await answer
        finally:
            self._answers.pop(number, None)
        if record is None:
            raise MapSystemError(f"map server {self.client.server[0]} does not say who serves {eid}")
        return record

    def _trouble(self, when: str) -> str:
        host, port = self.client.server
        refused = ", ".join(f"{reason} {count}" for reason, count in self.client.refused.items()) or "nothing"
        return (f"map server {host} port {port} does not confirm our subscriptions {when}: is it up, and has it "
                f"the same site_id, key_id, key and algorithm? (refused here: {refused})")  # fmt: skip

    def _say_if_silent(self) -> None:
        """One line when it falls silent, and one when it answers again."""
        silent = self.client.silent
        if silent and not self._silent:
            log.warning("%s", self._trouble("though asked again and again"))
        elif self._silent and not silent:
            log.info("map server %s port %d confirms our subscriptions again", *self.client.server)
        self._silent = silent

    def _read(self) -> None:
        for _ in range(_READS):
            try:
                data, source = self._socket.recvfrom(_BIGGEST)
            except BlockingIOError:
                break
            except OSError:  # an ICMP error of an earlier datagram
                continue
            self.client.receive(data, (source[0], source[1]), time.monotonic())
        self._pump()

    def _pump(self) -> None:
        """Send what is due, hand on what came, and wake up again in time."""
        client = self.client
        client.timer(time.monotonic())
        while client.datagrams:
            data, target = client.datagrams.popleft()
            with contextlib.suppress(OSError):  # as if it were lost: it is sent again
                self._socket.sendto(data, target)
        while client.events:
            event = client.events.popleft()
            if isinstance(event, Answered):
                answer = self._answers.get(event.number)
                if answer is not None and not answer.done():
                    answer.set_result(event.record)
            elif isinstance(event, Changed):
                self._changed(event.record)
        if client.confirmed:
            self._confirmed.set()
        self._say_if_silent()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = client.next_timer()
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._pump)
