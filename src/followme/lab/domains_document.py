"""The lab of several domains as the files of its daemons: a controller for each domain, an agent for each data
centre, an operator. Keys and passwords are made for the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from followme.domain import mac_text
from followme.federation.keyfile import make_key_file
from followme.federation.nats_accounts import DomainLogins, Login, generate_logins
from followme.federation.orders import OPERATOR
from followme.lab import domains_plan, plan
from followme.lab.domains_plan import DomainsLabConfig, LabDomain
from followme.lab.domains_topology import DomainsLab
from followme.lab.guest import GuestImage
from followme.lab.lisp_document import Keys

MACHINE = "vm1"
_MACHINE_MACS = 0xE0
BUS_PORT = 4222


@dataclass(frozen=True, slots=True)
class DomainsConfig:
    """What may vary: the lab itself, and how machines are carried."""

    lab: DomainsLabConfig = field(default_factory=DomainsLabConfig)
    mode: str = "live"
    memory_mib: int = 128
    max_pause_ms: float = 100.0
    lease_s: float = 1.5


class Papers:
    """Keys, passwords and what the daemons' files say of them; all below ``directory``."""

    def __init__(self, lab: DomainsLab, image: GuestImage, settings: DomainsConfig, directory: Path) -> None:
        self.lab, self.image, self.settings = lab, image, settings
        self._directory = directory
        self._keys = Keys(directory)
        self.logins: dict[str, DomainLogins] = generate_logins({
            domain.name: [*([domain.network.name] if domain.has_centre else []), OPERATOR] for domain in lab.domains
        })  # fmt: skip
        self._public = {domain.name: make_key_file(self._private(domain)) for domain in lab.domains}
        self.bus = f"nats://{domains_plan.bus_address().ip}:{BUS_PORT}"

    def _private(self, domain: LabDomain) -> Path:
        return self._directory / f"{domain.name}.private"

    def _on_bus(self, domain: LabDomain, login: Login) -> dict[str, Any]:
        file = self._directory / f"{login.user}.password"
        if not file.exists():
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(login.password + "\n")
        return {"domain": domain.name, "bus": self.bus, "user": login.user, "password_file": str(file)}

    def controller(self, domain: LabDomain, instance: int) -> dict[str, Any]:
        """``followme controller``, one of the domain's ``instances`` (from 1)."""
        network = domain.network
        section: dict[str, Any] = {
            **_shared(domain), "datapath": network.datapath,
            "uplink": {"port": network.uplink_port, "router_mac": mac_text(network.router_mac),
                       "router_address": str(network.prefix[1])},
        }  # fmt: skip
        if domain.has_centre:
            section["hypervisor_port"] = plan.HYPERVISOR_PORT
        return {
            "federation": {
                **self._on_bus(domain, self.logins[domain.name].controller), "instance": str(instance),
                "key_file": str(self._private(domain)), "lease_s": self.settings.lease_s,
                "domains": [
                    {"name": other.name, "public_key": self._public[other.name], "networks": [_shared(other)]}
                    for other in self.lab.domains if other.name != domain.name
                ],
            },
            "networks": [section],
            "machines": [
                {key: machine[key] for key in ("name", "mac", "address", "memory_mib")} | {"home": network.name}
                for machine in self._machines(domain)
            ],
            "users": [{
                "name": f"peer-{network.name}", "home": network.name, "port": plan.FIRST_HOST_PORT,
                "mac": mac_text(domains_plan.peer_mac(domain)),
                "address": str(domain.host(domains_plan.PEER_NUMBER).ip),
            }],
            "listen": {"address": "127.0.0.1", "port": domains_plan.controller_port(domain.number, instance)},
        }  # fmt: skip

    def agent(self, domain: LabDomain) -> dict[str, Any]:
        """``followme agent`` of the domain's data centre."""
        name = domain.network.name
        host = self.lab.hosts[name]
        others = {network: other for network, other in self.lab.hosts.items() if network != name}
        return {
            "federation": {**self._on_bus(domain, self.logins[domain.name].hosts[name]), "host": name,
                           "network": name},
            "control": {
                "address": host.management_address,
                "peers": {
                    network: {"role": "agent", "key_file": str(self._keys.file(name, network)),
                              "address": other.management_address}
                    for network, other in others.items()
                },
            },
            "host": {
                "bridge": host.bridge, "uplink": host.uplink, "management_address": host.management_address,
                "run_dir": str(host.run_dir), "namespace": host.namespace,
                "images": sorted({str(self.image.kernel.parent), str(self.image.initrd.parent)}),
            },
            "machines": self._machines(domain),
            "migration": {"mode": self.settings.mode, "max_pause_ms": self.settings.max_pause_ms, "timeout_s": 120},
            "store": str(self.lab.directory / f"agent-{name}.db"),
        }  # fmt: skip

    def operator(self, domain: LabDomain) -> dict[str, Any]:
        """``followme federation carry``."""
        return {"federation": {**self._on_bus(domain, self.logins[domain.name].hosts[OPERATOR]), "host": OPERATOR}}

    def _machines(self, domain: LabDomain) -> list[dict[str, Any]]:
        if domain is not self.lab.domains[0]:
            return []
        address = domain.host(domains_plan.MACHINE_NUMBER)
        return [{
            "name": MACHINE, "mac": mac_text(plan.mac(_MACHINE_MACS, 1)), "address": str(address.ip),
            "kernel": str(self.image.kernel), "initrd": str(self.image.initrd),
            "cmdline": self.image.kernel_arguments(address, domain.network.gateway),
            "memory_mib": self.settings.memory_mib,
        }]  # fmt: skip


def _shared(domain: LabDomain) -> Mapping[str, Any]:
    """What other domains must know of its network."""
    network = domain.network
    return {
        "name": network.name, "kind": network.kind.value, "prefix": str(network.prefix),
        "gateway": str(network.gateway), "locators": str(network.locators), "area": network.area,
    }  # fmt: skip
