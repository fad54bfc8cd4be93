"""Registry, keys, pools and repeats."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from followme.federation.desk import REPEAT_MAX_S
from followme.federation.nouns import Mapping, Place
from followme.federation.pools import Pools
from followme.federation.registry import Domain, Registry, RegistryError, pool_bounds
from followme.federation.signing import Ed25519Signer, SigningError, generate_key
from tests.federations import World, card, domains, network


def test_the_registry_says_who_owns_what() -> None:
    registry = Registry("gamma", domains())
    assert registry.owner_of_network("b1") == "beta"
    assert registry.owner_of_network("z9") is None
    assert registry.home_of(IPv4Address("10.1.0.7")) == "alpha"
    assert registry.home_of(IPv4Address("10.99.0.7")) is None
    assert registry.home_of(IPv4Address("9.0.0.1")) is None
    assert registry.owns("gamma", "g2")
    assert registry.mine("g2")
    assert not registry.mine("b1")
    assert registry.in_pool("d1", IPv4Address("10.6.0.248"))
    assert not registry.in_pool("d1", IPv4Address("10.6.0.254")), "the path monitor's"
    assert not registry.in_pool("d1", IPv4Address("10.6.0.9"))
    assert registry.public_key("nobody") is None


def test_domains_that_contradict_each_other_are_refused() -> None:
    good = domains()
    with pytest.raises(RegistryError, match="not among"):
        Registry("zeta", good)
    with pytest.raises(RegistryError, match="twice"):
        Registry("alpha", good | {"zeta": Domain("zeta", (network(9, "a1"),), b"")})
    with pytest.raises(RegistryError, match="overlap"):
        Registry("alpha", good | {"zeta": Domain("zeta", (network(1, "z1"),), b"")})
    outside = replace(network(9, "z1"), locators=IPv4Network("10.8.0.0/29"))
    with pytest.raises(RegistryError, match="not in its prefix"):
        Registry("alpha", good | {"zeta": Domain("zeta", (outside,), b"")})


def test_only_the_home_domains_key_signs_a_mapping() -> None:
    keys = {name: generate_key() for name in ("alpha", "beta")}
    public = {name: pair[1] for name, pair in keys.items()}
    alpha, beta = (Ed25519Signer(keys[name][0], public) for name in ("alpha", "beta"))
    mapping = Mapping(card("u", "a1", 10), 3, Place("b1", IPv4Address("10.3.0.252")))
    signature = alpha.sign(mapping.canonical())
    assert beta.verify("alpha", mapping.canonical(), signature)
    assert not beta.verify("beta", mapping.canonical(), signature)
    assert not beta.verify("gamma", mapping.canonical(), signature)
    assert not beta.verify("alpha", replace(mapping, version=4).canonical(), signature)
    assert not beta.verify("alpha", mapping.canonical(), b"")
    with pytest.raises(SigningError):
        Ed25519Signer(b"short", public)
    with pytest.raises(SigningError):
        Ed25519Signer(keys["alpha"][0], {"beta": b"short"})
    with pytest.raises(SigningError, match="alpha and beta have the same public key"):
        Ed25519Signer(keys["alpha"][0], {"alpha": keys["alpha"][1], "beta": keys["alpha"][1]})


def test_a_pool_gives_each_locator_once_and_lets_it_rest() -> None:
    one = network(3, "b1", 29)
    pools = Pools([one])
    given = [pools.give("b1") for _ in range(7)]
    assert given == [*(int(one.locators.network_address) + n for n in range(6)), None]
    pools.back("b1", int(one.locators[4]))
    pools.back("b1", int(one.locators[2]))
    pools.back("b1", int(one.locators[2]))
    assert pools.given("b1") == 4
    again = Pools([one])
    for locator in (1, 3):
        again.restore("b1", int(one.locators[locator]))
    again.restored()
    assert [again.give("b1") for _ in range(5)] == [int(one.locators[n]) for n in (4, 5, 0, 2)] + [None]
    assert [pools.give("b1") for _ in range(3)] == [int(one.locators[4]), int(one.locators[2]), None]


def test_a_large_pool_is_restored_in_no_time_and_without_gaps() -> None:
    prefix = IPv4Network("10.0.0.0/8")
    one = replace(network(3, "b1", 29), prefix=prefix, inside=prefix, locators=IPv4Network("10.128.0.0/9"))
    first, end = pool_bounds(one)
    pools = Pools([one])
    kept = [first - 5, first + 1, first + 4, end - 1, end + 9]  # the pool was another once
    for locator in kept:
        pools.restore("b1", locator)
    tracemalloc.start()
    pools.restored()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000
    given = [pools.give("b1") for _ in range(5)]
    assert given == [first, first + 2, first + 3, first + 5, first + 6]


def test_a_pool_that_was_cut_still_gives_what_is_left_of_it() -> None:
    one = network(3, "b1", 29)
    first, end = pool_bounds(one)
    pools = Pools([one])
    for locator in (first + 1, end + 9):
        pools.restore("b1", locator)
    pools.restored()
    assert [pools.give("b1") for _ in range(3)] == [first + 2, first + 3, first + 4]


def test_an_order_is_repeated_after_ever_longer_times_until_it_is_answered() -> None:
    world = World([card("u", "a1", 10)])
    beta = world.feds["beta"]
    one = world.cards[0]
    beta.attach(one.identifier, one.mac, "b1")
    now, pauses = 1.0, []
    for _ in range(8):
        ((to, order),) = beta.take().orders
        assert to == "alpha"
        beta.answered(to, order, None, now)
        due = beta.next_timer()
        assert due is not None
        pauses.append(round(due - now, 3))
        beta.timer(due - 0.01)
        assert beta.take().orders == []
        now = due
        beta.timer(now)
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, REPEAT_MAX_S, REPEAT_MAX_S, REPEAT_MAX_S]


def test_a_locator_that_is_taken_and_comes_back_again_and_again_stands_once_among_the_free() -> None:
    one = network(3, "b1", 29)
    first, end = pool_bounds(one)
    pools = Pools([one])
    for _ in range(100):
        assert pools.take("b1", first + 1)
        pools.back("b1", first + 1)
    assert len(pools._pools["b1"].free) == 1
    assert [pools.give("b1") for _ in range(end - first + 1)] == [*range(first, end), None]
