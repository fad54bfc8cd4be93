"""What a site's machines want done in its network when they come and go."""

from __future__ import annotations

from typing import Protocol

from followme.domain import Migration
from followme.migration.host import MachineSpec
from followme.migration.mover import Hooks
from followme.migration.recovery import Verdict
from followme.remote.client import Client


class Network(Protocol):
    """The site's router, or its domain's controller."""

    def hooks(self, migration: Migration, spec: MachineSpec, client: Client) -> Hooks:
        """For one migration from here; ``client`` is the connection to the target's agent."""

    async def settled(self, migration: Migration, spec: MachineSpec, verdict: Verdict) -> None:
        """After a crash: traffic goes where the machine runs (``LOST``: nowhere). Late frames bounce until this
        returns; called again if it fails."""

    def here(self, spec: MachineSpec) -> None:
        """It runs here, and is this site's."""

    def gone(self, spec: MachineSpec) -> None:
        """It does not run here any more, or was expected here and will never come."""
