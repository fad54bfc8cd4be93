"""The YAML file of ``followme controller`` where several controllers share the networks (``federation``).

Each owns some networks, and knows of the others' what the core knows of them. Machines are their hosts' agents';
of them the controller needs only who they are. Every mistake is reported with its key, all at once.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from followme.config.document import ConfigError, Section, validate
from followme.config.fields import Address, FilePath, Name, Number, Port, Prefix
from followme.config.openflow import (
    BootedMachineSection,
    ConfigFile,
    ListenSection,
    NetworkSection,
    UserSection,
    contradictions,
    nodes_of,
)
from followme.config.public_key import OCTETS, proves
from followme.domain import NO_DATAPATH, Network, NetworkKind, Node

PAGE = "docs/config.md"
REPLICAS = (1, 3, 5)
MEMORY = "memory"
OPERATOR = "operator"
"""As ``federation.orders.OPERATOR``: who gives orders within a domain."""
_NO_MAC = bytes(6)


def _public_key(value: object) -> bytes:
    if isinstance(value, bytes) and len(value) == OCTETS and proves(value):
        return value
    try:
        key = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != OCTETS or not proves(key):
        raise ValueError("write an Ed25519 public key in base64, as `followme federation key` prints it")
    return key


def _bus(value: str) -> str:
    for url in () if value == MEMORY else value.split(","):
        parts = urlsplit(url.strip())
        try:
            good = parts.scheme in ("nats", "tls") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good or parts.path or parts.query:
            raise ValueError(f"write '{MEMORY}', or servers as in nats://192.0.2.1:4222,nats://192.0.2.2:4222")
        if parts.username or parts.password:
            raise ValueError("no user or password in here; they have keys of their own")
    return value


def _replicas(value: int) -> int:
    if value not in REPLICAS:
        raise ValueError(f"write {', '.join(map(str, REPLICAS[:-1]))} or {REPLICAS[-1]}: most of them must agree")
    return value


DomainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
PublicKey = Annotated[bytes, BeforeValidator(_public_key)]
BusField = Annotated[str, AfterValidator(_bus)]


class FederatedNetworkSection(NetworkSection):
    """A network of ours. ``hypervisor_port`` is the port behind which the machines of its host's agent are,
    ``hypervisor_host`` the name that the agent has on the bus (the network's, if none is given). With
    ``hypervisor_lost`` the host is gone for good: nobody is asked whether it still has a machine."""

    hypervisor_port: Port | None = None
    hypervisor_host: DomainName | None = None
    hypervisor_lost: bool = False

    @property
    def host_name(self) -> str | None:
        """On the bus; ``None`` where no machines are, or their host is lost."""
        return None if self.hypervisor_port is None or self.hypervisor_lost else self.hypervisor_host or self.name

    @property
    def runs_machines(self) -> bool:
        return self.hypervisor_port is not None

    @property
    def machine_port(self) -> int | None:
        return self.hypervisor_port


class OtherNetworkSection(Section):
    """A network of another domain, as the core knows it, and as its nodes are configured."""

    name: Name
    kind: NetworkKind
    prefix: Prefix
    gateway: Address
    locators: Prefix
    inside: Prefix | None = None
    area: Annotated[int, Field(strict=True, ge=0)] = 0

    def network(self) -> Network:
        return Network(
            name=self.name, kind=self.kind, datapath=NO_DATAPATH, uplink_port=0, router_mac=_NO_MAC,
            prefix=self.prefix, inside=self.inside or self.prefix, gateway=self.gateway, locators=self.locators,
            area=self.area,
        )  # fmt: skip


class DomainSection(Section):
    """Another controller's networks; ``public_key`` proves what it says of its nodes."""

    name: DomainName
    public_key: PublicKey
    networks: Annotated[tuple[OtherNetworkSection, ...], Field(min_length=1, max_length=4096)]


class FederationSection(Section):
    """``instance`` tells the controllers of one domain apart, of which one is active; ``key_file`` holds the
    domain's private key. ``user`` and ``password_file`` are what the bus knows the domain by, ``ca`` verifies the
    bus. ``replicas`` is how many of the bus's servers keep what must survive, ``bucket_mib`` the room for it."""

    domain: DomainName
    key_file: FilePath
    domains: Annotated[tuple[DomainSection, ...], Field(max_length=4096)] = ()
    bus: BusField = MEMORY
    instance: DomainName = "1"
    user: Name | None = None
    password_file: FilePath | None = None
    ca: FilePath | None = None
    replicas: Annotated[int, Field(strict=True), AfterValidator(_replicas)] = 1
    bucket_mib: Annotated[int, Field(strict=True, ge=16, le=1 << 20)] = 256
    lease_s: Annotated[Number, Field(ge=0.5, le=60.0)] = 1.5


class FederatedFile(Section):
    """What decides and carries by itself (``policy``, ``services``, ``migration``) has no place here yet."""

    federation: FederationSection
    networks: Annotated[tuple[FederatedNetworkSection, ...], Field(min_length=1)]
    machines: tuple[BootedMachineSection, ...] = ()
    users: tuple[UserSection, ...] = ()
    listen: ListenSection = ListenSection()
    store: FilePath | None = None


@dataclass(frozen=True, slots=True)
class FederatedConfig:
    """A checked config. ``networks`` are ours, then those of others (``Network.ours``)."""

    file: FederatedFile
    networks: tuple[Network, ...]
    nodes: tuple[Node, ...]
    name: str = "config"


def check(data: dict[str, Any], name: str) -> FederatedConfig:
    """Check parsed data; ``ConfigError`` lists every mistake, ``name`` is the file's name in them."""
    file = validate(FederatedFile, data, name, PAGE, secrets=True)
    alone = ConfigFile(networks=file.networks, machines=file.machines, users=file.users, listen=file.listen)
    problems = [f"{name}: {problem}" for problem in (*contradictions(alone), *_contradictions(file))]
    if problems:
        raise ConfigError(problems)
    others = tuple(section.network() for domain in file.federation.domains for section in domain.networks)
    return FederatedConfig(file, (*(one.network() for one in file.networks), *others), tuple(nodes_of(alone)), name)


def _contradictions(file: FederatedFile) -> Iterator[str]:
    """What no single key shows: who claims what another has."""
    ours = file.federation
    if ours.bus != MEMORY and (ours.user is None or ours.password_file is None):
        yield "federation.user, federation.password_file: missing; the bus must know which domain this is"
    if ours.bus == MEMORY and (ours.user, ours.password_file, ours.ca) != (None, None, None):
        yield f"federation.bus: {MEMORY} knows no user, password_file or ca; remove them, or name a nats:// server"
    if ours.bus == MEMORY and file.store is None:
        yield f"store: missing; with bus {MEMORY} what must survive is kept in this file"
    if ours.bus != MEMORY and file.store is not None:
        yield "store: the bus keeps what must survive (JetStream); remove it"
    domains: dict[str, str] = {ours.domain: "federation.domain"}
    keys: dict[bytes, str] = {}
    networks = {one.name: f"networks[{index}].name" for index, one in enumerate(file.networks)}
    prefixes = [(one.prefix, f"networks[{index}].prefix") for index, one in enumerate(file.networks)]
    for number, domain in enumerate(ours.domains):
        where = f"federation.domains[{number}]"
        if (first := domains.setdefault(domain.name, f"{where}.name")) != f"{where}.name":
            yield f"{where}.name: {domain.name} stands already at {first}"
        if (first := keys.setdefault(domain.public_key, where)) != where:
            yield f"{where}.public_key: it is that of {first} too; each domain has a key of its own"
        for index, section in enumerate(domain.networks):
            key = f"{where}.networks[{index}]"
            if (first := networks.setdefault(section.name, f"{key}.name")) != f"{key}.name":
                yield f"{key}.name: {section.name} stands already at {first}"
            for prefix, first in prefixes:
                if prefix.overlaps(section.prefix):
                    yield f"{key}.prefix: {section.prefix} overlaps {first} {prefix}; one is claimed wrongly"
            prefixes.append((section.prefix, f"{key}.prefix"))
            yield from _other_problems(key, section)
    for index, one in enumerate(file.networks):
        for what in ("host", "offer", "uplink_bit_s"):
            if getattr(one, what) is not None:
                yield f"networks[{index}].{what}: has no effect in a federation; {_INSTEAD[what]}"
        if one.hypervisor_host is not None and one.hypervisor_port is None:
            yield f"networks[{index}].hypervisor_host: has no effect without hypervisor_port"
        if one.hypervisor_lost and one.hypervisor_port is None:
            yield f"networks[{index}].hypervisor_lost: has no effect without hypervisor_port"
        if one.host_name == OPERATOR:
            key = "name" if one.hypervisor_host is None else "hypervisor_host"
            yield f"networks[{index}].{key}: {OPERATOR} is who gives orders on the bus, and no host"
        if one.hypervisor_port is not None and one.hypervisor_port == one.uplink.port:
            yield f"networks[{index}].hypervisor_port: {one.hypervisor_port} is the uplink's port"
        if one.hypervisor_port is not None and one.kind is not NetworkKind.DATACENTRE:
            yield f"networks[{index}].hypervisor_port: an access network has no hypervisor"
    for index, machine in enumerate(file.machines):
        for what in ("kernel", "initrd"):
            if getattr(machine, what) is not None:
                yield f"machines[{index}].{what}: belongs into the config of the agent of its host"


_INSTEAD = {
    "host": "write hypervisor_port, and the rest into the config of the host's agent",
    "offer": "nothing is decided here",
    "uplink_bit_s": "nothing is decided here",
}


def _other_problems(key: str, section: OtherNetworkSection) -> Iterator[str]:
    inside = section.inside or section.prefix
    if inside.prefixlen != section.prefix.prefixlen:
        yield f"{key}.inside: {inside} and prefix {section.prefix} differ in length; they are mapped one to one"
    if section.gateway not in inside or section.gateway == IPv4Address(0):
        yield f"{key}.gateway: {section.gateway} is not in {inside}"
    if not section.locators.subnet_of(section.prefix) or section.locators[0] == section.prefix[0]:
        yield f"{key}.locators: {section.locators} is not within {section.prefix}, without its first address"
    elif section.locators.prefixlen > 30:
        yield f"{key}.locators: {section.locators} must hold four addresses or more"
