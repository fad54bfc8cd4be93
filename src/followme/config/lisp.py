"""The YAML file of ``followme controller`` where sessions are kept by LISP (``plane: lisp``).

Networks are LISP sites here: an EID prefix behind a tunnel router, whose agent the controller reaches over an
authenticated channel. Every mistake is reported with its key, all at once (``ConfigError``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from followme.config.document import Entry, Section, read, refuse, twice, validate
from followme.config.fields import (
    Address,
    FilePath,
    IpField,
    ListenPort,
    MacField,
    Name,
    Number,
    PortNumber,
    Prefix,
)
from followme.config.placement import OfferSection
from followme.config.shared import (
    MachineSection,
    MigrationMode,
    PolicySection,
    ServiceSection,
    service_entries,
    service_problems,
)
from followme.domain import NetworkKind, Node, NodeKind, Service, mac_text

PAGE = "docs/lisp.md"


class AgentSection(Section):
    """Where a site's agent listens; ``key_file`` holds the key that it shares with this controller."""

    address: IpField
    port: PortNumber = 4360
    key_file: FilePath


class SiteSection(Section):
    """A LISP site. ``rlocs`` are its tunnel routers' locators as they stand in registered mappings."""

    name: Name
    kind: NetworkKind
    prefix: Prefix
    gateway: Address
    rlocs: Annotated[tuple[IpField, ...], Field(min_length=1, max_length=8)]
    agent: AgentSection
    area: Annotated[int, Field(strict=True, ge=0)] = 0
    offer: OfferSection | None = None

    @property
    def runs_machines(self) -> bool:
        return self.kind is NetworkKind.DATACENTRE


class MapServerSection(Section):
    """The map system: Map-Requests and subscriptions go there, publications come from there.

    ``site_id`` and ``key_id`` name the key of ``key_file`` to the map server; ``algorithm`` is the weakest that is
    believed: 2 is HMAC-SHA-256-128, 1 is HMAC-SHA-1-96.
    """

    address: IpField
    port: PortNumber = 4342
    key_file: FilePath
    site_id: Annotated[int, Field(strict=True, ge=1, lt=1 << 64)]
    key_id: Annotated[int, Field(strict=True, ge=0, le=255)] = 0
    algorithm: Literal[1, 2] = 2


class LispListenSection(Section):
    """The UDP address on which publications are received."""

    address: IpField = IPv4Address("127.0.0.1")
    port: ListenPort = 4342


class LispUserSection(Section):
    """A user: its address is its EID wherever it is."""

    name: Name
    home: Name
    address: Address
    mac: MacField | None = None


class LispProbeSection(Section):
    interval_s: Annotated[Number, Field(gt=0.0, le=3600.0)] = 1.0


class LispMigrationSection(Section):
    """Pauses and time-outs are the agents' own: this file has the order of things only."""

    mode: MigrationMode = "live"


class LispConfigFile(Section):
    plane: Literal["lisp"]
    networks: Annotated[tuple[SiteSection, ...], Field(min_length=1)]
    map_server: MapServerSection
    machines: tuple[MachineSection, ...] = ()
    """As the agents of their homes have them."""
    users: tuple[LispUserSection, ...] = ()
    services: tuple[ServiceSection, ...] = ()
    listen: LispListenSection = LispListenSection()
    instance_id: Annotated[int, Field(strict=True, ge=0, lt=1 << 24)] = 0
    policy: PolicySection = PolicySection()
    probe: LispProbeSection = LispProbeSection()
    migration: LispMigrationSection = LispMigrationSection()


@dataclass(frozen=True, slots=True)
class LispConfig:
    """A checked config: the file's sections and, built from them, the nouns."""

    file: LispConfigFile
    nodes: tuple[Node, ...]
    services: tuple[Service, ...]
    name: str
    """The file's, for messages."""

    @property
    def networks(self) -> tuple[SiteSection, ...]:
        return self.file.networks


def load(path: Path) -> LispConfig:
    """Read and check the file; ``ConfigError`` lists every mistake."""
    return check(read(path, "networks", PAGE), str(path))


def check(data: dict[str, Any], name: str) -> LispConfig:
    """Check parsed data; ``name`` is the file's name in messages."""
    # No secret belongs here, but "key" instead of "key_file" is soon written.
    file = validate(LispConfigFile, data, name, PAGE, secrets=True)
    refuse(name, _contradictions(file))
    return LispConfig(file, tuple(_nodes(file)), tuple(section.service() for section in file.services), name)


Nodes = tuple[tuple[str, tuple[MachineSection | LispUserSection, ...]], ...]


def _kinds(file: LispConfigFile) -> Nodes:
    return (("machines", file.machines), ("users", file.users))


def _nodes(file: LispConfigFile) -> Iterator[Node]:
    for machine in file.machines:
        yield Node(machine.name, NodeKind.MACHINE, machine.mac, machine.address, machine.address, machine.home)
    for user in file.users:
        # A user's MAC matters to its access router only: here it may be unknown.
        yield Node(user.name, NodeKind.USER, user.mac or bytes(6), user.address, user.address, user.home)


def _contradictions(file: LispConfigFile) -> Iterator[str]:
    """What no single key shows: overlaps, duplicates, references to what is not there."""
    yield from twice(_entries(file))
    for index, site in enumerate(file.networks):
        if site.gateway not in site.prefix:
            yield f"networks[{index}].gateway: {site.gateway} is not in {site.prefix}"
        for before, other in enumerate(file.networks[:index]):
            if site.prefix.overlaps(other.prefix):
                yield f"networks[{index}].prefix: {site.prefix} overlaps networks[{before}].prefix {other.prefix}"
    sites = {site.name: site for site in file.networks}
    for kind, nodes in _kinds(file):
        for index, node in enumerate(nodes):
            key, home = f"{kind}[{index}]", sites.get(node.home)
            if home is None:
                yield f"{key}.home: {node.home!r} is not the name of a network"
            elif node.address not in home.prefix or node.address in (home.gateway, home.prefix[0], home.prefix[-1]):
                yield f"{key}.address: {node.address} is not a host's address in {home.prefix} ({home.name})"
            elif kind == "machines" and home.kind is not NetworkKind.DATACENTRE:
                yield f"{key}.home: {node.home!r} is an access network; a machine's home is a data centre"
    users, machines = {user.name for user in file.users}, {machine.name for machine in file.machines}
    yield from service_problems(file.services, users, machines)


def _entries(file: LispConfigFile) -> Iterator[Entry]:
    """What must not stand twice."""
    for index, site in enumerate(file.networks):
        yield "network name", site.name, f"networks[{index}].name"
        for rloc in site.rlocs:
            yield "RLOC", rloc, f"networks[{index}].rlocs"
    for kind, nodes in _kinds(file):
        for index, node in enumerate(nodes):
            yield "node name", node.name, f"{kind}[{index}].name"
            yield "address", node.address, f"{kind}[{index}].address"
            if node.mac is not None:
                yield "mac", mac_text(node.mac), f"{kind}[{index}].mac"
    yield from service_entries(file.services)
