"""The YAML file of ``followme agent`` at a data centre of a federation: its machines, its peers, its controller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from followme.agent.sections import (
    AgentMigrationSection,
    HypervisorSection,
    SiteConfig,
    machines_contradictions,
)
from followme.config.document import ConfigError, Section, read, validate
from followme.config.federation import MEMORY, BusField, DomainName
from followme.config.fields import FilePath, Name

PAGE = "docs/federation-hosts.md"
MIN_PASSWORD = 8


class MembershipSection(Section):
    """Who we are on the bus: ``host`` of ``domain``, proved by ``user`` and the password in ``password_file``."""

    domain: DomainName
    host: DomainName
    bus: BusField
    user: Name
    password_file: FilePath
    ca: FilePath | None = None


class HostMembershipSection(MembershipSection):
    """``network`` is the data centre's, as the controllers know it; by this name other agents know us, too."""

    network: Name


class HostMigrationSection(AgentMigrationSection):
    mode: Literal["live", "cold", "paper"] = "live"


class HostAgentConfig(SiteConfig):
    """A checked file of a host's agent."""

    federation: HostMembershipSection
    host: HypervisorSection
    migration: HostMigrationSection = HostMigrationSection()


class OperatorConfig(Section):
    """A checked file of an operator: who he is on the bus, and nothing else."""

    federation: MembershipSection


def load_operator(path: Path) -> OperatorConfig:
    """Read and check the file; ``ConfigError`` lists every mistake."""
    config = validate(OperatorConfig, read(path, "federation", PAGE), str(path), PAGE, secrets=True)
    problems = [f"{path}: {problem}" for problem in _memory(config.federation)]
    if problems:
        raise ConfigError(problems)
    return config


def load(path: Path) -> HostAgentConfig:
    """Read and check the file; ``ConfigError`` lists every mistake."""
    return check(read(path, "federation", PAGE), str(path))


def check(data: dict[str, Any], name: str) -> HostAgentConfig:
    """Check parsed data; ``name`` is the file's name in messages. ``ConfigError`` lists every mistake."""
    config = validate(HostAgentConfig, data, name, PAGE, secrets=True)
    problems = [f"{name}: {problem}" for problem in _contradictions(config)]
    if problems:
        raise ConfigError(problems)
    return config


def _contradictions(config: HostAgentConfig) -> Iterator[str]:
    yield from _memory(config.federation)
    ours = config.federation.network
    if ours in config.control.peers:
        yield f"control.peers.{ours}: that is this data centre itself"
    for name, peer in config.control.peers.items():
        if peer.role != "agent":
            yield f"control.peers.{name}.role: a host's agent has agents as peers; controllers ask over the bus"
    yield from machines_contradictions(config.machines, config.host)


def _memory(section: MembershipSection) -> Iterator[str]:
    if section.bus == MEMORY:
        yield f"federation.bus: {MEMORY} reaches nobody outside a controller's process; name a nats:// server"
