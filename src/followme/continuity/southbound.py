"""The one place that talks to switches: an asyncio shell around the sans-IO OpenFlow connection.

All that the controller does for one read of a socket is collected and sent in one write, after the store
has committed: what a switch is told has been written down before.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from followme.continuity.ledger import OWNER_MASK, Ledger
from followme.domain import Network
from followme.openflow import (
    BarrierReply,
    BarrierRequest,
    Closed,
    Connection,
    ErrorMsg,
    FlowMod,
    FlowStats,
    FlowStatsRequest,
    Message,
    MultipartReply,
    MultipartRequest,
    OpenFlowError,
    PacketIn,
    Port,
    PortStatus,
    Ready,
    Received,
    RoundTrip,
)
from followme.openflow.constants import OFPMP_FLOW, OFPMP_PORT_DESC

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
OUTPUT_BOUND = 64 << 20
RECENT = 64
STOPS = "the controller stops"


class SwitchError(Exception):
    """A switch cannot do what it was asked for; names the network and the datapath."""


class DatapathGone(SwitchError):
    """It dropped its connection, or did not confirm in time."""


class RuleRefused(SwitchError):
    """It answered a flow-mod with an error (a full table, a field that it cannot rewrite)."""


@dataclass(slots=True)
class Handlers:
    """What the controller does with what switches say; called in the event loop, must not block."""

    packet_in: Callable[[Network, PacketIn], None]
    port_status: Callable[[Network, PortStatus], None] = lambda network, message: None
    ports: Callable[[Network, tuple[Port, ...]], None] = lambda network, ports: None
    connected: Callable[[Network], None] = lambda network: None
    disconnected: Callable[[Network, str], None] = lambda network, reason: None
    batch: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered for each read of a socket, left before anything is written: the store's group commit."""


@dataclass(slots=True)
class Counters:
    packet_ins: int = 0
    flow_mods: int = 0
    packet_outs: int = 0
    errors: int = 0
    refused_datapaths: int = 0
    last_errors: list[str] = field(default_factory=list)


