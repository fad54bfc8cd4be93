"""Two hypervisors, a little switch, a machine and its pings, for the tests of machines that are carried.

    source host ns            switch ns                  target host ns
    br0: tap, up  ---veth---  a \\                  / b  ---veth---  br0: up, tap
                              br0 (static entries) --- the prober's address is on the bridge itself

The switch's armed rule, "frames for the machine that come back from the source's port go out of the
target's", is a redirect at the port's ingress, as an OpenFlow rule would do it.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from itertools import pairwise
from pathlib import Path

import pytest

from followme.lab.guest import READY, GuestImage, build_guest
from followme.migration.host import Host, MachineSpec, MigrationError
from followme.migration.qemu import Qemu
from followme.system import netns
from followme.system.process import within

MARKS = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces and taps"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="needs qemu-system-x86_64"),
]

MAC = bytes.fromhex("52540000aa07")
MACHINE, PROBER = IPv4Interface("10.77.0.7/24"), IPv4Interface("10.77.0.1/24")
SWITCH_DELAY = 0.02  # how long the "controller" takes to tell the switch


@dataclass
class Lab:
    hosts: dict[str, Host]
    switch: str
    at: str = "a"

    def other(self) -> str:
        return "b" if self.at == "a" else "a"

    async def send_to(self, port: str) -> None:
        await run("bridge", "-n", self.switch, "fdb", "replace", mac(), "dev", f"to-{port}", "master", "static")

    async def arm(self) -> None:
        for port, out in (("a", "b"), ("b", "a")):
            await netns.tc(self.switch, [
                f"filter replace dev to-{port} ingress protocol all prio 7 handle 800::1 u32 "
                f"match ether dst {mac()} action mirred egress redirect dev to-{out}",
            ])

    async def disarm(self) -> None:
        for port in "ab":
            await netns.tc(self.switch, [f"filter del dev to-{port} ingress"])


@dataclass
class Network:
    """The hooks as a controller would give them, for the little switch."""

    lab: Lab
    target: str
    calls: list[str] = field(default_factory=list)
    on_flip: Callable[[], Awaitable[None]] | None = None

    async def prepare(self) -> None:
        self.calls.append("prepare")
        await self.lab.arm()

    async def flip(self) -> None:
        self.calls.append("flip")
        if self.on_flip:
            await self.on_flip()
        await asyncio.sleep(SWITCH_DELAY)
        await self.lab.send_to(self.target)

    async def commit(self) -> None:
        self.calls.append("commit")
        self.lab.at = self.target

    async def release(self) -> None:
        self.calls.append("release")
        await self.lab.disarm()

    async def rollback(self, reason: str) -> None:
        self.calls.append("rollback")
        await self.lab.send_to(self.lab.at)

    async def drained(self) -> None:
        await asyncio.sleep(SWITCH_DELAY)
        await self.lab.disarm()


@dataclass
class Broken(Network):
    """As ``Network``, but one hook does its work and then fails."""

    broken: str = ""

    async def prepare(self) -> None:
        await super().prepare()
        self.fail("prepare")

    async def commit(self) -> None:
        self.fail("commit")
        await super().commit()

    def fail(self, name: str) -> None:
        if name == self.broken:
            raise MigrationError(f"{name} is broken")


def mac() -> str:
    return MAC.hex(":")


async def run(*argv: str) -> None:
    process = await asyncio.create_subprocess_exec(*argv)
    assert await process.wait() == 0, argv


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    tag = f"{os.getpid() % 100000}"
    switch = f"mgs{tag}"
    run_dir = Path("/tmp") / f"fmmig{tag}"
    hosts = {
        name: Host(name, f"mg{name}{tag}", "br0", "uplink", f"10.78.0.{number}", run_dir)
        for number, name in enumerate("ab", 1)
    }
    spaces = [switch, *(str(host.namespace) for host in hosts.values())]
    try:
        for space in spaces:
            await netns.add(space)
            # No chatter of the kernel's own: it would be in front of the machine's frames in every queue.
            netns.sysctl(space, {"ipv6/conf/default/disable_ipv6": 1, "ipv6/conf/all/disable_ipv6": 1})
            await netns.ip(space, ["link add br0 type bridge", "link set br0 up"])
        await netns.ip(switch, [f"addr add {PROBER} dev br0", "link add mgmt type bridge", "link set mgmt up"])
        for name, host in hosts.items():
            await netns.ip(switch, [
                f"link add to-{name} type veth peer name uplink netns {host.namespace}",
                f"link set dev to-{name} master br0 up",
                f"link set dev to-{name} type bridge_slave learning off",
                f"link add m-{name} type veth peer name mgmt netns {host.namespace}",
                f"link set dev m-{name} master mgmt up",
            ])
            await netns.ip(host.namespace, [
                "link set dev uplink master br0 up", "link set dev mgmt up",
                f"addr add {host.management_address}/24 dev mgmt",
            ])
            await netns.tc(switch, [f"qdisc add dev to-{name} clsact"])
        await netns.ip(switch, [f"neigh replace {MACHINE.ip} lladdr {mac()} dev br0 nud permanent"])
        yield Lab(hosts, switch)
    finally:
        for space in spaces:
            await netns.delete(space)
        shutil.rmtree(run_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def image() -> GuestImage:
    return asyncio.run(build_guest())


def machine(image: GuestImage, *, dirty_bytes_s: int = 0, dirty_set: int = 32 << 20) -> MachineSpec:
    words = image.kernel_arguments(MACHINE, IPv4Address(PROBER.ip), dirty_bytes_s=dirty_bytes_s,
                                   dirty_set_bytes=dirty_set)
    return MachineSpec("vm", MAC, 128 << 20, image.kernel, image.initrd, words)


async def ready(lab: Lab) -> None:
    """Wait until the machine at host a has booted."""
    serial = lab.hosts["a"].file("vm", "serial")
    deadline = time.monotonic() + 60
    while READY not in serial.read_text(errors="replace"):
        assert time.monotonic() < deadline, serial.read_text(errors="replace")
        await asyncio.sleep(0.05)


@asynccontextmanager
async def booted(lab: Lab, spec: MachineSpec) -> AsyncIterator[list[Qemu]]:
    """A machine that runs at host a; the list holds where it runs now, for the test to update."""
    await lab.send_to("a")
    holder = [await Qemu.start(lab.hosts["a"], spec)]
    try:
        await ready(lab)
        yield holder
    finally:
        await holder[0].kill()


class Prober:
    """Pings the machine every 5 ms, from a process of its own: our event loop has a stream to carry."""

    def __init__(self, lab: Lab) -> None:
        self._command = within(lab.switch, ["ping", "-n", "-D", "-i", "0.005", str(MACHINE.ip)])
        self.sent = 0
        self.answers: dict[int, tuple[float, float]] = {}  # sequence number: when it came, round trip
        self.duplicates = 0

    async def __aenter__(self) -> Prober:
        self._ping = await asyncio.create_subprocess_exec(*self._command, stdout=asyncio.subprocess.PIPE)
        self._output = asyncio.create_task(self._ping.communicate())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ping.send_signal(signal.SIGINT)
        text = (await self._output)[0].decode()
        for line in text.splitlines():
            found = re.match(r"\[([\d.]+)\] .*icmp_seq=(\d+) .*time=([\d.]+) ms", line)
            if found:
                self.duplicates += "DUP" in line
                self.answers.setdefault(int(found[2]), (float(found[1]), float(found[3]) / 1e3))
        summary = re.search(r"(\d+) packets transmitted", text)
        assert summary, text
        self.sent = int(summary[1])

    @property
    def lost(self) -> list[int]:
        """Sequence numbers without an answer; the last may be on its way when ping is told to stop."""
        return [number for number in range(1, self.sent) if number not in self.answers]

    @property
    def longest_gap(self) -> float:
        """The longest time without any answer."""
        times = sorted(at for at, _ in self.answers.values())
        return max((b - a for a, b in pairwise(times)), default=0.0)

    @property
    def worst_round_trip(self) -> float:
        return max((trip for _, trip in self.answers.values()), default=0.0)


async def nothing_left(lab: Lab, host: str) -> None:
    """No QEMU, no tap, no entry and no filter of the machine at a host."""
    space = lab.hosts[host].namespace
    assert space is not None
    assert await netns.pids(space) == []
    shown = netns.call_in(space, lambda: socket.if_nameindex())
    assert not [name for _, name in shown if name.startswith("fm")]
    for command in (["bridge", "-n", space, "fdb", "show"], ["tc", "-n", space, "filter", "show", "dev", "uplink",
                                                            "ingress"]):
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out = (await process.communicate())[0].decode()
        assert mac() not in out
        assert "mirred" not in out


async def end_all(lab: Lab) -> None:
    for host in lab.hosts.values():
        assert host.namespace is not None
        for pid in await netns.pids(host.namespace):
            os.kill(pid, signal.SIGKILL)
