"""A router's own addresses on its LAN: whoever claims one in an access network, packets to it stay here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from followme.lisp import MapNotifyAck, MapRegister, MapReply
from followme.xtr.outputs import Departed, Encap, RemoveRoute, SetRoute

from .play import FAR, MS, OTHER, POLICY, Stage, eid, record

GATEWAY = eid("10.3.0.1/32")


def stage() -> Stage:
    made = Stage(policy=replace(POLICY, own_addresses=frozenset({GATEWAY})))
    made.settle()
    return made


def stolen(it: Stage, nonce: int) -> None:
    it.notify(record("10.3.0.1/32", FAR), nonce=nonce)


@pytest.mark.parametrize("covered", [False, True])
def test_an_address_of_ours_that_another_site_has_registered_is_claimed_again(covered: bool) -> None:
    """Also by a router that knows a mapping which covers its own subnet."""
    it = stage()
    if covered:
        it.learn("10.9.0.9", record("10.0.0.0/8", OTHER))
    stolen(it, 3 << 62)
    # After the acknowledgement our registration is a new claim, and not one that does not know yet.
    kinds = [type(message) for message in (*it.sent(MapNotifyAck), *it.sent(MapRegister))]
    assert kinds == [MapNotifyAck, MapRegister]
    order = [one.data[0] >> 4 for one in it.datagrams(MS)]
    assert order == [5, 3]
    assert [one.eid for one in it.sent(MapRegister)[0].records] == [GATEWAY]
    assert not it.all(SetRoute) + it.all(Departed)
    assert it.control.local(GATEWAY)
    assert GATEWAY not in it.control.itr.cache.table
    assert it.refused("claim of an address of our own") == 1


def test_two_that_insist_do_not_flood_the_map_server() -> None:
    it, registers = stage(), 0
    for number in range(100):
        stolen(it, (3 << 62) + number)
        assert it.acks()
        registers += len(it.sent(MapRegister))
    assert registers == 5
    it.wait(it.site.register_interval_s + 1.0)
    assert GATEWAY in [one.eid for register in it.sent(MapRegister) for one in register.records]


def test_no_answer_nor_route_of_an_earlier_run_takes_one_away() -> None:
    it = stage()
    it.miss("10.3.0.5", "10.1.0.9")
    # More-specifics of what was asked for may be anywhere.
    it.control.itr.place(record("10.3.0.1/32", FAR), GATEWAY, it.now)
    it.receive(MapReply(it.asked().nonce, (record("10.1.0.0/24", FAR),)).encode())
    assert [route.eid for route in it.all(SetRoute)] == [eid("10.1.0.0/24")]
    it.control.adopt(GATEWAY, Encap(((FAR, 1),)), it.now)
    assert it.take() == [RemoveRoute(GATEWAY)]
    assert GATEWAY not in it.control.itr.cache.table
