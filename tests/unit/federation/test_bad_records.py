"""Facts that cannot be used are set aside: all others are restored, and the domain is served."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from followme.domain import NodeKind
from followme.federation.memory import MemoryHub
from followme.federation.nouns import Card, Mapping, Place
from followme.federation.records import HeldRecord, HomeRecord
from followme.store import Store

from .domains import Four, OneDomain, card

GUEST = IPv4Address("10.3.0.77")
NOWHERE = IPv4Address("192.0.2.9")


def _held(name: str, identifier: IPv4Address = GUEST) -> bytes:
    each = Card(name, NodeKind.MACHINE, b"\2\3\3\3\3\3", identifier, identifier, "n3")
    return HeldRecord(Mapping(each, 6, Place("n3", identifier)), {"n1"}).encode()


def _away(network: str) -> bytes:
    return HomeRecord(Mapping(card(7), 6, Place(network, NOWHERE)), 6, holders={"alpha": 6, "omega": 3}).encode()


BAD = [
    (f"h/{int(GUEST)}", b"what\nis this"), (f"h/{int(GUEST)}", b'["guest",[]]\n[[1,2],[],{}]'),
    (f"h/{int(GUEST)}", b""), ("h/guest", b"{}"), ("t/x", b"y"), (f"t/{int(GUEST)}", b"1"),
    (f"h/{int(GUEST)}", _held("x\nERROR root is gone \x1b[31m")), (f"h/{int(GUEST)}", _held("\U0001f600" * 64)),
    (f"h/{int(NOWHERE)}", _held("guest", NOWHERE)), (f"n/{int(GUEST)}", _away("n9")),
    (f"n/{int(card(7).identifier)}", _away("n9")), (f"n/{int(card(7).identifier)}", b'["node7",1]\n[]'),
    (f"m/{int(NOWHERE)}/m1", b'["n2","ready",["flipped"]]'), (f"m/{int(GUEST)}/m1", b"[1,2,3,4,5,6]"),
    (f"a/{int(NOWHERE)}/020000000001", b'["n1",1,null]'), (f"a/{int(GUEST)}/02", b"[]"), ("claim", b"one"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "fact"), BAD)
async def test_a_domain_is_served_whatever_one_of_its_facts_is(key: str, fact: bytes) -> None:
    hub = MemoryHub()
    alpha, beta = OneDomain(hub.bus("alpha")), OneDomain(hub.bus("beta"))
    alpha.store.put_fact(key, fact)
    try:
        for one in (await alpha.start(), await beta.start()):
            for identifier in one.engine.federate.mappings():
                one.engine.federate.view(identifier)
        for number in (0, 7):
            alpha.engine.know(card(number))
        alpha.engine.unaware(GUEST, "n2")
        node = card(0)
        beta.engine.attach(node.identifier, node.mac, "n2")
        async with asyncio.timeout(5):
            while alpha.place(node.identifier) != "n2":
                await asyncio.sleep(0.01)
        assert alpha.store.fact(key) is not None
    finally:
        await alpha.stop()
        await beta.stop()


async def test_a_locator_given_to_a_node_of_nobody_is_not_given_again() -> None:
    hub = MemoryHub()
    beta = OneDomain(hub.bus("beta"))
    first = int(IPv4Address("10.2.128.0"))
    beta.store.put_fact(f"h/{int(NOWHERE)}", HeldRecord(None, given={first: ("n2", 5)}).encode())
    alpha = await OneDomain(hub.bus("alpha")).start()
    await beta.start()
    try:
        node = card(0)
        alpha.engine.know(node)
        beta.engine.attach(node.identifier, node.mac, "n2")
        async with asyncio.timeout(5):
            while beta.place(node.identifier) != "n2":
                await asyncio.sleep(0.01)
        view = beta.engine.federate.view(node.identifier)
        assert view is not None
        assert view.mapping is not None
        assert int(view.mapping.here.locator) != first
    finally:
        await alpha.stop()
        await beta.stop()


async def test_a_domain_that_is_not_configured_any_more_holds_up_no_move() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        (node,) = four.cards
        await four.alpha.stop()
        mapping = Mapping(node, 4, Place("n1", node.identifier))
        record = HomeRecord(mapping, 4, told={"n9"}, holders={"alpha": 4, "omega": 3}, owed={"omega": 4})
        second = OneDomain(four.hub.bus("alpha"), Store(":memory:"))
        second.store.put_fact(f"n/{int(node.identifier)}", replace(record, last={"omega"}).encode())
        four.all["alpha"] = await second.start(2)
        await asyncio.wait_for(second.engine.prepare(node.identifier, "n2", "m1"), 4)
        view = four.beta.engine.federate.view(node.identifier)
        assert view is not None
        assert view.mapping is not None
        assert view.mapping.arriving is not None
