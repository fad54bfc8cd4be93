"""A bucket in JetStream (NATS's ADR-8 layout: stream ``KV_<bucket>``, subjects ``$KV.<bucket>.<key>``).

Puts are published without waiting, each with the stream's sequence that it must come behind
(``Nats-Expected-Last-Sequence``). The only writer knows that sequence beforehand; one put that is lost, refused
or somebody else's makes the server refuse all that follow.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from nats.aio.msg import Msg

from . import nats_api as api
from .bus import BusError, Unreachable
from .kv import FENCE, Conflict, Entry, Fenced, Full, KvError, check_key, check_value, fence_epoch
from .nats_api import ApiError
from .nats_connection import NatsConnection
from .nats_sweep import GoneError, Sweeper
from .nats_watch import Watch

log = logging.getLogger(__name__)

_TIMEOUT_S = 3.0
_ACK_S = 5.0
"""A put whose acknowledgement takes longer is taken for lost."""
_WINDOW = 512
"""Puts in flight: more would only wait in the server. A fence must be wider than that."""
_ACK_EACH = 64
_PROBE = 16 << 10
"""Bytes of what is written to see whether there is room."""
_QUIET_S, _PAUSE_S = 1.0, 0.05
_PADDING = f"{FENCE}.padding"
_EXPECTED = "Nats-Expected-Last-Sequence"
_EXPECTED_OF_KEY = "Nats-Expected-Last-Subject-Sequence"
_OPERATION = "KV-Operation"

_Put = tuple[str, bytes | None, asyncio.Future[int]]


class JetStreamKeyValue:
    """One instance's way to a bucket: a ``KeyValue``. The connection may carry the bus, and other buckets, too."""

    _numbers = itertools.count(1)

    def __init__(self, connection: NatsConnection, bucket: str) -> None:
        self._connection = connection
        self._name = bucket
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._acks = f"{connection.inbox}.kv{next(self._numbers)}.{id(self):x}"
        self._generation = 0
        self._writable = False
        self.max_bytes = 0
        """What the bucket may hold; 0 or less: there is no limit, or it is not open."""
        self._why: KvError = KvError(f"bucket {bucket}: take_over was not called")
        self._last = self._fence = 0
        self._waiting: deque[_Put] = deque()
        self._flying: deque[tuple[float, int, bool, asyncio.Future[int]]] = deque()
        self._wake = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None
        self._diagnosis: asyncio.Task[None] | None = None
        self._watches: set[Watch] = set()
        self._sweeper = Sweeper(self._erase, self._may_erase)

    @classmethod
    async def open(
        cls, connection: NatsConnection, bucket: str, *, replicas: int = 1, max_bytes: int = 256 << 20,
        timeout: float = 20.0,
    ) -> JetStreamKeyValue:
        """The bucket, made if it is not there: on files of ``replicas`` nodes (1, 3 or 5), of ``max_bytes`` at
        most. ``KvError`` naming the server, at once if it refuses and after ``timeout`` seconds if it is not ready
        (a new cluster needs some to find its leader). One that is there is taken as it is, with a line in the log
        where it differs."""
        self = cls(connection, bucket)
        wanted = {
            "name": self._stream, "subjects": [f"{self._prefix}>"], "retention": "limits", "storage": "file",
            "max_msgs_per_subject": 1, "max_bytes": max_bytes, "discard": "new", "num_replicas": replicas,
            "max_msg_size": 1 << 20, "max_age": 0, "max_consumers": -1, "max_msgs": -1,
            "duplicate_window": 100_000_000,
        }  # fmt: skip
        until = asyncio.get_running_loop().time() + timeout
        while not await self._there(wanted, asyncio.get_running_loop().time() > until):
            await asyncio.sleep(0.2)
        await self._subscribe()
        connection.on_lost(self._on_lost)
        return self

    async def _there(self, wanted: dict[str, object], last: bool) -> bool:
        """Whether the stream is there now, made if it was not."""
        try:
            info = await self._ask(f"STREAM.INFO.{self._stream}", {})
            if differs := api.differences(wanted, info["config"]):
                log.warning("bucket %s is there, and differs from what was asked for: %s", self._name, differs)
            self.max_bytes = int(info["config"].get("max_bytes", 0))
            return True
        except ApiError as error:
            if error.code != api.NO_STREAM and (last or error.code != api.NOT_READY):
                raise error.as_kv_error() from None
            missing = error.code == api.NO_STREAM
        except KvError:
            if last:
                raise
            return False
        try:
            if missing:
                await self._ask(f"STREAM.CREATE.{self._stream}", wanted)
        except ApiError as error:
            if error.code != api.NAME_IN_USE and (last or error.code not in api.NOT_YET):
                raise error.as_kv_error() from None
        return False

    async def _subscribe(self) -> None:
        try:
            await self._connection.subscribe(f"{self._acks}.*", self._acknowledged)
        except BusError as error:
            raise KvError(f"bucket {self._name}: {error}") from None

    @property
    def name(self) -> str:
        return self._name

    # --- the server's API ---------------------------------------------------------------------------------

    async def _ask(self, call: str, body: dict[str, object]) -> dict[str, Any]:
        """``ApiError`` if the server says no, ``KvError`` if it says nothing."""
        return await self._send(f"$JS.API.{call}", json.dumps(body).encode())

    async def _send(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            message = await self._connection.request(subject, payload, _TIMEOUT_S, headers)
            answer: dict[str, Any] = json.loads(message.data)
        except BusError as error:
            raise KvError(f"bucket {self._name}: {error}") from None
        except ValueError:
            server = self._connection.server
            raise KvError(f"bucket {self._name}: NATS {server} answers {subject} with no JSON") from None
        if "error" in answer:
            raise ApiError(self._name, self._connection.server, answer["error"])
        return answer

    # --- single keys --------------------------------------------------------------------------------------

    async def get(self, key: str) -> Entry | None:
        entry = await self._newest(check_key(key))
        return None if entry is None or entry.value is None else entry

    async def _newest(self, key: str) -> Entry | None:
        try:
            found = await self._ask(f"STREAM.MSG.GET.{self._stream}", {"last_by_subj": self._prefix + key})
        except ApiError as error:
            if error.code == api.NO_MESSAGE:
                return None
            raise KvError(str(error)) from None
        message = found["message"]
        deleted = _OPERATION.encode() in base64.b64decode(message.get("hdrs", ""))
        return Entry(key, None if deleted else base64.b64decode(message.get("data", "")), int(message["seq"]))

    async def create(self, key: str, value: bytes) -> int:
        check_value(check_key(key), value)
        try:
            return await self._compare_and_set(key, value, 0)
        except Conflict:
            entry = await self._newest(key)
            if entry is None or entry.value is not None:
                raise Conflict(f"bucket {self._name}: {key} is there already") from None
            return await self._compare_and_set(key, value, entry.revision)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        check_value(check_key(key), value)
        return await self._compare_and_set(key, value, revision)

    async def _compare_and_set(self, key: str, value: bytes, revision: int) -> int:
        try:
            answer = await self._send(self._prefix + key, value, {_EXPECTED_OF_KEY: str(revision)})
        except ApiError as error:
            if error.code in api.WRONG_SEQUENCE:
                raise Conflict(f"bucket {self._name}: {key} is not of revision {revision} any more") from None
            raise error.as_kv_error() from None
        return int(answer["seq"])

    # --- the writer ---------------------------------------------------------------------------------------

    async def take_over(self, epoch: int) -> int:
        self._fail(KvError(f"bucket {self._name} was taken over anew"))
        self._sweeper.start()
        await self._until_quiet()
        while True:
            held = await self._newest(FENCE)
            found = fence_epoch(held)
            if found > epoch:
                raise Fenced(f"bucket {self._name}: epoch {found} has it, ours is {epoch}")
            try:
                revision = await self._compare_and_set(FENCE, str(epoch).encode(), held.revision if held else 0)
                # A put of the last writer that is still on its way expects a sequence within its window: pass it.
                for _ in range(_WINDOW):
                    await self._connection.publish(self._prefix + _PADDING, b"-")
                self._last = await self._compare_and_set(FENCE, str(epoch).encode(), revision)
                break
            except Conflict:
                continue  # another instance takes it over at this moment: one of us has the higher epoch
            except Full as error:
                self._why = error
                raise
            except BusError as error:
                raise KvError(f"bucket {self._name}: {error}") from None
        self._fence = self._last
        self._generation += 1
        self._writable = True
        if self._sender is None or self._sender.done():
            self._sender = asyncio.ensure_future(self._send_puts())
        return self._last

    async def _until_quiet(self) -> None:
        """Until no put arrives any more, but a second at most. In the moment of the fence a put in flight may be
        refused and one behind it be kept; an earlier writer has given up before its lease ended, so a pause is
        enough for its last puts to arrive."""
        last = -1
        for _ in range(round(_QUIET_S / _PAUSE_S)):
            try:
                info = await self._ask(f"STREAM.INFO.{self._stream}", {})
            except ApiError as error:
                raise error.as_kv_error() from None
            if info["state"]["last_seq"] == last:
                return
            last = info["state"]["last_seq"]
            await asyncio.sleep(_PAUSE_S)

    def submit(self, key: str, value: bytes | None) -> asyncio.Future[int]:
        check_value(check_key(key), value)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if not self._writable:
            _lose(future, type(self._why)(f"{self._why}; {key} was not written"))
            return future
        self._waiting.append((key, value, future))
        self._wake.set()
        return future

    async def put(self, key: str, value: bytes) -> int:
        return await self.submit(key, value)

    async def delete(self, key: str) -> int:
        return await self.submit(key, None)

    def _may_erase(self) -> bool:
        """A bucket that is full has no writer: it must be swept all the same, or it stays full."""
        return self._writable or isinstance(self._why, Full)

    async def _erase(self, sequence: int) -> None:
        try:
            await self._ask(f"STREAM.MSG.DELETE.{self._stream}", {"seq": sequence, "no_erase": True})
        except ApiError as error:
            if error.code in api.GONE:
                raise GoneError(error.text) from None
            raise

    async def _send_puts(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            while self._writable and self._waiting and len(self._flying) < _WINDOW:
                key, value, future = self._waiting.popleft()
                headers = {_EXPECTED: str(self._last)}
                self._last += 1
                if value is None:
                    headers[_OPERATION] = "DEL"
                self._flying.append((loop.time() + _ACK_S, self._last, value is None, future))
                # The acknowledgement of one put is that of all before it: ask for few.
                asks = not self._waiting or self._last % _ACK_EACH == 0
                reply = f"{self._acks}.{self._generation}-{self._last}" if asks else ""
                try:
                    await self._connection.publish(self._prefix + key, value or b"", reply, headers)
                except BusError as error:
                    self._fail(KvError(f"bucket {self._name}: {error}; {key} was not written"))
            try:
                async with asyncio.timeout_at(self._flying[0][0] if self._flying else None):
                    await self._wake.wait()
            except TimeoutError:
                if self._flying and self._flying[0][0] <= loop.time():
                    server = self._connection.server
                    self._fail(KvError(f"bucket {self._name}: NATS {server} acknowledges nothing for {_ACK_S:g} s"))

    async def _acknowledged(self, message: Msg) -> None:
        generation, _, expected = message.subject.rpartition(".")[2].partition("-")
        if not self._writable or int(generation) != self._generation:
            return
        try:
            answer = json.loads(message.data)
        except ValueError:  # no stream: the server says so in a header, without a body
            self._fail(KvError(f"bucket {self._name}: NATS {self._connection.server} does not hold it now"))
            return
        if "error" in answer or answer.get("seq") != int(expected):
            self._writable, self._why = False, KvError(f"bucket {self._name}: a put was not kept")
            self._diagnosis = asyncio.ensure_future(self._diagnose(answer, expected))
            return
        while self._flying and self._flying[0][1] <= int(expected):
            _, sequence, deletes, future = self._flying.popleft()
            if deletes:
                self._sweeper.note(sequence)
            if not future.done():
                future.set_result(sequence)
        if self._waiting or not self._flying:
            self._wake.set()

    async def _diagnose(self, answer: dict[str, Any], expected: str) -> None:
        """A put was refused; if only because one before it was (of which we have not asked), why was that?"""
        generation = self._generation
        why = KvError(f"bucket {self._name}: another instance has written to it, or a put was lost "
                      f"(sequence {answer.get('seq')} where {expected} was due)")  # fmt: skip
        error = ApiError(self._name, self._connection.server, answer.get("error", {}))
        if error.code and error.code not in api.WRONG_SEQUENCE:
            why = error.as_kv_error()
        else:
            try:
                held = await self._newest(FENCE)
                if held is not None and held.revision == self._fence:  # or the probe would disturb its writer
                    await self._send(self._prefix + _PADDING, bytes(_PROBE))
            except ApiError as found:
                why = found.as_kv_error()
            except KvError as found:
                why = found
        if generation == self._generation:
            self._fail(why)

    def _on_lost(self) -> None:
        if self._writable or self._flying:
            server = self._connection.server
            self._fail(KvError(f"bucket {self._name}: the connection to NATS {server} broke"))

    def _fail(self, error: KvError) -> None:
        """All that is in flight or waits has failed, and what will be submitted, until ``take_over``."""
        self._writable, self._why = False, error
        lost = [future for *_, future in self._flying] + [future for _, _, future in self._waiting]
        self._flying.clear()
        self._waiting.clear()
        for future in lost:
            _lose(future, type(error)(str(error)))

    # --- all keys -----------------------------------------------------------------------------------------

    async def load(self) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        entries = self.watch()
        async with contextlib.aclosing(entries):
            async for entry in entries:
                if entry is None:
                    break
                if entry.value is None:
                    found.pop(entry.key, None)
                elif entry.key not in (FENCE, _PADDING):
                    found[entry.key] = entry
        return found

    async def watch(self) -> AsyncGenerator[Entry | None, None]:
        watch = Watch(self._connection, self._stream, self._prefix)
        self._watches.add(watch)
        self._sweeper.start()
        try:
            async for entry in watch.entries():
                if entry is not None and entry.value is None:
                    self._sweeper.note(entry.revision)
                if entry is None or entry.key != _PADDING:
                    yield entry
        finally:
            self._watches.discard(watch)
            await watch.close()

    async def close(self) -> None:
        self._fail(KvError(f"bucket {self._name}: it is closed"))
        self._sweeper.stop()
        for task in (self._sender, self._diagnosis):
            if task is not None:
                task.cancel()
        for watch in list(self._watches):
            await watch.close()
        with contextlib.suppress(Unreachable):
            await self._connection.unsubscribe(f"{self._acks}.*")


def _lose(future: asyncio.Future[int], error: KvError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever never looks is not told on the console
