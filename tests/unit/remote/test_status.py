"""What an agent says of a copy that it does not have: its peer lets its own copy run if it says that it is gone."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from followme.domain import Migration, MigrationState
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.qemu import Qemu
from followme.migration.recovery import CopyStatus, Lost, Verdict
from followme.remote.client import Client
from followme.remote.guest import Guest
from followme.remote.hypervisor import Hypervisor
from followme.remote.machines import SiteMachines
from followme.remote.server import Caller
from followme.remote.specs import Rules, spec_document
from followme.store import Store

A, B = Caller("a", lambda value: None), Caller("b", lambda value: None)
ASKED = {"machine": "vm", "migration": "m1"}


@pytest.fixture
def hypervisor(tmp_path: Path) -> Hypervisor:
    host = Host("h2", None, "br0", "uplink", "127.0.0.1", tmp_path / "run")
    return Hypervisor(host, Rules((tmp_path,)))


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    for name in ("kernel", "initrd"):
        (tmp_path / name).write_bytes(b"x")
    return MachineSpec("vm", bytes.fromhex("525400000001"), 64 << 20, tmp_path / "kernel", tmp_path / "initrd", "")


@pytest.fixture
def stray(hypervisor: Hypervisor, spec: MachineSpec) -> Iterator[None]:
    """A process that is the machine's QEMU by its name and its pid file, and that no monitor answers for."""
    words = ["qemu-system-x86_64", "-c", "import time; time.sleep(60)", "-name", "vm", "-netdev", "tap,fd=0"]
    with subprocess.Popen(words, executable=sys.executable) as process:
        hypervisor.host.run_dir.mkdir()
        hypervisor.host.file("vm", "pid").write_text(f"{process.pid}\n")
        deadline = time.monotonic() + 5.0
        while Qemu.find(hypervisor.host, spec) is None:  # its words show a moment after it was started
            assert time.monotonic() < deadline
            time.sleep(0.001)
        yield
        process.kill()


async def test_a_machine_that_never_was_here(hypervisor: Hypervisor) -> None:
    assert await hypervisor.status(ASKED, A) == {"status": CopyStatus.GONE}
    await hypervisor.kill(ASKED, A)
    for handler in (hypervisor.keep, hypervisor.stop_process, hypervisor.send_on, hypervisor.bounce):
        with pytest.raises(MigrationError, match="not being carried to h2 by a"):
            await handler(ASKED, A)


async def test_one_that_came_and_went_on_is_not_gone(hypervisor: Hypervisor) -> None:
    """Else its old source would let its stale copy run beside it."""
    store = Store(":memory:")

    class Router:
        def gone(self, spec: MachineSpec) -> None: ...

    async def connect(site: str) -> Client:
        raise AssertionError

    SiteMachines("b", hypervisor, store, Router(), connect)  # type: ignore[arg-type]
    came = Migration("m1", "vm", "a", "b", "live", MigrationState.RELEASED, 1.0)
    store.put_migration(came, 1.0)
    store.put_migration(Migration("m2", "vm", "b", "c", "live", MigrationState.RELEASED, 2.0), 2.0)
    for id, state in (("m4", MigrationState.PREPARED), ("m5", MigrationState.FAILED)):
        store.put_migration(Migration(id, "vm", "a", "b", "live", state, 3.0), 3.0)
    assert await hypervisor.status(ASKED, A) == {"status": CopyStatus.RUNNING}
    await hypervisor.keep(ASKED, A)
    # Another migration to here, of which nothing came, is another matter; so is one from here.
    for other in ("m2", "m3", "m4", "m5"):
        assert await hypervisor.status({**ASKED, "migration": other}, A) == {"status": CopyStatus.GONE}
    store.close()


