"""The channel between two agents, or a controller and an agent: bytes in, events and bytes out.

Lines of JSON. The client speaks first; N is a random number of 32 bytes in hex, M an HMAC-SHA-256 in hex:

    client  {"followme": 1, "from": its name, "to": the server's name, "nonce": Nc}
    server  {"nonce": Ns, "proof": M(key, "server", all that was said)}
    client  {"proof": M(key, "client", all that was said)}

Neither proof can be had from the other or from another exchange. From then on each line is

    sequence number, space, M(direction's key, number, JSON), space, JSON

where the two directions' keys are derived from the shared key and both nonces: a line can be neither forged,
nor left out, nor repeated, nor sent back. It is not encrypted. The JSON is one of

    {"call": method, "id": n, "params": {...}}   client     {"event": value, "id": n}   server, any number
    {"drop": n}: its answer is not waited for    client     {"result": value, "id": n}  server, the last word
    {"alive": true}: nothing else to say         both       {"error": text, "id": n}    server, the last word
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from followme.remote.keys import Key

MAX_LINE = 256 << 10
MAX_HELLO = 512
MAX_IN_FLIGHT = 64
HELLO_S = 5.0
ALIVE_S = 5.0
DEAD_AFTER = 3
"""So many times ``alive_s`` of silence, and the peer is given up."""
_MAX_ID = 1 << 53
_MAX_METHOD = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_NONCE = re.compile(r"[0-9a-f]{64}\Z")


class ChannelError(Exception):
    """The channel cannot be used, or not any more; the text says why. It holds no key."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Both sides have proved who they are; ``peer`` is the other's name."""

    peer: str


@dataclass(frozen=True, slots=True)
class Called:
    """At the server: the client wants this done."""

    id: int
    method: str
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dropped:
    """At the server: nobody waits for the answer any more."""

    id: int


@dataclass(frozen=True, slots=True)
class Emitted:
    """At the client: an event of a call that goes on."""

    id: int
    value: Any


@dataclass(frozen=True, slots=True)
class Answered:
    """At the client: a call's last word; ``error`` is None where it was done."""

    id: int
    result: Any
    error: str | None


Event = Opened | Called | Dropped | Emitted | Answered


