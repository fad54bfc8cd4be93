"""One TCP connection under a ``Channel``: the same at both ends."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from followme.remote.channel import Channel, ChannelError, Event, Opened

MAX_UNSENT = 4 << 20
"""Bytes that may wait for a peer that does not read; then it is cut off."""


class Wire(asyncio.Protocol):
    """Hands the channel's events to ``on_event``, and says once to ``on_end`` why it is over. ``on_made`` is called
    as soon as there is a connection; ``host`` is the other end's address then."""

    def __init__(self, make: Callable[[float], Channel], on_event: Callable[[Event], None],
                 on_end: Callable[[str], None], on_made: Callable[[], None] | None = None) -> None:
        self.channel = make(time.monotonic())
        self.closed = False
        self.host = ""
        self._on_event, self._on_end, self._on_made = on_event, on_end, on_made
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a channel needs a stream")
        self._transport = transport
        if self.closed:
            transport.abort()
            return
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.host = str((transport.get_extra_info("peername") or ("",))[0])
        if self._on_made is not None:
            self._on_made()
            if self.closed:
                return
        self.flush()
        self._schedule()

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        try:
            events = self.channel.receive_data(data, time.monotonic())
        except ChannelError as error:
            self.end(str(error))
            return
        self.flush()
        for event in events:
            if self.closed:
                return
            if isinstance(event, Opened):
                self._schedule()
            self._on_event(event)

    def connection_lost(self, error: Exception | None) -> None:
        self.end(str(error) if error else "the other side closed the connection")

    def flush(self) -> None:
        """Send what the channel has to say."""
        if self.closed or self._transport is None:
            return
        if data := self.channel.data_to_send():
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > MAX_UNSENT:
                self.end(f"{self.channel.peer or 'the other side'} does not read")

    def end(self, why: str) -> None:
        """Close; what waits unsent is dropped."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._on_end(why)

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, self.channel.deadline - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        try:
            self.channel.tick(time.monotonic())
        except ChannelError as error:
            self.end(str(error))
            return
        self.flush()
        if not self.closed:
            self._schedule()
