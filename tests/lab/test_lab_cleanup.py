"""Nothing is left behind, however a run of either lab ends; and runs do not meet."""

import asyncio
import os
import signal
import subprocess
import sys
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from followme.lab.base import NetworkLab
from followme.lab.delay import Delay
from followme.lab.lisp_topology import LispLab
from followme.lab.rundir import ROOT, Run, sweep
from followme.lab.topology import Lab
from followme.system import needs, netns
from followme.system.process import Child, run

PROBLEMS = needs.check(needs.NETWORK_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(PROBLEMS), reason="; ".join(PROBLEMS))]

AnyLab = type[Lab] | type[LispLab]
LABS = pytest.mark.parametrize("kind", [Lab, LispLab])
HOLD = """
import asyncio
from {module} import {name}
async def main():
    async with {name}() as lab:
        print(lab.run_id, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


def left_of(run_id: str) -> list[str]:
    """Namespaces, directories and processes of a run."""
    found = [name for name in netns.names() if run_id in name]
    found += [str(path) for path in ROOT.glob(run_id)]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if run_id.encode() in command:
            found.append(command.decode())
    return found


async def hold(kind: AnyLab) -> tuple[Child, str]:
    """A lab in another process, and its id."""
    code = HOLD.format(module=kind.__module__, name=kind.__name__)
    child = await Child.start([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout is not None
    line = await asyncio.wait_for(child.stdout.readline(), 30)
    assert line, child.stderr_tail
    return child, line.decode().strip()


async def use(lab: NetworkLab) -> str:
    """Add to the lab what its tests add; returns a namespace of it."""
    address = IPv4Interface("10.1.0.10/24")
    if isinstance(lab, Lab):
        return (await lab.add_host("dc1", "x", port=10, address=address)).namespace
    assert isinstance(lab, LispLab)
    await lab.attach_client("wlan2")
    return (await lab.add_host("dc1", "x", address)).namespace


@LABS
async def test_nothing_is_left_after_a_normal_end(kind: AnyLab) -> None:
    async with kind() as lab:
        assert len(left_of(lab.run_id)) > 5
        # Somebody forgot this one; it must not keep the namespace alive.
        forgotten = await Child.start(["sleep", "60"], namespace=await use(lab))
    assert left_of(lab.run_id) == []
    assert await asyncio.wait_for(forgotten.wait(), 5) == -signal.SIGKILL


@LABS
async def test_nothing_is_left_after_an_error_inside(kind: AnyLab) -> None:
    lab = kind()

    async def fail() -> None:
        async with lab:
            await use(lab)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert left_of(lab.run_id) == []


@LABS
async def test_nothing_is_left_after_an_error_while_building(
    kind: AnyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("no delays today")

    monkeypatch.setattr(Delay, "start", fail)
    lab = kind()
    with pytest.raises(RuntimeError, match="no delays today"):
        await lab.__aenter__()
    assert left_of(lab.run_id) == []


@LABS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_nothing_is_left_after_a_signal(kind: AnyLab, number: signal.Signals) -> None:
    child, run_id = await hold(kind)
    assert left_of(run_id) != []
    os.kill(child.pid, number)
    assert await asyncio.wait_for(child.wait(), 20) != 0
    assert left_of(run_id) == []


async def test_the_next_run_sweeps_up_after_one_that_was_killed() -> None:
    child, run_id = await hold(Lab)
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    assert left_of(run_id) != []
    async with LispLab():
        assert left_of(run_id) == []


async def test_a_sweep_leaves_the_living_alone(tmp_path: Path) -> None:
    living, dead = Run.open(tmp_path), Run.open(tmp_path)
    dead._owner.close()  # what the kernel does when the owner dies
    assert await sweep(tmp_path) == [dead.id]
    assert living.directory.is_dir()
    await living.close()
    assert await sweep(tmp_path) == []
    assert not living.directory.exists()


async def test_two_runs_at_once_do_not_meet() -> None:
    async with Lab() as one, Lab() as other:
        for lab in (one, other):
            for network in lab.networks:
                await lab.switch.ofctl("add-flow", network.name, "actions=NORMAL")
        # The same address in both: were they joined, it would answer in the other, too.
        host = await one.add_host("dc1", "here", port=10, address=IPv4Interface("10.1.0.10/24"))
        asker = await other.add_host("wlan1", "asker", port=10, address=IPv4Interface("10.3.0.10/24"))
        with pytest.raises(Exception, match="100% packet loss"):
            await run(["ping", "-c", "1", "-W", "1", "10.1.0.10"], namespace=asker.namespace)
        await run(["ping", "-c", "1", "-W", "1", "10.1.0.1"], namespace=host.namespace)
        ids = one.run_id, other.run_id
    assert ids[0] != ids[1]
    assert left_of(ids[0]) + left_of(ids[1]) == []