class Channel:
    """One end. Feed ``receive_data``, send ``data_to_send``, call ``tick`` at ``deadline``.

    After a ``ChannelError`` of ``receive_data`` or ``tick`` the connection must be closed. Times are seconds of
    the caller's monotonic clock.
    """

    def __init__(self, name: str, now: float, *, server: str | None, keys: Mapping[str, Key],
                 alive_s: float = ALIVE_S) -> None:
        """A client names the ``server`` that it wants; ``keys`` are by the peer's name. ``ValueError`` where a
        name is none, or a client has no key for its server."""
        for checked in (name, *([] if server is None else [server])):
            if not _NAME.match(checked):
                raise ValueError(f"{checked!r} is no name of a channel's end: 1 to 64 of A-Z a-z 0-9 . _ -")
        self.name, self.peer, self.opened = name, server or "", False
        self.in_flight: set[int] = set()
        self._is_client, self._keys, self._alive_s = server is not None, keys, alive_s
        self._nonce = secrets.token_hex(32)
        self._said: list[bytes] = []
        self._key: Key | None = None
        self._sender = self._receiver = Key.random()
        self._sent = self._received = 0
        self._started = self._heard_at = self._spoke_at = now
        self._last_id = 0
        self._in, self._out = bytearray(), bytearray()
        self._searched = 0
        self._broken = False
        if server is not None:
            if server not in keys:
                raise ValueError(f"there is no key for {server}")
            self._key = keys[server]
            self._hello({"followme": 1, "from": name, "to": server, "nonce": self._nonce})

    # --- bytes --------------------------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        data = bytes(self._out)
        self._out.clear()
        return data

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """What the peer said; ``ChannelError`` for anything that it may not say."""
        if self._broken:
            raise ChannelError("the channel is closed")
        self._in += data
        events: list[Event] = []
        try:
            while (end := self._in.find(b"\n", self._searched)) >= 0:
                if end > self._limit:
                    raise ChannelError(f"{self._who} sent a line of more than {self._limit} bytes")
                line = bytes(self._in[:end])
                del self._in[: end + 1]
                self._searched = 0
                event = self._message(line) if self.opened else self._handshake(line)
                self._heard_at = now
                if event is not None:
                    events.append(event)
            self._searched = len(self._in)
            if self._searched > self._limit:
                raise ChannelError(f"{self._who} sent a line of more than {self._limit} bytes")
        except ChannelError:
            self._broken = True
            raise
        if self._out:
            self._spoke_at = now
        return events

    @property
    def _limit(self) -> int:
        return MAX_LINE if self.opened else MAX_HELLO

    @property
    def _who(self) -> str:
        return self.peer if self.opened else "the other side"

    # --- time ---------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When ``tick`` is due next."""
        if not self.opened:
            return self._started + HELLO_S
        return min(self._spoke_at + self._alive_s, self._heard_at + DEAD_AFTER * self._alive_s)

    def tick(self, now: float) -> None:
        """Say that we are alive where it is time to; ``ChannelError`` where the peer was silent for too long."""
        if not self.opened:
            if now >= self.deadline:
                self._broken = True
                raise ChannelError(f"the other side has not said who it is within {HELLO_S:g} s")
            return
        if now >= self._heard_at + DEAD_AFTER * self._alive_s:
            self._broken = True
            raise ChannelError(f"{self.peer} has said nothing for {DEAD_AFTER * self._alive_s:g} s")
        if now >= self._spoke_at + self._alive_s:
            self._send({"alive": True})
            self._spoke_at = now

    # --- what our side says -------------------------------------------------------------------------------

    def call(self, method: str, params: Mapping[str, Any]) -> int:
        """Ask the server; the call's number. ``ChannelError`` where too many are under way, or it cannot be
        said in a line of JSON."""
        if len(self.in_flight) >= MAX_IN_FLIGHT:
            raise ChannelError(f"{MAX_IN_FLIGHT} calls to {self.peer} are under way already")
        self._send({"call": method, "id": self._last_id + 1, "params": dict(params)})
        self._last_id += 1
        self.in_flight.add(self._last_id)
        return self._last_id

    def drop(self, id: int) -> None:
        """Tell the server that its answer is not waited for; it still comes, and ends the call."""
        self._send({"drop": id})

    def emit(self, id: int, value: object) -> None:
        """``ChannelError`` where the value cannot be said in a line of JSON: nothing is sent then."""
        self._send({"event": value, "id": id})

    def answer(self, id: int, result: object) -> None:
        """As ``emit``; the call's last word."""
        self._send({"result": result, "id": id})
        self.in_flight.discard(id)

    def refuse(self, id: int, error: str) -> None:
        """The call's last word where it was not done."""
        self._send({"error": error[:4096], "id": id})
        self.in_flight.discard(id)

    def _send(self, value: Mapping[str, Any]) -> None:
        if not self.opened or self._broken:
            raise ChannelError("the channel is not open")
        try:
            body = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ChannelError(f"this cannot be said in JSON: {error}") from None
        number = b"%d" % self._sent
        line = b" ".join((number, self._sender.mac(b"line", number, body).hex().encode(), body))
        if len(line) > MAX_LINE:
            raise ChannelError(f"a line of {len(line)} bytes is too long for the channel ({MAX_LINE})")
        self._sent += 1
        self._out += line + b"\n"

    # --- who is it ----------------------------------------------------------------------------------------

    def _hello(self, value: Mapping[str, Any]) -> None:
        line = json.dumps(value, separators=(",", ":")).encode()
        self._said.append(line)
        self._out += line + b"\n"

    def _proof(self, side: bytes) -> str:
        if self._key is None:  # a server that has heard nothing yet
            raise ChannelError("the other side has not said who it is")
        return self._key.mac(side, *self._said).hex()

    def _handshake(self, line: bytes) -> Opened | None:
        value = _parsed(line, "the other side")
        if self._is_client:
            nonce, proof = value.get("nonce"), value.get("proof")
            if not (isinstance(nonce, str) and _NONCE.match(nonce) and isinstance(proof, str)):
                raise ChannelError("the other side does not speak this protocol")
            self._said.append(nonce.encode())
            if not _equal(proof, self._proof(b"server")):
                raise ChannelError(f"the other side has not the key of {self.peer}, or does not know us "
                                   f"({self.name})")
            self._out += json.dumps({"proof": self._proof(b"client")}).encode() + b"\n"
            return self._open()
        if self._key is None:
            self._greeted(line, value)
            return None
        proof = value.get("proof")
        if not isinstance(proof, str) or self.peer not in self._keys or not _equal(proof, self._proof(b"client")):
            raise ChannelError(f"somebody who says he is {self.peer} has not the key")
        return self._open()

    def _greeted(self, line: bytes, value: Mapping[str, Any]) -> None:
        peer, nonce = value.get("from"), value.get("nonce")
        if value.get("followme") != 1 or not isinstance(nonce, str) or not _NONCE.match(nonce):
            raise ChannelError("the other side does not speak this protocol")
        if not isinstance(peer, str) or not _NAME.match(peer) or value.get("to") != self.name:
            raise ChannelError(f"somebody wants another server than {self.name}, or gives no name")
        self.peer = peer
        # To one whom we do not know we talk as to one whose key is wrong: names cannot be tried out.
        self._key = self._keys.get(peer, self._receiver)
        self._said += [line, self._nonce.encode()]
        proof = {"nonce": self._nonce, "proof": self._proof(b"server")}
        self._out += json.dumps(proof).encode() + b"\n"

    def _open(self) -> Opened:
        if self._key is None:
            raise ChannelError("the channel has no key")
        from_client = Key(self._key.mac(b"from client", *self._said))
        from_server = Key(self._key.mac(b"from server", *self._said))
        self._sender, self._receiver = ((from_client, from_server) if self._is_client
                                        else (from_server, from_client))
        self.opened = True
        return Opened(self.peer)

    # --- what the peer says -------------------------------------------------------------------------------

    def _message(self, line: bytes) -> Event | None:
        number = b"%d" % self._received
        parts = line.split(b" ", 2)
        if len(parts) != 3 or parts[0] != number:
            raise ChannelError(f"{self.peer}: a line is missing, repeated or broken")
        mac = self._receiver.mac(b"line", number, parts[2]).hex().encode()
        if not hmac.compare_digest(parts[1], mac):
            raise ChannelError(f"{self.peer}: a line does not come from it as it is")
        self._received += 1
        value = _parsed(parts[2], self.peer)
        if value.get("alive") is True:
            return None
        return self._said_by_server(value) if self._is_client else self._said_by_client(value)

    def _said_by_client(self, value: Mapping[str, Any]) -> Event | None:
        if "drop" in value:
            id = _number(value["drop"])
            # One that was answered meanwhile is none any more.
            return Dropped(id) if id in self.in_flight else None
        id, method, params = _number(value.get("id")), value.get("call"), value.get("params")
        if not isinstance(method, str) or len(method) > _MAX_METHOD or not isinstance(params, dict):
            raise ChannelError(f"{self.peer}: a call without a method or parameters")
        if id <= self._last_id or len(self.in_flight) >= MAX_IN_FLIGHT:
            raise ChannelError(f"{self.peer}: more than {MAX_IN_FLIGHT} calls, or one twice")
        self._last_id = id
        self.in_flight.add(id)
        return Called(id, method, params)

    def _said_by_server(self, value: Mapping[str, Any]) -> Event:
        id = _number(value.get("id"))
        if id not in self.in_flight:
            raise ChannelError(f"{self.peer} answers what nobody asked")
        if "event" in value:
            return Emitted(id, value["event"])
        self.in_flight.discard(id)
        error = value.get("error")
        if isinstance(error, str):
            return Answered(id, None, error)
        if "result" not in value:
            raise ChannelError(f"{self.peer}: an answer without a result")
        return Answered(id, value["result"], None)


def _equal(proof: str, expected: str) -> bool:
    return hmac.compare_digest(proof.encode(errors="replace"), expected.encode())


def _number(value: object) -> int:
    if type(value) is not int or not 0 < value < _MAX_ID:
        raise ChannelError("a message without the number of its call")
    return value


def _parsed(line: bytes, who: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ChannelError(f"{who}: a line that is no JSON") from None
    if not isinstance(value, dict):
        raise ChannelError(f"{who}: a line that is no JSON object")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")
