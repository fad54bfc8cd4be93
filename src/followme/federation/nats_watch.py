"""Follow a stream of keys through JetStream, over interruptions: first the newest of each key, then changes.

A push consumer with flow control and heartbeats. When the server has been away, or a message is missing, another
consumer begins behind the last message that was seen. Deletions are messages too, so nothing is overlooked.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator
from typing import Any

from nats.aio.msg import Msg

from .bus import BusError, NoAnswer
from .kv import Entry, KvError
from .nats_connection import NatsConnection
from .nats_sweep import AWAY_S

_BEGIN_S = (2.0, 2.0, 3.0, 5.0, 10.0, 30.0)
"""How long the server may take to begin, try by try. A cluster that is choosing a leader loses what it is asked;
and with a million keys it takes seconds: the last message of each is looked for first."""
_HEARTBEAT_S = 1
_SILENCE_S = 3.0
_RETRY_S = 0.5
_INACTIVE_S = 30


class Watch:
    """One follower of one bucket. ``entries`` once; ``close`` ends it."""

    _numbers = itertools.count(1)

    def __init__(self, connection: NatsConnection, stream: str, prefix: str) -> None:
        self._connection = connection
        self._stream = stream
        self._prefix = prefix
        self._subject = ""
        self._consumer = ""
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._revision = 0
        self._delivered = 0
        self._heard = 0.0

    async def entries(self) -> AsyncGenerator[Entry | None, None]:
        """``KvError`` if it cannot begin, or was away for so long that it may have missed deletions."""
        pending = await self._begin()
        complete = pending == 0
        if complete:
            yield None
        while True:
            try:
                if self._queue.empty():
                    async with asyncio.timeout(_SILENCE_S):
                        message = await self._queue.get()
                else:
                    message = self._queue.get_nowait()
            except TimeoutError:
                await self._again()
                continue
            self._heard = asyncio.get_running_loop().time()
            if message.subject == self._subject:  # of the server itself: a heartbeat, or flow control
                await self._control(message)
                continue
            sequence, delivered, left = _position(message)
            if delivered != self._delivered + 1:
                await self._again()
                continue
            self._delivered = delivered
            if sequence <= self._revision:
                continue
            self._revision = sequence
            deleted = "KV-Operation" in (message.headers or {})
            yield Entry(message.subject.removeprefix(self._prefix), None if deleted else message.data, sequence)
            if left == 0 and not complete:
                complete = True
                yield None

    async def _control(self, message: Msg) -> None:
        headers: dict[str, Any] = message.headers or {}
        try:
            if message.reply:
                await self._connection.publish(message.reply, b"")
            elif "Nats-Consumer-Stalled" in headers:
                await self._connection.publish(headers["Nats-Consumer-Stalled"], b"")
        except BusError:
            return  # the server is away: silence will tell
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) > self._delivered and self._queue.empty():
            await self._again()

    async def _again(self) -> None:
        """A new consumer, as often as it takes."""
        while True:
            try:
                await self._begin()
                break
            except KvError:
                await asyncio.sleep(_RETRY_S)
        if self._heard and asyncio.get_running_loop().time() - self._heard > AWAY_S:
            raise KvError(f"stream {self._stream}: nothing was heard of it for too long, deletions may be missed")

    async def _begin(self) -> int:
        for patience in _BEGIN_S[:-1]:
            try:
                return await self._try_to_begin(patience)
            except NoAnswer:
                continue
        try:
            return await self._try_to_begin(_BEGIN_S[-1])
        except NoAnswer as error:
            raise KvError(f"stream {self._stream}: {error}") from None

    async def _try_to_begin(self, patience: float) -> int:
        """What is to come. ``NoAnswer``, else ``KvError``."""
        await self.close()
        number = next(self._numbers)
        self._subject = f"{self._connection.inbox}.watch.{id(self):x}-{number}"
        queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._queue = queue

        async def received(message: Msg) -> None:
            queue.put_nowait(message)

        config: dict[str, object] = {
            "deliver_subject": self._subject, "ack_policy": "none", "max_deliver": 1, "replay_policy": "instant",
            "flow_control": True, "idle_heartbeat": _HEARTBEAT_S * 10**9, "inactive_threshold": _INACTIVE_S * 10**9,
            "num_replicas": 1, "mem_storage": True, "filter_subject": f"{self._prefix}>",
        }  # fmt: skip
        if self._revision:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": self._revision + 1}
        else:
            # Though the stream has but one message of each key: asked for all of them, a server of 2.9 miscounts
            # those still to come when some are written anew meanwhile.
            config |= {"deliver_policy": "last_per_subject"}
        body = json.dumps({"stream_name": self._stream, "config": config}).encode()
        try:
            await self._connection.subscribe(self._subject, received)
            call = f"$JS.API.CONSUMER.CREATE.{self._stream}"
            answer = json.loads((await self._connection.request(call, body, patience)).data)
        except NoAnswer:
            raise
        except BusError as error:
            raise KvError(f"stream {self._stream}: {error}") from None
        if "error" in answer:
            why = answer["error"].get("description", "an error")
            raise KvError(f"stream {self._stream}: NATS {self._connection.server}: {why}")
        self._consumer = answer["name"]
        self._delivered = 0
        return int(answer.get("num_pending", 0)) + int(answer.get("delivered", {}).get("consumer_seq", 0))

    async def close(self) -> None:
        if self._subject:
            await self._connection.unsubscribe(self._subject)
            self._subject = ""


def _position(message: Msg) -> tuple[int, int, int]:
    """(sequence in the stream, in the consumer, messages still to come): ``$JS.ACK.`` of ADR-15, both forms."""
    fields = message.reply.split(".")
    stream, consumer, _, left = fields[5:9] if len(fields) == 9 else fields[7:11]
    return int(stream), int(consumer), int(left)
