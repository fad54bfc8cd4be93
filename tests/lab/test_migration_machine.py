"""A real machine carried between two real hypervisors on one host, under pings, with everything going wrong."""

# ruff: noqa: F811 (fixtures)

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.lab.carrying import (  # noqa: F401 (fixtures)
    MARKS,
    Broken,
    Lab,
    Network,
    Prober,
    booted,
    end_all,
    image,
    lab,
    machine,
    nothing_left,
    ready,
)

from followme.domain import Migration, MigrationState
from followme.lab.guest import GuestImage
from followme.migration.host import MachineSpec, MigrationError
from followme.migration.mover import MachineMover, Options, Result
from followme.migration.qemu import Qemu
from followme.migration.recovery import CopyStatus, Lost, Verdict, forget, settle
from followme.migration.transfer import TransferProgress
from followme.store import StoreError
from followme.system import netns

pytestmark = MARKS


def no_disk(migration: Migration) -> None:
    raise StoreError("the disk is full")


def migration(lab: Lab, mode: str) -> Migration:
    return Migration("m1", "vm", lab.at, lab.other(), mode, MigrationState.PLANNED, time.time())


def mover(lab: Lab, source: Qemu, network: Network, mode: str = "live", *, states: list[Migration] | None = None,
          spec: MachineSpec | None = None, progress: Callable[[TransferProgress], None] | None = None,
          options: Options | None = None) -> MachineMover:
    record = (states if states is not None else []).append
    return MachineMover(migration(lab, mode), source, lab.hosts[lab.other()], network, record,
                        target_spec=spec, progress=progress, options=options)


def show(what: str, result: Result, prober: Prober) -> None:
    print(f"{what:12} pause {result.pause_s * 1e3:6.1f} ms  held {result.held_s * 1e3:6.1f} ms  "
          f"total {result.total_s:5.2f} s  {result.bytes / 1e6:6.1f} MB  passes {result.passes}  "
          f"bounced {result.bounced}  pings {prober.sent} lost {len(prober.lost)} twice {prober.duplicates}  "
          f"longest gap {prober.longest_gap * 1e3:6.1f} ms  worst {prober.worst_round_trip * 1e3:6.1f} ms")


async def carry(lab: Lab, holder: list[Qemu], mode: str, options: Options | None = None) -> tuple[Result, Prober]:
    """One migration to the other host under pings; after it nothing is left at the old one."""
    network = Network(lab, lab.other())
    old = lab.at
    states: list[Migration] = []
    work = mover(lab, holder[0], network, mode, states=states, options=options)
    async with Prober(lab) as prober:
        await asyncio.sleep(0.3)
        result = await work.run()
        assert work.target is not None
        holder[0] = work.target
        await asyncio.sleep(0.3)
    assert network.calls == ["prepare", "flip", "commit", "release"]
    assert [migration.state for migration in states] == list(MigrationState)[:5]
    assert work.arrived
    assert await holder[0].status() == "running"
    assert not [event for event in holder[0].monitor.events if event["event"] == "RESET"]
    await nothing_left(lab, old)
    return result, prober


async def test_there_and_back_loses_nothing(lab: Lab, image: GuestImage) -> None:
    async with booted(lab, machine(image)) as holder:
        for number in range(4):
            result, prober = await carry(lab, holder, "live")
            show(f"live {number}", result, prober)
            assert prober.lost == []
            assert 0 < result.pause_s <= result.total_s
            assert 0 < result.held_s <= result.total_s


async def test_a_machine_that_writes_all_the_time(lab: Lab, image: GuestImage) -> None:
    async with booted(lab, machine(image, dirty_bytes_s=10 << 20, dirty_set=16 << 20)) as holder:
        for number in range(2):
            result, prober = await carry(lab, holder, "live")
            show(f"writing {number}", result, prober)
            assert prober.lost == []


async def test_cold_and_paper_modes(lab: Lab, image: GuestImage) -> None:
    async with booted(lab, machine(image)) as holder:
        result, prober = await carry(lab, holder, "cold")
        show("cold", result, prober)
        assert prober.lost == []
        result, prober = await carry(lab, holder, "paper")
        show("paper", result, prober)
        # Nothing waits for the machine in this mode: what is sent to it meanwhile is lost.
        assert prober.lost


