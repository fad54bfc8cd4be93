"""The YAML file of ``followme mapserver``: read and checked whole; every mistake is named with its key, no key
(secret) is ever shown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr

from followme.config.document import ConfigError, Entry, Section, read, twice, validate
from followme.config.fields import FilePath, IpField, ListenPort, Name, Number
from followme.config.keys import MAX_KEY_BYTES, read_key
from followme.lisp import CONTROL_PORT, MAX_INSTANCE_ID, Action, EidPrefix

from .answers import Negative
from .registry import Damping
from .server import Settings
from .sites import Reply, Site, SitePrefix
from .udp import is_listened_on

PAGE = "docs/mapserver.md"
MIN_KEY_OCTETS = 8


def _prefix(value: object) -> object:
    """A prefix may be written as text, or with its instance-ID as a mapping."""
    return {"prefix": value} if isinstance(value, str) else value


def _network(value: object) -> str:
    if not isinstance(value, str) or "/" not in value:
        raise ValueError("write a prefix with its length, as in 10.1.0.0/24 or 2001:db8::/48")
    return str(ip_network(value))


Network = Annotated[str, BeforeValidator(_network)]
Action_ = Literal["natively-forward", "send-map-request", "drop"]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class ListenSection(Section):
    addresses: Annotated[tuple[IpField, ...], Field(max_length=64)] = (
        IPv4Address("127.0.0.1"), IPv6Address("::1"),
    )  # fmt: skip
    port: ListenPort = CONTROL_PORT


class VisitorSection(Section):
    prefix: Network
    instance_id: Annotated[int, Field(strict=True, ge=0, le=MAX_INSTANCE_ID)] = 0

    def eid(self) -> EidPrefix:
        return EidPrefix.of(self.prefix, self.instance_id)


class PrefixSection(VisitorSection):
    more_specifics: Annotated[bool, Field(strict=True)] = True


class KeySection(Section):
    id: Annotated[int, Field(strict=True, ge=0, le=255)] = 0
    key: SecretStr | None = None
    key_file: FilePath | None = None


class SiteSection(Section):
    name: Name
    site_id: Annotated[int, Field(strict=True, ge=1, lt=1 << 64)] | None = None
    keys: tuple[KeySection, ...]
    prefixes: tuple[Annotated[PrefixSection, BeforeValidator(_prefix)], ...] = ()
    visitors: tuple[Annotated[VisitorSection, BeforeValidator(_prefix)], ...] = ()
    rlocs: tuple[Network, ...] = ()
    reply: Reply = Reply.ASKED
    algorithms: tuple[Literal[1, 2], ...] = (1, 2)
    replay_protection: Annotated[bool, Field(strict=True)] = True
    max_registrations: Count = 20_000


class NegativeSection(Section):
    outside: Action_ = "natively-forward"
    not_registered: Action_ = "natively-forward"


class DampingSection(Section):
    changes: Count = 20
    within_s: Annotated[Number, Field(gt=0.0, le=86_400.0)] = 60.0


class MapServerFile(Section):
    sites: tuple[SiteSection, ...]
    listen: ListenSection = ListenSection()
    registration_s: Annotated[Number, Field(ge=1.0, le=86_400.0)] = 60.0
    negative: NegativeSection = NegativeSection()
    damping: DampingSection = DampingSection()
    store: FilePath = Path("followme-mapserver.db")
    processes: Annotated[int, Field(strict=True, ge=1, le=64)] = 1


class MapServerConfig:
    """A checked config: the file's sections, and the sites with their keys, which its repr does not show."""

    __slots__ = ("file", "sites")

    def __init__(self, file: MapServerFile, sites: tuple[Site, ...]) -> None:
        self.file = file
        self.sites = sites

    def settings(self) -> Settings:
        file = self.file
        families = tuple(sorted({address.version for address in file.listen.addresses}))
        negative = Negative(_action(file.negative.outside), _action(file.negative.not_registered))
        damping = Damping(file.damping.changes, file.damping.within_s)
        ours = partial(is_listened_on, file.listen.addresses, file.listen.port)
        return Settings(file.registration_s, damping, negative, families, ours)


def load(path: Path) -> MapServerConfig:
    """Read and check the file and the key files that it names; ``ConfigError`` lists every mistake."""
    return check(read(path, "sites", PAGE), str(path))


def check(data: dict[str, Any], name: str) -> MapServerConfig:
    """Check parsed data; ``name`` is the file's name in messages."""
    file = validate(MapServerFile, data, name, PAGE, secrets=True)
    problems = [f"{name}: {problem}" for problem in _contradictions(file)]
    keys: list[dict[int, bytes]] = []
    for index, section in enumerate(file.sites):
        found: dict[int, bytes] = {}
        for number, one in enumerate(section.keys):
            try:
                found[one.id] = _key(one)
            except ValueError as problem:
                problems.append(f"{name}: sites[{index}].keys[{number}]: {problem}")
        keys.append(found)
    if problems:
        raise ConfigError(problems)
    return MapServerConfig(file, tuple(_site(section, one) for section, one in zip(file.sites, keys, strict=True)))


def _key(section: KeySection) -> bytes:
    if (section.key is None) == (section.key_file is None):
        raise ValueError("give either key or key_file")
    if section.key is not None:
        key = section.key.get_secret_value().encode()
    else:
        key = read_key(section.key_file, MIN_KEY_OCTETS) if section.key_file is not None else b""
    if not MIN_KEY_OCTETS <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(f"a key has {MIN_KEY_OCTETS} to {MAX_KEY_BYTES} octets, this one {len(key)}")
    return key


def _site(section: SiteSection, keys: dict[int, bytes]) -> Site:
    return Site(
        section.name, keys, section.site_id or 0,
        tuple(SitePrefix(one.eid(), one.more_specifics) for one in section.prefixes),
        tuple(one.eid() for one in section.visitors), tuple(ip_network(one) for one in section.rlocs),
        section.reply, section.algorithms, section.replay_protection, section.max_registrations,
    )  # fmt: skip


def _action(name: str) -> Action:
    return Action[name.upper().replace("-", "_")] if name != "natively-forward" else Action.NATIVELY_FORWARD


def _contradictions(file: MapServerFile) -> Iterator[str]:
    """What no single key shows."""
    entries: list[Entry] = []
    empty: list[tuple[str, tuple[object, ...]]] = [("sites", file.sites)]
    empty.append(("listen.addresses", file.listen.addresses))
    for index, site in enumerate(file.sites):
        key = f"sites[{index}]"
        empty += [(f"{key}.keys", site.keys), (f"{key}.algorithms", site.algorithms)]
        entries.append(("site name", site.name, f"{key}.name"))
        if site.site_id is not None:
            entries.append(("site_id", site.site_id, f"{key}.site_id"))
        elif site.visitors:
            yield f"{key}.visitors: this site needs a site_id: a visitor's prefix does not say where it is visiting"
        entries += [("prefix", one.eid(), f"{key}.prefixes[{n}]") for n, one in enumerate(site.prefixes)]
        yield from twice(("key id", one.id, f"{key}.keys[{n}].id") for n, one in enumerate(site.keys))
    yield from twice(entries)
    for where, values in empty:
        if not values:
            yield f"{where}: one at least is needed"
    if len(set(file.listen.addresses)) != len(file.listen.addresses):
        yield "listen.addresses: an address stands twice"
    for address in file.listen.addresses:
        if address.is_multicast or address == IPv4Address("255.255.255.255"):
            yield f"listen.addresses: {address} is not an address of one host"
    if file.processes > 1 and file.listen.port == 0:
        yield "processes: several processes need a port of their own choice: set listen.port"
