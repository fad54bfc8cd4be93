"""Buckets in a real JetStream: the same promises, over restarts of the server, a lost node, and a full disk."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.interop.nats_lab import nats, needs_nats, until
from tests.unit.federation.kv_contract import CONTRACT, Open, following

from followme.federation.kv import FENCE, Entry, Full, KeyValue, KvError
from followme.federation.nats_accounts import MIB, lease_bucket_of
from followme.federation.nats_kv import JetStreamKeyValue
from followme.system.process import ProcessError, run

pytestmark = needs_nats


@pytest.mark.parametrize("check", CONTRACT, ids=lambda one: one.__name__)
async def test_contract(check: Callable[[Open], Awaitable[None]], tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:

        async def open() -> KeyValue:
            return await lab.bucket("alpha")

        await check(open)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_what_was_acknowledged_is_there_when_the_server_comes_back(
    tmp_path: Path, how: signal.Signals
) -> None:
    async with nats(tmp_path) as lab:
        kv = await lab.bucket("alpha")
        await kv.take_over(1)
        futures = [kv.submit(f"k{number}", b"%d" % number) for number in range(4000)]
        await futures[1500]
        (server,) = lab.servers
        server.send_signal(how)
        results = await asyncio.gather(*futures, return_exceptions=True)
        acknowledged = {f"k{number}" for number, result in enumerate(results) if isinstance(result, int)}
        lost = [result for result in results if not isinstance(result, int)]
        assert len(acknowledged) > 1500
        assert lost, "the server was quicker than its end"
        assert all(isinstance(one, KvError) for one in lost)
        assert server.member.listen in str(lost[0])
        with pytest.raises(KvError):
            await kv.put("k0", b"x")
        await server.stop()
        await server.start()
        await _take_over(kv, 1)
        found = await kv.load()
        assert acknowledged <= found.keys()
        assert found.keys() == {f"k{number}" for number in range(len(found))}
        await asyncio.gather(*(kv.submit(f"k{number}", b"%d" % number) for number in range(4000)))
        assert len(await kv.load()) == 4000


async def test_a_watch_goes_on_after_the_server_was_away(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        writer, reader = await lab.bucket("alpha"), await lab.bucket("alpha", "2")
        await writer.take_over(1)
        await writer.put("a", b"1")
        async with following(reader) as seen:
            shown: dict[str, bytes | None] = {}
            task = asyncio.create_task(_follow(seen, shown))
            await until(lambda: _is(shown, "a", b"1"))
            (server,) = lab.servers
            await server.kill()
            await asyncio.sleep(1)
            await server.start()
            await _take_over(writer, 1)
            await writer.put("b", b"2")
            await writer.delete("a")
            await until(lambda: _is(shown, "b", b"2"), 15)
            await until(lambda: _is(shown, "a", None))
            for number in range(3000):
                writer.submit("c", b"%d" % number)
            await until(lambda: _is(shown, "c", b"2999"))
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert shown == {FENCE: b"1", "a": None, "b": b"2", "c": b"2999"}


async def test_a_cluster_loses_a_node_and_no_key(tmp_path: Path) -> None:
    async with nats(tmp_path, 3) as lab:
        kv = await lab.bucket("alpha", replicas=3)
        await kv.take_over(1)
        kept: dict[str, bytes] = {}
        for round in range(2):
            values = {f"k{number}": b"%d %d" % (round, number) for number in range(500)}
            victim = lab.servers[round]
            futures = {key: kv.submit(key, value) for key, value in values.items()}
            await asyncio.sleep(0.02)
            await victim.kill()
            results = await asyncio.gather(*futures.values(), return_exceptions=True)
            acknowledged = [key for key, one in zip(futures, results, strict=True) if isinstance(one, int)]
            kept |= {key: values[key] for key in acknowledged}
            await _take_over(kv, 1)
            found = await _load(kv)
            for key, value in kept.items():  # what was not acknowledged may be there, too
                assert found[key].value in (value, values[key])
            again = await asyncio.gather(*(kv.submit(key, value) for key, value in values.items()))
            assert len(again) == 500
            kept = values
            await victim.start()
        found = await _load(await lab.bucket("alpha", "2", replicas=3))
        assert {key: entry.value for key, entry in found.items()} == kept


async def test_a_frozen_node_of_a_cluster_is_left(tmp_path: Path) -> None:
    async with nats(tmp_path, 3) as lab:
        bus = await lab.bus("alpha")
        kv = await JetStreamKeyValue.open(bus.connection, "fmc-alpha", replicas=3, max_bytes=16 * MIB)
        await kv.take_over(1)
        await kv.put("a", b"1")
        frozen = next(server for server in lab.servers if server.url == bus.connection.server)
        frozen.send_signal(signal.SIGSTOP)
        try:
            await _take_over(kv, 1)
            assert bus.connection.server != frozen.url
            await kv.put("a", b"2")
        finally:
            frozen.send_signal(signal.SIGCONT)
        entry = await kv.get("a")
        assert entry is not None
        assert entry.value == b"2"
        await kv.close()


async def test_a_bucket_that_is_full_says_so_and_the_lease_goes_on(tmp_path: Path) -> None:
    async with nats(tmp_path, domain_bytes=2 * MIB) as lab:
        kv = await lab.bucket("alpha", max_bytes=2 * MIB)
        lease = await JetStreamKeyValue.open(
            (await lab.bus("alpha", "2")).connection, lease_bucket_of("alpha"), max_bytes=MIB
        )
        await kv.take_over(1)
        await _fill(kv)
        assert await lease.create("active", b"still") > 0
        assert await lease.update("active", b"again", 1) > 1
        other = await lab.bucket("beta", max_bytes=2 * MIB)  # another domain has room of its own
        await other.take_over(1)
        await other.put("a", b"1")
        await lease.close()


async def _fill(kv: KeyValue) -> None:
    """Put until it is full; what was acknowledged is there and nothing after it."""
    futures = {f"k{number}": kv.submit(f"k{number}", os.urandom(10_000)) for number in range(1000)}
    results = await asyncio.gather(*futures.values(), return_exceptions=True)
    refused = [one for one in results if not isinstance(one, int)]
    assert refused
    assert isinstance(refused[0], Full), refused[0]
    kept = len(results) - len(refused)
    assert 0 < kept < 1000
    assert all(isinstance(one, int) for one in results[:kept])
    found = await kv.load()
    assert len(found) >= kept
    assert found.keys() == {f"k{number}" for number in range(len(found))}


async def test_a_disk_that_is_full_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    async with _tiny_disk(tmp_path / "disk") as disk, nats(disk, domain_bytes=100 * MIB) as lab:
        kv = await lab.bucket("alpha", max_bytes=100 * MIB)
        await kv.take_over(1)
        futures = {f"k{number}": kv.submit(f"k{number}", b"%d" % number * 3000) for number in range(4000)}
        results = await asyncio.gather(*futures.values(), return_exceptions=True)
        acknowledged = {
            key: one for key, one in zip(futures, results, strict=True) if isinstance(one, int)
        }
        refused = [one for one in results if not isinstance(one, int)]
        assert refused
        assert isinstance(refused[0], KvError)
        assert acknowledged
        (server,) = lab.servers
        await server.stop()
        await run(["mount", "-o", "remount,size=200m", disk])
        await server.start()
        await _take_over(kv, 1)
        found = await kv.load()
        for key in acknowledged:
            assert found[key] == Entry(key, b"%d" % int(key[1:]) * 3000, acknowledged[key])
        await kv.put("more", b"1")


@asynccontextmanager
async def _tiny_disk(path: Path) -> AsyncIterator[Path]:
    path.mkdir()
    try:
        await run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", path])
    except ProcessError as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    try:
        yield path
    finally:
        await run(["umount", "-l", path])


async def test_what_is_left_of_deleted_keys_goes_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("followme.federation.nats_sweep.MARKERS_S", 0.5)
    monkeypatch.setattr("followme.federation.nats_sweep.SWEEP_S", 0.1)
    async with nats(tmp_path) as lab:
        kv = await lab.bucket("alpha")
        await kv.take_over(1)
        for number in range(20):
            kv.submit(f"k{number}", b"1")
        for number in range(20):
            kv.submit(f"k{number}", None)
        await kv.put("k0", b"again")
        other = await lab.bucket("alpha", "2")
        assert await _markers(other) == {f"k{number}" for number in range(1, 20)}

        async def swept() -> bool:
            return not await _markers(other)

        await until(swept)
        assert {key: entry.value for key, entry in (await kv.load()).items()} == {"k0": b"again"}
        await kv.put("k1", b"2")  # the writer is still the writer


async def test_many_deletions_are_swept_as_fast_as_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket has room for some of them only: each visitor and each migration leaves keys of its own."""
    monkeypatch.setattr("followme.federation.nats_sweep.MARKERS_S", 0.4)
    monkeypatch.setattr("followme.federation.nats_sweep.SWEEP_S", 0.1)
    async with nats(tmp_path) as lab:
        kv = await lab.bucket("alpha", max_bytes=MIB)  # 6500 of them, else ``Full`` is raised
        await kv.take_over(1)
        for number in range(0, 20_000, 500):
            for one in range(number, number + 500):
                kv.submit(f"fact.m/{one}", b"1")
                last = kv.submit(f"fact.m/{one}", None)
            await last
            await asyncio.sleep(0.1)
        assert len(await _markers(await lab.bucket("alpha", "2", max_bytes=MIB))) < 6500