async def fails(lab: Lab, holder: list[Qemu], network: Network, work: MachineMover, match: str) -> Prober:
    """The migration fails with that error; the machine runs on at the source, nothing is left."""
    async with Prober(lab) as prober:
        await asyncio.sleep(0.2)
        with pytest.raises(MigrationError, match=match) as caught:
            await work.run()
        assert await holder[0].status() == "running"
        await asyncio.sleep(0.2)
    print(f"{caught.value}: pings {prober.sent} lost {len(prober.lost)} gap {prober.longest_gap * 1e3:.1f} ms")
    assert prober.answers[max(prober.answers)][0] > time.time() - 0.5
    assert work.migration.state is MigrationState.FAILED
    assert network.calls[-1] == "rollback"
    assert work.target is None
    await nothing_left(lab, lab.other())
    return prober


async def test_failures_leave_the_machine_at_the_source(lab: Lab, image: GuestImage) -> None:
    spec = machine(image)
    async with booted(lab, spec) as holder:
        network = Network(lab, "b")
        work = mover(lab, holder[0], network, spec=replace(spec, memory_bytes=96 << 20))
        assert (await fails(lab, holder, network, work, "Size mismatch")).lost == []

        network = Network(lab, "b")

        def cancel(progress: TransferProgress) -> None:
            if progress.sent_bytes > 5e6:
                assert work.cancel("the user changed his mind") == (work.migration.state.value == "transferring")

        work = mover(lab, holder[0], network, progress=cancel)
        assert (await fails(lab, holder, network, work, "changed his mind")).lost == []

        network = Network(lab, "b")

        def kill(progress: TransferProgress) -> None:
            if progress.sent_bytes > 5e6 and work.target is not None and work.target.pid is not None:
                os.kill(work.target.pid, signal.SIGKILL)

        work = mover(lab, holder[0], network, progress=kill)
        # Either side may be the first to notice.
        assert (await fails(lab, holder, network, work, "vm on [ab]: ")).lost == []

        # The path goes silent without a word: only time tells.
        network = Network(lab, "b")

        def cut(progress: TransferProgress) -> None:
            if progress.sent_bytes > 5e6:
                subprocess.run(["ip", "-n", lab.switch, "link", "set", "dev", "m-b", "down"], check=True)

        work = mover(lab, holder[0], network, progress=cut, options=Options(stall_timeout=1.0))
        assert (await fails(lab, holder, network, work, "nothing passed")).lost == []
        await netns.ip(lab.switch, ["link set dev m-b up"])

        # And after all that it can still go.
        result, prober = await carry(lab, holder, "live")
        show("afterwards", result, prober)
        assert prober.lost == []


async def test_a_hook_that_fails_is_undone_before_the_switch_and_repeated_after_it(
    lab: Lab, image: GuestImage
) -> None:
    async with booted(lab, machine(image)) as holder:
        network = Broken(lab, "b", broken="prepare")
        await fails(lab, holder, network, mover(lab, holder[0], network), "prepare is broken")

        network = Broken(lab, "b", broken="commit")
        states: list[Migration] = []
        work = mover(lab, holder[0], network, states=states)
        with pytest.raises(MigrationError, match="commit is broken"):
            await work.run()
        assert work.arrived
        assert work.target is not None
        assert states[-1].state.value == "switched"
        assert await holder[0].status() == "postmigrate"
        holder[0] = work.target
        assert await holder[0].status() == "running"
        network.broken = ""
        record = work._record_state
        work._record_state = no_disk
        with pytest.raises(StoreError):
            await work.finish()
        assert holder[0].pid is not None
        # Released is recorded when nothing is left at the source, and not before.
        assert [state.state.value for state in states][-1:] == ["switched"]
        await nothing_left(lab, "a")
        work._record_state = record
        await work.finish()
        assert states[-1].state.value == "released"
        await nothing_left(lab, "a")


@pytest.mark.parametrize("how", ["kill", "cancel"])
async def test_failure_after_the_flip_loses_nothing(lab: Lab, image: GuestImage, how: str) -> None:
    """Traffic has turned already; what waits at the target comes back."""
    async with booted(lab, machine(image)) as holder:
        network = Network(lab, "b")

        async def act() -> None:
            if how == "cancel":
                assert work.cancel("too bad")
            elif work.target is not None and work.target.pid is not None:
                os.kill(work.target.pid, signal.SIGKILL)

        network.on_flip = act
        work = mover(lab, holder[0], network)
        prober = await fails(lab, holder, network, work, "too bad" if how == "cancel" else "vm on [ab]: ")
        assert "flip" in network.calls
        assert prober.lost == []


