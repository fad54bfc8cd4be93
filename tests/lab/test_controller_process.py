"""``followme controller -c FILE`` as an operator runs it: its own process, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from followme.config import openflow as config
from followme.controllers.openflow.startup import spec_of
from followme.controllers.serve import hosts_of
from followme.lab.document import MACHINE, ScenarioConfig, document
from followme.lab.guest import READY, build_guest
from followme.lab.meter import Meter
from followme.lab.topology import Lab
from followme.migration.host import MigrationError
from followme.migration.monitor import Monitor
from followme.migration.qemu import Qemu
from followme.store import Store
from followme.system import needs
from followme.system.process import Child

_missing = needs.check(needs.MACHINE_LAB)
pytestmark = [pytest.mark.lab, pytest.mark.skipif(bool(_missing), reason="; ".join(_missing))]

MACHINE_ADDRESS = IPv4Address("10.1.0.5")


class Operator:
    """A lab, a config file, and the controller's process, which can be killed and started again."""

    def __init__(self, lab: Lab, config: Path) -> None:
        self.lab = lab
        self.config = config
        self.log = config.with_suffix(".log")
        self._child: Child | None = None

    async def start(self) -> None:
        log = self.log.open("ab")
        self._child = await Child.start(
            ["sh", "-c", 'exec "$@" 2>&1', "sh", sys.executable, "-m", "followme", "controller", "-c",
             str(self.config)],
            namespace=self.lab.switch_namespace, stdout=log,
        )  # fmt: skip
        log.close()

    async def kill(self, number: int) -> int:
        assert self._child is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child.pid, number)
        return await self._child.wait()

    def said(self, text: str) -> int:
        return self.log.read_text(errors="replace").count(text)

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"{what}: not within {seconds} s; the log says:\n{self.log.read_text()[-3000:]}")

    async def copies(self) -> dict[str, str]:
        """The run state of each QEMU of the machine, by data centre; ask while no controller runs (QMP
        serves one at a time)."""
        states = {}
        for name, host in self.lab.hosts.items():
            path = host.run_dir / f"{MACHINE}@{name}.qmp"
            try:
                _, writer = await asyncio.open_unix_connection(path)
            except OSError:
                continue
            writer.close()
            with contextlib.suppress(MigrationError):  # a target whose stream was cut is just ending
                monitor = await Monitor.open(path, f"the test at {name}")
                states[name] = str((await monitor.execute("query-status"))["status"])
                await monitor.close()
        return states


@asynccontextmanager
async def operator(tmp_path: Path, settings: ScenarioConfig) -> AsyncIterator[Operator]:
    image = await build_guest()
    async with Lab(settings.lab) as lab:
        data = document(lab, image, settings)
        data["store"] = str(tmp_path / "followme.db")
        file = tmp_path / "lab.yaml"
        file.write_text(json.dumps(data))  # JSON is YAML
        one = Operator(lab, file)
        await one.start()
        serial = lab.hosts["dc1"].run_dir / f"{MACHINE}@dc1.serial"
        await one.until(lambda: serial.exists() and READY.encode() in serial.read_bytes(), "the machine boots")
        await one.until(lambda: one.said("switch of") >= 4, "the switches connect")
        yield one
        # Machines outlive the controller; the lab ends what is left in its namespaces.
        await one.kill(signal.SIGTERM)


async def test_it_follows_stops_cleanly_and_takes_its_machine_over_again(tmp_path: Path) -> None:
    async with operator(tmp_path, ScenarioConfig(policy="always")) as one:
        await one.lab.move_client("wlan1")
        async with Meter(one.lab.client.namespace, MACHINE_ADDRESS) as meter:
            await one.lab.move_client("wlan2")
            await one.until(lambda: one.said(f"{MACHINE} runs at dc2") == 1, "the machine follows")
            assert await one.kill(signal.SIGTERM) == 0
            assert await one.copies() == {"dc2": "running"}
            await asyncio.sleep(1.0)  # switches keep their rules: the session goes on without a controller
            await one.start()
            await one.until(lambda: one.said("runs at dc2 already") == 1, "the machine is taken over")
            await one.lab.move_client("wlan1")
            await one.until(lambda: one.said(f"{MACHINE} runs at dc1") == 1, "the machine follows again")
            await asyncio.sleep(0.5)
        assert meter.tcp.alive
        assert meter.tcp.intact
        assert await one.kill(signal.SIGTERM) == 0
        assert await one.copies() == {"dc1": "running"}
        assert "Traceback" not in one.log.read_text()


