"""The one place that talks to switches: an asyncio shell around the sans-IO OpenFlow connection.

All that the controller does for one read of a socket is collected and sent in one write, after the store
has committed: what a switch is told has been written down before. If the store cannot commit, none of it is
sent (a user must not hold a lease that nobody knows after a crash), and the switches that it was for are cut
off: when they connect again, they are brought to the ledger's state, so nothing is missing in them.

As a standby (``Role.STANDBY``) it keeps the connections of switches that another controller is master of, and
writes nothing, until ``take_over``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from followme.continuity.channel import STOPS, Channel
from followme.continuity.complaints import Complaints
from followme.continuity.handlers import Counters, Handlers
from followme.continuity.ledger import OWNER_MASK, Ledger
from followme.continuity.outbox import Outbox
from followme.continuity.refusals import Absurd, DatapathGone, NotMaster, RuleRefused, Stale, SwitchError
from followme.continuity.roles import GENERATIONS, Newest, Role, become_master, become_slave, older
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
    PortStats,
    PortStatsRequest,
)
from followme.openflow.constants import (
    OFPBRC_IS_SLAVE,
    OFPET_BAD_REQUEST,
    OFPMP_FLOW,
    OFPMP_PORT_DESC,
    OFPMP_PORT_STATS,
    OFPT_FLOW_MOD,
)

__all__ = ["Counters", "DatapathGone", "Handlers", "NotMaster", "Role", "RuleRefused", "Southbound", "SwitchError"]

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096


class Southbound:
    """Listens for switches, keeps each at the ledger's state, and hands their messages on.

    ``role``: ``ALONE``, or ``STANDBY`` where there are several controllers of these switches.
    """

    def __init__(
        self, networks: Iterable[Network], ledger: Ledger, handlers: Handlers, role: Role = Role.ALONE
    ) -> None:
        self.networks = {network.datapath: network for network in networks}
        self.ledger = ledger
        self.handlers = handlers
        self.counters = Counters()
        self.outbox = Outbox(self)
        self.role = role
        self.stands_by = role is Role.STANDBY
        self.echo_s = role.echo_s
        self.newest = Newest()
        self._generation: int | None = None
        self._attending: dict[int, Channel] = {}
        """All switches that are connected; ``_channels`` are those that this controller writes to."""
        self._channels: dict[int, Channel] = {}
        self._open: set[Channel] = set()
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.complaints = Complaints(self.counters)

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
        self.outbox.close()
        for channel in list(self._open):
            channel.abort(STOPS)

    def connected(self, datapath: int) -> bool:
        """Whether it gets its rules from here."""
        return datapath in self._channels

    def attending(self, datapath: int) -> bool:
        """Whether it is connected, be it that another controller is its master."""
        return datapath in self._attending

    async def take_over(self, generation_id: int) -> None:
        """Be master of all switches from now on, and bring each to the ledger's state: those that are connected
        until this returns (one that hangs is cut off in the end), others when they come.

        ``NotMaster`` if one of them has a newer master; ``ValueError`` for a ``generation_id`` (64 bits) that is
        older than the one before.
        """
        if not 0 <= generation_id < GENERATIONS:
            raise ValueError(f"generation id {generation_id} does not have 64 bits")
        if self._generation is not None and older(generation_id, self._generation):
            raise ValueError(f"generation id {generation_id} is older than {self._generation}")
        self._generation = generation_id
        self.newest.generation = max(self.newest.generation, generation_id)
        self.role, self.stands_by = Role.MASTER, False
        serving = [channel.work(self._serve(channel, datapath)) for datapath, channel in self._attending.items()]
        if serving:
            await asyncio.wait(serving)  # who gives this up does not give them up
        if self.stands_by:
            raise NotMaster("another controller is master")

    def step_down(self) -> None:
        """The lease has gone, and perhaps to another: write nothing from now on. A standby again."""
        self._stand_by("this controller is not master any more")

    def _depose(self, network: Network, why: str) -> None:
        if self.role is not Role.MASTER:
            return
        self.counters.depositions += 1
        log.error("another controller is master: switch of %s (datapath %#x) says %s", network.name,
                  network.datapath, why)  # fmt: skip
        self._stand_by("another controller is master")
        self._guarded(self.handlers.deposed)

    def _stand_by(self, why: str) -> None:
        self.role, self.stands_by = Role.STANDBY, True
        served, self._channels = self._channels, {}
        self.outbox.drop(set(served.values()))
        for datapath, channel in self._attending.items():
            channel.demote(NotMaster(why))
            channel.work(self._attend(channel, self.networks[datapath]))
        for datapath in served:
            network = self.networks[datapath]
            self._guarded(partial(self.handlers.disconnected, network, why))
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _attend(self, channel: Channel, network: Network) -> None:
        try:
            self.newest.learn(await become_slave(channel, lambda: self.stands_by))
        except (DatapathGone, NotMaster):
            return
        except (SwitchError, OpenFlowError) as error:
            if self.complaints.due(f"slave {network.name}"):
                log.error("switch of %s (datapath %#x) does not take a standby: %s", network.name, network.datapath,
                          error)  # fmt: skip
            channel.abort(str(error))

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
        self.outbox.touch(channel)

    def apply(self, changes: Mapping[int, Iterable[FlowMod]]) -> None:
        for datapath, mods in changes.items():
            self.send(datapath, mods)

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
                async with asyncio.timeout(max(left, 0.0)):  # not wait_for: it may lose a cancellation
                    channel = await self._channel(datapath)
                    refused = await channel.confirm(number)
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
        while not self.stands_by:
            channel = self._channels.get(datapath)
            if channel is not None and (channel.settled or not settled):
                return channel
            await self._changed.wait()
        raise NotMaster("this controller is not master")

    async def wait_connected(self, datapaths: Iterable[int], timeout: float) -> None:
        """Return when each switch has all its rules; ``RuleRefused`` if it did not take some of them."""
        for datapath in datapaths:
            name = self.networks[datapath].name
            try:
                async with asyncio.timeout(timeout):
                    channel = await self._channel(datapath, settled=True)
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
        async with asyncio.timeout(timeout):
            channel = await self._channel(datapath)
            reply = await channel.request(MultipartRequest(OFPMP_FLOW, body))
        return _multipart(reply).flows

    async def port_stats(self, datapath: int, port: int, timeout: float = 5.0) -> PortStats | None:
        """The counters of one port; ``None`` if the switch is not connected, does not answer or has none."""
        channel = self._channels.get(datapath)
        if channel is None:
            return None
        request = MultipartRequest(OFPMP_PORT_STATS, PortStatsRequest(port))
        try:
            async with asyncio.timeout(timeout):
                stats = _multipart(await channel.request(request)).port_stats
        except (SwitchError, OpenFlowError, TimeoutError):
            return None
        return next((one for one in stats if one.port_no == port), None)

    async def admitted(self, channel: Channel, datapath: int) -> None:
        """A switch has connected and said who it is."""
        if channel.ended:
            return  # it broke the protocol in the same breath
        old = self._attending.get(datapath)
        self._attending[datapath] = channel
        if old is not None:
            old.abort("the same datapath connected again")
        if self.stands_by:
            await self._attend(channel, self.networks[datapath])
        else:
            await self._serve(channel, datapath)

    async def _serve(self, channel: Channel, datapath: int) -> None:
        """Bring it to the ledger's state; only then it counts as connected."""
        network, generation = self.networks[datapath], self._generation
        try:
            if generation is not None:
                await become_master(channel, generation, self.newest)
                if self.stands_by or generation != self._generation:
                    return
            for mod in self.ledger.begin(datapath):
                channel.connection.send(mod)
        except Stale as error:
            if generation == self._generation:
                self._depose(network, str(error))
            return
        except Absurd as error:
            if self.complaints.due(f"generation {network.name}"):
                log.error("switch of %s (datapath %#x) takes no rules: %s", network.name, network.datapath, error)
            return
        except RuleRefused as error:
            channel.abort(f"it does not know of masters: {error}")
            return
        except SwitchError:
            return
        except OpenFlowError as error:
            channel.abort(str(error))
            return
        # From here on every change goes to this connection too, behind the rules above, in order.
        self._channels[datapath] = channel
        channel.served = True
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
        self._tell_waiting()
        self._guarded(lambda: self.handlers.connected(network))

    def _guarded(self, handler: Callable[[], None]) -> None:
        try:
            handler()
        except Exception as error:
            self.complaints.fault(error)

    def lost(self, channel: Channel, reason: str) -> None:
        self._open.discard(channel)
        self.outbox.lost(channel)
        datapath = channel.datapath
        if datapath is not None and self._attending.get(datapath) is channel:
            del self._attending[datapath]
        if datapath is not None and self._channels.get(datapath) is channel:
            del self._channels[datapath]
            network = self.networks[datapath]
            level = logging.DEBUG if reason == STOPS else logging.WARNING
            log.log(level, "switch of %s (datapath %#x) is gone: %s", network.name, datapath, reason)
            self._guarded(lambda: self.handlers.disconnected(network, reason))

    def opened(self, channel: Channel) -> bool:
        if len(self._open) >= MAX_CONNECTIONS:
            self.complaints.strange(channel.peer, f"there are {MAX_CONNECTIONS} connections already")
            return False
        self._open.add(channel)
        return True

    def failed(self, channel: Channel, message: ErrorMsg) -> None:
        self.counters.errors += 1
        network = self.networks.get(channel.datapath or 0)
        if (message.error_type, message.code) == (OFPET_BAD_REQUEST, OFPBRC_IS_SLAVE):
            if network is not None and channel.served:
                self._depose(network, message.name)
            if self.stands_by:
                return
        text = f"switch of {network.name if network else '?'} refuses a message: {message.name}"
        # The error holds the first 64 bytes of the message that it is about (7.4.4): a flow-mod's is about a
        # rule, and the owner stands in the cookie, next to the header. So no list of what was sent is needed.
        data = message.data
        if len(data) < 2 or data[1] == OFPT_FLOW_MOD:
            self.counters.refused_rules += 1
            owner = int.from_bytes(data[8:16], "big") & OWNER_MASK if len(data) >= 16 else None
            channel.refuse(owner, message.name)
        self.complaints.refused_message(text)


def _multipart(reply: Message) -> MultipartReply:
    """A switch may answer with anything; ``OpenFlowError`` if that is no answer to a question."""
    if not isinstance(reply, MultipartReply):
        raise OpenFlowError(f"{type(reply).__name__} is no answer to a multipart request")
    return reply
