"""The YAML file of ``followme controller``: read and checked whole before anything starts.

Every mistake is reported with the file, the key and the value (``ConfigError``), all of them at once.
Unknown keys are refused, so a typing error never becomes a silent default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from followme.config.document import Entry, Section, read, refuse, twice, validate
from followme.config.fields import Address, Datapath, FilePath, ListenPort, MacField, Name, Number, Port, Prefix
from followme.config.placement import OfferSection
from followme.config.shared import (
    MachineSection,
    MigrationMode,
    PolicySection,
    ServiceSection,
    service_entries,
    service_problems,
)
from followme.domain import Network, NetworkKind, Node, NodeKind, Service, mac_text

MAX_SOCKET_PATH = 107
PAGE = "docs/config.md"


class TlsSection(Section):
    """Switches are verified against ``ca`` when it is given; the controller shows ``certificate``."""

    certificate: FilePath
    key: FilePath
    ca: FilePath


class ListenSection(Section):
    address: Address = IPv4Address("127.0.0.1")
    port: ListenPort = 6653
    tls: TlsSection | None = None


class UplinkSection(Section):
    port: Port
    router_mac: MacField
    router_address: Address | None = None


class DhcpSection(Section):
    """Addresses of ``inside`` that the controller leases to users who are not known yet."""

    first: Address
    last: Address
    lease_s: Annotated[int, Field(strict=True, ge=60, le=604800)] = 3600
    dns: tuple[Address, ...] = ()
    keep_address: bool = True


class HostSection(Section):
    """The hypervisor of a data centre: where its machines run and how the others reach it."""

    port: Port
    bridge: Name
    uplink: Name
    management_address: Address
    run_dir: FilePath
    namespace: Name | None = None


class NetworkSection(Section):
    name: Name
    kind: NetworkKind
    datapath: Datapath
    uplink: UplinkSection
    prefix: Prefix
    gateway: Address
    locators: Prefix
    inside: Prefix | None = None
    area: Annotated[int, Field(strict=True, ge=0)] = 0
    dhcp: DhcpSection | None = None
    host: HostSection | None = None
    offer: OfferSection | None = None
    uplink_bit_s: Annotated[Number, Field(gt=0.0, allow_inf_nan=False)] | None = None

    @property
    def runs_machines(self) -> bool:
        return self.host is not None

    @property
    def machine_port(self) -> int | None:
        """The switch's port behind which its machines are."""
        return self.host.port if self.host else None

    def network(self) -> Network:
        return Network(
            name=self.name, kind=self.kind, datapath=self.datapath, uplink_port=self.uplink.port,
            router_mac=self.uplink.router_mac, prefix=self.prefix, inside=self.inside or self.prefix,
            gateway=self.gateway, locators=self.locators, area=self.area,
            router_address=self.uplink.router_address,
        )  # fmt: skip


class BootedMachineSection(MachineSection):
    """A machine that this controller starts, if it is told what with."""

    kernel: FilePath | None = None
    initrd: FilePath | None = None
    cmdline: str = ""


class UserSection(Section):
    """A user known beforehand; other users become known when they ask for an address by DHCP."""

    name: Name
    home: Name
    mac: MacField
    address: Address
    port: Port | None = None


class ProbeSection(Section):
    interval_s: Annotated[Number, Field(gt=0.0, le=3600.0)] = 0.5


class MigrationSection(Section):
    mode: MigrationMode = "live"
    max_pause_ms: Annotated[Number, Field(gt=0.0, le=60_000.0)] = 100.0
    timeout_s: Annotated[Number, Field(gt=0.0, le=86_400.0)] = 300.0


class ConfigFile(Section):
    networks: Annotated[tuple[NetworkSection, ...], Field(min_length=1)]
    machines: tuple[BootedMachineSection, ...] = ()
    users: tuple[UserSection, ...] = ()
    services: tuple[ServiceSection, ...] = ()
    listen: ListenSection = ListenSection()
    store: FilePath = Path("followme.db")
    policy: PolicySection = PolicySection()
    probe: ProbeSection = ProbeSection()
    migration: MigrationSection = MigrationSection()


