"""What the controller's two files, for switches and for LISP sites, have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from followme.config.document import Entry, Section
from followme.config.fields import Address, MacField, Name, NumberOrText
from followme.config.placement import NeedsSection
from followme.domain import Service

MigrationMode = Literal["live", "cold", "paper"]


class MachineSection(Section):
    """A machine; ``memory_mib`` is what carrying it is expected to cost."""

    name: Name
    home: Name
    mac: MacField
    address: Address
    memory_mib: Annotated[int, Field(strict=True, ge=32, le=1 << 20)] = 256


class ServiceSection(Section):
    name: Name
    user: Name
    machine: Name
    needs: NeedsSection | None = None

    def service(self) -> Service:
        return Service(self.name, self.user, self.machine)


class PolicySection(Section):
    name: Literal["always", "never", "threshold", "myopic", "mdp", "stay-or-go", "learned"] = "mdp"
    parameters: dict[str, NumberOrText] = Field(default_factory=dict)


def service_entries(services: Sequence[ServiceSection]) -> Iterator[Entry]:
    """What must not stand twice (``document.twice``): a service's name, and its machine."""
    for index, service in enumerate(services):
        yield "service name", service.name, f"services[{index}].name"
        yield "service of machine", service.machine, f"services[{index}].machine"


def service_problems(
    services: Sequence[ServiceSection], users: Collection[str], machines: Collection[str]
) -> Iterator[str]:
    """A line for each end of a service that is none of the ``users`` and ``machines``."""
    for index, service in enumerate(services):
        if service.machine not in machines:
            yield f"services[{index}].machine: {service.machine!r} is not the name of a machine"
        if service.user not in users:
            yield f"services[{index}].user: {service.user!r} is not the name of a user"