@pytest.mark.parametrize("moment", ["is prepared for", "MB sent", "packets go to"])
async def test_killed_in_mid_migration_it_settles_it_at_the_next_start(tmp_path: Path, moment: str) -> None:
    async with operator(tmp_path, ScenarioConfig(policy="always", dirty_bytes_s=20 << 20)) as one:
        await one.lab.move_client("wlan1")
        async with Meter(one.lab.client.namespace, MACHINE_ADDRESS) as meter:
            await one.lab.move_client("wlan2")
            await one.until(lambda: one.said(moment) > 0, moment)
            await one.kill(signal.SIGKILL)
            assert list((await one.copies()).values()).count("running") <= 1
            await one.start()
            await one.until(lambda: one.said("was settled") + one.said("already") >= 1, "the migration is settled")
            await asyncio.sleep(3.0)
        assert meter.tcp.alive, meter.tcp
        assert meter.tcp.intact
        assert await one.kill(signal.SIGTERM) == 0
        states = await one.copies()
        assert list(states.values()) == ["running"], states


async def test_a_store_that_was_lost_does_not_make_a_second_machine(tmp_path: Path) -> None:
    async with operator(tmp_path, ScenarioConfig(policy="always")) as one:
        await one.lab.move_client("wlan1")
        async with Meter(one.lab.client.namespace, MACHINE_ADDRESS) as meter:
            await one.lab.move_client("wlan2")
            await one.until(lambda: one.said(f"{MACHINE} runs at dc2") == 1, "the machine follows")
            assert await one.kill(signal.SIGTERM) == 0
            for file in tmp_path.glob("followme.db*"):
                file.unlink()
            await one.start()
            await one.until(lambda: one.said("runs at dc2 already") == 1, "the machine is taken over")
            assert one.said("thought to be at dc1, but is at dc2") == 1
            await asyncio.sleep(2.0)
        assert meter.tcp.alive
        assert await one.kill(signal.SIGTERM) == 0
        assert await one.copies() == {"dc2": "running"}


async def test_two_running_copies_are_named_and_neither_is_touched(tmp_path: Path) -> None:
    async with operator(tmp_path, ScenarioConfig(policy="never")) as one:
        assert await one.kill(signal.SIGTERM) == 0
        known = config.load(one.config)
        hosts = await hosts_of(known)
        second = await Qemu.start(hosts["dc2"], spec_of(known.file.machines[0]), survive=True)
        pids = [host.file(MACHINE, "pid").read_text().strip() for host in hosts.values()]
        await second.detach()
        await one.start()
        await one.until(lambda: one.said("it runs more than once") == 1, "the two copies are reported")
        assert one.said(f"at dc1 (pid {pids[0]}) and at dc2 (pid {pids[1]})") == 1
        await one.until(lambda: one.said("switch of") >= 8, "the controller serves its switches all the same")
        assert await one.kill(signal.SIGTERM) == 0
        assert await one.copies() == {"dc1": "running", "dc2": "running"}


async def test_after_a_power_loss_in_mid_migration_the_machine_boots_anew(tmp_path: Path) -> None:
    async with operator(tmp_path, ScenarioConfig(policy="always", dirty_bytes_s=20 << 20)) as one:
        await one.lab.move_client("wlan1")
        await one.lab.move_client("wlan2")
        await one.until(lambda: one.said("MB sent") > 0, "memory flows")
        await one.kill(signal.SIGKILL)
        for name, host in one.lab.hosts.items():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((host.run_dir / f"{MACHINE}@{name}.pid").read_text()), signal.SIGKILL)
        serial = one.lab.hosts["dc1"].run_dir / f"{MACHINE}@dc1.serial"
        serial.unlink()
        await one.start()
        await one.until(lambda: one.said("cannot be finished or taken back") == 1, "the loss is reported")
        await one.until(lambda: serial.exists() and READY.encode() in serial.read_bytes(), "the machine boots anew")
        async with Meter(one.lab.client.namespace, MACHINE_ADDRESS) as meter:
            await asyncio.sleep(1.0)
        assert meter.tcp.alive
        assert await one.kill(signal.SIGTERM) == 0
        assert await one.copies() == {"dc1": "running"}
        with Store(tmp_path / "followme.db") as store:
            assert store.unfinished_migrations() == ()


def test_a_config_that_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "controller.yaml"
    file = tmp_path / "c.yaml"
    file.write_text(example.read_text().replace("/var/lib/followme", str(tmp_path / "nowhere")))
    done = subprocess.run(
        [sys.executable, "-m", "followme", "controller", "-c", str(file)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "vmlinuz" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
