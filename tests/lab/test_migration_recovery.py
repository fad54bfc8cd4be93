"""The controller is killed in the middle of a migration; afterwards one copy of the machine runs."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from test_migration_machine import Lab, Network, Prober, image, lab, machine, migration, nothing_left

from followme.domain import Migration, MigrationState
from followme.lab.guest import READY, GuestImage
from followme.migration.host import MigrationError
from followme.migration.mover import MachineMover, Options
from followme.migration.qemu import Qemu
from followme.migration.recovery import CopyStatus, Verdict, forget, settle
from followme.system import netns

__all__ = ["image", "lab"]  # the fixtures, for pytest

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces and taps"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86_64"),
]


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
    async with asyncio.timeout(60):
        while READY not in lab.hosts["a"].file("vm", "serial").read_text(errors="replace"):
            await asyncio.sleep(0.05)
    await MachineMover(migration(lab, "live"), source, lab.hosts["b"], Doom(lab, "b"), record,
                       options=Options(survive=True)).run()


async def end_all(lab: Lab) -> None:
    for host in lab.hosts.values():
        assert host.namespace is not None
        for pid in await netns.pids(host.namespace):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("moment", ["prepared", "transferring", "switched", "0.004", "0.015", "0.1"])
async def test_a_killed_controller_leaves_one_machine(
    lab: Lab, image: GuestImage, tmp_path: Path, moment: str
) -> None:
    await lab.send_to("a")
    records = tmp_path / "state"
    pid = os.fork()
    if pid == 0:
        # A process of its own with a loop of its own, which ends without any of our clean-up.
        code = ("import asyncio, pickle, sys; sys.path.insert(0, sys.argv[1]); "
                "from test_migration_recovery import doomed; "
                "asyncio.run(doomed(*pickle.loads(bytes.fromhex(sys.argv[2]))))")
        import pickle

        argument = pickle.dumps((lab, image, moment, records)).hex()
        os.execv(sys.executable, [sys.executable, "-c", code, str(Path(__file__).parent), argument])
    try:
        assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, pid, 0))[1]) == 9
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
    with pytest.raises(MigrationError, match="a says gone, b says gone, neither holds the whole machine"):
        await settle(left, machine(image), lab.hosts["a"], lab.hosts["b"])