async def test_a_bucket_full_of_deletions_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("followme.federation.nats_sweep.MARKERS_S", 3.0)
    monkeypatch.setattr("followme.federation.nats_sweep.SWEEP_S", 0.1)
    async with nats(tmp_path) as lab:
        kv = await lab.bucket("alpha", max_bytes=MIB)
        await kv.take_over(1)
        with pytest.raises(Full):  # noqa: PT012
            for one in range(20_000):
                kv.submit(f"fact.m/{one}", b"1")
                last = kv.submit(f"fact.m/{one}", None)
                if one % 500 == 0:
                    await last

        async def written() -> bool:
            try:
                await kv.take_over(1)
                await kv.put("a", b"1")
            except Full:
                return False
            return True

        assert not await written()
        await until(written, 20)


async def _markers(kv: KeyValue) -> set[str]:
    """Deleted keys of which the bucket still says so."""
    async with following(kv) as seen:
        return {entry.key async for entry in until_complete(seen) if entry.value is None}


async def until_complete(seen: AsyncIterator[Entry | None]) -> AsyncIterator[Entry]:
    async for entry in seen:
        if entry is None:
            return
        yield entry


async def test_a_bucket_that_differs_from_what_was_asked_for_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats(tmp_path) as lab:
        await lab.bucket("alpha", max_bytes=2 * MIB)
        await lab.bucket("alpha", "2", max_bytes=2 * MIB)
        assert caplog.messages == []
        await lab.bucket("alpha", "3", max_bytes=3 * MIB)
        (line,) = caplog.messages
        assert "bucket fmc-alpha is there" in line
        assert line.endswith(f": max_bytes {2 * MIB} (not {3 * MIB})")


