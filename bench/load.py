"""The load: switches that send table misses over loopback TCP, and count what comes back.

It must be much quicker than a controller, so it sends slices of bytes packed beforehand and reads no more of
an answer than its length and type. Some answers are kept and read in full after the round.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from struct import Struct

from followme.openflow import (
    BarrierReply,
    BarrierRequest,
    Connection,
    FeaturesReply,
    FlowMod,
    Match,
    Message,
    MultipartReply,
    MultipartRequest,
    PacketIn,
    PacketOut,
    Port,
    Received,
    Side,
    parse,
)
from followme.openflow import constants as of
from followme.packets.ethernet import ETHERTYPE_IPV4, pack_ethernet
from followme.packets.ipv4 import pack_ipv4
from followme.packets.udp import pack_udp

SWITCHES = 16
USERS = 200
"""Behind each switch: their packets come in turn, so no two in a row are alike."""
UPLINK_PORT, FIRST_USER_PORT = 1, 10
_HEAD = Struct("!BBHI")
_ECHO_REQUEST = of.OFPT_ECHO_REQUEST
_CONNECTS_S = 60.0
_SETTLES_S = 1.5
_STALLS_S = 10.0


@dataclass(frozen=True, slots=True)
class User:
    """One user as its switch sees it, and its first packet."""

    mac: bytes
    address: IPv4Address
    port: int
    frame: bytes


def datapath(switch: int) -> int:
    return 0x100 + switch


def router_mac(switch: int) -> bytes:
    return bytes((0x02, 0xBB, 0, 0, 0, switch))


def users(switch: int) -> list[User]:
    """The users at home behind a switch; each sends 56 bytes by UDP to a peer behind the next one."""
    made = []
    for number in range(USERS):
        mac = bytes((0x02, 0xAA, 0, switch, *number.to_bytes(2, "big")))
        address = IPv4Address(f"10.{switch}.0.{number + 10}")
        peer = IPv4Address(f"10.{(switch + 1) % SWITCHES}.0.{number + 10}")
        payload = pack_ipv4(address, peer, 17, pack_udp(address, peer, 40000, 4000, bytes(56)))
        frame = pack_ethernet(router_mac(switch), mac, ETHERTYPE_IPV4, payload)
        made.append(User(mac, address, FIRST_USER_PORT + number, frame))
    return made


def _miss(user: User) -> bytes:
    match = Match(in_port=user.port)
    return PacketIn(of.OFP_NO_BUFFER, len(user.frame), of.OFPR_NO_MATCH, 0, 0, match, user.frame).pack(0)


class Wrong(Exception):
    """The controller's answer is not what a table miss must get."""


Check = Callable[[User, FlowMod, PacketOut], bool]


