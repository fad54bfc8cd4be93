from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from followme.mobility import detector

from .world import World


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(detector, "ALIVE_WAIT_S", 0.01)
    world = World()
    yield world
    await world.watcher.close()
