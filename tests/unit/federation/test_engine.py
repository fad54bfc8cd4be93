"""The engine's shell: what is stored before what, who is told what, and what happens when something is away."""

from __future__ import annotations

import asyncio
import time

import pytest

from followme.domain import NodeKind
from followme.federation.bus import BusError, NoAnswer
from followme.federation.codec import decode_answers, encode_orders
from followme.federation.engine import FederationError, LeaseLost, NotYet
from followme.federation.messages import Quiet, Refused
from followme.federation.nouns import Place
from followme.federation.outputs import Passes
from followme.store import StoreError

from .domains import Four, OneDomain

HOME, FIRST, SECOND, PEER = "n1", "n2", "n3", "n4"


async def test_a_node_is_followed_from_home_to_two_networks_and_back() -> None:
    async with Four() as four:
        (node,) = four.cards
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), FIRST)
        await asyncio.wait_for(four.beta.engine.tell(node.identifier, PEER), 5)
        await four.settled(("alpha", "beta", "delta"), FIRST)
        await four.attach(four.gamma)
        await four.settled(("alpha", "gamma", "delta"), SECOND)
        assert four.delta.place(node.identifier) == SECOND
        await four.attach(four.alpha)
        async with asyncio.timeout(10):
            while any(four.all[name].switches.versions for name in ("beta", "gamma", "delta")):
                await asyncio.sleep(0.01)
        assert [one.place(node.identifier) for one in (four.beta, four.gamma, four.delta)] == [None, None, None]


async def test_a_peer_that_home_is_told_of_learns_where_the_node_is() -> None:
    async with Four() as four:
        (node,) = four.cards
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), FIRST)
        four.alpha.engine.unaware(node.identifier, PEER)
        await four.settled(("alpha", "beta", "delta"), FIRST)
        assert four.delta.place(node.identifier) == FIRST


async def test_a_machine_moves_in_phases() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        (node,) = four.cards
        await four.alpha.engine.prepare(node.identifier, FIRST, "m1")
        view = four.beta.engine.federate.view(node.identifier)
        assert view is not None
        assert view.mapping is not None
        assert view.mapping.here.network == HOME
        assert view.mapping.arriving is not None
        assert four.beta.switches.versions[node.identifier] == view.mapping.version
        await four.alpha.engine.prepare(node.identifier, FIRST, "m1")
        await four.alpha.engine.flipped(node.identifier, "m1")
        await four.alpha.engine.flipped(node.identifier, "m1")
        await four.alpha.engine.released(node.identifier, "m1")
        await four.settled(("alpha", "beta"), FIRST)


async def test_a_move_that_is_refused_says_why() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        (node,) = four.cards
        with pytest.raises(FederationError, match="no such network"):
            await four.alpha.engine.prepare(node.identifier, "nowhere", "m1")


async def test_a_domain_that_cannot_be_reached_denies_the_move_and_nothing_changes() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        (node,) = four.cards
        four.hub.part("alpha", "beta")
        with pytest.raises(FederationError) as refused:
            await four.alpha.engine.prepare(node.identifier, FIRST, "m1")
        assert not isinstance(refused.value, NotYet)
        four.hub.join()
        await four.alpha.engine.prepare(node.identifier, SECOND, "m2")


async def test_it_gets_through_a_bus_that_loses_and_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("followme.federation.engine.REQUEST_S", 0.1)
    async with Four(nodes=10) as four:
        four.hub.loss, four.hub.delay = 0.2, 0.005
        for where, place in ((four.beta, FIRST), (four.gamma, SECOND), (four.beta, FIRST)):
            for number in range(10):
                await four.attach(where, number)
            await four.settled(("alpha", where.bus.domain), place, 60)
        assert [four.alpha.place(each.identifier) for each in four.cards] == [FIRST] * 10


async def test_a_switch_that_is_away_holds_it_up_and_nothing_is_confirmed() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        (node,) = four.cards
        four.beta.switches.away = "switch of n2 is away"
        preparing = asyncio.create_task(four.alpha.engine.prepare(node.identifier, FIRST, "m1"))
        await asyncio.sleep(0.5)
        assert not preparing.done()
        assert four.beta.switches.applied > 1  # it came again
        four.beta.switches.away = ""
        await asyncio.wait_for(preparing, 5)
        assert node.identifier in four.beta.switches.versions


async def test_own_switches_confirm_like_all_others() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        (node,) = four.cards
        four.alpha.switches.away = "switch of n1 is away"
        preparing = asyncio.create_task(four.alpha.engine.prepare(node.identifier, FIRST, "m1"))
        await asyncio.sleep(0.5)
        assert not preparing.done()
        four.alpha.switches.away = ""
        await asyncio.wait_for(preparing, 5)


async def test_packets_pass_when_the_peer_has_confirmed() -> None:
    async with Four() as four:
        (node,) = four.cards
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), FIRST)
        four.delta.switches.pause = 0.2
        telling = asyncio.create_task(four.beta.engine.tell(node.identifier, PEER))
        await asyncio.sleep(0.1)
        assert not telling.done()
        await telling
        assert Passes(node.identifier, PEER) in four.beta.switches.effects
        assert node.identifier in four.delta.switches.versions


