"""What goes wrong around a machine, and what the controller makes of it, on real switches and machines."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
from tests import until as waiting

from followme.domain import Migration, MigrationState, Placement
from followme.lab.pinger import Pinger
from followme.lab.scenario import MACHINE, Scenario, ScenarioConfig
from followme.migration.handover import Handover
from followme.migration.host import Host, MigrationError
from followme.store import StoreError
from followme.system import needs
from followme.system.process import run

_missing = needs.check(needs.MACHINE_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_missing), reason="; ".join(_missing))]
until = partial(waiting.until, seconds=20.0)


def said(scenario: Scenario, text: str) -> bool:
    return any(text in happening.text for happening in scenario.happenings)


def place(scenario: Scenario) -> str:
    return scenario.controller.redirect.bindings[MACHINE].here.network


def stored(scenario: Scenario) -> str | None:
    found = scenario.store.placement(MACHINE)
    return found.network if found else None


async def bounced_at(host: Host) -> bool:
    """Whether the host sends frames for some machine back to its switch."""
    shown = await run(["tc", "filter", "show", "dev", host.uplink, "ingress"], namespace=host.namespace)
    return "mirred" in str(shown)


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_store_that_fails_at_the_flip(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Scenario(ScenarioConfig(policy="never")) as scenario:
        await scenario.lab.move_client("wlan2")
        machines, put = scenario.controller.machines, scenario.store.put_placement
        left = failures

        def put_placement(placement: Placement) -> None:
            nonlocal left
            if placement.node == MACHINE and left:
                left -= 1
                raise StoreError("database or disk is full")
            put(placement)

        monkeypatch.setattr(scenario.store, "put_placement", put_placement)
        async with Pinger(scenario.lab.client.namespace, scenario.machine_identifier) as pinger:
            await asyncio.sleep(0.3)
            if failures == 1:  # the commit makes up for it
                await machines.carry(MACHINE, "dc2")
            else:  # and what makes up for the commit is tried until it works
                with pytest.raises(MigrationError, match="runs at dc2: database or disk is full"):
                    await machines.carry(MACHINE, "dc2")
                with pytest.raises(MigrationError, match="being carried already"):
                    await machines.carry(MACHINE, "dc1")
            await machines.settled(MACHINE)
            await asyncio.sleep(0.5)
        assert left == 0
        assert not pinger.lost
        assert (place(scenario), stored(scenario)) == ("dc2", "dc2")
        assert scenario.controller.redirect.bindings[MACHINE].leaving is None
        assert scenario.store.unfinished_migrations() == ()
        assert not machines.hosts["dc1"].file(MACHINE, "pid").exists()
        assert await machines.running[MACHINE].status() == "running"


async def not_yet(self: Handover, timeout: float) -> None:
    """In the place of ``Handover.go``: the target is told by ``resume`` only."""


async def test_what_fails_once_the_target_runs_takes_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Scenario(ScenarioConfig(policy="never")) as scenario:
        await scenario.lab.move_client("wlan2")
        machines, resume = scenario.controller.machines, Handover.resume

        async def late(self: Handover) -> None:
            await resume(self)
            self.resumed_at = None  # as if it had failed before it was noted
            raise MigrationError("nobody heard that it runs")

        monkeypatch.setattr(Handover, "resume", late)
        async with Pinger(scenario.lab.client.namespace, scenario.machine_identifier) as pinger:
            await asyncio.sleep(0.3)
            with pytest.raises(MigrationError, match="nobody heard"):
                await machines.carry(MACHINE, "dc2")
            await until(lambda: place(scenario) == "dc2", "the migration is finished after all")
            await asyncio.sleep(0.5)
        assert not pinger.lost
        await until(lambda: scenario.store.unfinished_migrations() == (), "the saga is over")
        assert await machines.running[MACHINE].status() == "running"


async def test_a_full_disk_does_not_keep_the_traffic_at_a_target_that_failed(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Scenario(ScenarioConfig(policy="never")) as scenario:
        await scenario.lab.move_client("wlan2")
        machines, put = scenario.controller.machines, scenario.store.put_placement
        full = False

        def put_placement(placement: Placement) -> None:
            if full and placement.node == MACHINE:
                raise StoreError("database or disk is full")
            put(placement)

        async def fail(self: Handover) -> None:
            nonlocal full
            full = True
            raise MigrationError("the target cannot go on")

        monkeypatch.setattr(scenario.store, "put_placement", put_placement)
        # Before the target is told to run: once it runs there is no way back.
        monkeypatch.setattr(Handover, "go", not_yet)
        monkeypatch.setattr(Handover, "resume", fail)
        async with Pinger(scenario.lab.client.namespace, scenario.machine_identifier) as pinger:
            await asyncio.sleep(0.3)
            with pytest.raises(MigrationError, match="the target cannot go on"):
                await machines.carry(MACHINE, "dc2")
            await asyncio.sleep(0.5)
        assert not pinger.lost
        assert place(scenario) == "dc1"
        assert stored(scenario) == "dc2", "the disk is full"
        full = False
        await until(lambda: stored(scenario) == "dc1", "the place is stored after all")


async def test_a_migration_that_fails_right_before_the_target_runs_loses_nothing(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Scenario(ScenarioConfig(policy="never")) as scenario:
        await scenario.lab.move_client("wlan2")
        machines = scenario.controller.machines

        async def fail(self: Handover) -> None:
            await asyncio.sleep(0.1)  # frames wait at the target
            raise MigrationError("the target cannot go on")

        # Before the target is told to run: once it runs there is no way back.
        monkeypatch.setattr(Handover, "go", not_yet)
        monkeypatch.setattr(Handover, "resume", fail)
        async with Pinger(scenario.lab.client.namespace, scenario.machine_identifier) as pinger:
            await asyncio.sleep(0.3)
            for _ in range(3):
                with pytest.raises(MigrationError, match="the target cannot go on"):
                    await machines.carry(MACHINE, "dc2")
            await asyncio.sleep(0.5)
        assert len(pinger.pings) > 100
        assert not pinger.lost
        assert place(scenario) == "dc1"
        assert not await bounced_at(machines.hosts["dc2"])


async def test_a_machine_that_dies_is_noticed_and_can_be_started_again() -> None:
    async with Scenario(ScenarioConfig(policy="never")) as scenario:
        machines = scenario.controller.machines
        # Also behind a migration: it is the new QEMU that is watched, and the old one's end is none.
        await machines.carry(MACHINE, "dc2")
        assert not said(scenario, "has stopped")
        pid = machines.running[MACHINE].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: said(scenario, f"{MACHINE} has stopped: its QEMU at dc2 (pid {pid})"), "it is noticed")
        assert said(scenario, "ended with code -9")
        assert machines.running == {}
        host = machines.hosts["dc2"]
        assert not host.file(MACHINE, "pid").exists()
        assert not host.qmp_path(MACHINE).exists()
        with pytest.raises(MigrationError, match="not one that runs here"):
            await machines.carry(MACHINE, "dc1")
        await machines.start()
        assert await machines.running[MACHINE].status() == "running"


async def test_one_machine_that_cannot_be_started_does_not_keep_the_others(tmp_path: Path) -> None:
    bad = tmp_path / "bzImage"
    bad.write_bytes(b"no kernel at all")
    other = {
        "name": "vm2", "home": "dc1", "mac": "02:fc:00:00:e0:02", "address": "10.1.0.6", "kernel": str(bad),
        "initrd": str(bad), "memory_mib": 128,
    }  # fmt: skip
    async with Scenario(ScenarioConfig(policy="never", machines=[other])) as scenario:
        machines = scenario.controller.machines
        assert list(machines.running) == [MACHINE]
        assert list(machines.problems) == ["vm2"]
        assert said(scenario, "vm2 does not run: ")
        await scenario.lab.move_client("wlan1")
        async with Pinger(scenario.lab.client.namespace, scenario.machine_identifier) as pinger:
            await asyncio.sleep(0.5)
        assert not pinger.lost


async def test_a_saga_of_a_data_centre_that_is_gone_is_given_up_and_the_machine_started() -> None:
    async with Scenario(ScenarioConfig(policy="never")) as scenario:
        machines = scenario.controller.machines
        await machines.close()
        saga = Migration("m1", MACHINE, "dc1", "dc9", "live", MigrationState.TRANSFERRING, time.time())
        scenario.store.put_migration(saga, time.time())
        await machines.start()
        assert await machines.running[MACHINE].status() == "running"
        assert scenario.store.unfinished_migrations() == ()
        assert "dc9" in str(scenario.store.migration_steps("m1")[-1].detail["lost"])


async def test_late_frames_bounce_until_the_switches_have_the_rules_of_a_settled_machine() -> None:
    async with Scenario(ScenarioConfig(policy="never")) as scenario:
        machines, switch = scenario.controller.machines, scenario.lab.switch
        machines._survive = True
        await machines.close()
        saga = Migration("m1", MACHINE, "dc1", "dc2", "live", MigrationState.TRANSFERRING, time.time())
        scenario.store.put_migration(saga, time.time())
        await switch.drop_controller("wlan1")
        await until(lambda: said(scenario, "switch of wlan1 is gone"), "the switch is away")
        await machines.start()
        assert said(scenario, "was settled (resume at the source)")
        assert await machines.running[MACHINE].status() == "running"
        await asyncio.sleep(0.5)
        assert await bounced_at(machines.hosts["dc2"])
        await switch.set_controller("wlan1", "tcp:{}:{}".format(*scenario.lab.controller_address))
        await machines.retired()
        assert not await bounced_at(machines.hosts["dc2"])
