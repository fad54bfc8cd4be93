"""The asking end of a channel: calls, and streams of events. A lost connection stays lost: make a new one."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

from followme.remote.channel import ALIVE_S, Answered, Channel, ChannelError, Emitted, Event, Opened
from followme.remote.keys import Key
from followme.remote.wire import Wire

MAX_EVENTS = 4096
"""Events of a stream that nobody has taken yet; with more the stream fails."""


class Refused(ChannelError):
    """The peer answered, and the answer is no: what was asked was not done, or not to its end."""


class Stream:
    """A call that goes on: ``async for`` gives its events, then ``result`` its last word."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._events: asyncio.Queue[Any] = asyncio.Queue(MAX_EVENTS)
        # Nobody may look at a failure, where its caller has gone.
        self.done.add_done_callback(lambda done: None if done.cancelled() else done.exception())

    def put(self, value: object) -> None:
        try:
            self._events.put_nowait(value)
        except asyncio.QueueFull:
            self.finish(ChannelError(f"more than {MAX_EVENTS} events of a call wait to be taken"))

    def finish(self, error: ChannelError | None, result: object = None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(result)
            else:
                self.done.set_exception(error)

    async def next(self) -> Any:
        """The next event; ``StopAsyncIteration`` after the last, the stream's error where it failed."""
        if self._events.empty() and not self.done.done():
            got = asyncio.ensure_future(self._events.get())
            try:
                await asyncio.wait([got, self.done], return_when=asyncio.FIRST_COMPLETED)
            except BaseException:
                got.cancel()
                raise
            if got.done():
                return got.result()
            got.cancel()
            await asyncio.wait([got])
        if not self._events.empty():
            return self._events.get_nowait()
        self.done.result()
        raise StopAsyncIteration

    async def __anext__(self) -> Any:
        return await self.next()

    def __aiter__(self) -> Stream:
        return self

    async def result(self) -> Any:
        """The call's last word; ``Refused`` where it is no, ``ChannelError`` where it does not come."""
        return await asyncio.shield(self.done)


class Client:
    """A connection to a server that has proved who it is. ``lost`` is set once it is gone; ``why`` says why."""

    def __init__(self, name: str, server: str, key: Key, alive_s: float) -> None:
        self.name, self.peer = name, server
        self.lost = asyncio.Event()
        self.why = ""
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wire = Wire(lambda now: Channel(name, now, server=server, keys={server: key}, alive_s=alive_s),
                          self._on_event, self._on_end)

    @classmethod
    async def connect(cls, host: str, port: int, *, name: str, server: str, key: Key, timeout: float = 5.0,
                      alive_s: float = ALIVE_S, sock: socket.socket | None = None) -> Client:
        """Connect as ``name`` to the server called ``server`` (IPv4 or IPv6, or over a connected ``sock``).

        ``ChannelError`` where it does not answer, or cannot prove that it has the key.
        """
        self = cls(name, server, key, alive_s)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                if sock is None:
                    await loop.create_connection(lambda: self._wire, host, port)
                else:
                    await loop.create_connection(lambda: self._wire, sock=sock)
                await self._opened
        except (OSError, TimeoutError) as error:
            self._wire.end("never opened")
            said = str(error) or f"no answer within {timeout:g} s"
            raise ChannelError(f"{server} at {host} port {port}: {said}") from None
        except ChannelError as error:
            raise ChannelError(f"{server} at {host} port {port}: {error}") from None
        except BaseException:
            self._wire.end("never opened")
            raise
        return self

    async def call(self, method: str, params: Mapping[str, Any] | None = None, timeout: float = 10.0) -> Any:
        """The method's result. ``Refused`` where the server says no; another ``ChannelError`` where it does not
        answer within ``timeout`` seconds or the connection is lost: then nobody knows whether it was done."""
        async with self.stream(method, params) as stream:
            try:
                async with asyncio.timeout(timeout):
                    return await stream.result()
            except TimeoutError:
                raise ChannelError(f"{self.peer} did not answer {method} within {timeout:g} s") from None

    @contextlib.asynccontextmanager
    async def stream(self, method: str, params: Mapping[str, Any] | None = None) -> AsyncIterator[Stream]:
        """A call whose events are wanted; leaving it before its end tells the server that they are not."""
        if self.lost.is_set():
            raise ChannelError(f"the connection to {self.peer} is lost: {self.why}")
        id = self._wire.channel.call(method, params or {})
        stream = self._streams[id] = Stream()
        try:
            # At once and not at the next turn of the loop: a machine may be waiting for it.
            self._wire.flush()
            yield stream
        finally:
            if self._streams.pop(id, None) is not None and not self.lost.is_set() and not stream.done.done():
                self._wire.channel.drop(id)
                self._wire.flush()

    async def close(self) -> None:
        self._wire.end("closed by us")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Opened):
            if not self._opened.done():
                self._opened.set_result(None)
        elif isinstance(event, Emitted):
            if (stream := self._streams.get(event.id)) is not None:
                stream.put(event.value)
        elif isinstance(event, Answered) and (stream := self._streams.get(event.id)) is not None:
            stream.finish(None if event.error is None else Refused(event.error), event.result)

    def _on_end(self, why: str) -> None:
        self.why = why
        self.lost.set()
        if not self._opened.done():
            self._opened.set_exception(ChannelError(why))
            self._opened.exception()
        for stream in self._streams.values():
            stream.finish(ChannelError(f"the connection to {self.peer} is lost: {why}"))
