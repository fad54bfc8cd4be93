"""``followme mapserver``: the map server on UDP, until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from followme.store import StoreError
from followme.system.signals import until_told

from .config import MapServerConfig
from .events import Damped, Event, Moved
from .outbox import Datagram
from .pool import Helper
from .server import MapServer
from .store import MapStore
from .udp import Received, Wire, address_of, open_sockets

log = logging.getLogger(__name__)

AFTER_FAULT_S: Final = 1.0
"""When the timers are tried again that have failed."""


class Service:
    """A map server with its sockets, its store and its helpers. ``on_event`` hears what happens."""

    def __init__(self, config: MapServerConfig, on_event: Callable[[Event], None] | None = None) -> None:
        self.config = config
        self.server = MapServer(config.sites, config.settings(), nonce=time.time_ns())
        self.wire = Wire(())
        self.helpers: list[Helper] = []
        self.port = 0
        self._on_event = on_event or _log
        self._store: MapStore | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._datagrams: list[Datagram] = []
        self._events: list[Event] = []
        self._not_before = float("-inf")

    async def start(self) -> None:
        """``StoreError`` if the store cannot be used, ``OSError`` if an address cannot be bound."""
        file, loop = self.config.file, asyncio.get_running_loop()
        self._store = MapStore(file.store)
        try:
            now, wall = time.monotonic(), time.time()
            self._store.load(self.server, now, wall)
            self._store.save(self.server, now, wall)
            self.wire = Wire(open_sockets(file.listen.addresses, file.listen.port, file.processes > 1))
        except BaseException:
            self._store.close()
            raise
        self.port = self.wire.sockets[0].getsockname()[1]
        for one in self.wire.sockets:
            loop.add_reader(one, self._readable, one)
        setup = {
            "addresses": [str(address) for address in file.listen.addresses], "port": self.port,
            "outside": int(self.server.settings.negative.outside),
            "not_registered": int(self.server.settings.negative.not_registered),
        }  # fmt: skip
        for _ in range(file.processes - 1):
            helper = Helper(setup, list(self.server.sites.prefixes), self.server.answers, self._passed)
            self.helpers.append(helper)
            self._tasks.append(asyncio.create_task(helper.run()))
        self._schedule()

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        for one in self.wire.sockets:
            loop.remove_reader(one)
            one.close()
        if self._store is not None:
            self._store.close()

    def _readable(self, one: socket.socket) -> None:
        rest = self.wire.drain(one, self.server.answers)
        if rest:
            self._received(rest, one)

    def _passed(self, rest: list[Received], number: int) -> None:
        """What came in at a helper's socket, of the listen address of this number."""
        self._received(rest, self.wire.sockets[number])

    def _received(self, rest: list[Received], through: socket.socket) -> None:
        """All that one read brought is stored by one commit, and only then answered."""
        now, local = time.monotonic(), address_of(through)
        for data, source in rest:
            try:
                outcome = self.server.receive(data, source, now, local)
            except Exception as error:  # a fault of ours with one datagram must not take the others' turn
                self._fault(source[0], now, error)
                outcome = self.server.outbox.take()
            self._datagrams += outcome.datagrams
            self._events += outcome.events
        self._finish(through, now)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        try:
            outcome = self.server.timer(now)
        except Exception as error:
            self._fault("timer", now, error)
            self._not_before = now + AFTER_FAULT_S
            outcome = self.server.outbox.take()
        self._datagrams += outcome.datagrams
        self._events += outcome.events
        self._finish(None, now)

    def _finish(self, through: socket.socket | None, now: float) -> None:
        """Store, send, feed the helpers, tell, and schedule: each also where the one before has failed."""
        outbox = self.server.outbox
        datagrams, self._datagrams = self._datagrams, []
        events, self._events = self._events, []
        try:
            if self._store is not None:
                self._store.save_claims(self.server, now, time.time())
            self.wire.send(datagrams, through)
            if self._store is not None:
                self._store.save(self.server, now, time.time())  # nonces of publications, which do not wait for it
        except StoreError as error:
            # What was not stored is not acknowledged: the routers register again, and the next save takes it.
            self.server.refusals.refuse("store", "this map server", now, error)
        except Exception as error:
            self._fault("store", now, error)
        changes = dict(outbox.changes)
        outbox.changes.clear()
        for helper in self.helpers if changes else ():
            try:
                helper.feed(changes)
            except Exception as error:
                self._fault("helper", now, error)
        for event in events:
            try:
                self._on_event(event)
            except Exception as error:
                self._fault("event", now, error)
        self._schedule()

    def _fault(self, where: str, now: float, error: Exception) -> None:
        self.server.refusals.refuse("fault", where, now, f"{type(error).__name__}: {error}")

    def _schedule(self) -> None:
        due = self.server.next_timer()
        if due is not None:
            due = max(due, self._not_before)
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = None if due is None else loop.call_at(max(due, loop.time() + 0.001), self._tick)


async def serve(config: MapServerConfig) -> None:
    """Run until a signal says to stop. ``RuntimeError`` if it cannot start; the text says why."""
    stop = until_told()
    service = Service(config)
    try:
        await service.start()
    except StoreError as error:
        raise RuntimeError(str(error)) from None
    except OSError as error:
        raise RuntimeError(f"listen: {error.strerror or error}; is another map server running?") from None
    try:
        addresses = ", ".join(str(address) for address in config.file.listen.addresses)
        log.info("listening on %s, port %d: %d sites, %d registrations, %d subscriptions", addresses,
                 service.port, len(config.sites), len(service.server.registry.table),
                 len(service.server.subscriptions))  # fmt: skip
        await stop.wait()
    finally:
        await service.close()
        counts = {**service.server.counts, **{f"refused {k}": n for k, n in service.server.refusals.counts.items()}}
        answered = service.wire.answered + sum(helper.answered for helper in service.helpers)
        log.info("stopped: %d look-ups answered, %d datagrams not sent; %s", answered, service.wire.unsent, counts)


def _log(event: Event) -> None:
    log.log(logging.INFO if isinstance(event, Moved | Damped) else logging.DEBUG, "%s", event)
