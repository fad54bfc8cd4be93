"""What the labs have in common: the life of a run, hypervisors, plain hosts."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from followme.domain import Mac, mac_text
from followme.lab.delay import Delay
from followme.lab.rundir import Run, sweep
from followme.lab.signals import cancelled_by_sigterm
from followme.system import needs, netns
from followme.system.process import run

BRIDGE = "br0"
UPLINK = "uplink"
MANAGEMENT = "mgmt"
AIR = "air"
# Groups of the labs' MAC addresses (``plan.mac``).
CLIENT_MACS, HOST_MACS = 0xC0, 0xD0
ROUTER_SETTINGS = {
    "ipv4/ip_forward": 1,
    # Packets come in where the routing table would not expect them: rewritten, or of a node that moved.
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    # A machine that was moved is reached through the interface it seems to come from: no redirects.
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
    # Each interface speaks for its own address only.
    "ipv4/conf/all/arp_ignore": 1,
    "ipv4/conf/all/arp_announce": 2,
}


class LabError(RuntimeError):
    """The lab cannot be built on this machine, or was used wrongly; the text says why."""


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """A data centre's host of machines: plug a tap of ``namespace`` into ``bridge`` with ``attach``."""

    name: str
    namespace: str
    bridge: str
    uplink: str
    management_address: str
    run_dir: Path

    async def attach(self, device: str) -> None:
        """Put a machine's tap on the bridge. It floods and never learns: a machine may move at any time."""
        await plug(self.namespace, self.bridge, device)

    async def set_hairpin(self, device: str, on: bool) -> None:
        """Whether the bridge may send a frame back out of the device that it came in on."""
        state = "on" if on else "off"
        await netns.ip(self.namespace, [f"link set dev {device} type bridge_slave hairpin {state}"])


@dataclass(frozen=True, slots=True)
class Host:
    """A plain host of the lab (the client is one too): one interface in a namespace of its own."""

    name: str
    namespace: str
    interface: str
    mac: Mac


async def plug(namespace: str, bridge: str, device: str) -> None:
    """Make a device a port of a bridge, up; the port floods and never learns who is behind it."""
    await netns.ip(
        namespace,
        [
            f"link set dev {device} master {bridge} up",
            f"link set dev {device} type bridge_slave learning off flood on",
        ],
    )


async def cable(
    switch_namespace: str, namespace: str, name: str, switch_end: str, *, mac: Mac | None = None
) -> None:
    """A cable from a namespace to the switch's; the switch's end is up, the other is not yet."""
    address = f"address {mac_text(mac)} " if mac else ""
    peer = f"peer name {switch_end} netns {switch_namespace}"
    await netns.ip(namespace, [f"link add name {name} {address}type veth {peer}"])
    # The switch reads frames as they are: their checksums must be complete, and none longer than the MTU.
    await run(["ethtool", "-K", name, "tx", "off"], namespace=namespace)
    await netns.ip(switch_namespace, [f"link set dev {switch_end} up"])


def rate_queue(rate_bit_s: int) -> str:
    """The queueing discipline that limits a link to a rate; its burst takes a whole segment of 64 KB."""
    return f"tbf rate {rate_bit_s}bit burst {max(65536, rate_bit_s // 2000)} latency 100ms"


def bypass_packet_filters(namespace: str) -> None:
    """Bridges of the namespace carry frames as they are, whatever this machine's firewall filters."""
    if Path("/proc/sys/net/bridge").exists():
        netns.sysctl(namespace, {f"bridge/bridge-nf-call-{kind}tables": 0 for kind in ("arp", "ip", "ip6")})


class NetworkLab(ABC):
    """A network of one run, all of it in namespaces of its own; an asynchronous context manager.

    ``run_id`` and ``directory`` are the run's. Entering raises ``LabError`` where this machine lacks what
    ``NEEDS`` names. Everything is removed at the end, however the end comes.
    """

    NEEDS: ClassVar[tuple[needs.Need, ...]]
    client: Host
    delay: Delay
    """Of the paths."""

    def __init__(self) -> None:
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        problems = needs.check(self.NEEDS)
        if problems:
            raise LabError("this machine cannot run the lab: " + "; ".join(problems))
        await sweep()
        self._exit.enter_context(cancelled_by_sigterm())
        try:
            self._run = Run.open()
            self._exit.push_async_callback(self._run.close)
            self.run_id = self._run.id
            self.directory = self._run.directory
            await self._build()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        # A second Ctrl-C must not stop the removal half way: it is noted and passed on afterwards.
        closing = asyncio.ensure_future(self._exit.aclose())
        cancelled = False
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError:
                cancelled = True
        closing.result()
        if cancelled:
            raise asyncio.CancelledError

    @abstractmethod
    async def _build(self) -> None:
        """Make the network in namespaces of ``self._run``; what must be stopped goes on ``self._exit``."""

    async def _add_hypervisor(self, name: str, management_address: str) -> Hypervisor:
        """A hypervisor with its bridge, as yet without ``uplink`` and ``mgmt``."""
        namespace = await self._run.add_namespace(name)
        bypass_packet_filters(namespace)
        host = Hypervisor(name, namespace, BRIDGE, UPLINK, management_address, self.directory / name)
        host.run_dir.mkdir()
        await netns.ip(namespace, [f"link add name {BRIDGE} type bridge stp_state 0 mcast_snooping 0"])
        return host
