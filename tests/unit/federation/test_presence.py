"""Before home lets a node go, the place where it is is asked."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from followme.domain import NodeKind
from followme.federation.codec import decode_answers, encode_orders
from followme.federation.engine import REQUEST_S
from followme.federation.messages import Accepted, Answer, Attach, Left, Order, Refused
from followme.federation.moves import Whereabouts
from followme.federation.outputs import Attached, NotAttached
from followme.federation.presence import ANSWER_S, BUSY, MOVED, PRESENT, SILENT, Presence

from .domains import Four, OneDomain

HOME, FIRST, SECOND = "n1", "n2", "n3"
STRANGE_MAC = b"\2\0\0\0\1\1"


async def asked(one: OneDomain, sender: str, *orders: Order) -> list[Answer]:
    return decode_answers(await one.engine.receive(sender, encode_orders(1, orders)))[1]


async def outcome(one: OneDomain) -> Attached | NotAttached:
    """Of the first who has shown up there from now on."""
    seen = len(one.switches.effects)
    async with asyncio.timeout(10):
        while True:
            for effect in one.switches.effects[seen:]:
                if isinstance(effect, Attached | NotAttached):
                    return effect
            await asyncio.sleep(0.01)


def at_beta(four: Four, answering: bool | str | None) -> IPv4Address:
    node = four.cards[0].identifier
    four.beta.switches.here[node] = answering
    return node


@pytest.mark.parametrize("kind", NodeKind)
async def test_who_answers_at_home_is_not_let_go(kind: NodeKind) -> None:
    async with Four(kind=kind) as four:
        node = four.cards[0].identifier
        four.alpha.switches.here[node] = True
        await four.attach(four.beta)
        assert await outcome(four.beta) == NotAttached(node, four.cards[0].mac, FIRST, PRESENT.reason)
        assert four.alpha.place(node) is None


@pytest.mark.parametrize("kind", NodeKind)
async def test_who_answers_elsewhere_is_not_let_go_from_there(kind: NodeKind) -> None:
    async with Four(kind=kind) as four:
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), FIRST)
        node = at_beta(four, True)
        await four.attach(four.gamma)
        assert await outcome(four.gamma) == NotAttached(node, four.cards[0].mac, SECOND, PRESENT.reason)
        await four.attach(four.alpha)  # a stranger in home's own network
        assert await outcome(four.alpha) == NotAttached(node, four.cards[0].mac, HOME, PRESENT.reason)
        await four.settled(("alpha", "beta"), FIRST)
        at_beta(four, False)
        await four.attach(four.gamma)
        await four.settled(("alpha", "gamma"), SECOND)
        await four.attach(four.alpha)
        assert await outcome(four.alpha) == Attached(node, four.cards[0].mac, HOME)


async def test_while_it_cannot_be_found_out_it_is_asked_again() -> None:
    async with Four() as four:
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), FIRST)
        node = at_beta(four, None)
        order = Attach(node, four.cards[0].mac, SECOND, 1)
        assert await asked(four.alpha, "gamma", order) == [BUSY]
        await four.attach(four.gamma)
        await asyncio.sleep(0.3)
        at_beta(four, False)
        await four.settled(("alpha", "gamma"), SECOND)


@pytest.mark.parametrize("kind", NodeKind)
async def test_from_a_domain_that_is_silent_users_are_let_go_and_machines_are_not(kind: NodeKind) -> None:
    async with Four(kind=kind) as four:
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), FIRST)
        four.hub.part("alpha", "beta")
        node, began = four.cards[0].identifier, time.monotonic()
        await four.attach(four.gamma)
        if kind is NodeKind.USER:
            assert await outcome(four.gamma) == Attached(node, four.cards[0].mac, SECOND)
        else:
            async with asyncio.timeout(5):
                while four.gamma.engine.federate.waits_for(node, four.cards[0].mac) != SILENT.reason:
                    await asyncio.sleep(0.01)
        assert ANSWER_S <= time.monotonic() - began < REQUEST_S  # at the first time of asking
        if kind is NodeKind.MACHINE:
            four.hub.join()
            await four.settled(("alpha", "gamma"), SECOND)


@pytest.mark.parametrize("away", [False, True])
async def test_why_it_cannot_be_found_out_is_told_to_who_asks(away: bool) -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        node = four.cards[0].identifier
        four.alpha.switches.here[node] = why = "host h1: its agent does not say"
        if away:
            four.alpha.switches.here[node] = False
            await four.attach(four.beta)
            await four.settled(("alpha", "beta"), FIRST)
            at_beta(four, why)
        (answer,) = await asked(four.alpha, "gamma", Attach(node, four.cards[0].mac, SECOND, 1))
        assert answer == Refused(f"{BUSY.reason}: {why}", again=True)
        await four.attach(four.gamma)
        async with asyncio.timeout(5):
            while why not in four.gamma.engine.federate.waits_for(node, four.cards[0].mac):
                await asyncio.sleep(0.01)
        for one in (four.alpha, four.beta):
            one.switches.here[node] = False
        await four.settled(("alpha", "gamma"), SECOND)


async def test_nobody_is_asked_about_an_order_that_is_refused_anyway_or_a_copy() -> None:
    async with Four() as four:
        (card,) = four.cards
        await asyncio.sleep(0.05)
        order = Attach(card.identifier, card.mac, FIRST, 1)
        wrong = [Attach(card.identifier, STRANGE_MAC, SECOND, 1), Attach(card.identifier, card.mac, FIRST, 1)]
        for answer in await asked(four.alpha, "gamma", *wrong):
            assert isinstance(answer, Refused)
        assert not four.alpha.switches.looked
        (first,) = await asked(four.alpha, "beta", order)
        assert isinstance(first, Accepted)
        four.alpha.switches.here[card.identifier] = True
        assert await asked(four.alpha, "beta", order) == [first]
        assert four.alpha.switches.looked == [card.identifier]


async def test_many_are_asked_side_by_side() -> None:
    async with Four(nodes=200) as four:
        await asyncio.sleep(0.05)
        four.alpha.switches.look = 0.2
        orders = [Attach(one.identifier, one.mac, FIRST, 1) for one in four.cards]
        began = time.monotonic()
        answers = await asked(four.alpha, "beta", *orders)
        assert all(isinstance(answer, Accepted) for answer in answers)
        assert time.monotonic() - began < 1.0


async def test_one_question_to_a_domain_serves_all_who_wait_for_it() -> None:
    async with Four() as four:
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), FIRST)
        node = at_beta(four, True)
        four.beta.switches.look = 0.2
        order = Attach(node, four.cards[0].mac, SECOND, 1)
        seen = len(four.beta.switches.looked)
        answers = await asyncio.gather(*(asked(four.alpha, "gamma", order) for _ in range(5)))
        assert answers == [[PRESENT]] * 5
        assert len(four.beta.switches.looked) == seen + 1


async def test_only_home_is_told_who_is_here() -> None:
    async with Four() as four:
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), FIRST)
        node = at_beta(four, True)
        looked = len(four.beta.switches.looked)
        (answer,) = await asked(four.beta, "gamma", Left(node))
        assert answer == Refused("sender is not the node's home")
        assert len(four.beta.switches.looked) == looked
        assert await asked(four.beta, "alpha", Left(node)) == [PRESENT]
        at_beta(four, False)
        assert await asked(four.beta, "alpha", Left(node)) == [Accepted()]


async def test_what_was_found_out_about_another_place_does_not_count() -> None:
    async with Four() as four:
        (card,) = four.cards
        await asyncio.sleep(0.05)
        engine = four.alpha.engine
        presence = Presence("alpha", engine.federate, four.alpha.switches.still_here, lambda to, order: None)
        order = Attach(card.identifier, card.mac, FIRST, 1)
        assert presence.receive("beta", order, (Whereabouts("gamma", card.kind),), 1.0) == MOVED
        assert presence.receive("beta", order, (), 1.0) == MOVED
        assert isinstance(presence.receive("beta", order, (Whereabouts("alpha", card.kind),), 1.0), Accepted)


async def test_a_switch_that_is_away_knows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with Four() as four:
        (card,) = four.cards
        await asyncio.sleep(0.05)

        async def away(identifier: IPv4Address) -> bool:
            raise OSError("no switch")

        presence = Presence("alpha", four.alpha.engine.federate, away, lambda to, order: None)
        assert await presence.look("beta", [Attach(card.identifier, card.mac, FIRST, 1)]) == [BUSY]
        assert "no switch" in caplog.text


async def test_a_question_does_not_wait_behind_slow_switches() -> None:
    async with Four(nodes=2) as four:
        for number in range(2):
            await four.attach(four.beta, number)
        await four.settled(("alpha", "beta"), FIRST)
        node = at_beta(four, True)
        four.beta.switches.pause = 1.7
        four.alpha.engine.know(replace(four.cards[1], name="renamed"))  # an Update that beta confirms late
        await asyncio.sleep(0.1)
        order = Attach(node, four.cards[0].mac, SECOND, 1)
        assert await asyncio.wait_for(asked(four.alpha, "gamma", order), 1) == [PRESENT]