async def test_a_machine_too_busy_for_the_path_goes_on_at_the_source(lab: Lab, image: GuestImage) -> None:
    async with booted(lab, machine(image, dirty_bytes_s=2000 << 20, dirty_set=32 << 20)) as holder:
        network = Network(lab, "b")
        work = mover(lab, holder[0], network, options=Options(max_pause=0.001))
        prober = await fails(lab, holder, network, work, "faster than the path")
        assert prober.lost == []


async def doomed(lab: Lab, guest: GuestImage, moment: str, records: Path) -> None:
    """What the controller does until it dies at ``moment``: a recorded state, or so long after the flip."""

    def record(migration: Migration) -> None:
        records.write_text(migration.state.value)
        if migration.state.value == moment:
            os._exit(9)

    class Doom(Network):
        async def flip(self) -> None:
            asyncio.get_running_loop().call_later(float(moment), os._exit, 9)

        async def release(self) -> None:
            await asyncio.sleep(10)

    source = await Qemu.start(lab.hosts["a"], machine(guest), survive=True)
    await ready(lab)
    await MachineMover(migration(lab, "live"), source, lab.hosts["b"], Doom(lab, "b"), record,
                       options=Options(survive=True)).run()


def run_doomed(lab: Lab, guest: GuestImage, moment: str, records: Path) -> None:
    asyncio.run(doomed(lab, guest, moment, records))


@pytest.mark.parametrize("moment", ["prepared", "transferring", "switched", "0.004", "0.015", "0.1"])
async def test_a_killed_controller_leaves_one_machine(
    lab: Lab, image: GuestImage, tmp_path: Path, moment: str
) -> None:
    await lab.send_to("a")
    records = tmp_path / "state"
    # A process of its own, which ends without any of our clean-up.
    context = multiprocessing.get_context("spawn")
    controller = context.Process(target=run_doomed, args=(lab, image, moment, records))
    controller.start()
    try:
        await asyncio.to_thread(controller.join)
        assert controller.exitcode == 9
        await asyncio.sleep(0.3)  # the QEMUs notice that the relay is gone
        state = MigrationState(records.read_text())
        left = Migration("m1", "vm", "a", "b", "live", state, time.time())
        done = await settle(left, machine(image), lab.hosts["a"], lab.hosts["b"])
        print(f"killed at {moment}: recorded {state}, source {done.source}, target {done.target}: {done.verdict}")
        if moment == "0.1":
            assert done.verdict is Verdict.FINISH_AT_TARGET
        if state is not MigrationState.SWITCHED or moment == "switched":
            assert done.verdict is Verdict.RESUME_AT_SOURCE
        where, other = ("a", "b") if done.verdict is Verdict.RESUME_AT_SOURCE else ("b", "a")
        await lab.send_to(where)
        async with Prober(lab) as prober:
            await asyncio.sleep(0.3)
        assert prober.lost == []
        forget(lab.hosts[other], machine(image))
        await nothing_left(lab, other)
        assert len(await netns.pids(str(lab.hosts[where].namespace))) == 1
        again = await settle(left, machine(image), lab.hosts["a"], lab.hosts["b"])
        assert CopyStatus.RUNNING in (again.source, again.target)
    finally:
        await end_all(lab)


async def test_where_nothing_is_left_the_error_says_so(lab: Lab, image: GuestImage) -> None:
    left = Migration("m1", "vm", "a", "b", "live", MigrationState.SWITCHED, 0.0)
    with pytest.raises(Lost, match="a says gone, b says gone, neither holds the whole machine"):
        await settle(left, machine(image), lab.hosts["a"], lab.hosts["b"])
    # A target that waits for a machine that will not come is in the way of the one that is started anew.
    waiting = await Qemu.start(lab.hosts["b"], machine(image), incoming=True)
    await waiting.detach()
    with pytest.raises(Lost, match="a says gone, b says inmigrate"):
        await settle(left, machine(image), lab.hosts["a"], lab.hosts["b"])
    assert Qemu.find(lab.hosts["b"], machine(image)) is None
