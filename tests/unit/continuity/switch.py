"""A switch that connects over a real socket: our own OpenFlow library on the other side, and a flow table."""

from __future__ import annotations

import asyncio
import time
from typing import Self

from followme.continuity.pipeline import Priority, Rule, Table
from followme.continuity.southbound import Handlers, Southbound
from followme.domain import Network
from followme.openflow import (
    ApplyActions,
    BarrierReply,
    BarrierRequest,
    Connection,
    ErrorMsg,
    FeaturesReply,
    FlowMod,
    FlowStats,
    FlowStatsRequest,
    Match,
    Message,
    MultipartReply,
    MultipartRequest,
    Output,
    PacketIn,
    PacketOut,
    Port,
    PortStats,
    PortStatsRequest,
    Received,
    RoleReply,
    RoleRequest,
    Side,
)
from followme.openflow.constants import (
    OFP_NO_BUFFER,
    OFPBRC_BAD_MULTIPART,
    OFPBRC_BAD_TYPE,
    OFPBRC_IS_SLAVE,
    OFPCR_ROLE_EQUAL,
    OFPCR_ROLE_MASTER,
    OFPCR_ROLE_NOCHANGE,
    OFPCR_ROLE_SLAVE,
    OFPET_BAD_REQUEST,
    OFPET_FLOW_MOD_FAILED,
    OFPET_ROLE_REQUEST_FAILED,
    OFPFMFC_TABLE_FULL,
    OFPMP_FLOW,
    OFPMP_PORT_DESC,
    OFPMP_PORT_STATS,
    OFPR_NO_MATCH,
    OFPRRFC_STALE,
)
from tests.until import until

from .fabric import network
from .flowtable import FlowTable

DC1, DC2 = network("dc1", 1), network("dc2", 2)


def rule(port: int, out: int = 1) -> Rule:
    return Rule(Table.FORWARD, Priority.DELIVER, Match(in_port=port), (ApplyActions((Output(out),)),))


class Shared:
    """What the connections of one switch have in common: who is its master, of which generation."""

    def __init__(self) -> None:
        self.generation: int | None = None
        self.master: Switch | None = None


