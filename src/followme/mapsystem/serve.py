"""``followme mapserver``: the map server on UDP, until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from followme.store import StoreError

from .config import MapServerConfig
from .events import Damped, Event, Moved
from .outbox import Datagram
from .pool import Helper
from .server import MapServer
from .store import MapStore
from .udp import Received, Wire, open_sockets

log = logging.getLogger(__name__)


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
            helper = Helper(setup, list(self.server.sites.prefixes), self.server.answers, self._received)
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

    def _received(self, rest: list[Received], through: socket.socket | None = None) -> None:
        """All that one read brought is stored by one commit, and only then answered."""
        now = time.monotonic()
        datagrams: list[Datagram] = []
        events: list[Event] = []
        for data, source in rest:
            outcome = self.server.receive(data, source, now)
            datagrams += outcome.datagrams
            events += outcome.events
        self._finish(datagrams, events, through, now)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        outcome = self.server.timer(now)
        self._finish(outcome.datagrams, outcome.events, None, now)

    def _finish(
        self, datagrams: list[Datagram], events: list[Event], through: socket.socket | None, now: float
    ) -> None:
        outbox = self.server.outbox
        try:
            if self._store is not None:
                self._store.save_claims(self.server, now, time.time())
            self.wire.send(datagrams, through)
            if self._store is not None:
                self._store.save(self.server, now, time.time())  # nonces of publications, which do not wait for it
        except StoreError as error:
            # What was not stored is not acknowledged: the routers register again, and the next save takes it.
            self.server.refusals.refuse("store", "this map server", now, error)
        if outbox.changes:
            for helper in self.helpers:
                helper.feed(outbox.changes)
            outbox.changes.clear()
        for event in events:
            self._on_event(event)
        self._schedule()

    def _schedule(self) -> None:
        due = self.server.next_timer()
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if due is not None and self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = None if due is None else loop.call_at(max(due, loop.time() + 0.001), self._tick)


async def serve(config: MapServerConfig) -> None:
    """Run until a signal says to stop. ``RuntimeError`` if it cannot start; the text says why."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
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
        log.info("stopped: %d look-ups answered; %s", answered, counts)


def _log(event: Event) -> None:
    log.log(logging.INFO if isinstance(event, Moved | Damped) else logging.DEBUG, "%s", event)