async def test_what_is_not_stored_is_not_acted_upon(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Four() as four:
        (node,) = four.cards
        await asyncio.sleep(0.05)

        async def replicated() -> None:
            raise StoreError("the disk is full")

        monkeypatch.setattr(four.alpha.store, "replicated", replicated)
        await four.attach(four.beta)
        with pytest.raises(StoreError, match="full"):
            await asyncio.wait_for(four.alpha.engine.wait(), 5)
        await asyncio.sleep(0.1)
        assert four.beta.engine.federate.view(node.identifier) is None  # no Reserve has left home
        with pytest.raises(BusError):
            await four.beta.bus.request("alpha", encode_orders(1, []), 0.3)
        monkeypatch.undo()
        await four.alpha.stop()
        await four.alpha.start(2)
        four.alpha.engine.know(node)
        await four.settled(("alpha", "beta"), FIRST)


async def test_a_restart_goes_on_from_the_store() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        (node,) = four.cards
        await four.alpha.engine.prepare(node.identifier, FIRST, "m1")
        await four.alpha.engine.flipped(node.identifier, "m1")
        for name in ("alpha", "beta"):
            await four.all[name].stop()
            await four.all[name].start(2)
        four.alpha.engine.know(node)
        await four.alpha.engine.released(node.identifier, "m1")
        await four.settled(("alpha", "beta"), FIRST)
        assert [one.place(node.identifier) for one in (four.alpha, four.beta)] == [FIRST, FIRST]


async def test_an_instance_whose_lease_is_over_says_nothing() -> None:
    async with Four(kind=NodeKind.MACHINE) as four:
        four.alpha.valid = False
        with pytest.raises(NoAnswer):
            await four.beta.bus.request("alpha", encode_orders(1, []), 0.3)
        with pytest.raises(LeaseLost):
            await asyncio.wait_for(four.alpha.engine.wait(), 1)
        asked = four.hub.requests
        with pytest.raises(NotYet):
            await four.alpha.engine.prepare(four.cards[0].identifier, FIRST, "m1", 0.2)
        assert four.hub.requests == asked


async def test_an_instance_of_an_older_epoch_is_not_listened_to() -> None:
    async with Four() as four:
        node = four.cards[0].identifier
        order = Quiet(node, Place(FIRST, node))
        await four.beta.engine.receive("gamma", encode_orders(7, [order]))
        _, (answer,) = decode_answers(await four.beta.engine.receive("gamma", encode_orders(6, [order])))
        assert isinstance(answer, Refused)
        assert "epoch 6" in answer.reason
        assert four.beta.engine.counted["old epoch"] == 1


@pytest.mark.parametrize("payload", [b"", b"[]", b"\xff" * 100, b"[1,[[]]]", b"[" * 100_000])
async def test_what_is_no_frame_is_not_answered(payload: bytes) -> None:
    async with Four() as four:
        with pytest.raises(BusError):
            await four.beta.engine.receive("alpha", payload)
        assert four.beta.engine.counted["malformed"] == 1
        await four.attach(four.beta)
        await four.settled(("alpha", "beta"), FIRST)


async def test_two_instances_one_after_the_other() -> None:
    """The first one is cut off while a machine moves; the second has its store and brings the move to its end."""
    async with Four(kind=NodeKind.MACHINE) as four:
        (node,) = four.cards
        first = four.alpha
        await first.engine.prepare(node.identifier, FIRST, "m1")
        assert isinstance(first.bus, type(four.hub.bus("spare")))
        first.bus.cut = True
        first.valid = False
        second = OneDomain(four.hub.bus("alpha"), first.store)
        await second.start(2)
        second.engine.know(node)
        await second.engine.flipped(node.identifier, "m1")
        await second.engine.released(node.identifier, "m1")
        first.bus.cut = False
        four.all["alpha"] = second
        await four.settled(("alpha", "beta"), FIRST)
        await first.stop()


async def test_many_nodes_share_frames() -> None:
    async with Four(nodes=300) as four:
        for number in range(300):
            await four.attach(four.beta, number)
        await four.settled(("alpha", "beta"), FIRST, 30)
        counted = four.beta.engine.counted
        assert counted["orders out"] >= 300
        assert counted["frames out"] < counted["orders out"] / 10


async def test_a_long_queue_does_not_keep_the_loop_from_renewing_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Four() as four:
        node = four.cards[0]
        taken = 0

        def know(_: object) -> None:
            nonlocal taken
            taken += 1
            time.sleep(0.002)

        monkeypatch.setattr(four.alpha.engine.federate, "know", know)
        for _ in range(300):
            four.alpha.engine.know(node)
        longest, last = 0.0, time.monotonic()
        while taken < 300:
            await asyncio.sleep(0)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert longest < 0.4  # and not all of it, 0.6 s
