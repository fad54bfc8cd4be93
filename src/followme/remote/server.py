"""The answering end of channels: one handler for each method, for peers that have proved who they are."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from followme.remote.channel import ALIVE_S, Called, Channel, ChannelError, Dropped, Event, Opened
from followme.remote.keys import Key
from followme.remote.wire import Wire

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
MAX_STRANGERS = 16
"""Connections that have not proved yet who they are (each for ``HELLO_S`` at the most)."""


class Caller:
    """Who calls, and the way to tell him events of this call: ``caller(value)``.

    A handler whose caller is gone, or does not wait any more, is cancelled.
    """

    def __init__(self, peer: str, emit: Callable[[object], None]) -> None:
        self.peer = peer
        self._emit = emit

    def __call__(self, value: object) -> None:
        """``ChannelError`` where the value cannot be said in a line of JSON."""
        self._emit(value)


Handler = Callable[[Mapping[str, Any], Caller], Awaitable[Any]]


class _Connection:
    def __init__(self, server: Server) -> None:
        self.wire = Wire(server.new_channel, self._on_event, self._on_end)
        self._server = server
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Opened):
            log.info("%s is connected", event.peer)
        elif isinstance(event, Called):
            task = asyncio.create_task(self._serve(event))
            self._tasks[event.id] = task
            self._server.tasks.add(task)
            task.add_done_callback(self._server.tasks.discard)
        elif isinstance(event, Dropped) and (waiting := self._tasks.get(event.id)) is not None:
            waiting.cancel()

    async def _serve(self, call: Called) -> None:
        channel = self.wire.channel
        handler = self._server.handlers.get(call.method)

        def emit(value: object) -> None:
            if not self.wire.closed:
                channel.emit(call.id, value)
                self.wire.flush()

        try:
            if handler is None:
                raise ChannelError(f"there is no method {call.method!r} here")
            result = await handler(call.params, Caller(channel.peer, emit))
            self._say(lambda: channel.answer(call.id, result))
        except asyncio.CancelledError:
            self._say(lambda: channel.refuse(call.id, "cancelled"))
            raise
        except self._server.errors as error:
            text = "; ".join([str(error) or type(error).__name__, *getattr(error, "__notes__", [])])
            self._say(lambda: channel.refuse(call.id, text))
        except Exception:
            log.exception("%s of %s failed", call.method, channel.peer)
            self._say(lambda: channel.refuse(call.id, f"{call.method} failed; the log says why"))
        finally:
            del self._tasks[call.id]

    def _say(self, word: Callable[[], None]) -> None:
        if not self.wire.closed:
            word()
            self.wire.flush()

    def _on_end(self, why: str) -> None:
        log.info("the connection of %s is over: %s", self.wire.channel.peer or "a stranger", why)
        self._server.connections.discard(self)
        for task in self._tasks.values():
            task.cancel()


class Server:
    """Listens; use ``start``. ``handlers`` may be changed while it runs."""

    def __init__(self, handlers: Mapping[str, Handler], keys: Mapping[str, Key], name: str,
                 errors: tuple[type[Exception], ...], alive_s: float) -> None:
        self.handlers, self.keys, self.name = handlers, keys, name
        self.errors: tuple[type[Exception], ...] = (ChannelError, *errors)
        self.connections: set[_Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._alive_s = alive_s
        self._listener: asyncio.Server | None = None

    @classmethod
    async def start(cls, handlers: Mapping[str, Handler], keys: Mapping[str, Key], *, name: str,
                    host: str = "127.0.0.1", port: int = 0, sock: socket.socket | None = None,
                    errors: tuple[type[Exception], ...] = (), alive_s: float = ALIVE_S) -> Server:
        """Serve at an address (IPv4 or IPv6; port 0: the kernel picks one) or a bound ``sock``.

        ``keys`` are by the peers' names. Of exceptions in ``errors`` the peer is told the text, of others only
        that there was one. ``OSError`` where the address cannot be had.
        """
        self = cls(handlers, keys, name, errors, alive_s)
        loop = asyncio.get_running_loop()
        if sock is None:
            self._listener = await loop.create_server(self._accept, host, port)
        else:
            self._listener = await loop.create_server(self._accept, sock=sock)
        return self

    @property
    def port(self) -> int:
        sockets = self._listener.sockets if self._listener is not None else ()
        return int(sockets[0].getsockname()[1]) if sockets else 0

    def new_channel(self, now: float) -> Channel:
        return Channel(self.name, now, server=None, keys=self.keys, alive_s=self._alive_s)

    def _accept(self) -> asyncio.BaseProtocol:
        strangers = sum(not connection.wire.channel.opened for connection in self.connections)
        connection = _Connection(self)
        if len(self.connections) >= MAX_CONNECTIONS or strangers >= MAX_STRANGERS:
            return _Refusal()
        self.connections.add(connection)
        return connection.wire

    async def close(self) -> None:
        """Stop listening, cut all connections, and wait for their handlers' ends."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.wire.end("the server stops")
        if self.tasks:
            await asyncio.wait(list(self.tasks))


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
