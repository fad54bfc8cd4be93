"""The same store in memory, and every commit also in a bucket that outlives the process: for a domain that has more
than one controller instance.

    store = ReplicatedStore()
    await store.restore(bucket)     # a standby: it has all, and keeps itself warm
    await store.lead(epoch)         # now it takes writes, and nobody else's are accepted any more
    with store.batch(): ...         # commits as any store; the bucket is written in the background
    await store.replicated()        # now it may be acted upon

A commit that the bucket did not keep cannot be told from one that it did: then the store takes no write any more,
and ``restore`` finds out what is true. Attachments (where nodes were, for people) are not replicated.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from functools import partial

from . import commits
from .commits import HEAD, PREFIX, Changes
from .keyvalue import Entry, KeyValue
from .records import StoreError
from .replica import KINDS, MAX_VALUE, apply_changes, record_changes, take_changes
from .sqlite import Store

_STANDBY = "it is a standby's and takes no writes"


class ReplicatedStore(Store):
    """A ``Store`` without a file. Until ``lead``, and after a commit that was not kept, writes are ``StoreError``s.

    ``history`` as of ``Store``: each finished migration that is kept is a key.
    """

    def __init__(self, *, history: int = 1000) -> None:
        super().__init__(":memory:", history=history)
        self._name = "replicated"
        self._kv: KeyValue | None = None
        self._refusal = _STANDBY
        self._watching: asyncio.Task[None] | None = None
        self._seen = 0
        self._more, self._failed = asyncio.Event(), asyncio.Event()
        self._record: dict[str, bytes] = {}
        """The bucket's keys ``commit.*``."""
        self._number = 0
        self._last: asyncio.Future[int] | None = None
        self._life = 0

    def close(self) -> None:
        self._stop_watching()
        super().close()

    @property
    def failure(self) -> str:
        """Why only ``restore`` helps: a commit was not kept, the bucket cannot be followed; "" if all is well."""
        return "" if self._refusal == _STANDBY else self._refusal

    async def lost(self) -> str:
        """Wait until there is a ``failure``; says which."""
        await self._failed.wait()
        return self.failure

    # --- a standby ----------------------------------------------------------------------------------------

    async def restore(self, kv: KeyValue) -> None:
        """Forget everything, fill it with what the bucket has, and go on with what comes into it: a standby.

        ``StoreError`` if the bucket cannot be read, or holds what no store has written.
        """
        self._stop_watching()
        self._refuse(_STANDBY)
        self._kv, self._last, self._seen, self._record = kv, None, 0, {}
        self._life += 1
        for kind in KINDS.values():
            self._run(f"DELETE FROM {kind.table}")
        entries = kv.watch()
        self._run("BEGIN")
        try:
            async for entry in entries:
                if entry is None:
                    break
                self._take(entry)
            # Its keys are as new as it is or older: it is the last commit, whose keys may not all be there.
            self._apply(self._unfinished())
            self._run("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._run("ROLLBACK")
            if isinstance(error, Exception):
                self._refuse(str(error))
                raise StoreError(f"store {self._name}: {error}") from error
            raise
        self._watching = asyncio.ensure_future(self._follow(entries))

    async def _follow(self, entries: AsyncIterator[Entry | None]) -> None:
        try:
            async for entry in entries:
                if entry is not None:
                    self._take(entry)
                    if entry.key == HEAD:
                        self._apply(self._unfinished())  # all of the commit at once
                    self._more.set()
            self._refuse("the watch of the bucket has ended")
        except Exception as error:
            self._refuse(f"the bucket cannot be followed: {error}")
        finally:
            self._more.set()

    def _take(self, entry: Entry) -> None:
        if not entry.key.startswith(PREFIX):
            self._apply({entry.key: entry.value})
        elif entry.value is None:
            self._record.pop(entry.key, None)
        else:
            self._record[entry.key] = entry.value
        self._seen = entry.revision

    def _unfinished(self) -> Changes:
        self._number = max(self._number, commits.number_of(self._record.get(HEAD)))
        return commits.unpack(self._record)

    def _apply(self, changes: Changes) -> None:
        if self._db.in_transaction:  # a restore's, which is undone as a whole
            apply_changes(self._db, changes)
            return
        self._run("SAVEPOINT applied")
        try:
            apply_changes(self._db, changes)
        except BaseException:
            self._run("ROLLBACK TO applied")
            raise
        finally:
            self._run("RELEASE applied")

    def _stop_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    # --- the writer ---------------------------------------------------------------------------------------

    async def lead(self, epoch: int) -> None:
        """Take the bucket over with the lease's ``epoch``, wait until all is here that was written before, and take
        writes from then on. ``StoreError`` if a higher epoch has it, or if it cannot be had or followed."""
        kv = self._kv
        if kv is None or self._watching is None:
            raise StoreError(f"store {self._name}: it was not restored")
        try:
            fence = await kv.take_over(epoch)
        except Exception as error:
            raise StoreError(f"store {self._name}: {error}") from error
        while self._seen < fence:
            if self._refusal != _STANDBY:
                raise StoreError(f"store {self._name}: {self._refusal}")
            self._more.clear()
            await self._more.wait()
        self._stop_watching()
        record_changes(self._db)
        self._run("DELETE FROM changed")
        self._refusal = ""
        # The writer before us may have died after the record and before its keys.
        self._submit(self._unfinished().items())

    def replicating(self) -> Awaitable[object] | None:
        last = self._last
        return None if last is None or (last.done() and not _lost(last)) else last

    async def replicated(self) -> None:
        if self._last is not None:
            try:
                await asyncio.shield(self._last)
            except Exception as error:
                raise StoreError(f"store {self._name}: {error}") from error

    def put_facts(self, facts: Mapping[str, bytes | None]) -> None:
        """As ``Store``'s; at most ``MAX_VALUE`` bytes each."""
        for key, value in facts.items():
            if value is not None and len(value) >= MAX_VALUE:
                size = f"has {len(value)} bytes, {MAX_VALUE - 1} are allowed"
                raise StoreError(f"store {self._name}: fact {key} {size}")
        super().put_facts(facts)

    def _begin(self) -> None:
        if self._refusal:
            raise StoreError(f"store {self._name}: {self._refusal}")
        super()._begin()

    def _write(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        if self._outside:
            with self.transaction():
                return super()._write(statement, *parameters)
        return super()._write(statement, *parameters)

    def _commit(self) -> None:
        if not self._begun:
            return
        try:
            self._check()
            changes = take_changes(self._db)
        except (StoreError, sqlite3.Error) as error:
            self._abandon()
            raise StoreError(f"store {self._name}: {error}") from error
        super()._commit()
        self._keep(changes)

    def _keep(self, changes: Changes) -> None:
        if len(changes) > 1:
            self._number += 1
            parts = commits.pack(self._number, changes)
            record = [(f"{PREFIX}{number}", part) for number, part in enumerate(parts)]
            self._submit(reversed(record))
            self._record[HEAD] = parts[0]
        elif changes and self._record.pop(HEAD, None) is not None:
            self._submit([(HEAD, None)])
        self._submit(changes.items())

    def _submit(self, changes: Iterable[tuple[str, bytes | None]]) -> None:
        if self._kv is None or self._refusal:
            return
        last = None
        try:
            for key, value in changes:
                self._last = last = self._kv.submit(key, value)
            # When one is lost so are all after it: the last one knows.
            if last is not None and last.done():
                self._acknowledged(self._life, last)
            elif last is not None:
                last.add_done_callback(partial(self._acknowledged, self._life))
        except Exception as error:
            self._refuse(str(error))
            raise StoreError(f"store {self._name}: {error}") from error

    def _acknowledged(self, life: int, future: asyncio.Future[int]) -> None:
        if _lost(future) and life == self._life:
            self._refuse(f"a commit was not kept: {'given up' if future.cancelled() else future.exception()}")

    def _refuse(self, why: str) -> None:
        if why == _STANDBY:
            self._refusal = why
            self._failed.clear()
        elif not self.failure:
            self._refusal = why
            self._failed.set()


def _lost(future: asyncio.Future[int]) -> bool:
    return future.cancelled() or future.exception() is not None
