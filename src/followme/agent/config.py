"""The YAML file of ``followme agent``: the site's tunnel router, its machines, and whom the agent talks to."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from followme.config.document import ConfigError, Entry, Section, read, twice, validate
from followme.config.fields import Address, FilePath, IpField, ListenPort, MacField, Name, Number, PortNumber
from followme.domain import mac_text
from followme.xtr.config import RouterConfig
from followme.xtr.config import check as check_router

PAGE = "docs/agent.md"
CONTROL_PORT = 4360


class PeerSection(Section):
    """Who may talk to this agent: a controller, or another site's agent (which has an ``address`` here, for
    machines are carried to it). ``key_file`` holds the key that both share."""

    role: Literal["controller", "agent"]
    key_file: FilePath
    address: IpField | None = None
    port: PortNumber = CONTROL_PORT


class ControlSection(Section):
    """Where the agent listens for its peers, by their names."""

    address: IpField = IPv4Address("127.0.0.1")
    port: ListenPort = CONTROL_PORT
    peers: dict[Name, PeerSection] = Field(default_factory=dict)


class HypervisorSection(Section):
    """The host of the site's machines. ``images`` are the directories whose kernels, initrds and disks a peer
    may have this host run."""

    bridge: Name
    uplink: Name
    management_address: IpField
    run_dir: FilePath
    images: Annotated[tuple[FilePath, ...], Field(min_length=1)]
    namespace: Name | None = None
    max_memory_mib: Annotated[int, Field(strict=True, ge=32, le=1 << 20)] = 4096


class AgentMachineSection(Section):
    """A machine at home here; ``address`` is its EID."""

    name: Name
    mac: MacField
    address: Address
    kernel: FilePath
    initrd: FilePath
    cmdline: str = ""
    memory_mib: Annotated[int, Field(strict=True, ge=32, le=1 << 20)] = 256


class AgentMigrationSection(Section):
    max_pause_ms: Annotated[Number, Field(gt=0.0, le=60_000.0)] = 100.0
    timeout_s: Annotated[Number, Field(gt=0.0, le=86_400.0)] = 300.0


class AgentConfig(Section):
    """A checked file."""

    router: RouterConfig
    control: ControlSection = ControlSection()
    host: HypervisorSection | None = None
    machines: tuple[AgentMachineSection, ...] = ()
    migration: AgentMigrationSection = AgentMigrationSection()
    store: FilePath = Path("followme-agent.db")


def load(path: Path) -> AgentConfig:
    """Read and check the file; ``ConfigError`` lists every mistake."""
    return check(read(path, "router", PAGE), str(path))


def check(data: dict[str, Any], name: str) -> AgentConfig:
    """Check parsed data; ``name`` is the file's name in messages."""
    problems: list[str] = []
    config = None
    try:
        config = validate(AgentConfig, data, name, PAGE, secrets=True)
    except ConfigError as error:
        problems += error.problems
    section = data.get("router")
    if isinstance(section, dict):
        # The router's own check sees more than its types.
        try:
            check_router(section, name)
        except ConfigError as error:
            said = [f"{name}: router.{line.removeprefix(f'{name}: ')}" for line in error.problems]
            problems += [line for line in said if line not in problems]
    if config is not None:
        problems += [f"{name}: {problem}" for problem in _contradictions(config)]
    if problems or config is None:
        raise ConfigError(problems)
    return config


def _contradictions(config: AgentConfig) -> Iterator[str]:
    if config.machines and config.host is None:
        yield "host: missing, and there are machines; say where they run"
    if config.router.site in config.control.peers:
        yield f"control.peers.{config.router.site}: that is this site itself"
    directories = () if config.host is None else config.host.images
    for index, directory in enumerate(directories):
        if not directory.is_absolute():
            yield f"host.images[{index}]: {directory} is relative; write the path from / on"
    yield from _out_of_reach(config.router)
    yield from twice(_entries(config))
    for index, machine in enumerate(config.machines):
        key = f"machines[{index}]"
        if not any(machine.address in prefix for prefix in config.router.prefixes):
            yield f"{key}.address: {machine.address} is in none of router.prefixes"
        for what, image in (("kernel", machine.kernel), ("initrd", machine.initrd)):
            if directories and not any(_below(image, directory) for directory in directories):
                yield f"{key}.{what}: {image} is in none of host.images, so it could not come back here"


def _entries(config: AgentConfig) -> Iterator[Entry]:
    """What must not stand twice."""
    for index, machine in enumerate(config.machines):
        yield "name", machine.name, f"machines[{index}].name"
        yield "mac", mac_text(machine.mac), f"machines[{index}].mac"
        yield "address", machine.address, f"machines[{index}].address"


def _out_of_reach(router: RouterConfig) -> Iterator[str]:
    for eid in router.dynamic.macs:
        if not any(eid in prefix for prefix in (*router.dynamic.prefixes, *router.prefixes)):
            yield f"router.dynamic.macs.{eid}: is in none of router.dynamic.prefixes, and not of our own subnet"


def _below(path: Path, directory: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(os.path.normpath(directory))
