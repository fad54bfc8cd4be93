"""What a migration needs of the machine's new QEMU, whether its host is ours or another agent's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from followme.migration.host import MachineSpec, MigrationError
from followme.migration.monitor import Events


class Unreachable(MigrationError):
    """The target's host cannot be asked: what its copy of the machine does is not known."""


class Place(Protocol):
    """The target's host: its name, and where it listens for machines that are carried to it."""

    @property
    def name(self) -> str: ...
    @property
    def management_address(self) -> str: ...


class Target(Protocol):
    """An empty QEMU that waits for a machine, and then has it.

    All methods raise ``MigrationError``: ``Unreachable`` where it is not known whether it was done.
    ``ended`` is set once the process has ended, or nothing is heard of it any more; ``complaint`` says which.
    """

    @property
    def who(self) -> str: ...
    @property
    def host(self) -> Place: ...
    @property
    def monitor(self) -> Events: ...
    @property
    def ended(self) -> asyncio.Event: ...
    @property
    def complaint(self) -> str: ...

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None,
                      timeout: float = 10.0) -> Any:
        """A QMP command's result."""

    async def run_when_loaded(self, timeout: float) -> None:
        """Wait, at most ``timeout`` seconds, until the machine is whole here, and run it at once."""

    async def send_back(self) -> int:
        """End the process; what waits for the machine here, and what still comes, goes back out of the uplink.
        The number of frames that waited."""

    async def stop_process(self) -> None:
        """Return when the process has ended; its traffic stays as it is."""

    async def forget(self) -> None:
        """``kill`` it, and have the host forget the machine's traffic too."""

    async def kill(self) -> None:
        """End the process and remove its tap. Harmless if that has happened."""


TargetFactory = Callable[[MachineSpec], Awaitable[Target]]
"""Starts an empty QEMU that waits for the machine."""
