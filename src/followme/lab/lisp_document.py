"""The LISP lab as the config files of its daemons: map server, one agent a site, controller."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, Literal

import yaml

from followme.domain import NetworkKind, mac_text
from followme.lab import plan
from followme.lab.document import MACHINE, MACHINE_HOST_NUMBER, SERVICE, USER
from followme.lab.guest import GuestImage
from followme.lab.lisp_plan import LispLabConfig, LispSite
from followme.lab.lisp_topology import LispLab

CONTROLLER = "ctl"
_CONTROLLER_SITE_ID = 100
_MACHINE_MACS = 0xE0
_EID_SPACE = ("10.0.0.0/8", "fd00::/16")


@dataclass(frozen=True, slots=True)
class LispScenarioConfig:
    """What may vary: the lab itself, the policy, how machines are carried, the guest, and the packets' headers."""

    lab: LispLabConfig = field(default_factory=LispLabConfig)
    policy: str = "mdp"
    parameters: Mapping[str, float] = field(default_factory=dict)
    mode: Literal["live", "cold", "paper"] = "live"
    memory_mib: int = 128
    dirty_bytes_s: int = 0
    max_pause_ms: float = 100.0
    migration_timeout_s: float = 120.0
    header: Literal["gpe", "rfc9300"] = "gpe"
    probe_s: float = 1.0


class Keys:
    """Key files of one run, each made when it is first asked for and readable by root only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def file(self, *ends: str) -> Path:
        """The key that ``ends`` share, in any order."""
        path = self._directory / ("-".join(sorted(ends)) + ".key")
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
        return path


def map_server(lab: LispLab, keys: Keys) -> dict[str, Any]:
    """``followme mapserver``: every site may register its own prefixes, and single EIDs of others of its kind."""
    sites = [
        {
            "name": site.name,
            "site_id": number,
            "keys": [{"key_file": str(keys.file("ms", site.name))}],
            "prefixes": [str(site.eid_prefix), str(site.eid_prefix6)],
            "visitors": _visitors(lab, site),
            "rlocs": [f"{site.rloc}/32"],
        }
        for number, site in enumerate(lab.sites, start=1)
    ]  # fmt: skip
    subscriber = {
        "name": CONTROLLER, "site_id": _CONTROLLER_SITE_ID,
        "keys": [{"key_file": str(keys.file("ms", CONTROLLER))}],
    }
    return {
        "listen": {"addresses": [str(lab.map_server_address)]},
        "sites": [*sites, subscriber],
        "store": str(lab.directory / "mapserver.db"),
    }


def _visitors(lab: LispLab, site: LispSite) -> list[str]:
    """Whose EIDs may come to the site: users roam between access networks, machines are carried between data
    centres. So no node of an access network's LAN can claim a machine's EID."""
    others = [other for other in lab.sites if other.name != site.name and other.kind is site.kind]
    return [str(prefix) for other in others for prefix in (other.eid_prefix, other.eid_prefix6)]


def agent(
    lab: LispLab, site: LispSite, keys: Keys, image: GuestImage, settings: LispScenarioConfig
) -> dict[str, Any]:
    """``followme agent`` of one site."""
    others = [other for other in lab.sites if other.name != site.name]
    number = 1 + [other.name for other in lab.sites].index(site.name)
    document: dict[str, Any] = {
        "router": {
            "site": site.name,
            "site_id": number,
            "lan": site.lan_device,
            "up": site.uplink,
            "rlocs": [{"address": str(site.rloc)}],
            "prefixes": [str(site.eid_prefix), str(site.eid_prefix6)],
            "space": list(_EID_SPACE),
            "dynamic": {"prefixes": _visitors(lab, site) if site.kind is NetworkKind.ACCESS else []},
            "map_servers": [{
                "address": str(lab.map_server_address), "key_file": str(keys.file("ms", site.name)), "key_id": 0,
            }],
            "probe_s": settings.probe_s,
            "header": settings.header,
            "state_dir": str(lab.directory / f"xtr-{site.name}"),
        },
        "control": {
            "address": str(site.rloc),
            "peers": {
                CONTROLLER: {"role": "controller", "key_file": str(keys.file(CONTROLLER, site.name))},
                **{
                    other.name: {
                        "role": "agent", "key_file": str(keys.file(other.name, site.name)),
                        "address": str(other.rloc),
                    }
                    for other in others
                },
            },
        },
        "store": str(lab.directory / f"agent-{site.name}.db"),
        "migration": {"max_pause_ms": settings.max_pause_ms, "timeout_s": settings.migration_timeout_s},
    }
    host = lab.hosts.get(site.name)
    if host is not None:
        document["router"]["host_port"] = host.name
        document["host"] = {
            "bridge": host.bridge, "uplink": host.uplink, "management_address": host.management_address,
            "run_dir": str(host.run_dir), "namespace": host.namespace,
            "images": sorted({str(image.kernel.parent), str(image.initrd.parent)}),
        }
        document["machines"] = [
            {**machine, "kernel": str(image.kernel), "initrd": str(image.initrd)}
            for machine in _machines(lab, image, settings) if machine.pop("home") == site.name
        ]  # fmt: skip
    return document


def controller(lab: LispLab, keys: Keys, image: GuestImage, settings: LispScenarioConfig) -> dict[str, Any]:
    """``followme controller`` with ``plane: lisp``: four sites, one machine at dc1, one user of wlan1."""
    return {
        "plane": "lisp",
        "networks": [
            {
                "name": site.name, "kind": site.kind.value, "area": site.area, "prefix": str(site.eid_prefix),
                "gateway": str(site.gateway), "rlocs": [str(site.rloc)],
                "agent": {"address": str(site.rloc), "key_file": str(keys.file(CONTROLLER, site.name))},
            }
            for site in lab.sites
        ],
        "map_server": {
            "address": str(lab.map_server_address), "site_id": _CONTROLLER_SITE_ID,
            "key_file": str(keys.file("ms", CONTROLLER)),
        },
        "listen": {"address": str(lab.controller_address)},
        "machines": [
            {key: machine[key] for key in ("name", "home", "mac", "address", "memory_mib")}
            for machine in _machines(lab, image, settings)
        ],
        "users": [{"name": USER, "home": "wlan1", "address": str(lab.client_address.ip)}],
        "services": [{"name": SERVICE, "user": USER, "machine": MACHINE}],
        "policy": {"name": settings.policy, "parameters": dict(settings.parameters)},
        "probe": {"interval_s": 1.0},
        "migration": {"mode": settings.mode},
    }


def _machines(lab: LispLab, image: GuestImage, settings: LispScenarioConfig) -> list[dict[str, Any]]:
    home = lab.site("dc1")
    address = IPv4Interface(f"{home.eid_prefix[MACHINE_HOST_NUMBER]}/{home.eid_prefix.prefixlen}")
    return [{
        "name": MACHINE, "home": home.name, "mac": mac_text(plan.mac(_MACHINE_MACS, 1)), "address": str(address.ip),
        "cmdline": image.kernel_arguments(address, home.gateway, dirty_bytes_s=settings.dirty_bytes_s),
        "memory_mib": settings.memory_mib,
    }]  # fmt: skip


def write(path: Path, document: dict[str, Any]) -> Path:
    """The document as the YAML file that a daemon reads."""
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