@dataclass(frozen=True, slots=True)
class Config:
    """A checked config: the file's sections and, built from them, the nouns that the controller works on."""

    file: ConfigFile
    networks: tuple[Network, ...]
    nodes: tuple[Node, ...]
    services: tuple[Service, ...]
    name: str = "config"
    """The file's name in messages."""

    def network(self, name: str) -> Network:
        return next(network for network in self.networks if network.name == name)

    def section(self, name: str) -> NetworkSection:
        return next(section for section in self.file.networks if section.name == name)


def load(path: Path) -> Config:
    """Read and check the file; ``ConfigError`` lists every mistake."""
    return check(read(path, "networks", PAGE), str(path))


def check(data: dict[str, Any], name: str) -> Config:
    """Check parsed data; ``name`` is the file's name in messages."""
    # No secret belongs here, but another daemon's file, with keys in it, is soon given by mistake.
    file = validate(ConfigFile, data, name, PAGE, secrets=True)
    refuse(name, contradictions(file))
    networks = tuple(section.network() for section in file.networks)
    services = tuple(section.service() for section in file.services)
    return Config(file, networks, tuple(nodes_of(file)), services, name)


def nodes_of(file: ConfigFile) -> Iterator[Node]:
    by_name = {section.name: section for section in file.networks}
    for machine in file.machines:
        home = by_name[machine.home]
        port = home.machine_port
        network = home.network()
        yield Node(machine.name, NodeKind.MACHINE, machine.mac, network.outer(machine.address), machine.address,
                   machine.home, port)  # fmt: skip
    for user in file.users:
        network = by_name[user.home].network()
        yield Node(user.name, NodeKind.USER, user.mac, network.outer(user.address), user.address, user.home,
                   user.port)  # fmt: skip


def contradictions(file: ConfigFile) -> Iterator[str]:
    """What no single key shows: overlaps, duplicates, references to what is not there."""
    yield from twice(_entries(file))
    for index, section in enumerate(file.networks):
        yield from _network_problems(f"networks[{index}]", section)
        for before, other in enumerate(file.networks[:index]):
            if section.prefix.overlaps(other.prefix):
                yield (f"networks[{index}].prefix: {section.prefix} overlaps networks[{before}].prefix "
                       f"{other.prefix} ({other.name}); the core routes on prefixes, so give each its own and "
                       "write a shared private range as 'inside'")  # fmt: skip
    yield from _node_problems(file)
    yield from _host_problems(file)


def _network_problems(key: str, section: NetworkSection) -> Iterator[str]:
    inside = section.inside or section.prefix
    if inside.prefixlen != section.prefix.prefixlen:
        yield f"{key}.inside: {inside} and prefix {section.prefix} differ in length; they are mapped one to one"
    if section.gateway not in inside:
        yield f"{key}.gateway: {section.gateway} is not in {inside}"
    router = section.uplink.router_address
    if not section.locators.subnet_of(section.prefix):
        yield f"{key}.locators: {section.locators} is not within prefix {section.prefix}"
    elif section.locators.prefixlen > 30 or section.locators[0] == section.prefix[0]:
        yield (f"{key}.locators: {section.locators} must hold four addresses or more, without the prefix's own "
               f"{section.prefix[0]}")  # fmt: skip
    elif inside.prefixlen == section.prefix.prefixlen:
        if section.gateway in inside and section.network().outer(section.gateway) in section.locators:
            yield f"{key}.locators: {section.locators} holds the gateway {section.gateway}"
        if router is not None and router in section.locators:
            yield f"{key}.locators: {section.locators} holds the router's address {router}"
        if section.dhcp:
            yield from _dhcp_problems(key, section, section.dhcp)
    if section.host and section.host.port == section.uplink.port:
        yield f"{key}.host.port: {section.host.port} is the uplink's port"
    if section.host and section.kind is not NetworkKind.DATACENTRE:
        yield f"{key}.host: an access network has no hypervisor; set kind: datacentre or remove it"


