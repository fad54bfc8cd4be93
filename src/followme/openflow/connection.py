"""One OpenFlow connection without I/O: bytes in, events and bytes out (OpenFlow 1.3.5, section 6.3).

    connection = Connection(now)
    for event in connection.receive_data(data, now): ...
    socket.send(connection.data_to_send())
    wait until connection.next_timer(), then connection.handle_timer(now)

It negotiates the version, asks for the features, answers echo requests, asks for echoes to see that the
peer lives, and joins the parts of multipart replies. The states are WAIT_HELLO -> WAIT_FEATURES -> READY
-> CLOSED, and ``TABLE`` below says what each message does in each of them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from . import constants as of
from .errors import NotConnected, OpenFlowError, OutputFull
from .events import Closed, Event, Ready, Received, RoundTrip
from .message import HEADER, Message, read_header
from .messages import parse_body
from .multipart import MultipartReply
from .packets import parse_packet_in
from .session import EchoReply, EchoRequest, ErrorMsg, FeaturesReply, FeaturesRequest, Hello

MAX_MULTIPART_REPLIES: Final = 64
"""How many replies may be incomplete at a time."""
EXPERIMENTAL: Final = 0x80
"""Versions from here on are experimental (7.1), and no HELLO may offer them."""


class Side(Enum):
    CONTROLLER = auto()
    SWITCH = auto()


class State(Enum):
    WAIT_HELLO = auto()
    WAIT_FEATURES = auto()
    READY = auto()
    CLOSED = auto()


class _Incomplete:
    """The parts of a multipart reply so far, and how many bytes they had."""

    __slots__ = ("parts", "size")

    def __init__(self) -> None:
        self.parts: list[MultipartReply] = []
        self.size = 0


class Connection:
    """One side of a connection, by default the controller's.

    ``echo_interval`` seconds after the last answer the peer is asked for an echo; when it then sends
    nothing at all for ``echo_timeout`` seconds, the connection is closed. ``handshake_timeout`` bounds the
    time from ``now`` to ``Ready``. ``max_output_bytes`` may wait in ``data_to_send``,
    ``max_multipart_bytes`` in incomplete multipart replies; what waits of the input is less than one
    message. A switch says who it is by ``features``.
    """

    def __init__(
        self,
        now: float,
        *,
        side: Side = Side.CONTROLLER,
        features: FeaturesReply | None = None,
        echo_interval: float = 5.0,
        echo_timeout: float = 10.0,
        handshake_timeout: float = 10.0,
        max_output_bytes: int = 8 << 20,
        max_multipart_bytes: int = 16 << 20,
    ) -> None:
        if (side is Side.SWITCH) != (features is not None):
            raise ValueError("a switch has features, a controller has none")
        self.side = side
        self.features = features
        self._echo_interval = echo_interval
        self._echo_timeout = echo_timeout
        self._max_output_bytes = max_output_bytes
        self._max_multipart_bytes = max_multipart_bytes
        self._now = now
        self._handshake_deadline = now + handshake_timeout
        self._next_echo_at = 0.0
        self._echo_xid: int | None = None
        self._echo_sent_at = 0.0
        self._received_at = now
        self._next_xid = 1
        self._in = bytearray()
        self._needed = of.OFP_HEADER_SIZE
        self._out = bytearray()
        self._length = 0  # of the message at hand
        self._multipart: dict[int, _Incomplete] = {}
        self._enter(State.WAIT_HELLO)
        self._queue(Hello(), self._take_xid())

    @property
    def state(self) -> State:
        return self._state

    def send(self, message: Message, xid: int | None = None) -> int:
        """Queue a message; its xid is a new one, or that of the request that it answers.

        ``NotConnected`` before the peer's HELLO and after the end, ``OutputFull`` if the peer does not
        read, ``OpenFlowError`` if the message cannot be packed; in none of these cases is anything queued.
        """
        if self._state is State.WAIT_HELLO or self._state is State.CLOSED:
            raise NotConnected(f"the connection is in state {self._state.name}", message_type=message.type)
        if xid is None:
            xid = self._take_xid()
        self._queue(message, xid)
        return xid

    def data_to_send(self) -> bytes:
        """All that waits to be sent; the caller has it then."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive_data(self, data: bytes | bytearray | memoryview, now: float) -> list[Event]:
        """What the peer's bytes say. After ``Closed`` all further input is ignored."""
        events: list[Event] = []
        if self._state is State.CLOSED:
            return events
        self._now = self._received_at = now
        if not isinstance(data, bytes):
            data = bytes(data)  # messages keep slices of it, and matches are looked up by such a slice
        if self._in:
            self._in += data
            if len(self._in) < self._needed:
                return events  # a peer that sends byte by byte must not make us copy each time
            data = bytes(self._in)
            self._in.clear()
        try:
            start = self._messages(data, events)
        except OutputFull as problem:  # by an answer that the connection gives by itself
            return [*events, *self.close(str(problem))]
        except OpenFlowError as problem:
            return [*events, *self.close(f"peer broke the protocol: {problem}")]
        if start < len(data):
            self._in += data[start:]
        return events

    def close(self, reason: str) -> list[Event]:
        """End the connection from outside, for example when the socket reports its end."""
        if self._state is State.CLOSED:
            return []
        self._enter(State.CLOSED)
        self._in.clear()
        self._multipart.clear()
        return [Closed(reason)]

    def next_timer(self) -> float | None:
        """When ``handle_timer`` is due, on the caller's clock; ``None`` after the end."""
        if self._state is State.CLOSED:
            return None
        if self._state is not State.READY:
            return self._handshake_deadline
        if self._echo_xid is None:
            return self._next_echo_at
        return max(self._echo_sent_at, self._received_at) + self._echo_timeout

    def handle_timer(self, now: float) -> list[Event]:
        """Do what is due at ``now``; too early a call does nothing."""
        due = self.next_timer()
        if due is None or now < due:
            return []
        self._now = now
        if self._state is not State.READY:
            return self.close(f"no handshake in time, in state {self._state.name}")
        if self._echo_xid is not None:
            return self.close(f"peer silent for {now - self._received_at:.1f} s, echo request unanswered")
        self._echo_xid = self._take_xid()
        self._echo_sent_at = now
        try:
            self._queue(EchoRequest(), self._echo_xid)
        except OutputFull as problem:
            return self.close(str(problem))
        return []

    def _messages(self, data: bytes, events: list[Event]) -> int:
        """Handle the whole messages in ``data``; where the rest begins, of which ``_needed`` must be there.

        There is no rest when a message closes the connection.
        """
        start, size = 0, len(data)
        while size - start >= 8:
            version, kind, length, xid = HEADER.unpack_from(data, start)
            end = start + length
            if length < 8:
                read_header(data, start)  # raises: says what is wrong
            if self._state is State.WAIT_HELLO:
                self._judge_first(version, kind)
            if end > size:
                self._needed = length
                return start
            if kind == of.OFPT_PACKET_IN and version == of.OFP_VERSION and self._ready:
                # the hot path: in place, and with no look into the table
                events.append(Received(xid, parse_packet_in(data, start, end)))
            else:
                message = parse_body(version, kind, data[start:end])
                self._length = length
                (self._row.get(kind) or self._row[_OTHER])(self, xid, message, events)
                if self._state is State.CLOSED:
                    return size
            start = end
        self._needed = of.OFP_HEADER_SIZE
        return start

    @staticmethod
    def _judge_first(version: int, kind: int) -> None:
        """By its first header, and not by the length that this happens to claim: a web browser's or a
        scanner's connection must not stay open until the handshake's deadline."""
        if kind != of.OFPT_HELLO:
            raise OpenFlowError("the first message must be OFPT_HELLO", message_type=kind, offset=1)
        if not 0 < version < EXPERIMENTAL:
            raise OpenFlowError(f"0x{version:02x} is no version of OpenFlow", message_type=kind, offset=0)

    def _enter(self, state: State) -> None:
        self._state = state
        self._ready = state is State.READY
        self._row = TABLE[self.side, state]

    def _take_xid(self) -> int:
        xid = self._next_xid
        self._next_xid = xid + 1 if xid < 0xFFFFFFFF else 1
        return xid

    def _queue(self, message: Message, xid: int) -> None:
        data = message.pack(xid)
        if len(self._out) + len(data) > self._max_output_bytes:
            raise OutputFull(
                f"peer does not read: {len(self._out)} bytes wait already", message_type=message.type
            )
        self._out += data

    # What a message does: the entries of TABLE.

    def _negotiate(self, xid: int, message: Message, events: list[Event]) -> None:
        """6.3.1: with two bitmaps the highest common version, else the lower of the two header versions."""
        assert isinstance(message, Hello)
        if message.versions is not None:
            agreed = of.OFP_VERSION in message.versions
            offer = "versions " + ", ".join(map(str, message.versions))
        else:
            agreed = message.version >= of.OFP_VERSION
            offer = f"version {message.version}"
        if not agreed:
            text = f"only OpenFlow 1.3 (version 4) is spoken here, not {offer}"
            failed = ErrorMsg(of.OFPET_HELLO_FAILED, of.OFPHFC_INCOMPATIBLE, text.encode())
            self._queue(failed, xid)
            events += self.close(f"peer offers {offer}, but only version 4 is spoken here")
            return
        self._enter(State.WAIT_FEATURES)
        if self.side is Side.CONTROLLER:
            self._queue(FeaturesRequest(), self._take_xid())

    def _become_ready(self, xid: int, message: Message, events: list[Event]) -> None:
        if isinstance(message, FeaturesReply):
            self.features = message
        else:
            self._answer_features(xid, message, events)
        assert self.features is not None
        self._enter(State.READY)
        self._next_echo_at = self._now + self._echo_interval
        events.append(Ready(self.features))

    def _answer_features(self, xid: int, message: Message, events: list[Event]) -> None:
        assert self.features is not None
        self._queue(self.features, xid)

    def _answer_echo(self, xid: int, message: Message, events: list[Event]) -> None:
        assert isinstance(message, EchoRequest)
        self._queue(EchoReply(message.data), xid)

    def _measure(self, xid: int, message: Message, events: list[Event]) -> None:
        if xid != self._echo_xid:
            events.append(Received(xid, message))  # to an echo request that the caller sent
            return
        self._echo_xid = None
        self._next_echo_at = self._now + self._echo_interval
        events.append(RoundTrip(self._now - self._echo_sent_at))

    def _gather(self, xid: int, message: Message, events: list[Event]) -> None:
        """7.3.5: the parts of a reply have one xid, and all but the last have OFPMPF_REPLY_MORE."""
        assert isinstance(message, MultipartReply)
        earlier = self._multipart.get(xid)
        if earlier is not None and earlier.parts[0].multipart_type != message.multipart_type:
            raise OpenFlowError("parts of a reply differ in type", message_type=message.type, offset=8)
        if message.flags & of.OFPMPF_REPLY_MORE:
            self._keep(xid, message)
            return
        if earlier is not None:
            del self._multipart[xid]
            parts = [*earlier.parts, message]
            message = MultipartReply(
                message.multipart_type,
                tuple(item for part in parts for item in part.parts),
                message.flags,
                b"".join(part.raw for part in parts),
            )
        events.append(Received(xid, message))

    def _keep(self, xid: int, message: MultipartReply) -> None:
        incomplete = self._multipart.setdefault(xid, _Incomplete())
        incomplete.parts.append(message)
        incomplete.size += self._length
        held = sum(reply.size for reply in self._multipart.values())
        if held > self._max_multipart_bytes or len(self._multipart) > MAX_MULTIPART_REPLIES:
            raise OpenFlowError(
                f"{len(self._multipart)} incomplete replies hold {held} bytes", message_type=message.type
            )

    def _deliver(self, xid: int, message: Message, events: list[Event]) -> None:
        events.append(Received(xid, message))

    def _refused(self, xid: int, message: Message, events: list[Event]) -> None:
        assert isinstance(message, ErrorMsg)
        text = message.data.decode("ascii", "replace") if message.error_type == of.OFPET_HELLO_FAILED else ""
        events += self.close(f"peer refused the handshake: {message.name} {text}".rstrip())

    def _unexpected(self, xid: int, message: Message, events: list[Event]) -> None:
        raise OpenFlowError("the first message must be OFPT_HELLO", message_type=message.type, offset=1)

    def _ignore(self, xid: int, message: Message, events: list[Event]) -> None:
        """Without effect."""


