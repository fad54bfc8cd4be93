"""The tunnel router's part of the agent's YAML file: read and checked whole, every mistake named at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr

from followme.config.document import ConfigError, Section, read, refuse, twice, validate
from followme.config.fields import FilePath, IpField, MacField, Name, Number, PortNumber
from followme.config.keys import read_key
from followme.lisp import CONTROL_PORT, HMAC_SHA_256_128, UNUSABLE, EidPrefix, Locator

from .lanfilter import MAX_RANGES
from .site import MapServer, Site

PAGE = "docs/agent.md"
MIN_KEY_BYTES = 8
"""Of a secret shared with a map server: those of other makers are often short."""
_BROADCAST = IPv4Address("255.255.255.255")


def _network(value: object) -> object:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str) or "/" not in value:
        raise ValueError("write a prefix with its length, as in 10.1.0.0/24")
    return ip_network(value)


PrefixField = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Octet = Annotated[int, Field(strict=True, ge=0, le=255)]
Device = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,15}$")]


class RlocSection(Section):
    """One of our locators; lower ``priority`` is better, ``weight`` shares the load among equal ones."""

    address: IpField
    priority: Octet = 1
    weight: Octet = 100


class DynamicSection(Section):
    """Which EIDs may roam into this LAN. ``macs`` ties an EID to the one MAC that may claim it."""

    prefixes: Annotated[tuple[PrefixField, ...], Field(max_length=MAX_RANGES)] = ()
    macs: Mapping[IpField, MacField] = {}
    max_eids: Annotated[int, Field(strict=True, ge=1, le=8192)] = 1024
    max_per_mac: Annotated[int, Field(strict=True, ge=1, le=1024)] = 16


class MapServerSection(Section):
    """A map server; ``key`` or ``key_file`` holds the secret that the site shares with it."""

    address: IpField
    port: PortNumber = 4342
    key: Annotated[SecretStr, Field(min_length=MIN_KEY_BYTES)] | None = None
    key_file: FilePath | None = None
    key_id: Octet = 0
    algorithm: Literal[1, 2] = HMAC_SHA_256_128


class ResolverSection(Section):
    address: IpField
    port: PortNumber = 4342


class RouterConfig(Section):
    """A checked config of one tunnel router."""

    site: Name
    rlocs: Annotated[tuple[RlocSection, ...], Field(min_length=1, max_length=8)]
    prefixes: Annotated[tuple[PrefixField, ...], Field(max_length=MAX_RANGES)] = ()
    space: Annotated[tuple[PrefixField, ...], Field(min_length=1, max_length=64)]
    map_servers: Annotated[tuple[MapServerSection, ...], Field(min_length=1, max_length=4)]
    map_resolvers: Annotated[tuple[ResolverSection, ...], Field(max_length=4)] = ()
    state_dir: FilePath
    namespace: Name | None = None
    lan: Device = "lan"
    host_port: Device | None = None
    up: Device = "up"
    tunnel: Device = "lisp0"
    punt: Device = "lisp-punt"
    core_mtu: Annotated[int, Field(strict=True, ge=1340, le=65535)] = 1500
    instance_id: Annotated[int, Field(strict=True, ge=0, lt=1 << 24)] = 0
    dynamic: DynamicSection = DynamicSection()
    probe_s: Annotated[Number, Field(ge=0.0, le=3600.0)] = 10.0
    register_s: Annotated[Number, Field(ge=1.0, le=3600.0)] = 60.0
    ttl_minutes: Annotated[int, Field(strict=True, ge=1, le=1440)] = 1440
    proxy_reply: bool = True
    header: Literal["gpe", "rfc9300"] = "gpe"
    peers: Mapping[IpField, Literal["gpe", "rfc9300"]] = {}
    max_entries: Annotated[int, Field(strict=True, ge=16, le=1_000_000)] = 100_000
    xtr_id: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{32}$")] | None = None
    site_id: Annotated[int, Field(strict=True, ge=0, lt=1 << 64)] = 0

    @property
    def eid_prefixes(self) -> tuple[EidPrefix, ...]:
        return tuple(EidPrefix.of(prefix, self.instance_id) for prefix in self.prefixes)

    @property
    def eid_space(self) -> tuple[EidPrefix, ...]:
        return tuple(EidPrefix.of(prefix, self.instance_id) for prefix in self.space)

    def plain(self, rloc: IPv4Address | IPv6Address) -> bool:
        """Whether packets to this RLOC get plain RFC 9300 headers."""
        return self.peers.get(rloc, self.header) == "rfc9300"

    @property
    def identity(self) -> bytes:
        """The xTR-ID: as configured, else made of the site's name and our RLOCs, so that it stays."""
        if self.xtr_id is not None:
            return bytes.fromhex(self.xtr_id)
        text = " ".join([self.site, *(str(rloc.address) for rloc in self.rlocs)])
        return hashlib.sha256(text.encode()).digest()[:16]

    def lisp_site(self) -> Site:
        """What the control plane is told; ``ConfigError`` if a key file cannot be used."""
        problems: list[str] = []
        servers = []
        for index, section in enumerate(self.map_servers):
            try:
                key = _key(section)
            except ValueError as error:
                problems.append(f"map_servers[{index}].key_file: {error}")
            else:
                servers.append(MapServer(section.address, section.port, key, section.key_id, section.algorithm))
        if problems:
            raise ConfigError(problems)
        resolvers = self.map_resolvers or self.map_servers
        return Site(
            prefixes=self.eid_prefixes,
            space=self.eid_space,
            locators=tuple(Locator(r.address, r.priority, r.weight, local=True) for r in self.rlocs),
            resolvers=tuple((section.address, section.port) for section in resolvers),
            servers=tuple(servers),
            xtr_id=self.identity,
            iid=self.instance_id,
            site_id=self.site_id,
            proxy_reply=self.proxy_reply,
            ttl=self.ttl_minutes,
            register_interval_s=self.register_s,
            probe_interval_s=self.probe_s,
            max_entries=self.max_entries,
        )


