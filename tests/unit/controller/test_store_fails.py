"""The store cannot commit for a while: what it missed is written as soon as it can."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml

from followme.config import openflow as config
from followme.controllers.openflow.controller import Controller
from followme.domain import Node, NodeKind, Placement
from followme.store import Lease, Store, StoreError

from .world import EXAMPLE


class Failing(Store):
    """A store on a disk that may be full."""

    full = False

    def _commit(self) -> None:
        if self.full and self._begun:
            self._abandon()
            raise StoreError("store: disk is full")
        super()._commit()


@pytest.fixture
async def controller() -> Controller:
    settings = config.check(yaml.safe_load(EXAMPLE.read_text()), "example")
    controller = Controller(settings, {}, store=Failing(":memory:"))
    controller._restore()
    return controller


async def test_what_a_failed_commit_lost_is_stored_with_the_next_read(controller: Controller) -> None:
    store = controller.store
    assert isinstance(store, Failing)
    store.full = True
    lease = Lease(b"\2\0\0\0\0\x55", IPv4Address("10.3.0.55"), "wlan-east", 1e12)
    batch = controller.southbound.handlers.batch()
    batch.__enter__()
    here = controller.redirect.move("alice", "wlan-west", 7, [])
    store.put_lease(lease)
    controller.dhcp._leases[lease.mac] = lease
    with pytest.raises(StoreError, match="full"):
        batch.__exit__(None, None, None)
    assert store.placement("alice") != here
    assert store.locators() == {}
    with controller.southbound.handlers.batch():
        """Still full: this read is lost, but not the way to the next one."""
    store.full = False
    with controller.southbound.handlers.batch():
        assert store.placement("alice") == here
        assert store.locators() == {("wlan-west", "alice"): here.locator}
        assert store.leases() == (lease,)
    # Nobody else can be given what alice has.
    first = int(here.locator)
    assert store.allocate_locator("wlan-west", "bob", map(IPv4Address, range(first, first + 2))) != here.locator


@pytest.mark.parametrize("dies_at", ["lease", "node", "commit", None])
async def test_a_lease_that_ran_out_and_its_holder_go_together(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dies_at: str | None
) -> None:
    settings = config.check(yaml.safe_load(EXAMPLE.read_text()), "example")
    address = IPv4Address("10.3.0.55")
    guest = Node("user-x", NodeKind.USER, b"\2\0\0\0\0\x55", address, address, "wlan-east")
    with Failing(tmp_path / "fmc.db") as store:
        store.put_node(guest)
        store.put_placement(Placement(guest.name, "wlan-east", 7, address, 1))
        store.put_lease(Lease(guest.mac, address, "wlan-east", 1.0))
        controller = Controller(settings, {}, store=store)
        controller._restore()

        def dies(*arguments: object) -> None:
            raise StoreError("the disk is gone")

        if dies_at == "commit":
            store.full = True
        elif dies_at:
            monkeypatch.setattr(store, f"delete_{dies_at}", dies)
        if dies_at:
            with pytest.raises(StoreError):
                controller._forget_expired(set())
            assert controller.locations.node(guest.mac) == guest
            assert controller.dhcp.expired() == [guest.mac], "it is tried again"
        else:
            controller._forget_expired(set())
            assert controller.locations.node(guest.mac) is None
            assert controller.dhcp.expired() == []
    with Store(tmp_path / "fmc.db") as after:
        kept = [lease.mac for lease in after.leases()]
        assert kept == ([guest.mac] if dies_at else [])
        assert (guest in after.nodes()) == bool(dies_at)
