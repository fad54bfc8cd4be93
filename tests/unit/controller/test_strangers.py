"""A node of another domain with the MAC address of one that is known here: who was here first is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from followme.controllers.openflow.federated import FederatedController
from followme.domain import NodeKind, mac_text
from followme.federation.codec import decode_answers, encode_orders
from followme.federation.messages import Answer, Held, Order, Refused, Reserve, Reserved, Update
from followme.federation.nouns import Card, Mapping, Place
from followme.federation.records import HeldRecord
from followme.store import Store

from . import domains as world_of
from .domains import HOSTS, VM_MAC, Domains, document, domains

OURS = HOSTS["wlan-d"]
FIRST, SECOND = IPv4Address("10.2.0.77"), IPv4Address("10.3.0.77")
MAC = b"\2\x09\x09\x09\x09\x09"
ANOTHERS = Refused("the MAC address is another node's")


def _card(identifier: IPv4Address, mac: bytes) -> Card:
    home = "dc-b" if identifier == FIRST else "dc-c"
    return Card("guest", NodeKind.USER, mac, identifier, identifier, home)


def _away(identifier: IPv4Address, mac: bytes, version: int = 6) -> Mapping:
    place = Place("dc-a", IPv4Address(f"10.1.0.{130 + identifier.packed[1]}"))
    return Mapping(_card(identifier, mac), version, place)


def _told(identifier: IPv4Address, mac: bytes, version: int = 6) -> Update:
    """Delta's network is told where it is."""
    return Update(_away(identifier, mac, version), ("wlan-d",))


def _controller(world: Domains, domain: str = "delta") -> FederatedController:
    controller = world.instances[domain].controller
    assert controller is not None
    return controller


async def _answers(world: Domains, sender: str, *orders: Order) -> list[Answer]:
    answers = await _controller(world).engine.receive(sender, encode_orders(9, orders))
    return decode_answers(answers)[1]


def _shown(world: Domains) -> set[IPv4Address]:
    """Of the guests."""
    controller = _controller(world)
    return {one for one in (FIRST, SECOND) if controller.shared.name_of(one) is not None}


@pytest.mark.parametrize(("mac", "reason"), [
    (OURS.mac, ANOTHERS.reason), (bytes((2, 0xAA, 0, 0, 0, 4)), "the MAC address is a router's"),
    (b"\3\0\0\0\0\1", "the MAC address is no host's"), (bytes(6), "the MAC address is no host's"),
])  # fmt: skip
async def test_a_card_with_an_address_of_ours_is_refused_for_good(
    tmp_path: Path, mac: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with domains(tmp_path) as world:
        before = set(world.switches["wlan-d"].table.entries)
        reserve = Reserve(_card(FIRST, mac), "wlan-d", 5)
        for _ in range(20):
            assert await _answers(world, "beta", _told(FIRST, mac), reserve) == [Refused(reason)] * 2
        assert set(world.switches["wlan-d"].table.entries) == before
        assert world.federate("delta").view(FIRST) is None
        controller = _controller(world)
        assert controller.counted()[reason] == 40
        assert len([record for record in caplog.records if reason in record.getMessage()]) == 1
        node = controller.locations.node(OURS.mac)
        assert node is not None
        assert node.identifier == OURS.address
        await world.talks(OURS, "dc-a")


async def test_of_two_of_other_domains_the_first_is_kept(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        assert isinstance((await _answers(world, "beta", _told(FIRST, MAC)))[0], Held)
        assert await _answers(world, "gamma", _told(SECOND, MAC)) == [ANOTHERS]
        assert _shown(world) == {FIRST}
        # Once the first is gone the second's home need only say it again.
        home = replace(_away(FIRST, MAC, 9), here=Place("dc-b", FIRST))
        assert await _answers(world, "beta", Update(home, settled=True)) == [Held(9)]
        assert isinstance((await _answers(world, "gamma", _told(SECOND, MAC)))[0], Held)
        assert _shown(world) == {SECOND}


async def test_of_two_that_come_at_once_one_is_kept(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        both = _answers(world, "beta", _told(FIRST, MAC)), _answers(world, "gamma", _told(SECOND, MAC))
        answers = [one for (one,) in await asyncio.gather(*both)]
        assert len([one for one in answers if isinstance(one, Held)]) == 1
        (refused,) = [one for one in answers if isinstance(one, Refused)]
        assert not refused.again
        assert ANOTHERS.reason in refused.reason
        assert len(_shown(world)) == 1


async def test_a_node_that_is_known_may_not_take_the_address_of_another(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        assert isinstance((await _answers(world, "beta", _told(FIRST, MAC)))[0], Held)
        assert await _answers(world, "beta", _told(FIRST, OURS.mac, 7)) == [ANOTHERS]
        node = _controller(world).locations.node(MAC)
        assert node is not None
        assert node.identifier == FIRST
        assert isinstance((await _answers(world, "beta", Reserve(_card(FIRST, MAC), "wlan-d", 8)))[0], Reserved)


def _ours_as_well(domain: str, directory: Path, public: dict[str, str]) -> dict[str, Any]:
    made = document(domain, directory, public)
    if domain == "delta":
        made["users"].append({"name": "late", "home": "wlan-d", "mac": mac_text(MAC), "address": "10.4.0.20"})
    return made


@pytest.mark.parametrize(("records", "shown"), [
    (lambda: {FIRST: OURS.mac}, set()), (lambda: {FIRST: MAC, SECOND: MAC}, {FIRST}),
    (lambda: {FIRST: VM_MAC}, {FIRST}),
], ids=["ours", "two with one", "nobody's here"])  # fmt: skip
async def test_records_that_were_written_before(
    tmp_path: Path, records: Callable[[], dict[IPv4Address, bytes]], shown: set[IPv4Address]
) -> None:
    async with domains(tmp_path) as world:
        await world.stop("delta")
        store = Store(tmp_path / "delta.db")
        for identifier, mac in records().items():
            store.put_fact(f"h/{int(identifier)}", HeldRecord(_away(identifier, mac), {"wlan-d"}).encode())
        store.close()
        await world.start("delta")
        assert _shown(world) == shown
        node = _controller(world).locations.node(OURS.mac)
        assert node is not None
        assert node.identifier == OURS.address
        await world.talks(OURS, "dc-a")


async def test_one_of_ours_that_is_configured_later_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with domains(tmp_path) as world:
        assert isinstance((await _answers(world, "beta", _told(FIRST, MAC)))[0], Held)
        await world.stop("delta")
        monkeypatch.setattr(world_of, "document", _ours_as_well)
        await world.start("delta")
        assert _shown(world) == set()
        node = _controller(world).locations.node(MAC)
        assert node is not None
        assert node.name == "late"
        (answer,) = await _answers(world, "beta", _told(FIRST, MAC, 7))
        assert isinstance(answer, Refused)
        assert not answer.again
        # What takes it away from here is not refused: its home must be able to end it.
        home = replace(_away(FIRST, MAC, 9), here=Place("dc-b", FIRST))
        assert await _answers(world, "beta", Update(home, settled=True)) == [Held(9)]
