"""DelayedPath delays between pairs of networks, made in the router.

Policy routing sends what goes from one network to another through a device of its delay class, from which
it comes back late and is then routed as usual. The device is a veth pair with netem where the kernel has
netem, else a tun device served by ``delayline``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network

from followme.system import netns
from followme.system.process import Child, ProcessError, run

_FIRST_TABLE = 100
_QUEUE_PACKETS = 20_000


@dataclass(frozen=True, slots=True)
class DelayedPath:
    """One direction between two of the router's interfaces: packets to ``target`` wait ``delay_s``."""

    interface: str
    target: IPv4Network
    delay_s: float


@dataclass(frozen=True, slots=True)
class DelayStatistics:
    """Packets that were delayed and packets that were dropped since the start."""

    packets: int
    dropped: int


class Delay:
    """The delays of one router. ``kind`` says what makes them: ``netem`` or ``delayline``."""

    def __init__(self, namespace: str, kind: str, devices: list[str], child: Child | None) -> None:
        self.namespace = namespace
        self.kind = kind
        self._devices = devices
        self._child = child
        self._asking = asyncio.Lock()

    @classmethod
    async def start(cls, namespace: str, paths: list[DelayedPath], *, kind: str | None = None) -> Delay:
        """Set up ``paths`` in the router's namespace; ``kind`` None takes netem if the kernel has it."""
        kind = kind or ("netem" if await has_netem(namespace) else "delayline")
        classes = sorted({path.delay_s for path in paths if path.delay_s > 0})
        devices = {delay_s: f"delay{number}" for number, delay_s in enumerate(classes)}
        child = None
        if kind == "netem":
            for delay_s, device in devices.items():
                await add_loop(namespace, device, f"netem delay {round(delay_s * 1e6)}us")
        elif devices:
            child = await _start_line(namespace, devices)
        try:
            await _route(namespace, paths, devices)
        except BaseException:
            if child is not None:
                await child.stop()
            raise
        return cls(namespace, kind, list(devices.values()), child)

    def check(self) -> None:
        """``ProcessError`` with the reason if the delay line has ended (no packet passes it then)."""
        if self._child is not None and self._child.returncode is not None:
            raise self._child.failure()

    async def statistics(self) -> DelayStatistics:
        """How many packets were delayed and dropped."""
        if self.kind == "netem":
            shown = await run(["tc", "-n", self.namespace, "-s", "-j", "qdisc", "show"])
            mine = [entry for entry in json.loads(shown) if entry.get("dev") in self._devices]
            return DelayStatistics(sum(e["packets"] for e in mine), sum(e["drops"] for e in mine))
        if self._child is None or self._child.stdout is None:
            return DelayStatistics(0, 0)
        async with self._asking:
            self.check()
            os.kill(self._child.pid, signal.SIGUSR1)
            answer = json.loads(await asyncio.wait_for(self._child.stdout.readline(), 5))
        return DelayStatistics(answer["packets"], answer["dropped"])

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop()


async def has_netem(namespace: str) -> bool:
    """Whether this kernel can make a netem queue, tried on the namespace's loopback."""
    try:
        await netns.tc(namespace, ["qdisc add dev lo root netem delay 1ms"])
    except ProcessError:
        return False
    await netns.tc(namespace, ["qdisc del dev lo root"])
    return True


async def add_loop(namespace: str, device: str, queue: str) -> None:
    """A veth pair in one namespace: what is sent to ``device`` comes in again at its other end, late.

    ``queue`` is the queueing discipline that holds it meanwhile.
    """
    back = f"{device}-back"
    await netns.ip(namespace, [f"link add name {device} type veth peer name {back}"])
    # A device without ARP sends to its own MAC address: the other end has the same, so it takes the frames.
    address = "02:fd:00:00:00:01"
    await netns.ip(
        namespace,
        [
            f"link set dev {device} address {address} arp off up",
            f"link set dev {back} address {address} arp off up",
        ],
    )
    await netns.tc(namespace, [f"qdisc add dev {device} root {queue} limit {_QUEUE_PACKETS}"])


async def _start_line(namespace: str, devices: Mapping[float, str]) -> Child:
    handles: dict[float, int] = {}
    try:
        for delay_s, device in devices.items():
            handles[delay_s] = netns.open_tun(namespace, device)
        await netns.ip(
            namespace, [f"link set dev {name} txqueuelen {_QUEUE_PACKETS} up" for name in devices.values()]
        )
        arguments = [f"{fd}:{round(delay_s * 1e6)}" for delay_s, fd in handles.items()]
        return await Child.start(
            [sys.executable, "-m", "followme.lab.delayline", *arguments],
            name="delay line",
            namespace=namespace,
            pass_fds=list(handles.values()),
            stdout=subprocess.PIPE,
        )
    finally:
        for fd in handles.values():
            os.close(fd)


async def _route(namespace: str, paths: list[DelayedPath], devices: Mapping[float, str]) -> None:
    netns.sysctl(namespace, {f"ipv4/conf/{name}/rp_filter": 0 for name in devices.values()})
    commands = []
    for number, device in enumerate(devices.values()):
        table = _FIRST_TABLE + number
        commands.append(f"route add default dev {device} table {table}")
        # Should the delay line die, its device goes: packets must then be lost, not pass undelayed.
        commands.append(f"route add unreachable default metric 1000 table {table}")
    tables = {delay_s: _FIRST_TABLE + number for number, delay_s in enumerate(devices)}
    commands += [
        f"rule add iif {path.interface} to {path.target} lookup {tables[path.delay_s]}"
        for path in paths
        if path.delay_s > 0
    ]
    await netns.ip(namespace, commands)
