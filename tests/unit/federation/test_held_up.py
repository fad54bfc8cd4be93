"""What one domain asks for, or does not answer, does not hold up what others do with the node."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from followme.domain import NodeKind
from followme.federation.codec import MAX_FRAME, MAX_ORDERS, decode_answers, encode_answers
from followme.federation.messages import Accepted, Answer, Attach, Denied, Flipped, Held, Prepare, Refused, Reserve
from followme.federation.moves import MAX_DENIALS, Whereabouts
from followme.federation.nouns import MAX_OLD, Place
from followme.federation.outputs import Attached, NotAttached
from followme.federation.records import home_record
from tests.federations import World, card

USER, MACHINE = card("u", "a1", 10), card("m", "a1", 11, NodeKind.MACHINE)


@pytest.fixture
def world() -> World:
    world = World([USER, MACHINE])
    world.settle()
    return world


def go(world: World, network: str, one: object = USER) -> list[type]:
    domain, who = world.owner(network), USER if one is USER else MACHINE
    world.effects.clear()
    world.feds[domain].attach(who.identifier, who.mac, network)
    world.pump(domain)
    world.settle()
    return [type(effect) for name, effect in world.effects if name == domain and "ttached" in type(effect).__name__]


def test_users_are_not_carried(world: World) -> None:
    """Else a domain where one has been once could keep it from everywhere."""
    go(world, "b1")
    world.feds["beta"].prepare(USER.identifier, "g1", "m1")
    world.pump("beta")
    world.settle()
    assert world.feds["alpha"].refusals == {"only machines are carried": 1}
    assert [go(world, network) for network in ("d1", "a1")] == [[Attached]] * 2


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("network", ["a1", "a2", "e1"])
def test_a_migration_ends_when_the_machine_is_elsewhere(world: World, network: str, flipped: bool) -> None:
    alpha = world.feds["alpha"]
    alpha.prepare(MACHINE.identifier, "b1", "m1")
    world.pump("alpha")
    world.settle()
    if flipped:
        alpha.flipped(MACHINE.identifier, "m1")
        world.pump("alpha")
        world.settle()
    world.tick(100_000.0)
    assert alpha.receive("alpha", Prepare(MACHINE.identifier, "g1", "m2", 99), world.now) == Refused(
        "the node is being moved by alpha"
    )
    asked = world.feds["alpha"].doubted(world.owner(network), Attach(MACHINE.identifier, MACHINE.mac, network, 9))
    assert {where.domain for where in asked} == ({"beta"} if network == "a1" else {"alpha", "beta"})
    assert go(world, network, MACHINE) == [Attached]
    late = Flipped(MACHINE.identifier, "m1")
    assert alpha.receive("alpha", late, world.now) == Refused("that migration is not prepared")
    assert isinstance(alpha.receive("alpha", Prepare(MACHINE.identifier, "b1", "m1", 99), world.now), Accepted)
    assert alpha.take().orders == [], "a late copy"
    source = world.owner(network)
    world.feds[source].prepare(MACHINE.identifier, "g1", "m3")
    world.pump(source)
    world.effects.clear()
    world.settle()
    assert [type(effect).__name__ for _, effect in world.effects if "Is" in type(effect).__name__] == ["IsReady"]


def test_machines_do_not_go_by_themselves_from_network_to_network(world: World) -> None:
    alpha = world.feds["alpha"]

    def asked(sender: str, network: str, one: object) -> tuple[Whereabouts, ...]:
        who = USER if one is USER else MACHINE
        return alpha.doubted(sender, Attach(who.identifier, who.mac, network, 1 << 40))

    assert asked("alpha", "a2", MACHINE) == (Whereabouts("alpha", NodeKind.MACHINE),)
    assert asked("alpha", "a2", USER) == asked("alpha", "a1", MACHINE) == ()
    for one in (USER, MACHINE):
        go(world, "g1", one)
    assert asked("gamma", "g2", MACHINE) == (Whereabouts("gamma", NodeKind.MACHINE),)
    assert asked("gamma", "g2", USER) == asked("gamma", "g1", MACHINE) == ()


def test_attachments_that_end_in_nothing_leave_one_word_each(world: World) -> None:
    """A domain asks for a node that it has, refuses what is reserved for that, and takes note of nothing."""
    go(world, "g1")
    alpha = world.feds["alpha"]
    for claim in range(1 << 30, (1 << 30) + 2 * MAX_DENIALS):
        answer = alpha.receive("gamma", Attach(USER.identifier, USER.mac, "g2", claim), world.now)
        assert isinstance(answer, Accepted)
        orders = alpha.take().orders
        (reserve,) = [order for _, order in orders if isinstance(order, Reserve)]
        alpha.answered("gamma", reserve, Refused("no"), world.now)
        assert len([order for _, order in alpha.take().orders if isinstance(order, Denied)]) == 1
    record = alpha._home.records.get(int(USER.identifier))
    assert record is not None
    assert record.denials == [("gamma", f"attach {claim}", "no")]
    assert [go(world, network) for network in ("d1", "a1")] == [[Attached]] * 2


def test_migrations_that_end_in_nothing_hold_up_who_asks_for_them(world: World) -> None:
    go(world, "g1", MACHINE)
    alpha, refused = world.feds["alpha"], Refused("too much of earlier moves is under way")
    for number in range(MAX_DENIALS + 1):
        answer = alpha.receive("gamma", Prepare(MACHINE.identifier, "b1", f"m{number}", 99), world.now)
        for _, order in alpha.take().orders:
            if isinstance(order, Reserve):
                alpha.answered("beta", order, Refused("no"), world.now)
                alpha.take()
    assert answer == refused
    assert go(world, "d1", MACHINE) == [Attached]


def test_refused_attachments_end_for_who_asks(world: World) -> None:
    for number in range(12, 14):
        one = card(f"w{number}", "g1", number)
        world.cards.append(one)
        world.feds["gamma"].know(one)
        world.feds["beta"].attach(one.identifier, one.mac, "b1")
        world.pump("beta")
        world.settle()
    assert go(world, "b1") == [NotAttached], "no locator is free"


def test_answers_that_a_frame_cannot_hold_come_with_the_next() -> None:
    told = {f"operator-name.city-district.wlan-{number}": 5000 for number in range(150)}
    answers: list[Answer] = [Held(5000, told)] * MAX_ORDERS
    frame = encode_answers(1, answers)
    assert len(frame) <= MAX_FRAME
    _, found = decode_answers(frame)
    some = found.count(Held(5000, told))
    again = Refused("too much for one frame", again=True)
    assert found == [Held(5000, told)] * some + [again] * (MAX_ORDERS - some)
    assert len(frame) > MAX_FRAME - 10_000, "as many as it can hold"
    mixed: list[Answer] = [*answers[:-1], Accepted(3)]
    assert decode_answers(encode_answers(1, mixed))[1][-1] == Accepted(3)
    assert decode_answers(encode_answers(1, answers[: some // 2]))[1] == answers[: some // 2]


def test_two_domains_are_told_that_their_claims_of_one_number_are_refused(world: World) -> None:
    for fed in world.feds.values():
        fed.begin(1)
    world.settle()
    home = world.feds["alpha"]._home
    record = home.records.get(int(USER.identifier))
    assert record is not None
    home.deny(record, "beta", "attach 7", "no")
    home.deny(record, "gamma", "attach 7", "no")
    world.pump("alpha")
    (beta,) = [letter for letter in world.letters if isinstance(letter.order, Denied) and letter.to == "beta"]
    world.lose(beta)
    world.settle()
    assert record.denials == []


@pytest.mark.parametrize("listed", [MAX_OLD - 2, MAX_OLD - 1, MAX_OLD])
def test_no_migration_makes_a_mapping_list_more_than_can_be_read(world: World, listed: int) -> None:
    alpha = world.feds["alpha"]
    home, steps = alpha._home, alpha._moves._steps
    record = home.records.get(int(MACHINE.identifier))
    assert record is not None
    places = [Place("g1", IPv4Address("10.4.0.0") + number) for number in range(1, listed)]
    old = (*places, Place("a1", IPv4Address("10.1.0.250")))
    home.change(record, replace(record.mapping, here=Place("b1", IPv4Address("10.3.0.254")), old=old))
    alpha._moves.prepare("beta", Prepare(MACHINE.identifier, "a1", "m1", record.mapping.version))
    assert (record.move is None) == (listed + 2 > MAX_OLD)
    if record.move is not None:
        steps.flip(record, record.move)
        steps.release(record, record.move)
    assert home_record(record.encode()).mapping == record.mapping
