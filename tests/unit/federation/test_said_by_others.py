"""What other domains and hosts say: names of few characters, and migrations that nobody here has prepared."""

from __future__ import annotations

import json
from ipaddress import IPv4Address

import pytest

from followme.domain import NodeKind
from followme.federation.codec import MessageError, decode_answers, decode_orders, encode_answers, encode_orders
from followme.federation.conductor import MAX_PASSING
from followme.federation.engine import FederationError
from followme.federation.hosts import HostRequest, decode
from followme.federation.messages import Denied, Flipped, Refused, Reserve
from followme.federation.nouns import Card
from followme.federation.orders import Carry, OrderError, decode_order

from .domains import Four, card

NODE = card(0).identifier


@pytest.mark.parametrize("name", [
    "x\nERROR root is gone \x1b[31m", "\U0001f600" * 64, "two words", "", "a" * 65, "a/b", "\u202egnp", "vm\n",
])  # fmt: skip
def test_a_name_has_few_kinds_of_characters(name: str) -> None:
    each = card(0)
    bad = Card(name, each.kind, each.mac, each.identifier, each.address, each.home)
    with pytest.raises(MessageError, match="name"):
        decode_orders(encode_orders(1, [Reserve(bad, "n2", 1)]))
    with pytest.raises(MessageError):
        decode_orders(encode_orders(1, [Flipped(NODE, name)]))
    with pytest.raises(ValueError, match="name"):
        decode(HostRequest("flipped", NODE, name).encode())
    with pytest.raises(OrderError):
        decode_order(Carry(name, "vm", "n2").encode())


@pytest.mark.parametrize("name", ["vm-1.example_2", "a" * 64, "user-020000000001"])
def test_what_configs_and_leases_call_nodes_is_a_name(name: str) -> None:
    each = card(0)
    order = Reserve(Card(name, each.kind, each.mac, each.identifier, each.address, each.home), "n2", 1)
    assert decode_orders(encode_orders(1, [order])) == (1, [order])


def test_home_may_deny_an_attach() -> None:
    order = Denied(NODE, "attach 9007199254740991", "no locator is free")
    assert decode_orders(encode_orders(1, [order])) == (1, [order])


def test_a_reason_is_one_line_of_a_log() -> None:
    (answer,) = decode_answers(encode_answers(1, [Refused("no\nERROR \x1b[31m: é")]))[1]
    assert answer == Refused("no?ERROR ?[31m: é")


def test_a_host_names_a_migration_that_can_be_written() -> None:
    words = json.dumps(["flipped", int(NODE), "\ud800", "", ""]).encode()
    with pytest.raises(ValueError, match="name"):
        decode(words)


async def test_phases_of_what_is_not_known_here_are_refused_and_not_written() -> None:
    async with Four() as four:
        engine = four.alpha.engine
        with pytest.raises(FederationError, match="not known here"):
            await engine.flipped(IPv4Address("9.9.9.9"), "m1", 2)
        with pytest.raises(FederationError, match="not prepared"):
            await engine.flipped(NODE, "m1", 2)
        await engine.aborted(NODE, "m1", 2)  # nothing is under way
        assert [key for key, _ in four.alpha.store.facts() if key.startswith("m/")] == []
        four.hub.part("alpha", "beta")
        with pytest.raises(FederationError, match="not known here"):
            await four.beta.engine.flipped(NODE, "m1", 2)


async def test_a_host_that_has_not_heard_the_last_answer_is_answered_again() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        engine = four.alpha.engine
        await engine.prepare(NODE, "n2", "m1")
        await engine.flipped(NODE, "m1")
        await engine.released(NODE, "m1")
        await engine.released(NODE, "m1", 2)
        await four.settled(("alpha", "beta"), "n2")
        await four.beta.engine.prepare(NODE, "n1", "m2")
        await four.beta.engine.flipped(NODE, "m2")
        await four.beta.engine.released(NODE, "m2")
        await four.beta.engine.released(NODE, "m2", 2)
        for one in (four.alpha, four.beta):
            assert [key for key, _ in one.store.facts() if key.startswith("m/")] == []


async def test_home_is_asked_of_few_unknown_migrations_at_a_time() -> None:
    async with Four() as four:
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), "n2")
        four.hub.part("alpha", "beta")
        federate = four.beta.engine.federate
        for number in range(MAX_PASSING + 1):
            federate.flipped(NODE, f"m{number}")
        reasons = [getattr(effect, "reason", "") for effect in federate.take().effects]
        assert reasons == ["too many migrations that are not known here"]
