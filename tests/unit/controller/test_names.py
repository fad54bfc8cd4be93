"""A node of another operator with the name of one of ours: both are served."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from pathlib import Path

from followme.domain import NodeKind
from followme.federation.nouns import Card, Mapping, Place
from followme.federation.records import HeldRecord
from followme.store import Store

from .domains import HOSTS, domains

GUEST = IPv4Address("10.2.0.77")


async def test_a_name_of_ours_that_another_operator_uses_is_another_name_here(tmp_path: Path) -> None:
    card = Card("host-wlan-d", NodeKind.MACHINE, b"\2\x09\x09\x09\x09\x09", GUEST, GUEST, "dc-b")
    record = HeldRecord(Mapping(card, 6, Place("dc-c", IPv4Address("10.3.0.130"))), {"wlan-d"})
    async with domains(tmp_path) as world:
        await world.stop("delta")
        store = Store(tmp_path / "delta.db")
        store.put_fact(f"h/{int(GUEST)}", record.encode())
        store.close()
        await asyncio.wait_for(world.start("delta"), 10)
        controller = world.instances["delta"].controller
        assert controller is not None
        ours = HOSTS["wlan-d"].address
        assert controller.shared.name_of(GUEST) == f"host-wlan-d@{GUEST}"
        assert controller.shared.name_of(ours) == "host-wlan-d"
        assert (controller.where(GUEST), controller.where(ours)) == ("dc-c", "wlan-d")
        await world.stop("delta")
        await asyncio.wait_for(world.start("delta"), 10)
        controller = world.instances["delta"].controller
        assert controller is not None
        assert {node.name for node in controller.store.nodes()} == {"host-wlan-d"}