class Switch:
    """``table`` may be handed from one connection to the next: a switch that kept its rules. So may ``shared``;
    without it the switch does not know of roles."""

    shared: Shared | None = None
    role = OFPCR_ROLE_EQUAL

    def __init__(self, datapath: int, table: FlowTable | None = None) -> None:
        self.table = table or FlowTable()
        self.received: list[Message] = []
        self.confirms = True
        self.full = False
        self.port_stats: tuple[PortStats, ...] | None = None
        """Of its ports; ``None``: it does not know the question."""
        self.closed = asyncio.Event()
        self._held: list[int] = []
        self._connection = Connection(
            time.monotonic(), side=Side.SWITCH, features=FeaturesReply(datapath_id=datapath)
        )

    async def connect(self, port: int) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._task = asyncio.ensure_future(self._run())
        return self

    async def _run(self) -> None:
        try:
            self._flush()
            while data := await self._reader.read(1 << 16):
                for event in self._connection.receive_data(data, time.monotonic()):
                    if isinstance(event, Received):
                        self._take(event.xid, event.message)
                self._flush()
        except ConnectionError:
            pass
        finally:
            self.closed.set()
            self._writer.close()

    def _take(self, xid: int, message: Message) -> None:
        self.received.append(message)
        if isinstance(message, RoleRequest):
            self._connection.send(self._asked_role(message), xid)
        elif isinstance(message, FlowMod | PacketOut) and self.role == OFPCR_ROLE_SLAVE:
            self._connection.send(ErrorMsg(OFPET_BAD_REQUEST, OFPBRC_IS_SLAVE, message.pack(xid)[:64]), xid)
        elif isinstance(message, FlowMod):
            if self.full:
                failed = ErrorMsg(OFPET_FLOW_MOD_FAILED, OFPFMFC_TABLE_FULL, message.pack(xid)[:64])
                self._connection.send(failed, xid)
            else:
                self.table.take([message])
        elif isinstance(message, BarrierRequest):
            if self.confirms:
                self._connection.send(BarrierReply(), xid)
            else:
                self._held.append(xid)
        elif isinstance(message, MultipartRequest) and message.multipart_type == OFPMP_PORT_DESC:
            ports = (Port(1, bytes(6), "uplink"), Port(2, bytes(6), "host"))
            self._connection.send(MultipartReply(OFPMP_PORT_DESC, ports), xid)
        elif isinstance(message, MultipartRequest) and message.multipart_type == OFPMP_FLOW:
            body = message.body
            assert isinstance(body, FlowStatsRequest)
            flows = tuple(
                FlowStats(entry.table_id, entry.match, entry.instructions, entry.priority, entry.cookie)
                for entry in self.table.entries.values()
                if not (entry.cookie ^ body.cookie) & body.cookie_mask
            )
            self._connection.send(MultipartReply(OFPMP_FLOW, flows), xid)
        elif isinstance(message, MultipartRequest) and message.multipart_type == OFPMP_PORT_STATS:
            assert isinstance(message.body, PortStatsRequest)
            if self.port_stats is None:
                self._connection.send(ErrorMsg(OFPET_BAD_REQUEST, OFPBRC_BAD_MULTIPART), xid)
            else:
                stats = tuple(one for one in self.port_stats if one.port_no == message.body.port_no)
                self._connection.send(MultipartReply(OFPMP_PORT_STATS, stats), xid)

    def _asked_role(self, message: RoleRequest) -> Message:
        """As the specification has it (6.3.4)."""
        shared = self.shared
        if shared is None:
            return ErrorMsg(OFPET_BAD_REQUEST, OFPBRC_BAD_TYPE, message.pack(0))
        if message.role in (OFPCR_ROLE_MASTER, OFPCR_ROLE_SLAVE):
            distance = (message.generation_id - (shared.generation or 0)) % 2**64
            if shared.generation is not None and distance >= 2**63:
                return ErrorMsg(OFPET_ROLE_REQUEST_FAILED, OFPRRFC_STALE, message.pack(0))
            shared.generation = message.generation_id
        if message.role == OFPCR_ROLE_MASTER:
            if shared.master is not None:
                shared.master.role = OFPCR_ROLE_SLAVE
            shared.master = self
        if message.role != OFPCR_ROLE_NOCHANGE:
            self.role = message.role
        return RoleReply(self.role, 2**64 - 1 if shared.generation is None else shared.generation)

    def confirm(self) -> None:
        """Answer the barriers that were held back, and hold none from now on."""
        self.confirms = True
        for xid in self._held:
            self._connection.send(BarrierReply(), xid)
        self._held.clear()
        self._flush()

    def say(self, *messages: Message) -> None:
        for message in messages:
            self._connection.send(message)
        self._flush()

    def packet_in(self, data: bytes, table_id: int = 0) -> None:
        self.say(PacketIn(OFP_NO_BUFFER, len(data), OFPR_NO_MATCH, table_id, 0, Match(in_port=2), data))

    def write(self, data: bytes) -> None:
        """Bytes that no library would send."""
        self._writer.write(data)

    def stop_reading(self) -> None:
        self._task.cancel()

    async def leave(self) -> None:
        self._writer.close()
        await self.closed.wait()

    def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())


class Bench:
    """A southbound on a port of the loopback, and what its handlers were told."""

    def __init__(self, southbound: Southbound) -> None:
        self.southbound = southbound
        self.packets: list[tuple[str, bytes]] = []
        self.there: list[str] = []
        self.gone: list[str] = []
        self.ports: list[tuple[str, list[int]]] = []
        handlers: Handlers = southbound.handlers
        handlers.packet_in = lambda network, message: self.packets.append((network.name, message.data))
        handlers.connected = lambda network: self.there.append(network.name)
        handlers.disconnected = lambda network, reason: self.gone.append(network.name)
        handlers.ports = self._ports

    def _ports(self, network: Network, ports: tuple[Port, ...]) -> None:
        self.ports.append((network.name, [port.port_no for port in ports]))

    async def start(self) -> Self:
        self.port = await self.southbound.listen("127.0.0.1", 0)
        return self

    async def switch(self, datapath: int, table: FlowTable | None = None) -> Switch:
        """One that is connected and has all its rules."""
        switch = await Switch(datapath, table).connect(self.port)
        before = len(self.there)
        await until(lambda: len(self.there) > before)
        return switch