class Southbound:
    """Listens for switches, keeps each at the ledger's state, and hands their messages on."""

    def __init__(self, networks: Iterable[Network], ledger: Ledger, handlers: Handlers) -> None:
        self.networks = {network.datapath: network for network in networks}
        self.ledger = ledger
        self.handlers = handlers
        self.counters = Counters()
        self._channels: dict[int, Channel] = {}
        self._open: set[Channel] = set()
        self._ready = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._dirty: set[Channel] = set()

    async def listen(
        self, address: str, port: int, *, sock: socket.socket | None = None, tls: ssl.SSLContext | None = None
    ) -> int:
        """Accept switches; returns the port. ``sock`` may be a listening socket of another namespace."""
        loop = asyncio.get_running_loop()
        if sock is not None:
            self._server = await loop.create_server(lambda: Channel(self), sock=sock, ssl=tls)
        else:
            self._server = await loop.create_server(lambda: Channel(self), address, port, ssl=tls)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        if self._server:
            self._server.close()
        self.handlers.disconnected = lambda network, reason: None
        for channel in list(self._open):
            channel.abort(STOPS)

    def connected(self, datapath: int) -> bool:
        return datapath in self._channels

    def half_round_trip(self, datapath: int) -> float:
        """Seconds from the controller to the switch, one way, as measured by echo requests."""
        channel = self._channels.get(datapath)
        return channel.round_trip / 2 if channel else 0.0

    def send(self, datapath: int, messages: Iterable[Message]) -> None:
        """Queue for the switch, sent at the end of this turn. A switch that is away gets its rules later."""
        channel = self._channels.get(datapath)
        if channel is None:
            return
        for message in messages:
            try:
                channel.connection.send(message)
            except OpenFlowError as error:
                channel.abort(str(error))
                return
            if type(message) is FlowMod:
                self.counters.flow_mods += 1
            else:
                self.counters.packet_outs += 1
        self.touch(channel)

    def apply(self, changes: Mapping[int, Iterable[FlowMod]]) -> None:
        for datapath, mods in changes.items():
            self.send(datapath, mods)

    def touch(self, channel: Channel) -> None:
        if not self._dirty:
            asyncio.get_running_loop().call_soon(self.flush)
        self._dirty.add(channel)

    def flush(self) -> None:
        """Write what waits. It was committed before: a crash at any line can be recovered."""
        dirty, self._dirty = self._dirty, set()
        for channel in dirty:
            channel.write()

    async def barrier(self, datapaths: Iterable[int], timeout: float) -> None:
        """Return when each switch has confirmed all that was sent to it before, reconnects included."""
        await asyncio.gather(*(self._confirm(datapath, timeout) for datapath in set(datapaths)))

    async def _confirm(self, datapath: int, timeout: float) -> None:
        name = self.networks[datapath].name
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                channel = await asyncio.wait_for(self._channel(datapath), max(left, 0.0))
                await asyncio.wait_for(channel.request(BarrierRequest()), max(deadline - time.monotonic(), 0.0))
            except TimeoutError:
                raise DatapathGone(
                    f"switch of {name} (datapath {datapath:#x}) did not confirm within {timeout:g} s"
                ) from None
            except DatapathGone:
                continue  # it dropped: its rules are put in again when it is back, so wait for that
            if channel.refused:
                refused, channel.refused = channel.refused, ""
                raise RuleRefused(f"switch of {name} (datapath {datapath:#x}) refused a rule: {refused}")
            return

    async def _channel(self, datapath: int) -> Channel:
        async with self._ready:
            await self._ready.wait_for(lambda: datapath in self._channels)
            return self._channels[datapath]

    async def wait_connected(self, datapaths: Iterable[int], timeout: float) -> None:
        for datapath in datapaths:
            try:
                await asyncio.wait_for(self._channel(datapath), timeout)
            except TimeoutError:
                name = self.networks[datapath].name
                raise DatapathGone(
                    f"switch of {name} (datapath {datapath:#x}) did not connect within {timeout:g} s; is its "
                    "controller address right, and does it speak OpenFlow 1.3?"
                ) from None

    async def flows(self, datapath: int, owner: str, timeout: float = 5.0) -> tuple[FlowStats, ...]:
        """Ask the switch itself which entries it holds for ``owner``."""
        body = FlowStatsRequest(cookie=self.ledger.owner_number(owner), cookie_mask=OWNER_MASK)
        channel = await asyncio.wait_for(self._channel(datapath), timeout)
        reply = await asyncio.wait_for(channel.request(MultipartRequest(OFPMP_FLOW, body)), timeout)
        assert isinstance(reply, MultipartReply)
        return reply.flows

    async def admitted(self, channel: Channel, datapath: int) -> None:
        """Bring a new connection to the ledger's state; only then it counts as connected."""
        network = self.networks[datapath]
        try:
            for mod in self.ledger.begin(datapath):
                channel.connection.send(mod)
        except OpenFlowError as error:
            channel.abort(str(error))
            return
        # From here on every change goes to this connection too, behind the rules above, in order.
        old = self._channels.get(datapath)
        if old is not None and old is not channel:
            old.abort("the same datapath connected again")
        self._channels[datapath] = channel
        confirmed = asyncio.ensure_future(channel.request(BarrierRequest()))
        try:
            await confirmed
            for mod in self.ledger.sweep(datapath):
                channel.connection.send(mod)
            reply = await channel.request(MultipartRequest(OFPMP_PORT_DESC))
        except SwitchError:
            return
        assert isinstance(reply, MultipartReply)
        self.handlers.ports(network, reply.ports)
        log.info("switch of %s connected (datapath %#x)", network.name, datapath)
        async with self._ready:
            self._ready.notify_all()
        self.handlers.connected(network)

    def lost(self, channel: Channel, reason: str) -> None:
        self._open.discard(channel)
        self._dirty.discard(channel)
        datapath = channel.datapath
        if datapath is not None and self._channels.get(datapath) is channel:
            del self._channels[datapath]
            level = logging.DEBUG if reason == STOPS else logging.WARNING
            log.log(level, "switch of %s (datapath %#x) is gone: %s", self.networks[datapath].name, datapath, reason)
            self.handlers.disconnected(self.networks[datapath], reason)

    def opened(self, channel: Channel) -> bool:
        if len(self._open) >= MAX_CONNECTIONS:
            return False
        self._open.add(channel)
        return True

    def failed(self, channel: Channel, message: ErrorMsg) -> None:
        self.counters.errors += 1
        network = self.networks.get(channel.datapath or 0)
        text = f"switch of {network.name if network else '?'} refuses a message: {message.name}"
        channel.refused = channel.refused or message.name
        self.counters.last_errors = [*self.counters.last_errors[-RECENT:], text]
        log.error("%s", text)


