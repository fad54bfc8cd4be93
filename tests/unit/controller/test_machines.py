"""What the machines' side does beside a migration: retries, and failures that nobody waits for."""

from __future__ import annotations

import asyncio

import pytest

from followme.controllers.openflow import machines as module
from followme.domain import Placement
from followme.store import Store, StoreError

from .world import restarted


async def test_work_in_the_background_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    machines = restarted(Store(":memory:")).machines

    async def fails() -> None:
        raise RuntimeError("nobody waits for this")

    machines.tidy("vm", fails())
    await machines.retired()
    await asyncio.sleep(0)
    assert "nobody waits for this" in caplog.text


async def test_a_place_is_remembered_as_soon_as_the_store_can(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(":memory:")
    controller = restarted(store)
    put, left = store.put_placement, 3

    def put_placement(placement: Placement) -> None:
        nonlocal left
        if left:
            left -= 1
            raise StoreError("database or disk is full")
        put(placement)

    monkeypatch.setattr(module, "FINISH_AGAIN_S", 0.001)
    monkeypatch.setattr(store, "put_placement", put_placement)
    here = controller.redirect.bindings["alice"].here
    store.delete_placement("alice")
    controller.machines.remember("alice")
    await asyncio.wait_for(controller.machines.retired(), 5.0)
    assert left == 0
    assert store.placement("alice") == here


async def test_what_is_still_tried_again_does_not_keep_the_controller_from_closing(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(":memory:")
    controller = restarted(store)

    def put_placement(placement: Placement) -> None:
        raise StoreError("database or disk is full")

    monkeypatch.setattr(module, "FINISH_AGAIN_S", 0.001)
    monkeypatch.setattr(store, "put_placement", put_placement)
    controller.machines.remember("alice")
    await asyncio.sleep(0.02)
    await asyncio.wait_for(controller.machines.close(), 5.0)
    assert not controller.machines._retiring
