"""What one node's record says does not keep a domain's controller from being served again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from followme.config import federation as config
from followme.controllers.openflow import federated, instance
from followme.controllers.openflow.instance import Instance
from followme.domain import Node, NodeKind
from followme.federation.nouns import Card, Mapping, Place
from followme.federation.records import HeldRecord
from followme.openflow.errors import NotConnected
from followme.packets.udp import udp_frame
from followme.store import Lease, Store
from tests.until import until

from .domains import HOSTS, VM, Domains, document, domains

GUEST = IPv4Address("10.2.0.77")
FREE = IPv4Address("10.4.0.77")
OLD = Place("wlan-d", IPv4Address("10.4.0.130"))


def _record(name: str, *, here: str = "dc-c", locator: str = "10.3.0.130", old: tuple[Place, ...] = ()) -> bytes:
    card = Card(name, NodeKind.MACHINE, b"\2\x09\x09\x09\x09\x09", GUEST, GUEST, "dc-b")
    return HeldRecord(Mapping(card, 6, Place(here, IPv4Address(locator)), old=old), {"wlan-d"}).encode()


@pytest.mark.parametrize("record", [
    lambda: _record("host-wlan-d"), lambda: _record("\U0001f600" * 64), lambda: _record("x\n\x1b[31m"),
    lambda: _record("guest", here="dc-x"), lambda: _record("guest", old=(Place("dc-x", GUEST),)),
], ids=["our user's name", "no name", "control characters", "nobody's network", "nobody's old place"])  # fmt: skip
async def test_one_record_that_cannot_be_shown_stops_nobody(record: Callable[[], bytes], tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        await world.stop("delta")
        store = Store(tmp_path / "delta.db")
        store.put_fact(f"h/{int(GUEST)}", record())
        store.close()
        await asyncio.wait_for(world.start("delta"), 10)
        await world.carry("dc-a", "dc-b", "m1")
        await world.talks(HOSTS["wlan-d"], "dc-b")
        controller = world.instances["delta"].controller
        assert controller is not None
        assert controller.where(HOSTS["wlan-d"].address) == "wlan-d"


async def test_a_visitor_with_an_address_of_ours_is_no_user_of_ours(tmp_path: Path) -> None:
    async with domains(tmp_path) as world:
        await _visit(world)
        guest, controller = HOSTS["dc-b"], world.instances["delta"].controller
        assert controller is not None
        router, gateway = b"\x0e" * 6, IPv4Address("10.4.0.10")
        world.switches["wlan-d"].packet_in(udp_frame(router, guest.mac, FREE, gateway, 1, 2, b"x"))
        refused = controller.watcher.refusals.counts
        await until(lambda: refused["visitor"] == 1)
        assert controller.where(guest.address) == "wlan-d"
        assert not [one for one in controller.redirect.bindings.values() if one.node.identifier == FREE]
        await world.stop("delta")
        await asyncio.wait_for(world.start("delta"), 10)
        controller = world.instances["delta"].controller
        assert controller is not None
        assert controller.where(guest.address) == "wlan-d"


async def _visit(world: Domains) -> None:
    guest, controller = HOSTS["dc-b"], world.instances["delta"].controller
    assert controller is not None
    frame = udp_frame(b"\x0e" * 6, guest.mac, guest.address, IPv4Address("10.4.0.10"), 1, 2, b"x")
    world.switches["wlan-d"].packet_in(frame)
    await until(lambda: controller.where(guest.address) == "wlan-d")


async def test_an_old_place_that_cannot_be_asked_for_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(federated, "QUIET_AGAIN_S", 0.01)
    async with domains(tmp_path) as world:
        controller = world.instances["delta"].controller
        assert controller is not None
        tries, said = 0, list[IPv4Address]()

        async def broken(*_: object) -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise NotConnected("no connection")

        monkeypatch.setattr(controller, "_quiet", broken)
        monkeypatch.setattr(controller.engine, "quiet", lambda identifier, place: said.append(identifier))
        await asyncio.wait_for(controller._when_quiet(VM, OLD), 2)
        assert (tries, said) == (3, [VM])
        assert [record for record in caplog.records if "no connection" in record.getMessage()]


async def test_an_instance_stands_by_again_whatever_has_ended_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(instance, "ASTONISHED_S", 0.01)
    monkeypatch.setattr(instance, "AGAIN_S", 0.01)
    public = Domains(tmp_path).public
    raw = document("delta", tmp_path, public)
    del raw["store"]
    (tmp_path / "password").write_text("a long password\n")
    (tmp_path / "password").chmod(0o600)
    raw["federation"] |= {"bus": "nats://127.0.0.1:4", "user": "delta", "password_file": str(tmp_path / "password"),
                          "instance": "1"}  # fmt: skip
    one = Instance(config.check(raw, "a test's config"), watch=lambda happening: None)
    times = 0

    async def opened(*_: object) -> None:
        return None

    async def broken(*_: object) -> None:
        nonlocal times
        times += 1
        if times > 1:  # the first time it is over in peace
            raise KeyError("dc-c")

    monkeypatch.setattr(one, "_on_bus", opened)
    monkeypatch.setattr(one, "_stand_by", broken)
    running = asyncio.create_task(one.run())
    with caplog.at_level(logging.ERROR):
        await until(lambda: times >= 5 or running.done())
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    lines = [record for record in caplog.records if "KeyError" in record.getMessage()]
    assert len(lines) >= 3
    assert [line.exc_info is not None for line in lines[:3]] == [True, False, False]


async def test_many_users_at_home_do_not_keep_the_lease_from_being_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("followme.system.patience.TURN_S", 0.0)
    async with domains(tmp_path) as world:
        await world.stop("delta")
        store, users = Store(tmp_path / "delta.db"), 60
        for number in range(users):
            address, mac = IPv4Address("10.4.0.20") + number, bytes((2, 7, 0, 0, 0, number))
            store.put_node(Node(f"guest{number}", NodeKind.USER, mac, address, address, "wlan-d"))
            store.put_lease(Lease(mac, address, "wlan-d", 0.0))
        turns = 0
        restore = federated.FederatedController.restore

        async def watched(controller: federated.FederatedController) -> None:
            async def renews() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            renewing = asyncio.ensure_future(renews())
            await restore(controller)
            renewing.cancel()
            assert len(controller.redirect.bindings) > users

        monkeypatch.setattr(federated.FederatedController, "restore", watched)
        store.close()
        await asyncio.wait_for(world.start("delta"), 10)
        assert turns >= users
