"""The lab as a config file of ``followme controller`` would describe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from typing import Any

from followme.domain import Network, NetworkKind, mac_text
from followme.lab import plan
from followme.lab.guest import GuestImage
from followme.lab.topology import Lab, LabConfig

MACHINE, USER, SERVICE = "vm1", "alice", "desktop"
MACHINE_HOST_NUMBER, USER_HOST_NUMBER = 5, 10
_MACHINE_MACS = 0xE0


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


def document(lab: Lab, image: GuestImage, settings: ScenarioConfig) -> dict[str, Any]:
    """The parsed file: four networks, one machine at dc1, one user of wlan1."""
    known = [
        {
            "name": USER,
            "home": "wlan1",
            "mac": mac_text(lab.client.mac),
            "address": str(lab.network("wlan1").inside[USER_HOST_NUMBER]),
        }
    ]
    return {
        "networks": [_network(lab, network) for network in lab.networks],
        "machines": [_machine(lab.network("dc1"), image, settings), *settings.machines],
        "users": [*(known if settings.know_user else []), *settings.users],
        "services": [{"name": SERVICE, "user": USER, "machine": MACHINE}] if settings.know_user else [],
        "policy": {"name": settings.policy, "parameters": dict(settings.parameters)},
        "probe": {"interval_s": 0.2},
        "migration": {
            "mode": settings.mode,
            "max_pause_ms": settings.max_pause_ms,
            "timeout_s": settings.migration_timeout_s,
        },
    }


def _machine(home: Network, image: GuestImage, settings: ScenarioConfig) -> dict[str, Any]:
    address = IPv4Interface(f"{home.inside[MACHINE_HOST_NUMBER]}/{home.inside.prefixlen}")
    return {
        "name": MACHINE,
        "home": home.name,
        "mac": mac_text(plan.mac(_MACHINE_MACS, 1)),
        "address": str(address.ip),
        "kernel": str(image.kernel),
        "initrd": str(image.initrd),
        "cmdline": image.kernel_arguments(address, home.gateway, dirty_bytes_s=settings.dirty_bytes_s),
        "memory_mib": settings.memory_mib,
    }


def _network(lab: Lab, network: Network) -> dict[str, Any]:
    section: dict[str, Any] = {
        "name": network.name,
        "kind": network.kind.value,
        "datapath": network.datapath,
        "uplink": {
            "port": network.uplink_port,
            "router_mac": mac_text(network.router_mac),
            "router_address": str(network.prefix[1]),
        },
        "prefix": str(network.prefix),
        "inside": str(network.inside),
        "gateway": str(network.gateway),
        "locators": str(network.locators),
        "area": network.area,
    }
    if network.kind is NetworkKind.ACCESS:
        section["dhcp"] = {"first": str(network.inside[20]), "last": str(network.inside[99])}
        return section
    host = lab.hosts[network.name]
    section["host"] = {
        "port": plan.HYPERVISOR_PORT,
        "bridge": host.bridge,
        "uplink": host.uplink,
        "management_address": host.management_address,
        "run_dir": str(host.run_dir),
        "namespace": host.namespace,
    }
    return section
