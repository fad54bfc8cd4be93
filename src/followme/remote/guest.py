"""A QEMU that waits for a machine from elsewhere, and what a QEMU does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from followme.migration.host import MachineSpec, MigrationError
from followme.migration.qemu import Qemu
from followme.migration.recovery import CopyStatus, copy_status

_ENDING_S = 1.0


@dataclass(slots=True)
class Guest:
    """A copy that a peer carries here, in the migration of that id; ``qemu`` is None once it has been removed.
    With ``trouble`` nobody knows what its process does."""

    spec: MachineSpec
    peer: str
    migration: str
    qemu: Qemu | None = None
    users: int = 0
    expiry: asyncio.TimerHandle | None = None
    trouble: str = ""


async def asked(qemu: Qemu) -> CopyStatus:
    """What the QEMU does; ``MigrationError`` if that cannot be known."""
    try:
        return CopyStatus.GONE if qemu.ended.is_set() else copy_status(await qemu.status())
    except MigrationError:
        # One whose stream was cut is just ending: then it is gone in a moment.
        try:
            await asyncio.wait_for(qemu.ended.wait(), _ENDING_S)
        except TimeoutError:
            pass
        else:
            return CopyStatus.GONE
        raise