def load(path: Path) -> RouterConfig:
    """Read and check a file that holds nothing but the tunnel router; ``ConfigError`` lists every mistake."""
    return check(read(path, "rlocs", PAGE), str(path))


def check(data: dict[str, Any], name: str) -> RouterConfig:
    """Check parsed data; ``name`` is the file's name in messages."""
    config = validate(RouterConfig, data, name, PAGE, secrets=True)
    refuse(name, _contradictions(config))
    return config


def _contradictions(config: RouterConfig) -> Iterator[str]:
    space = config.eid_space
    for key, prefixes in (("prefixes", config.prefixes), ("dynamic.prefixes", config.dynamic.prefixes)):
        for index, prefix in enumerate(prefixes):
            if not any(one.covers(EidPrefix.of(prefix, config.instance_id)) for one in space):
                yield f"{key}[{index}]: {prefix} is not within the EID space {_list(config.space)}"
    for index, prefix in enumerate(config.prefixes):
        if any(prefix.version == other.version and prefix.overlaps(other) for other in config.prefixes[:index]):
            yield f"prefixes[{index}]: {prefix} overlaps another one"
        if prefix.prefixlen == prefix.max_prefixlen:
            yield f"prefixes[{index}]: {prefix} is one address; a subnet is registered here"
    under = [(f"rlocs[{i}].address", section.address) for i, section in enumerate(config.rlocs)]
    under += [(f"map_servers[{i}].address", section.address) for i, section in enumerate(config.map_servers)]
    under += [(f"map_resolvers[{i}].address", s.address) for i, s in enumerate(config.map_resolvers)]
    for key, address in under:
        if any(address in prefix for prefix in config.space):
            yield f"{key}: {address} lies in the EID space; packets to it would need a mapping themselves"
    for key, address in under:
        if address.is_unspecified or address.is_multicast or address == _BROADCAST:
            yield f"{key}: {address} is not an address of one host"
    addresses = [section.address for section in config.rlocs]
    for index, address in enumerate(addresses):
        if address.is_loopback or address.is_link_local:
            yield f"rlocs[{index}].address: {address}: no other router reaches us by it"
    yield from twice(("RLOC", address, f"rlocs[{index}].address") for index, address in enumerate(addresses))
    if all(section.priority == UNUSABLE for section in config.rlocs):
        yield "rlocs: all have priority 255, which means that nobody may use them"
    families = {address.version for address in addresses}
    for index, section in enumerate(config.map_servers):
        if (section.key is None) == (section.key_file is None):
            yield f"map_servers[{index}]: give either key or key_file"
        if section.address.version not in families:
            yield f"map_servers[{index}].address: {section.address}: none of our RLOCs is of its IP version"
        if section.address in addresses and section.port == CONTROL_PORT:
            yield f"map_servers[{index}].address: {section.address} port {CONTROL_PORT} is this router itself"
    # A Map-Notify is told by its sender's address.
    servers = [section.address for section in config.map_servers]
    yield from twice(("map server", address, f"map_servers[{i}].address") for i, address in enumerate(servers))
    if len({config.lan, config.up, config.tunnel, config.punt}) < 4:
        yield "lan, up, tunnel and punt: four different devices"


def _list(prefixes: tuple[IPv4Network | IPv6Network, ...]) -> str:
    return ", ".join(map(str, prefixes))


def _key(section: MapServerSection) -> bytes:
    if section.key_file is None:
        return section.key.get_secret_value().encode() if section.key else b""
    return read_key(section.key_file, MIN_KEY_BYTES)
