"""Any history of five domains over a bad bus, with crashes: in the end all roles hold one and the same mapping."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from tests.federation_machine import CARDS, MACHINE, USERS, Federation, networks
from tests.federations import NETWORKS, Letter

from followme.federation import holders
from followme.federation.nouns import MAX_OLD, Card


class Silence(Federation):
    """One domain at a time is away for long, while nodes commute; few old places are kept then. Machines show up,
    too: their hosts have lost them on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.away = ""
        self.passed_over: set[tuple[str, Card]] = set()
        self.patched = pytest.MonkeyPatch()
        self.patched.setattr(holders, "SILENT_S", 20.0)
        self.patched.setattr(holders, "ROOM", MAX_OLD - 1)

    @rule(domain=st.sampled_from(["", *NETWORKS]))
    def goes_away(self, domain: str) -> None:
        self.away = domain

    @rule(one=st.sampled_from(USERS), some=st.lists(networks, min_size=2, max_size=4))
    def commutes(self, one: Card, some: list[str]) -> None:
        for network in some:
            self.shows_up(one, network)
            for _ in range(4):
                self.arrive([0] * len(self.world.letters))
            self.falls_quiet(one)
            self.time_passes(6.0)

    @rule(network=networks)
    def a_machine_shows_up(self, network: str) -> None:
        self.shows_up(MACHINE, network)

    def deliver(self, letter: Letter) -> None:
        lost = letter.back and letter.answer is None
        if letter.sender != letter.to and self.away in (letter.sender, letter.to) and not lost:
            self.world.lose(letter)
        else:
            super().deliver(letter)

    def look(self) -> None:
        super().look()
        for one in CARDS:
            home = self.world.feds[self.world.owner(one.home)]._home
            key = int(one.identifier)
            record = home.records.get(key)
            for name in NETWORKS:
                if home.holders.silent(key, name):
                    self.passed_over.add((name, one))
                elif record is None or record.holders.get(name, 0) >= record.mapping.version:
                    self.passed_over.discard((name, one))

    def deaf(self, name: str, one: Card) -> bool:
        """Its home did not wait for it, and it has not heard of all that since."""
        return (name, one) in self.passed_over

    def teardown(self) -> None:
        self.away = ""
        super().teardown()
        self.patched.undo()


TestFederation = Federation.TestCase
TestFederation.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
TestSilence = Silence.TestCase
TestSilence.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
