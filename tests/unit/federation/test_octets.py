"""What the nodes of other domains may take of a domain's bucket; and locators of a record that cannot be read."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from followme.federation.federate import Federate
from followme.federation.held import FULL, RECORD_OCTETS
from followme.federation.messages import Answer, Held, Refused, Reserve, Reserved, Update
from followme.federation.nouns import Mapping, Place
from followme.federation.records import HeldRecord
from followme.federation.registry import Registry
from tests.federations import NETWORKS, QuickSigner, card, domains, federate

ROOM = 64 << 10
EVEN, SPARE = ROOM // 16, ROOM // 4  # four others
HOMES = {"alpha": "a1", "beta": "b1", "epsilon": "e1"}


class Gamma:
    """A domain, and what its bucket has."""

    def __init__(self, facts: dict[str, bytes] | None = None) -> None:
        self.facts = facts or {}
        registry = Registry("gamma", domains(pool_length=26))
        self.fed = Federate(registry, QuickSigner("gamma"), self.facts.items(), self.facts.get, ROOM)

    def tell(self, domain: str, host: int, version: int = 6, olds: int = 0, *, settled: bool = False) -> Answer:
        """Its node is in beta's network, or at home again; gamma's g1 speaks to it."""
        node = card(f"n{host}", HOMES[domain], host)
        away = Place("b1", IPv4Address("10.3.0.193"))
        home = Place(node.home, node.identifier)
        old = tuple([Place("d1", IPv4Address("10.6.0.192") + number) for number in range(olds)])
        mapping = Mapping(node, version, home if settled else away, old=old)
        answer = self.fed.receive(domain, Update(mapping, () if settled else ("g1",), settled), 1.0)
        for key, fact in self.fed.take().writes.items():
            if fact is None:
                del self.facts[key]
            else:
                self.facts[key] = fact
        return answer

    def fill(self, domain: str) -> int:
        """Until it is refused; how many it got."""
        for host in range(2, 190):
            if isinstance(answer := self.tell(domain, host), Refused):
                assert answer == Refused(FULL)
                return host - 2
        raise AssertionError(f"{domain} may have all")

    def octets(self, domain: str | None = None) -> int:
        numbers = {one: number for number, one in enumerate((n for many in NETWORKS.values() for n in many), 1)}
        prefix = None if domain is None else f"10.{numbers[HOMES[domain]]}."
        return sum(len(fact) + RECORD_OCTETS for key, fact in self.facts.items() if key.startswith("h/") and (
            prefix is None or str(IPv4Address(int(key[2:]))).startswith(prefix)))  # fmt: skip


def test_one_that_takes_all_it_gets_leaves_room_for_ours_and_for_others() -> None:
    gamma = Gamma()
    assert gamma.fill("epsilon") > 10
    assert EVEN + SPARE <= gamma.octets("epsilon") <= EVEN + SPARE + 500
    got = gamma.fill("alpha")
    assert got > 5
    assert EVEN <= gamma.octets("alpha") <= EVEN + 500
    assert gamma.fill("beta") == pytest.approx(got, abs=1)
    assert gamma.octets() < ROOM / 2
    assert gamma.fed.refusals[FULL] == 3


def test_after_a_restart_it_has_no_more() -> None:
    gamma = Gamma()
    gamma.fill("epsilon")
    again = Gamma(gamma.facts)
    assert again.tell("epsilon", 199) == Refused(FULL)
    assert isinstance(again.tell("alpha", 10), Held)
    for host in range(2, 6):
        assert isinstance(again.tell("epsilon", host, 7, settled=True), Held)
    answers = [again.tell("epsilon", host) for host in (196, 197, 198)]
    assert [type(answer) for answer in answers] == [Held] * 3, "what has gone makes room"


def test_what_it_has_is_told_on_and_does_not_swell_beyond_all_bounds() -> None:
    gamma = Gamma()
    many = gamma.fill("epsilon")
    answers = [gamma.tell("epsilon", host, 7, olds=16) for host in range(2, 2 + many)]
    assert isinstance(answers[0], Held)
    assert answers[-1] == Refused(FULL, again=True)
    assert gamma.octets() < EVEN + 2 * SPARE + 1000
    assert isinstance(gamma.tell("epsilon", 1 + many, 8), Held), "it becomes no longer"
    assert isinstance(gamma.tell("epsilon", 2 + many // 2, 8, settled=True), Held)
    assert isinstance(gamma.tell("alpha", 5), Held)


@pytest.mark.parametrize("identifier", [card("n5", "a1", 5).identifier, IPv4Address("192.0.2.9")])
def test_locators_of_a_record_that_cannot_be_read_are_not_given_again(identifier: IPv4Address) -> None:
    pool = [int(one) for one in domains()["gamma"].networks[0].locators][:3]
    record = HeldRecord(given={pool[0]: ("g1", 5), pool[2]: ("g1", 6)}).encode()
    for broken in (record.replace(b"[", b"{", 1), record[record.index(b",") :] + b" 9999999999"):
        fed = federate("gamma", [(f"h/{int(identifier)}", broken)])
        given = []
        for host in (20, 21):
            answer = fed.receive("alpha", Reserve(card(f"n{host}", "a1", host), "g1", 5), 1.0)
            assert isinstance(answer, Reserved)
            given.append(int(answer.locator))
        assert not {pool[0], pool[2]} & set(given)
