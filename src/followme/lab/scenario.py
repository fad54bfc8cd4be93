"""The lab at work: the papers' set-up with the real controller on it, one user and one machine.

The controller is the one of ``followme controller``, from a config as a file would hold it; only its
listening socket is in the switches' namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from types import TracebackType
from typing import Any, Self

from followme import config
from followme.controller import Controller
from followme.domain import Network, NetworkKind, mac_text
from followme.events import Happening
from followme.lab import plan
from followme.lab.guest import READY, GuestImage, build_guest
from followme.lab.topology import Lab, LabConfig
from followme.migration.host import Host
from followme.store import Store
from followme.system import needs
from followme.system.netns import socket_in

MACHINE, USER, SERVICE = "vm1", "alice", "desktop"
MACHINE_HOST_NUMBER, USER_HOST_NUMBER = 5, 10
SWITCHES_CONNECT_S = 20.0
GUEST_BOOTS_S = 60.0


@dataclass(frozen=True, slots=True)
class ScenarioConfig:
    """What may vary: the lab itself, the policy, how machines are carried, and how busy the guest is."""

    lab: LabConfig = field(default_factory=LabConfig)
    policy: str = "mdp"
    parameters: Mapping[str, float] = field(default_factory=dict)
    mode: str = "live"
    memory_mib: int = 128
    """Under software emulation QEMU holds its big lock for 0.2 ms a MiB when a migration begins."""
    dirty_bytes_s: int = 0
    max_pause_ms: float = 100.0
    migration_timeout_s: float = 120.0
    machines: Sequence[Mapping[str, Any]] = ()
    users: Sequence[Mapping[str, Any]] = ()
    know_user: bool = True


class Scenario:
    """``async with Scenario(...) as scenario``: everything runs, the machine at dc1, the client nowhere yet."""

    def __init__(self, settings: ScenarioConfig | None = None) -> None:
        self.settings = settings or ScenarioConfig()
        self.happenings: list[Happening] = []
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.aclose()

    async def _start(self) -> None:
        self.image: GuestImage = await build_guest()
        self.accel = await needs.acceleration(self.image.kernel)
        self.lab = await self._exit.enter_async_context(Lab(self.settings.lab))
        self.config = config.check(self.document(), "the lab's config")
        hosts = {
            name: Host(name, host.namespace, host.bridge, host.uplink, host.management_address, host.run_dir,
                       accel=self.accel)
            for name, host in self.lab.hosts.items()
        }  # fmt: skip
        self.store = Store(self.lab.directory / "followme.db")
        self.controller = Controller(self.config, hosts, store=self.store)
        self.controller.watchers.add(self.happenings.append)
        await self.controller.start(sock=self._listening_socket())
        self._exit.push_async_callback(self.controller.close)
        await self.controller.wait_for_switches(SWITCHES_CONNECT_S)
        await self.controller.machines.start()
        await self._guest_ready()

    def _listening_socket(self) -> socket.socket:
        sock = socket_in(self.lab.switch_namespace, socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(self.lab.controller_address)
        sock.listen(64)
        return sock

    async def _guest_ready(self) -> None:
        """The guest prints a line on its serial console when its service runs."""
        for name, qemu in self.controller.machines.running.items():
            serial = qemu.host.file(name, "serial")
            try:
                async with asyncio.timeout(GUEST_BOOTS_S):
                    while not (serial.exists() and READY.encode() in serial.read_bytes()):
                        await asyncio.sleep(0.05)
            except TimeoutError:
                tail = serial.read_text(errors="replace")[-500:] if serial.exists() else "(nothing)"
                raise RuntimeError(
                    f"machine {name} did not boot within {GUEST_BOOTS_S:g} s; its console says: {tail}"
                ) from None

    def network(self, name: str) -> Network:
        return self.lab.network(name)

    @property
    def machine_identifier(self) -> Any:
        return self.controller.redirect.bindings[MACHINE].node.identifier

    # ---- the config, as a file would hold it

    def document(self) -> dict[str, Any]:
        settings = self.settings
        machine_home, user_home = self.network("dc1"), self.network("wlan1")
        return {
            "networks": [self._network_section(network) for network in self.lab.networks],
            "machines": [
                self.machine_section(MACHINE, machine_home, MACHINE_HOST_NUMBER, plan.mac(0xE0, 1)),
                *settings.machines,
            ],
            "users": [
                *([{
                    "name": USER, "home": user_home.name, "mac": mac_text(self.lab.client.mac),
                    "address": str(user_home.inside[USER_HOST_NUMBER]),
                }] if settings.know_user else []),
                *settings.users,
            ],
            "services": [{"name": SERVICE, "user": USER, "machine": MACHINE}] if settings.know_user else [],
            "policy": {"name": settings.policy, "parameters": dict(settings.parameters)},
            "probe": {"interval_s": 0.2},
            "migration": {
                "mode": settings.mode, "max_pause_ms": settings.max_pause_ms,
                "timeout_s": settings.migration_timeout_s,
            },
        }  # fmt: skip

    def machine_section(self, name: str, home: Network, number: int, mac: bytes) -> dict[str, Any]:
        address = IPv4Interface(f"{home.inside[number]}/{home.inside.prefixlen}")
        return {
            "name": name, "home": home.name, "mac": mac_text(mac), "address": str(address.ip),
            "kernel": str(self.image.kernel), "initrd": str(self.image.initrd),
            "cmdline": self.image.kernel_arguments(
                address, home.gateway, dirty_bytes_s=self.settings.dirty_bytes_s),
            "memory_mib": self.settings.memory_mib,
        }  # fmt: skip

    def _network_section(self, network: Network) -> dict[str, Any]:
        section: dict[str, Any] = {
            "name": network.name, "kind": network.kind.value, "datapath": network.datapath,
            "uplink": {
                "port": network.uplink_port, "router_mac": mac_text(network.router_mac),
                "router_address": str(network.prefix[1]),
            },
            "prefix": str(network.prefix), "inside": str(network.inside), "gateway": str(network.gateway),
            "locators": str(network.locators), "area": network.area,
        }  # fmt: skip
        if network.kind is NetworkKind.ACCESS:
            section["dhcp"] = {"first": str(network.inside[20]), "last": str(network.inside[99])}
        else:
            host = self.lab.hosts[network.name]
            section["host"] = {
                "port": plan.HYPERVISOR_PORT, "bridge": host.bridge, "uplink": host.uplink,
                "management_address": host.management_address, "run_dir": str(host.run_dir),
                "namespace": host.namespace,
            }  # fmt: skip
        return section
