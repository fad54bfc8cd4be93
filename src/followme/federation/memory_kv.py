"""A bucket within one process, with the same rules as one in JetStream; tests can take it away or fill it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from .kv import FENCE, Conflict, Entry, Fenced, Full, KvError, check_key, check_value, fence_epoch


@dataclass
class MemoryBucket:
    """What several ``MemoryKeyValue`` share. ``delay``: seconds between a write and its acknowledgement."""

    name: str = "bucket"
    delay: float = 0.0
    away: bool = False
    full: bool = False
    revision: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    watchers: set[asyncio.Queue[Entry]] = field(default_factory=set)

    def write(self, key: str, value: bytes | None) -> int:
        if self.away:
            raise KvError(f"bucket {self.name} is away")
        if self.full:
            raise Full(f"bucket {self.name} is full: {key} was not written")
        self.revision += 1
        entry = self.entries[key] = Entry(key, value, self.revision)
        for watcher in self.watchers:
            watcher.put_nowait(entry)
        return self.revision


class MemoryKeyValue:
    """One instance's way to the bucket: a ``KeyValue``. ``cut`` takes this instance alone away from it."""

    def __init__(self, bucket: MemoryBucket) -> None:
        self._bucket = bucket
        self._expected: int | None = None
        self._why = "take_over was not called"
        self._tasks: set[asyncio.Task[None]] = set()
        self.cut = False

    @property
    def name(self) -> str:
        return self._bucket.name

    def _check(self) -> None:
        if self.cut or self._bucket.away:
            raise KvError(f"bucket {self.name} is away")

    async def get(self, key: str) -> Entry | None:
        check_key(key)
        await asyncio.sleep(self._bucket.delay)
        self._check()
        entry = self._bucket.entries.get(key)
        return None if entry is None or entry.value is None else entry

    async def create(self, key: str, value: bytes) -> int:
        check_value(check_key(key), value)
        await asyncio.sleep(self._bucket.delay)
        self._check()
        entry = self._bucket.entries.get(key)
        if entry is not None and entry.value is not None:
            raise Conflict(f"bucket {self.name}: {key} is there already")
        return self._bucket.write(key, value)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        check_value(check_key(key), value)
        await asyncio.sleep(self._bucket.delay)
        self._check()
        entry = self._bucket.entries.get(key)
        if entry is None or entry.revision != revision:
            raise Conflict(f"bucket {self.name}: {key} is not of revision {revision} any more")
        return self._bucket.write(key, value)

    async def take_over(self, epoch: int) -> int:
        await asyncio.sleep(self._bucket.delay)
        self._check()
        found = fence_epoch(self._bucket.entries.get(FENCE))
        if found > epoch:
            raise Fenced(f"bucket {self.name}: epoch {found} has it, ours is {epoch}")
        self._expected = self._bucket.write(FENCE, str(epoch).encode())
        return self._expected

    def submit(self, key: str, value: bytes | None) -> asyncio.Future[int]:
        check_value(check_key(key), value)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        try:
            revision = self._write(key, value)
        except KvError as error:
            self._expected, self._why = None, str(error)
            future.set_exception(error)
            future.exception()  # whoever never looks is not told on the console
            return future
        if self._bucket.delay:
            task = asyncio.ensure_future(_later(self._bucket.delay, future, revision))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            future.set_result(revision)
        return future

    def _write(self, key: str, value: bytes | None) -> int:
        if self._expected is None:
            raise KvError(f"bucket {self.name}: {self._why}; {key} was not written")
        self._check()
        if self._expected != self._bucket.revision:
            raise KvError(f"bucket {self.name}: another instance has written to it; {key} was not written")
        self._expected = self._bucket.write(key, value)
        return self._expected

    async def put(self, key: str, value: bytes) -> int:
        return await self.submit(key, value)

    async def delete(self, key: str) -> int:
        return await self.submit(key, None)

    async def load(self) -> dict[str, Entry]:
        await asyncio.sleep(self._bucket.delay)
        self._check()
        entries = self._bucket.entries
        return {key: entry for key, entry in entries.items() if entry.value is not None and key != FENCE}

    async def watch(self) -> AsyncGenerator[Entry | None, None]:
        self._check()
        queue: asyncio.Queue[Entry] = asyncio.Queue()
        self._bucket.watchers.add(queue)
        try:
            for entry in sorted(self._bucket.entries.values(), key=lambda one: one.revision):
                yield entry
            yield None
            while True:
                entry = await queue.get()
                while self.cut:
                    await asyncio.sleep(0.01)
                yield entry
        finally:
            self._bucket.watchers.discard(queue)

    async def close(self) -> None:
        self._expected, self._why = None, "it is closed"
        for task in self._tasks:
            task.cancel()


async def _later(delay: float, future: asyncio.Future[int], revision: int) -> None:
    try:
        await asyncio.sleep(delay)
    finally:
        if not future.done():
            future.set_result(revision)
