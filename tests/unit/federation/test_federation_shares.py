"""What one operator may take of another's locators and records."""

from __future__ import annotations

import pytest

from followme.federation import held
from followme.federation.federate import Federate
from followme.federation.messages import Answer, Held, Refused, Reserve, Reserved, Update
from followme.federation.nouns import Mapping, Place
from tests.federations import card, federate

SHARE_USED = Refused("the node's home has its share of the network's locators")


def ask(fed: Federate, home: str, host: int, version: int = 5) -> Answer:
    sender = {"a1": "alpha", "e1": "epsilon"}[home]
    return fed.receive(sender, Reserve(card(f"n{host}", home, host), "g1", version), 1.0)


@pytest.mark.parametrize("crashes", [False, True])
def test_one_domain_gets_half_of_a_pool(crashes: bool) -> None:
    gamma = federate("gamma")
    assert [type(ask(gamma, "e1", host)) for host in (10, 11, 12)] == [Reserved] * 3  # of six
    if crashes:
        gamma = federate("gamma", [(key, fact) for key, fact in gamma.take().writes.items() if fact is not None])
    assert ask(gamma, "e1", 13) == SHARE_USED
    assert [type(ask(gamma, "a1", host)) for host in (10, 11, 12)] == [Reserved] * 3


def test_what_comes_back_may_be_given_again() -> None:
    gamma = federate("gamma")
    for host in (10, 11, 12):
        ask(gamma, "e1", host)
    one = card("n10", "e1", 10)
    home = Mapping(one, 6, Place("e1", one.identifier))
    gamma.receive("epsilon", Update(home, (), True), 1.0)
    assert isinstance(ask(gamma, "e1", 13), Reserved)
    assert ask(gamma, "e1", 14) == SHARE_USED


def test_one_node_gets_the_locator_of_a_network_that_it_had() -> None:
    fed = federate("gamma", pool_length=26)
    answers = {ask(fed, "e1", 10, version) for version in range(5, 15)}
    assert [type(answer) for answer in answers] == [Reserved]
    assert ask(fed, "e1", 10, 13) == Held(14), "a late copy"
    assert ask(fed, "e1", 11) not in answers


def test_one_domain_gets_half_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "MAX_HELD", 4)
    fed = federate("gamma", pool_length=26)
    assert [type(ask(fed, "e1", host)) for host in (10, 11)] == [Reserved] * 2
    assert ask(fed, "e1", 12) == Refused(held.FULL)
    assert isinstance(ask(fed, "a1", 10), Reserved)
