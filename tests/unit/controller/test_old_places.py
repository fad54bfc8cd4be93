"""Of an old place of ours home is told when it is quiet; again where it may have been in use since."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from followme.domain import NodeKind
from followme.federation.nouns import Card, Mapping, Place
from followme.federation.outputs import View
from tests.until import until

from .domains import domains

GUEST = IPv4Address("10.2.0.77")
OLD = Place("dc-a", IPv4Address("10.1.0.200"))


async def test_home_is_told_once_of_each_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with domains(tmp_path) as world:
        controller = world.instances["alpha"].controller
        assert controller is not None
        told: list[Place] = []
        monkeypatch.setattr(controller.engine, "quiet", lambda identifier, place: told.append(place))
        card = Card("guest", NodeKind.USER, b"\2\x09\x09\x09\x09\x09", GUEST, GUEST, "dc-b")
        mapping = Mapping(card, 5, Place("dc-c", IPv4Address("10.3.0.200")), old=(OLD,))

        def shown(version: int) -> None:
            controller._retire(GUEST, View(replace(mapping, version=version), frozenset(), frozenset(), ()))

        shown(5)
        shown(6)
        await until(lambda: told == [OLD])
        ((_, task),) = controller._retiring.values()
        await task
        shown(5)
        shown(7)
        shown(7)
        await until(lambda: told == [OLD, OLD])