class Switch:
    """One connection: the handshake by ``Connection``, then bytes."""

    def __init__(self, number: int, address: tuple[str, int], window: int) -> None:
        self.number = number
        self.window = window
        self.users = users(number)
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.mods = self.outs = self.pairs = 0
        self.kept: list[bytes] = []
        self._reads = 0
        self._rest = b""
        self._next = 0
        self._connection = Connection(
            time.monotonic(), side=Side.SWITCH, features=FeaturesReply(datapath(number)), echo_interval=3600.0
        )
        self.waits = self._connection.data_to_send()
        self.configured_at: float | None = None
        misses = [_miss(user) for user in self.users]
        self._size = len(misses[0])
        # Twice, so that a window is one slice wherever it begins.
        self._misses = b"".join(misses * (2 + window // USERS))
        # An answer is told from a controller's other packets by its length.
        self._packet_out = 24 + 16 + len(self.users[0].frame)

    def shake(self) -> None:
        """Read and answer what the controller asks of a new switch."""
        data = self._read()
        for event in self._connection.receive_data(data, time.monotonic()):
            if isinstance(event, Received):
                self._answer(event.xid, event.message)
        self.waits += self._connection.data_to_send()
        self.flush()

    def _answer(self, xid: int, message: Message) -> None:
        if isinstance(message, BarrierRequest):
            self._connection.send(BarrierReply(), xid)
        elif isinstance(message, MultipartRequest) and message.multipart_type == of.OFPMP_PORT_DESC:
            ports = tuple(
                Port(port, router_mac(self.number), f"p{port}")
                for port in (UPLINK_PORT, *(user.port for user in self.users))
            )
            self._connection.send(MultipartReply(of.OFPMP_PORT_DESC, ports), xid)
            self.configured_at = time.monotonic()

    def _read(self) -> bytes:
        try:
            data = self.socket.recv(1 << 18)
        except BlockingIOError:
            return b""
        if not data:
            raise ConnectionError(f"the controller dropped switch {self.number}")
        return data

    def send(self, count: int) -> None:
        """The next ``count`` users' packets are not in any table."""
        begin = self._next * self._size
        self.waits += self._misses[begin : begin + count * self._size]
        self._next = (self._next + count) % USERS
        self.flush()

    def flush(self) -> None:
        if self.waits:
            try:
                sent = self.socket.send(self.waits)
            except BlockingIOError:
                return
            self.waits = self.waits[sent:]

    def receive(self) -> int:
        """Count what has come; returns how many misses were answered."""
        data = self._rest + self._read()
        start, size, unpack = 0, len(data), _HEAD.unpack_from
        mods = outs = 0
        while size - start >= 8:
            _, kind, length, xid = unpack(data, start)
            if start + length > size:
                break
            if kind == of.OFPT_FLOW_MOD:
                mods += 1
            elif kind == of.OFPT_PACKET_OUT:
                outs += length == self._packet_out
            elif kind == _ECHO_REQUEST:
                head = _HEAD.pack(of.OFP_VERSION, of.OFPT_ECHO_REPLY, length, xid)
                self.waits += head + data[start + 8 : start + length]
            elif kind == of.OFPT_ERROR:
                raise Wrong(f"switch {self.number} was sent an error")
            start += length
        self._rest = data[start:]
        self.mods += mods
        self.outs += outs
        self._reads += 1
        if self._reads % 64 == 1 and len(self.kept) < 64:
            self.kept.append(data[:start])
        answered = min(self.mods, self.outs) - self.pairs
        self.pairs += answered
        return answered

    def check(self, right: Check) -> int:
        """Read the kept answers in full; ``Wrong`` if one is not right. Returns how many pairs were read."""
        by_mac = {user.mac: user for user in self.users}
        checked = 0
        for data in self.kept:
            mod: FlowMod | None = None  # the pieces do not hang together
            start = 0
            while start < len(data):
                _, _, length, _ = _HEAD.unpack_from(data, start)
                message = parse(data[start : start + length])[1]
                start += length
                if isinstance(message, FlowMod):
                    mod = message
                elif isinstance(message, PacketOut) and length == self._packet_out and mod is not None:
                    user = by_mac[message.data[6:12]]
                    if message.data != user.frame or message.in_port != user.port or not right(user, mod, message):
                        raise Wrong(f"switch {self.number}: {user} was answered by {mod} and {message}")
                    mod = None
                    checked += 1
        self.kept.clear()
        return checked


class Fleet:
    """All switches of one controller."""

    def __init__(self, address: tuple[str, int], window: int) -> None:
        self.window = window
        self.switches = [Switch(number, address, window) for number in range(SWITCHES)]
        self._selector = selectors.DefaultSelector()
        for switch in self.switches:
            self._selector.register(switch.socket, selectors.EVENT_READ, switch)

    def close(self) -> None:
        self._selector.close()
        for switch in self.switches:
            switch.socket.close()

    def connect(self) -> None:
        """Return when the controller has told each switch all that it tells a new one."""
        deadline = time.monotonic() + _CONNECTS_S
        while True:
            for switch in self._readable(0.05):
                switch.shake()
            for switch in self.switches:
                switch.flush()
            now = time.monotonic()
            done = [switch.configured_at for switch in self.switches if switch.configured_at is not None]
            if len(done) == SWITCHES and now > max(done) + _SETTLES_S:
                return
            if now > deadline:
                raise TimeoutError(f"only {len(done)} of {SWITCHES} switches were configured in {_CONNECTS_S:g} s")

    def run(self, seconds: float) -> float:
        """Answered misses a second, with ``window`` of them outstanding at each switch all the time."""
        self._idle()
        for switch in self.switches:
            switch.send(self.window)
        self._pump(min(0.5, seconds / 4))  # until it has got into its stride
        begin = time.perf_counter()
        answered = self._pump(seconds)
        rate = answered / (time.perf_counter() - begin)
        self._drain()
        return rate

    def check(self, right: Check) -> int:
        """Read what was kept at all switches in full; how many pairs that were. ``Wrong`` if there are none."""
        checked = [switch.check(right) for switch in self.switches]
        if not all(checked):
            raise Wrong(f"no answer was kept at {checked.count(0)} switches: nothing shows that they were right")
        return sum(checked)

    def _readable(self, timeout: float) -> Sequence[Switch]:
        return [key.data for key, _ in self._selector.select(timeout)]

    def _pump(self, seconds: float) -> int:
        now = time.perf_counter()
        deadline, answered = now + seconds, 0
        while now < deadline:
            for switch in self._readable(0.05):
                count = switch.receive()
                answered += count
                if count:
                    switch.send(count)
                elif switch.waits:
                    switch.flush()
            for switch in self.switches:
                if switch.waits:
                    switch.flush()
            now = time.perf_counter()
        return answered

    def _drain(self) -> None:
        """Wait for all answers: the rounds of the other controller come next."""
        missing = self.window * SWITCHES
        for switch in self.switches:
            while switch.waits:
                missing -= switch.receive()
                switch.flush()
        last = time.perf_counter()
        while missing > 0:
            for switch in self._readable(0.05):
                missing -= switch.receive()
                last = time.perf_counter()
            if time.perf_counter() > last + _STALLS_S:
                raise Wrong(f"{missing} packets were never answered")

    def _idle(self) -> None:
        """Answer the echo requests of the time between rounds."""
        while readable := self._readable(0.0):
            for switch in readable:
                switch.receive()
                switch.flush()
