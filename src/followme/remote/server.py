"""The answering end of channels: one handler for each method, for peers that have proved who they are."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any

from followme.remote.channel import ALIVE_S, Called, Channel, ChannelError, Dropped, Event, Opened
from followme.remote.keys import Key
from followme.remote.wire import Wire
from followme.system.seldom import Refusals

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 64
MAX_STRANGERS = 16
"""Connections that have not proved yet who they are (each for ``HELLO_S`` at the most). One more, and the oldest of
the network that has most of them goes: so many that are silent lock nobody out."""
_STRANGER = "stranger at the control port"


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
        self.wire = Wire(server.new_channel, self._on_event, self._on_end, lambda: server.admit(self))
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
        if self.wire.channel.opened:
            log.info("the connection of %s is over: %s", self.wire.channel.peer, why)
        else:
            self._server.refusals.refuse(_STRANGER, self.wire.host or "a socket", time.monotonic(), why)
        self._server.connections.pop(self, None)
        for task in self._tasks.values():
            task.cancel()


class Server:
    """Listens; use ``start``. ``handlers`` may be changed while it runs."""

    def __init__(self, handlers: Mapping[str, Handler], keys: Mapping[str, Key], name: str,
                 errors: tuple[type[Exception], ...], alive_s: float) -> None:
        self.handlers, self.keys, self.name = handlers, keys, name
        self.errors: tuple[type[Exception], ...] = (ChannelError, *errors)
        self.connections: dict[_Connection, None] = {}
        """The oldest first."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.refusals = Refusals(log)
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
            self._listener = await loop.create_server(self._connection, host, port)
        else:
            self._listener = await loop.create_server(self._connection, sock=sock)
        return self

    @property
    def port(self) -> int:
        sockets = self._listener.sockets if self._listener is not None else ()
        return int(sockets[0].getsockname()[1]) if sockets else 0

    def new_channel(self, now: float) -> Channel:
        return Channel(self.name, now, server=None, keys=self.keys, alive_s=self._alive_s)

    def _connection(self) -> asyncio.BaseProtocol:
        return _Connection(self).wire

    def admit(self, connection: _Connection) -> None:
        """A stranger has connected; another one may have to go for it, or it itself."""
        strangers = [one for one in self.connections if not one.wire.channel.opened]
        self.connections[connection] = None
        if len(strangers) >= MAX_STRANGERS:
            strangers.append(connection)
            many = Counter(_network(one.wire.host) for one in strangers)
            most = max(many.values())
            oldest = next(one for one in strangers if many[_network(one.wire.host)] == most)
            oldest.wire.end("too many strangers")
        elif len(self.connections) > MAX_CONNECTIONS:
            connection.wire.end("too many connections")

    async def close(self) -> None:
        """Stop listening, cut all connections, and wait for their handlers' ends."""
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.wire.end("the server stops")
        if self.tasks:
            await asyncio.wait(list(self.tasks))


def _network(host: str) -> object:
    """Whose an address is: an IPv6 host has a whole /64 to choose from."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return address.packed[:8] if isinstance(address, IPv6Address) else address
