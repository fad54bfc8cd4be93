"""A bucket that a test can slow down, and what two stores have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from followme.store import ReplicatedStore, Store


@dataclass(frozen=True)
class Written:
    key: str
    value: bytes | None
    revision: int


class Bucket:
    """One writer after another. ``held``: what is submitted waits for ``let``; ``broken``: it is lost. After
    ``dies_after`` writes more it takes none, without a word. Unless it ``shows``, who watches sees nothing until
    ``show``."""

    def __init__(self) -> None:
        self.entries: dict[str, Written] = {}
        self.revision = 0
        self.epoch = 0
        self.held = self.broken = False
        self.shows = True
        self.dies_after: int | None = None
        self.submitted: list[str] = []
        self._waiting: list[tuple[str, bytes | None, asyncio.Future[int]]] = []
        self._shown: list[Written] = []
        self._watchers: list[asyncio.Queue[Written]] = []

    async def take_over(self, epoch: int) -> int:
        if epoch < self.epoch or self.broken:
            raise OSError(f"epoch {self.epoch} has it")
        self.epoch = epoch
        return self._write("_fence", str(epoch).encode())

    def submit(self, key: str, value: bytes | None) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        assert value is None or 0 < len(value) <= 512 << 10
        assert 0 < len(key) <= 256
        self.submitted.append(key)
        self._waiting.append((key, value, future))
        if not self.held:
            self.let()
        return future

    def let(self) -> None:
        waiting, self._waiting = self._waiting, []
        for key, value, future in waiting:
            if self.dies_after is not None:
                self.dies_after -= 1
                if self.dies_after < 0:
                    continue
            if self.broken:
                future.set_exception(OSError("no room in the bucket"))
            else:
                future.set_result(self._write(key, value))

    def _write(self, key: str, value: bytes | None) -> int:
        self.revision += 1
        entry = Written(key, value, self.revision)
        self.entries.pop(key, None)
        self.entries[key] = entry
        self._shown.append(entry)
        if self.shows:
            self.show()
        return self.revision

    def show(self) -> None:
        for watcher in self._watchers:
            for entry in self._shown:
                watcher.put_nowait(entry)
        self._shown.clear()

    async def watch(self) -> AsyncIterator[Written | None]:
        queue: asyncio.Queue[Written] = asyncio.Queue()
        self._watchers.append(queue)
        for entry in list(self.entries.values()):
            yield entry
        yield None
        while True:
            yield await queue.get()


def content(store: Store) -> dict[str, object]:
    """All that is replicated."""
    migrations = store.migrations(10**6)
    return {
        "nodes": store.nodes(), "placements": store.placements(), "leases": store.leases(),
        "locators": store.locators(), "facts": list(store.facts()), "migrations": migrations,
        "unfinished": store.unfinished_migrations(),
        "steps": {one.id: store.migration_steps(one.id) for one in migrations},
    }  # fmt: skip


async def leading(bucket: Bucket, epoch: int = 1, history: int = 1000) -> ReplicatedStore:
    store = ReplicatedStore(history=history)
    await store.restore(bucket)
    await store.lead(epoch)
    return store


async def restored(bucket: Bucket) -> ReplicatedStore:
    store = ReplicatedStore()
    await store.restore(bucket)
    return store
