"""What the files of all agents have: peers, the hypervisor, the machines at home there."""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from followme.config.document import Entry, Section, twice
from followme.config.fields import Address, FilePath, IpField, ListenPort, MacField, Name, Number, PortNumber
from followme.domain import mac_text

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
    """A machine at home here; ``address`` is its identifier (its EID)."""

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


class SiteConfig(Section):
    """What the files of all agents say."""

    control: ControlSection = ControlSection()
    machines: tuple[AgentMachineSection, ...] = ()
    migration: AgentMigrationSection = AgentMigrationSection()
    store: FilePath = Path("followme-agent.db")


def machines_contradictions(
    machines: Sequence[AgentMachineSection], host: HypervisorSection | None
) -> Iterator[str]:
    """What stands twice, and images that no other host could send back."""
    directories = () if host is None else host.images
    for index, directory in enumerate(directories):
        if not directory.is_absolute():
            yield f"host.images[{index}]: {directory} is relative; write the path from / on"
    yield from twice(_entries(machines))
    for index, machine in enumerate(machines):
        key = f"machines[{index}]"
        for what, image in (("kernel", machine.kernel), ("initrd", machine.initrd)):
            if directories and not any(_below(image, directory) for directory in directories):
                yield f"{key}.{what}: {image} is in none of host.images, so it could not come back here"


def _entries(machines: Sequence[AgentMachineSection]) -> Iterator[Entry]:
    """What must not stand twice."""
    for index, machine in enumerate(machines):
        yield "name", machine.name, f"machines[{index}].name"
        yield "mac", mac_text(machine.mac), f"machines[{index}].mac"
        yield "address", machine.address, f"machines[{index}].address"


def _below(path: Path, directory: Path) -> bool:
    return Path(os.path.normpath(path)).is_relative_to(os.path.normpath(directory))
