"""Whatever is allocated, freed, undone and reopened: no locator has two owners."""

from __future__ import annotations

import tempfile
from ipaddress import IPv4Address
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from followme.store import Store, StoreError

POOL = [IPv4Address(f"10.0.0.{n}") for n in range(5)]
networks = st.sampled_from(["east", "west"])
nodes = st.sampled_from(["a", "b", "c", "d"])
pools = st.lists(st.sampled_from(POOL), max_size=5)


class Undone(Exception):
    """Leaves a transaction."""


class Locators(RuleBasedStateMachine):
    """The store beside a plain dictionary of who has what."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "followme.db"
        self.store = Store(self.path)
        self.owned: dict[tuple[str, str], IPv4Address] = {}

    def allocated(self, network: str, node: str, pool: list[IPv4Address]) -> IPv4Address | None:
        """What the store gives, checked against the dictionary, which stays as it is."""
        free = [address for address in pool if address not in self.owned.values()]
        expected = self.owned.get((network, node)) or (free[0] if free else None)
        try:
            given = self.store.allocate_locator(network, node, pool)
        except StoreError:
            given = None
        assert given == expected
        return given

    @rule(network=networks, node=nodes, pool=pools)
    def allocate(self, network: str, node: str, pool: list[IPv4Address]) -> None:
        given = self.allocated(network, node, pool)
        if given is not None:
            self.owned[network, node] = given

    @rule(network=networks, node=nodes, pool=pools)
    def allocate_and_undo(self, network: str, node: str, pool: list[IPv4Address]) -> None:
        try:
            with self.store.transaction():
                self.allocated(network, node, pool)
                raise Undone
        except Undone:
            pass

    @rule(network=networks, node=nodes)
    def free(self, network: str, node: str) -> None:
        self.store.free_locator(network, node)
        self.owned.pop((network, node), None)

    @rule(node=nodes)
    def delete(self, node: str) -> None:
        self.store.delete_node(node)
        self.owned = {key: address for key, address in self.owned.items() if key[1] != node}

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Store(self.path)

    @invariant()
    def each_has_one_owner(self) -> None:
        kept = self.store.locators()
        assert kept == self.owned
        assert len(set(kept.values())) == len(kept)

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


TestLocators = Locators.TestCase
TestLocators.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
