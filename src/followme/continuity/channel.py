"""One switch's TCP connection: the asyncio protocol between a socket and the sans-IO OpenFlow connection."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from followme.continuity.refusals import DatapathGone, NotMaster, RuleRefused, Stale, SwitchError
from followme.domain import Network
from followme.openflow import (
    BarrierReply,
    BarrierRequest,
    Closed,
    Connection,
    ErrorMsg,
    Message,
    MultipartReply,
    OpenFlowError,
    PacketIn,
    PortStatus,
    Ready,
    Received,
    RoleReply,
    RoleRequest,
    RoundTrip,
)
from followme.openflow.constants import OFPET_ROLE_REQUEST_FAILED, OFPRRFC_STALE

if TYPE_CHECKING:
    from followme.continuity.southbound import Southbound

OUTPUT_BOUND = 64 << 20
STOPS = "the controller stops"
MAX_REFUSED_OWNERS = 1024
"""Owners of refused rules that are remembered until their next barrier."""


@dataclass(slots=True)
class _Asked:
    """A barrier under way: whose rules it is about (``None``: everybody's), and what was refused of them."""

    owner: int | None
    refused: str


class Channel(asyncio.Protocol):
    """One switch's TCP connection."""

    def __init__(self, southbound: Southbound) -> None:
        self.southbound = southbound
        interval, silence = southbound.echo_s
        self.connection = Connection(
            time.monotonic(), max_output_bytes=OUTPUT_BOUND, echo_interval=interval, echo_timeout=silence
        )
        self.refused_rules = 0
        self.lacking = 0
        """Rules that it refused when it was brought to the ledger's state."""
        self.datapath: int | None = None
        self.network: Network | None = None
        self.peer: object = None
        self.round_trip = 0.0
        self.held = 0
        """Bytes that wait for the store (``outbox``)."""
        self._transport: asyncio.Transport | None = None
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._asked: dict[int, _Asked] = {}
        self._refused: dict[int, str] = {}
        self.settled = False
        """Whether it has all rules of the ledger, confirmed."""
        self.served = False
        """Whether it gets its rules from here."""
        self.ended = False
        self.known = False
        """Whether it has said which datapath it is."""
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.peer = transport.get_extra_info("peername")
        if not self.southbound.opened(self):
            self.ended = True
            transport.abort()
            return
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.write()

    def data_received(self, data: bytes) -> None:
        southbound = self.southbound
        outbox = southbound.outbox
        outbox.flush()  # what waits from before is not this read's
        outbox.touch(self)
        try:
            with southbound.handlers.batch():
                self._events(self.connection.receive_data(data, time.monotonic()))
        except Exception as error:  # of the store's commit; asyncio would close the connection without a word
            southbound.complaints.fault(error)
            outbox.take_back()
        else:
            outbox.flush()

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

    def take(self) -> bytes:
        """What is to be written later, by ``put``."""
        data = self.connection.data_to_send()
        self.held += len(data)
        if self.held > OUTPUT_BOUND:
            self.abort(f"more than {OUTPUT_BOUND} bytes for it wait for the store")
        self._schedule()
        return data

    def put(self, data: bytes) -> None:
        self.held -= len(data)
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    async def request(self, message: Message) -> Message:
        """Send and wait for the reply with the same transaction id."""
        xid, future = self._ask(message)
        try:
            return await future
        finally:
            self._waiting.pop(xid, None)

    async def confirm(self, owner: int | None) -> str:
        """A barrier; returns what the switch refused of the owner's rules before it, "" if nothing.

        ``owner`` is its number in the cookies, ``None`` for everybody. A refusal is told at all barriers of its
        owner that are under way (they were sent behind the rule, for the switch answers in order), and at the
        next ones until one of them is answered.
        """
        xid, future = self._ask(BarrierRequest())
        earlier = next(iter(self._refused.values()), "") if owner is None else self._refused.get(owner, "")
        asked = self._asked[xid] = _Asked(owner, earlier)
        try:
            await future
        finally:
            self._waiting.pop(xid, None)
            self._asked.pop(xid, None)
        return asked.refused

    def refuse(self, owner: int | None, what: str) -> None:
        """The switch refused a rule of ``owner``; ``None`` if it does not say whose."""
        self.refused_rules += 1
        for asked in self._asked.values():
            if owner is None or asked.owner in (owner, None):
                asked.refused = asked.refused or what
        if owner is not None and len(self._refused) < MAX_REFUSED_OWNERS:
            self._refused.setdefault(owner, what)

    def demote(self, error: SwitchError) -> None:
        """It is not ours to write to any more: who waits for an answer of it gets ``error``."""
        self.served = self.settled = False
        self.refused_rules = 0
        self._refused.clear()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(error)

    def _ask(self, message: Message) -> tuple[int, asyncio.Future[Message]]:
        if self.ended:
            raise DatapathGone("the connection has ended")
        if not self.served and type(message) is not RoleRequest:
            raise NotMaster("this controller is not master")
        try:
            xid = self.connection.send(message)
        except OpenFlowError as error:
            self.abort(str(error))  # nothing more can be said to it on this connection
            raise DatapathGone(str(error)) from None
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[xid] = future
        self.southbound.outbox.touch(self)
        return xid, future

    def _events(self, events: Iterable[object]) -> None:
        southbound, network = self.southbound, self.network
        for event in events:
            if type(event) is Received:
                message = event.message
                if network is None:
                    continue
                if type(message) is PacketIn:
                    if southbound.stands_by:
                        continue
                    southbound.counters.packet_ins += 1
                    try:
                        southbound.handlers.packet_in(network, message)
                    except Exception as error:  # one packet must not take the others of this read with it
                        southbound.complaints.fault(error)
                elif isinstance(message, (BarrierReply, MultipartReply, RoleReply)):
                    self._answer(event.xid, message)
                elif isinstance(message, PortStatus):
                    if southbound.stands_by:
                        continue
                    try:
                        southbound.handlers.port_status(network, message)
                    except Exception as error:
                        southbound.complaints.fault(error)
                elif isinstance(message, ErrorMsg):
                    southbound.failed(self, message)
                    stale = (message.error_type, message.code) == (OFPET_ROLE_REQUEST_FAILED, OFPRRFC_STALE)
                    self._fail(event.xid, Stale(message.name) if stale else RuleRefused(message.name))
            elif isinstance(event, Ready):
                network = self._admit(event.features.datapath_id)
            elif isinstance(event, RoundTrip):
                self.round_trip = event.seconds if not self.round_trip else (
                    0.875 * self.round_trip + 0.125 * event.seconds)  # fmt: skip
            elif isinstance(event, Closed):
                if not self.known:
                    self.write()  # why; of all others nothing leaves before it is stored
                self.abort(event.reason)
                return

    def _admit(self, datapath: int) -> Network | None:
        network = self.southbound.networks.get(datapath)
        if network is None:
            self.southbound.complaints.refused_datapath(datapath, self.peer)
            self.known = True
            self.abort("unknown datapath")
            return None
        self.datapath, self.network, self.known = datapath, network, True
        self.work(self.southbound.admitted(self, datapath))
        return network

    def work(self, what: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Do what takes several messages. It ends with the connection at the latest, as its requests fail."""
        task = asyncio.ensure_future(what)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _answer(self, xid: int, message: Message) -> None:
        asked = self._asked.pop(xid, None)  # what is refused from here on was sent behind this barrier
        if asked is not None and asked.owner is None:
            self._refused.clear()
        elif asked is not None and asked.owner is not None:
            self._refused.pop(asked.owner, None)
        future = self._waiting.get(xid)
        if future is not None and not future.done():
            future.set_result(message)

    def _fail(self, xid: int, error: SwitchError) -> None:
        future = self._waiting.get(xid)
        if future is not None and not future.done():
            future.set_exception(error)

    def _gone(self, reason: str) -> None:
        if not self.known and not self.ended and reason != STOPS:
            self.southbound.complaints.strange(self.peer, reason)
        self.ended = True
        if self._timer:
            self._timer.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(DatapathGone(reason))
        self._waiting.clear()
        self.southbound.lost(self, reason)

    def _schedule(self) -> None:
        due = self.connection.next_timer()
        if due is None or self.ended:
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
        if not self.ended:
            self.southbound.outbox.touch(self)
