"""The one place that talks to switches: an asyncio shell around the sans-IO OpenFlow connection.

All that the controller does for one read of a socket is collected and sent in one write, after the store
has committed: what a switch is told has been written down before. If the store cannot commit, none of it is
sent (a user must not hold a lease that nobody knows after a crash), and the switches that it was for are cut
off: when they connect again, they are brought to the ledger's state, so nothing is missing in them.
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

from followme.continuity.channel import STOPS, Channel, DatapathGone, RuleRefused, SwitchError
from followme.continuity.ledger import OWNER_MASK, Ledger
from followme.domain import Network
from followme.openflow import (
    BarrierRequest,
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
    PortStats,
    PortStatsRequest,
    PortStatus,
)
from followme.openflow.constants import OFPMP_FLOW, OFPMP_PORT_DESC, OFPMP_PORT_STATS, OFPT_FLOW_MOD
from followme.system.seldom import Seldom

__all__ = ["Counters", "DatapathGone", "Handlers", "RuleRefused", "Southbound", "SwitchError"]

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
RECENT = 64
MAX_LINES = 256
"""Of complaints, in ``seldom.LOG_EVERY_S``: peers must not fill the disk."""


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
    failed_peers: int = 0
    """Connections that ended before they said which datapath they are."""
    faults: int = 0
    refused_rules: int = 0
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
        self._complaints = Seldom(log, MAX_LINES)

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

    def take_back(self) -> None:
        """What was queued in this read is not to be sent: it could not be written down."""
        dirty, self._dirty = self._dirty, set()
        for channel in dirty:
            if channel.connection.data_to_send():
                channel.abort("what it was to be told could not be stored; it gets its rules anew")

    async def barrier(self, datapaths: Iterable[int], timeout: float, owner: str | None = None) -> None:
        """Return when each switch has confirmed all that was sent to it before, reconnects included.

        ``RuleRefused`` if it refused a rule of ``owner`` (of anybody, if that is ``None``).
        """
        await asyncio.gather(*(self._confirm(datapath, timeout, owner) for datapath in set(datapaths)))

    async def _confirm(self, datapath: int, timeout: float, owner: str | None) -> None:
        number = None if owner is None else self.ledger.known_number(owner)
        name = self.networks[datapath].name
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                channel = await asyncio.wait_for(self._channel(datapath), max(left, 0.0))
                refused = await asyncio.wait_for(
                    channel.confirm(number), max(deadline - time.monotonic(), 0.0)
                )
            except TimeoutError:
                raise DatapathGone(
                    f"switch of {name} (datapath {datapath:#x}) did not confirm within {timeout:g} s"
                ) from None
            except DatapathGone:
                continue  # it dropped: its rules are put in again when it is back, so wait for that
            if refused:
                raise RuleRefused(f"switch of {name} (datapath {datapath:#x}) refused a rule: {refused}")
            return

    async def _channel(self, datapath: int, settled: bool = False) -> Channel:
        def there() -> bool:
            channel = self._channels.get(datapath)
            return channel is not None and (channel.settled or not settled)

        async with self._ready:
            await self._ready.wait_for(there)
            return self._channels[datapath]

    async def wait_connected(self, datapaths: Iterable[int], timeout: float) -> None:
        """Return when each switch has all its rules; ``RuleRefused`` if it did not take some of them."""
        for datapath in datapaths:
            name = self.networks[datapath].name
            try:
                channel = await asyncio.wait_for(self._channel(datapath, settled=True), timeout)
            except TimeoutError:
                raise DatapathGone(
                    f"switch of {name} (datapath {datapath:#x}) did not connect within {timeout:g} s; is its "
                    "controller address right, and does it speak OpenFlow 1.3?"
                ) from None
            if channel.lacking:
                raise RuleRefused(
                    f"switch of {name} (datapath {datapath:#x}) refused {channel.lacking} of its rules"
                )

    async def flows(self, datapath: int, owner: str, timeout: float = 5.0) -> tuple[FlowStats, ...]:
        """Ask the switch itself which entries it holds for ``owner``."""
        body = FlowStatsRequest(cookie=self.ledger.owner_number(owner), cookie_mask=OWNER_MASK)
        channel = await asyncio.wait_for(self._channel(datapath), timeout)
        reply = await asyncio.wait_for(channel.request(MultipartRequest(OFPMP_FLOW, body)), timeout)
        return _multipart(reply).flows

    async def port_stats(self, datapath: int, port: int, timeout: float = 5.0) -> PortStats | None:
        """The counters of one port; ``None`` if the switch is not connected, does not answer or has none."""
        channel = self._channels.get(datapath)
        if channel is None:
            return None
        request = MultipartRequest(OFPMP_PORT_STATS, PortStatsRequest(port))
        try:
            stats = _multipart(await asyncio.wait_for(channel.request(request), timeout)).port_stats
        except (SwitchError, OpenFlowError, TimeoutError):
            return None
        return next((one for one in stats if one.port_no == port), None)

    async def admitted(self, channel: Channel, datapath: int) -> None:
        """Bring a new connection to the ledger's state; only then it counts as connected."""
        network = self.networks[datapath]
        if channel.ended:
            return  # it said who it is and broke the protocol in the same breath
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
        try:
            await channel.request(BarrierRequest())
            for mod in self.ledger.sweep(datapath):
                channel.connection.send(mod)
            ports = _multipart(await channel.request(MultipartRequest(OFPMP_PORT_DESC))).ports
        except SwitchError:
            return
        except OpenFlowError as error:
            channel.abort(str(error))
            return
        self._guarded(lambda: self.handlers.ports(network, ports))
        channel.lacking = channel.refused_rules
        if channel.lacking:
            # It serves as well as it can, but nobody shall take it for whole: wait_connected says so, and
            # so does the next barrier of each rule's owner.
            log.error("switch of %s (datapath %#x) connected, but refused %d of its rules: some of its nodes "
                      "are cut off", network.name, datapath, channel.lacking)  # fmt: skip
        else:
            log.info("switch of %s connected (datapath %#x)", network.name, datapath)
        channel.settled = True
        async with self._ready:
            self._ready.notify_all()
        self._guarded(lambda: self.handlers.connected(network))

    def _guarded(self, handler: Callable[[], None]) -> None:
        try:
            handler()
        except Exception as error:
            self.fault(error)

    def fault(self, error: Exception) -> None:
        """A handler or the store failed. That alone is no reason to cut off a switch."""
        self.counters.faults += 1
        if self._seldom(f"fault {type(error).__name__}"):
            log.error("handling a switch's message failed", exc_info=error)

    def _seldom(self, what: str) -> bool:
        return self._complaints.due(what, time.monotonic())

    def lost(self, channel: Channel, reason: str) -> None:
        self._open.discard(channel)
        self._dirty.discard(channel)
        datapath = channel.datapath
        if datapath is not None and self._channels.get(datapath) is channel:
            del self._channels[datapath]
            network = self.networks[datapath]
            level = logging.DEBUG if reason == STOPS else logging.WARNING
            log.log(level, "switch of %s (datapath %#x) is gone: %s", network.name, datapath, reason)
            self._guarded(lambda: self.handlers.disconnected(network, reason))

    def strange(self, peer: object, reason: str) -> None:
        """A peer came to no good before it was admitted: a wrong port, a wrong version, a scanner."""
        self.counters.failed_peers += 1
        host = peer[0] if isinstance(peer, tuple) and peer else peer
        if self._seldom(f"peer {host}"):
            log.warning("closed the connection of %s, which is no switch of ours: %s", peer, reason)

    def opened(self, channel: Channel) -> bool:
        if len(self._open) >= MAX_CONNECTIONS:
            self.strange(channel.peer, f"there are {MAX_CONNECTIONS} connections already")
            return False
        self._open.add(channel)
        return True

    def failed(self, channel: Channel, message: ErrorMsg) -> None:
        self.counters.errors += 1
        network = self.networks.get(channel.datapath or 0)
        text = f"switch of {network.name if network else '?'} refuses a message: {message.name}"
        # The error holds the first 64 bytes of the message that it is about (7.4.4): a flow-mod's is about a
        # rule, and the owner stands in the cookie, next to the header. So no list of what was sent is needed.
        data = message.data
        if len(data) < 2 or data[1] == OFPT_FLOW_MOD:
            self.counters.refused_rules += 1
            owner = int.from_bytes(data[8:16], "big") & OWNER_MASK if len(data) >= 16 else None
            channel.refuse(owner, message.name)
        self.counters.last_errors = [*self.counters.last_errors[1 - RECENT:], text]
        if self._seldom(text):
            log.error("%s", text)

    def refuse_datapath(self, datapath: int, peer: object) -> None:
        self.counters.refused_datapaths += 1
        if self._seldom(f"datapath {datapath:#x}"):
            log.warning("refused datapath %#x from %s: it is not in the config; add a network with "
                        "'datapath: %#x' or point the switch elsewhere", datapath, peer, datapath)  # fmt: skip


def _multipart(reply: Message) -> MultipartReply:
    """A switch may answer with anything; ``OpenFlowError`` if that is no answer to a question."""
    if not isinstance(reply, MultipartReply):
        raise OpenFlowError(f"{type(reply).__name__} is no answer to a multipart request")
    return reply