@pytest.mark.usefixtures("stray")
async def test_a_process_that_nobody_knows_is_not_gone(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    with pytest.raises(MigrationError, match="did not come from a"):
        await hypervisor.status(ASKED, A)
    with pytest.raises(MigrationError, match="nobody's"):
        await hypervisor.incoming({"spec": spec_document(spec), "migration": "m1"}, A)


@pytest.mark.usefixtures("stray")
async def test_a_guest_that_cannot_be_taken_over_is_not_gone(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    hypervisor._write(spec, "a", "m1")
    await hypervisor.recover()
    assert hypervisor.guests["vm"].peer == "a"
    for handler in (hypervisor.status, hypervisor.kill, hypervisor.keep):
        with pytest.raises(MigrationError, match="cannot be taken over"):
            await handler(ASKED, A)
    with pytest.raises(MigrationError, match="did not come from b"):
        await hypervisor.status(ASKED, B)
    await hypervisor.close()


async def test_files_that_say_nothing(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    hypervisor._write(spec, "", "")
    for number, text in enumerate(("", "[]", "{}", json.dumps({"spec": {"name": "x"}, "peer": "a"}))):
        (hypervisor.host.run_dir / f"m{number}@h2.json").write_text(text)
    (hypervisor.host.run_dir / "vm@elsewhere.json").write_text(hypervisor._file("vm").read_text())
    assert hypervisor.specs() == {"vm": spec}
    await hypervisor.recover()
    assert hypervisor.guests == {}


async def test_a_late_kill_ends_nothing_of_the_next_migration(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    hypervisor.guests["vm"] = Guest(spec, "a", "m2", trouble="it has not been looked at yet")
    await hypervisor.kill(ASKED, A)
    assert "vm" in hypervisor.guests
    with pytest.raises(MigrationError, match=r"interface"):  # it is about to: there is no uplink here
        await hypervisor.kill({**ASKED, "migration": "m2"}, A)
    await hypervisor.close()


async def test_a_machine_runs_here_whatever_the_disk_says(
    hypervisor: Hypervisor, spec: MachineSpec, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    qemu = cast(Qemu, SimpleNamespace(spec=spec))
    hypervisor.own(qemu)
    assert hypervisor.machines == {"vm": qemu}
    assert "vm runs here, and that cannot be written" in caplog.text
    hypervisor.machines.clear()
    with pytest.raises(MigrationError, match="h2 cannot take vm"):
        await hypervisor.incoming({"spec": spec_document(spec), "migration": "m1"}, A)
    assert hypervisor.guests == {}


def test_what_goes_wrong_again_and_again_is_logged_once_a_minute(
    hypervisor: Hypervisor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    machines = SiteMachines("b", hypervisor, Store(":memory:"), SimpleNamespace(gone=None), None)  # type: ignore
    for _ in range(60):
        machines._problem("vm", "its peer is away")
        now[0] += 2.0
    assert [record.getMessage() for record in caplog.records] == ["vm: its peer is away"] * 2
    assert machines.problems == {"vm": "its peer is away"}


async def test_waiting_machines_have_a_bound(hypervisor: Hypervisor, spec: MachineSpec) -> None:
    for number in range(hypervisor.rules.max_waiting):
        other = replace(spec, name=f"vm{number}")
        hypervisor.guests[other.name] = Guest(other, "a", "m")
    with pytest.raises(MigrationError, match="waits for 8 machines already"):
        await hypervisor.incoming({"spec": spec_document(spec), "migration": "m1"}, A)
    for migration in (None, "", "x" * 65, 7):
        with pytest.raises(MigrationError, match="no id"):
            await hypervisor.incoming({"spec": spec_document(spec), "migration": migration}, A)


@pytest.mark.parametrize("heard", [True, False])
async def test_the_network_hears_that_a_machine_is_lost(
    hypervisor: Hypervisor, spec: MachineSpec, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    said: list[str] = []

    class Router:
        async def settled(self, migration: Migration, spec: MachineSpec, verdict: Verdict) -> None:
            if not heard:
                raise MigrationError("no controller has answered")
            said.append(str(verdict))

        def gone(self, spec: MachineSpec) -> None:
            said.append("gone")

    async def connect(site: str) -> object:
        async def close() -> None: ...

        return SimpleNamespace(close=close)

    async def lost(*_: object) -> None:
        raise Lost("neither holds the whole machine")

    monkeypatch.setattr("followme.remote.machines.settle", lost)
    store = Store(":memory:")
    machines = SiteMachines("h2", hypervisor, store, Router(), connect)  # type: ignore[arg-type]
    migration = Migration("m1", "vm", "h2", "h1", "live", MigrationState.SWITCHED, 1.0,
                          {"spec": spec_document(spec)})  # fmt: skip
    store.put_migration(migration, 1.0)
    machines._busy["vm"] = asyncio.Event()
    assert await machines._settle(migration, spec) is heard, "else it is tried again"
    assert said == (["lost", "gone"] if heard else [])
    assert [one.id for one in store.unfinished_migrations()] == ([] if heard else ["m1"])
