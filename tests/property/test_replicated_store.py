"""Whatever is written, undone, nested and batched, and wherever the writer dies: a standby has whole commits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.store.bucket import Bucket, content, leading, restored

from followme.domain import Migration, MigrationState, Node, NodeKind, Placement
from followme.store import Lease, Store, StoreError, commits

Write = Callable[[Store], object]

names = st.sampled_from(["a", "b", "ü.", "", "="])
addresses = st.sampled_from([IPv4Address(f"10.0.0.{n}") for n in range(3)])
macs = st.sampled_from([bytes([2, 0, 0, 0, 0, n]) for n in range(3)])
ports = st.integers(0, 3)


def node(name: str, mac: bytes, address: IPv4Address, port: int) -> Write:
    return lambda store: store.put_node(Node(name, NodeKind.USER, mac, address, address, "west", port or None))


def saga(id: str, state: MigrationState, at: float) -> Write:
    return lambda store: store.put_migration(Migration(id, "vm", "a", "b", "live", state, 1.5, {"at": at}), at)


def call(method: str, *arguments: Any) -> Write:
    return lambda store: getattr(store, method)(*arguments)


writes = st.one_of(
    st.builds(node, names, macs, addresses, ports),
    st.builds(lambda name: call("delete_node", name), names),
    st.builds(lambda *place: call("put_placement", Placement(*place)), names, names, ports, addresses, ports),
    st.builds(lambda name: call("delete_placement", name), names),
    st.builds(lambda *lease: call("put_lease", Lease(*lease)), macs, addresses, names, st.floats(allow_nan=False)),
    st.builds(lambda mac: call("delete_lease", mac), macs),
    st.builds(lambda where, who, pool: call("allocate_locator", where, who, pool), names, names,
              st.lists(addresses, max_size=3)),
    st.builds(lambda where, who: call("free_locator", where, who), names, names),
    st.builds(saga, names, st.sampled_from(MigrationState), st.floats(0, 9)),
    st.builds(lambda key, value: call("put_fact", key, value), names, st.none() | st.binary(max_size=9)),
)  # fmt: skip
groups: st.SearchStrategy[Any] = st.deferred(
    lambda: st.tuples(st.sampled_from(["transaction", "fails", "batch"]), histories)
)
histories: st.SearchStrategy[list[Any]] = st.lists(writes | groups, max_size=6)


class Undone(Exception):
    """Leaves a transaction."""


def play(store: Store, history: list[Any]) -> None:
    for step in history:
        if callable(step):
            with contextlib.suppress(StoreError):  # no locator is left
                step(store)
            continue
        how, inner = step
        with contextlib.suppress(Undone), store.batch() if how == "batch" else store.transaction():
            play(store, inner)
            if how == "fails":
                raise Undone


@given(histories, histories)
@settings(max_examples=120, deadline=None)
def test_a_standby_has_the_stores_own_content(first: list[Any], second: list[Any]) -> None:
    async def run() -> None:
        bucket = Bucket()
        store, watching = await leading(bucket, history=2), await restored(bucket)
        plain = Store(":memory:", history=2)
        for history in (first, second):
            play(store, history)
            play(plain, history)
            await asyncio.sleep(0)
            wanted = content(plain)
            assert content(store) == content(watching) == content(await restored(bucket)) == wanted
            # The next one goes on as the writer.
            store, watching = watching, await restored(bucket)
            store._history = 2
            await store.lead(bucket.epoch + 1)

    asyncio.run(run())


@given(st.lists(histories, max_size=4), st.integers(0, 25))
@settings(max_examples=120, deadline=None)
def test_a_writer_that_dies_leaves_what_was_after_some_commit(commit: list[list[Any]], dies_after: int) -> None:
    async def run() -> None:
        bucket = Bucket()
        store = await leading(bucket)
        states, safe = [content(store)], 0
        bucket.dies_after = dies_after
        for history in commit:
            with store.batch():
                play(store, history)
            states.append(content(store))
            if store.replicating() is None:
                safe = len(states) - 1
        bucket.dies_after = None
        found = await restored(bucket)
        assert content(found) in states[safe:], "what was acknowledged is there"
        await found.lead(2)
        found.put_fact("more", b"1")
        assert content(await restored(bucket)) == content(found)

    asyncio.run(run())


changes = st.dictionaries(st.text(min_size=1, max_size=20), st.none() | st.binary(max_size=20), max_size=9)


@given(st.integers(0, 1 << 63), changes)
def test_a_record_says_what_was_put_into_it(number: int, said: commits.Changes) -> None:
    parts = {f"commit.{index}": part for index, part in enumerate(commits.pack(number, said))}
    assert commits.unpack(parts) == said
    assert commits.number_of(parts["commit.0"]) == number


@given(st.binary(max_size=60))
def test_a_record_of_any_bytes_is_read_or_refused(data: bytes) -> None:
    try:
        said = commits.unpack({"commit.0": data})
    except ValueError:
        return
    parts = {f"commit.{index}": part for index, part in enumerate(commits.pack(commits.number_of(data), said))}
    assert commits.unpack(parts) == said