class Channel(asyncio.Protocol):
    """One switch's TCP connection."""

    def __init__(self, southbound: Southbound) -> None:
        self.southbound = southbound
        self.connection = Connection(time.monotonic(), max_output_bytes=OUTPUT_BOUND)
        self.refused = ""
        self.datapath: int | None = None
        self.network: Network | None = None
        self.round_trip = 0.0
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self.southbound.opened(self):
            transport.abort()
            return
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.write()

    def data_received(self, data: bytes) -> None:
        southbound = self.southbound
        southbound.touch(self)
        with southbound.handlers.batch():
            self._events(self.connection.receive_data(data, time.monotonic()))
        southbound.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone(f"connection lost: {exc}" if exc else "connection closed by the switch")

    def abort(self, reason: str) -> None:
        if self._transport:
            self._transport.abort()
        self._gone(reason)

    def write(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        data = self.connection.data_to_send()
        if data:
            transport.write(data)
            if transport.get_write_buffer_size() > OUTPUT_BOUND:
                self.abort(f"it does not read: more than {OUTPUT_BOUND} bytes wait for it")
        self._schedule()

    async def request(self, message: Message) -> Message:
        """Send and wait for the reply with the same transaction id."""
        try:
            xid = self.connection.send(message)
        except OpenFlowError as error:
            raise DatapathGone(str(error)) from None
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[xid] = future
        self.southbound.touch(self)
        try:
            return await future
        finally:
            self._waiting.pop(xid, None)

    def _events(self, events: Iterable[object]) -> None:
        southbound, network = self.southbound, self.network
        for event in events:
            if type(event) is Received:
                message = event.message
                if network is None:
                    continue
                if type(message) is PacketIn:
                    southbound.counters.packet_ins += 1
                    southbound.handlers.packet_in(network, message)
                elif isinstance(message, (BarrierReply, MultipartReply)):
                    self._answer(event.xid, message)
                elif isinstance(message, PortStatus):
                    southbound.handlers.port_status(network, message)
                elif isinstance(message, ErrorMsg):
                    southbound.failed(self, message)
                    self._fail(event.xid, RuleRefused(message.name))
            elif isinstance(event, Ready):
                network = self._admit(event.features.datapath_id)
            elif isinstance(event, RoundTrip):
                self.round_trip = event.seconds if not self.round_trip else (
                    0.875 * self.round_trip + 0.125 * event.seconds)  # fmt: skip
            elif isinstance(event, Closed):
                self.write()
                self.abort(event.reason)
                return

    def _admit(self, datapath: int) -> Network | None:
        network = self.southbound.networks.get(datapath)
        if network is None:
            self.southbound.counters.refused_datapaths += 1
            peer = self._transport.get_extra_info("peername") if self._transport else None
            log.warning("refused datapath %#x from %s: it is not in the config; add a network with "
                        "'datapath: %#x' or point the switch elsewhere", datapath, peer, datapath)  # fmt: skip
            self.abort("unknown datapath")
            return None
        self.datapath, self.network = datapath, network
        self._task = asyncio.ensure_future(self.southbound.admitted(self, datapath))
        return network

    def _answer(self, xid: int, message: Message) -> None:
        future = self._waiting.get(xid)
        if future is not None and not future.done():
            future.set_result(message)

    def _fail(self, xid: int, error: SwitchError) -> None:
        future = self._waiting.get(xid)
        if future is not None and not future.done():
            future.set_exception(error)

    def _gone(self, reason: str) -> None:
        if self._timer:
            self._timer.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(DatapathGone(reason))
        self._waiting.clear()
        self.southbound.lost(self, reason)

    def _schedule(self) -> None:
        due = self.connection.next_timer()
        if due is None:
            return
        if self._timer is not None:
            if self._timer.when() <= due + 0.001 and not self._timer.cancelled():
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + max(due - time.monotonic(), 0.0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._events(self.connection.handle_timer(time.monotonic()))
        self.write()
