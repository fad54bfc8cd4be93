"""The replicated store in JetStream: the next instance has what was acknowledged, the old one writes no more."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from tests.interop.nats_lab import Nats, nats, needs_nats
from tests.unit.store.bucket import content
from tests.unit.store.test_replicated import write_all

from followme.federation.bus import BusError
from followme.federation.kv import KvError
from followme.store import ReplicatedStore, StoreError

pytestmark = needs_nats


async def test_the_next_instance_has_all_and_the_old_one_cannot_write(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        old, new = ReplicatedStore(), ReplicatedStore()
        await old.restore(await lab.bucket("alpha"))
        await old.lead(1)
        await new.restore(await lab.bucket("alpha", "2"))
        write_all(old)
        with old.batch():
            for number in range(200):
                old.put_fact(f"many.{number}", b"%d" % number)
        await old.replicated()
        begin = time.monotonic()
        await new.lead(2)
        assert time.monotonic() - begin < 1.0
        assert content(new) == content(old)
        old.put_fact("late", b"1")
        with pytest.raises(StoreError):
            await old.replicated()
        with new.transaction():
            new.put_fact("many.0", None)
            new.put_fact("more", b"1")
        await new.replicated()
        old_again = ReplicatedStore()
        await old_again.restore(await lab.bucket("alpha", "3"))
        assert content(old_again) == content(new)
        for store in (old, new, old_again):
            store.close()


async def test_a_server_that_dies_leaves_whole_commits_and_all_that_were_acknowledged(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        store = ReplicatedStore()
        await store.restore(await lab.bucket("alpha"))
        await store.lead(1)
        (server,) = lab.servers
        acknowledged: list[int] = []

        async def write() -> None:
            for number in range(1, 2000):
                with store.transaction():
                    for name in ("a", "b", "c"):
                        store.put_fact(name, b"%d" % number)
                if number == 300:
                    server.send_signal(signal.SIGKILL)
                if number % 10 == 0:
                    await store.replicated()
                    acknowledged.append(number)

        with pytest.raises(StoreError):
            await write()
        assert store.failure
        await server.stop()
        await server.start()
        found = ReplicatedStore()
        async with asyncio.timeout(20):
            while not await _restored(found, lab):
                await asyncio.sleep(0.2)
        values = {int(value) for _, value in found.facts()}
        assert len(values) == 1, "a commit is whole"
        assert acknowledged[-1] >= 290
        assert values.pop() >= acknowledged[-1]
        store.close()
        found.close()


async def _restored(found: ReplicatedStore, lab: Nats) -> bool:
    """A new instance, as soon as the server lets it."""
    try:
        await found.restore(await lab.bucket("alpha", "2"))
        await found.lead(2)
    except (KvError, BusError, StoreError):
        return False
    return True