async def test_instances_share_one_bucket_however_they_come(tmp_path: Path) -> None:
    async with nats(tmp_path) as lab:
        ends = await asyncio.gather(*(lab.bucket("alpha", str(number)) for number in range(5)))
        fences = [await end.take_over(epoch) for epoch, end in enumerate(ends, 1)]
        assert fences == sorted(fences)
        for end in ends[:-1]:
            with pytest.raises(KvError):
                await end.put("a", b"1")
        await ends[-1].put("a", b"1")


async def _take_over(kv: KeyValue, epoch: int, seconds: float = 30.0) -> None:
    """As often as it takes: after a lost node the cluster needs some seconds to find another leader."""

    async def tried() -> bool:
        try:
            await kv.take_over(epoch)
        except KvError:
            return False
        return True

    await until(tried, seconds)


async def _load(kv: KeyValue) -> dict[str, Entry]:
    """As often as it takes."""
    while True:
        try:
            return await kv.load()
        except KvError:
            await asyncio.sleep(0.2)


async def _follow(seen: AsyncIterator[Entry | None], shown: dict[str, bytes | None]) -> None:
    async for entry in seen:
        if entry is not None:
            shown[entry.key] = entry.value


async def _is(shown: dict[str, bytes | None], key: str, value: bytes | None) -> bool:
    return key in shown and shown[key] == value