def _dhcp_problems(key: str, section: NetworkSection, dhcp: DhcpSection) -> Iterator[str]:
    network = section.network()
    inside, pool = network.inside, f"{dhcp.first} to {dhcp.last}"
    hosts = (inside[0], inside[-1])
    if dhcp.first not in inside or dhcp.last not in inside or dhcp.first > dhcp.last:
        yield f"{key}.dhcp: {pool} is not a range within {inside}"
    elif dhcp.first in hosts or dhcp.last in hosts:
        yield f"{key}.dhcp: {pool} holds {inside}'s own address or its broadcast address"
    elif network.outer(dhcp.first) <= network.locators[-1] and network.outer(dhcp.last) >= network.locators[0]:
        yield f"{key}.dhcp: {pool} overlaps locators {network.locators}"


def _kinds(file: ConfigFile) -> tuple[tuple[str, Sequence[MachineSection | UserSection]], ...]:
    return (("machines", file.machines), ("users", file.users))


def _host_problems(file: ConfigFile) -> Iterator[str]:
    """A machine's sockets have a name of bounded length (unix(7))."""
    for index, section in enumerate(file.networks):
        if section.host is None:
            continue
        key = f"networks[{index}].host"
        for machine in file.machines:
            path = section.host.run_dir / f"{machine.name}@{section.name}.qmp"
            if len(str(path).encode()) > MAX_SOCKET_PATH:
                yield (f"{key}.run_dir: {section.host.run_dir} is too long: the socket {path.name} in it would "
                       f"have more than {MAX_SOCKET_PATH} bytes")  # fmt: skip


def _entries(file: ConfigFile) -> Iterator[Entry]:
    """What must not stand twice. A machine is carried to its host's management address."""
    for index, section in enumerate(file.networks):
        yield "network name", section.name, f"networks[{index}].name"
        yield "datapath", f"{section.datapath:#x}", f"networks[{index}].datapath"
        if section.host:
            yield "host", section.host.management_address, f"networks[{index}].host.management_address"
    for kind, nodes in _kinds(file):
        for index, node in enumerate(nodes):
            yield "node name", node.name, f"{kind}[{index}].name"
            yield "mac", mac_text(node.mac), f"{kind}[{index}].mac"
            yield "address", f"{node.address} in {node.home}", f"{kind}[{index}].address"
    yield from service_entries(file.services)


def _node_problems(file: ConfigFile) -> Iterator[str]:
    by_name = {section.name: section for section in file.networks}
    for kind, nodes in _kinds(file):
        for index, node in enumerate(nodes):
            key = f"{kind}[{index}]"
            home = by_name.get(node.home)
            if home is None:
                yield f"{key}.home: {node.home!r} is not the name of a network"
                continue
            inside = home.inside or home.prefix
            if node.address not in inside or node.address in (home.gateway, inside[0], inside[-1]):
                yield f"{key}.address: {node.address} is not a host's address in {inside} ({home.name})"
            elif inside.prefixlen != home.prefix.prefixlen:
                pass  # reported already; nothing can be mapped
            elif home.network().outer(node.address) == home.uplink.router_address:
                yield f"{key}.address: {node.address} is the router's address in {inside} ({home.name})"
            elif home.network().outer(node.address) in home.locators:
                yield f"{key}.address: {node.address} lies in the locators {home.locators} of {home.name}"
            if isinstance(node, UserSection) and node.port == home.uplink.port:
                yield f"{key}.port: {node.port} is the uplink's port of {home.name}"
            if kind == "machines" and home.kind is not NetworkKind.DATACENTRE:
                yield f"{key}.home: {node.home!r} is an access network; a machine's home is a data centre"
            elif kind == "machines" and not home.runs_machines:
                yield f"{key}.home: data centre {node.home!r} has no 'host' to run {node.name!r} on"
    users, machines = {user.name for user in file.users}, {machine.name for machine in file.machines}
    yield from service_problems(file.services, users, machines)