_Handler = Callable[[Connection, int, Message, list[Event]], None]
_OTHER: Final = -1

_WAIT_HELLO: Final[dict[int, _Handler]] = {
    of.OFPT_HELLO: Connection._negotiate,
    _OTHER: Connection._unexpected,
}

# Which message does what: TABLE[side, state][type], or [_OTHER] for all types that are not listed. A
# controller drops what a switch sends before it says who it is: nobody can tell yet whose event that is,
# and all of it (ports, flows) can be asked for after Ready. The states change in three methods only:
# _negotiate, _become_ready and close.
TABLE: Final[dict[tuple[Side, State], dict[int, _Handler]]] = {
    (Side.CONTROLLER, State.WAIT_HELLO): _WAIT_HELLO,
    (Side.CONTROLLER, State.WAIT_FEATURES): {
        of.OFPT_ERROR: Connection._refused,
        of.OFPT_ECHO_REQUEST: Connection._answer_echo,
        of.OFPT_FEATURES_REPLY: Connection._become_ready,
        _OTHER: Connection._ignore,
    },
    (Side.CONTROLLER, State.READY): {
        of.OFPT_HELLO: Connection._ignore,
        of.OFPT_ECHO_REQUEST: Connection._answer_echo,
        of.OFPT_ECHO_REPLY: Connection._measure,
        of.OFPT_MULTIPART_REPLY: Connection._gather,
        _OTHER: Connection._deliver,
    },
    (Side.SWITCH, State.WAIT_HELLO): _WAIT_HELLO,
    (Side.SWITCH, State.WAIT_FEATURES): {
        of.OFPT_HELLO: Connection._ignore,
        of.OFPT_ERROR: Connection._refused,
        of.OFPT_ECHO_REQUEST: Connection._answer_echo,
        of.OFPT_FEATURES_REQUEST: Connection._become_ready,
        _OTHER: Connection._deliver,
    },
    (Side.SWITCH, State.READY): {
        of.OFPT_HELLO: Connection._ignore,
        of.OFPT_ECHO_REQUEST: Connection._answer_echo,
        of.OFPT_ECHO_REPLY: Connection._measure,
        of.OFPT_FEATURES_REQUEST: Connection._answer_features,
        _OTHER: Connection._deliver,
    },
    (Side.CONTROLLER, State.CLOSED): {_OTHER: Connection._ignore},
    (Side.SWITCH, State.CLOSED): {_OTHER: Connection._ignore},
}
