"""What the domains do at a migration's moments (``mover.Hooks``), asked for by the source's agent.

The flip itself is the source host's: no round trip to any controller lies in it. Before it, all who know the
machine have confirmed both its places, so wherever they send, it arrives.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from ipaddress import IPv4Address

from followme.domain import Migration
from followme.federation.engine import FederationError
from followme.federation.hosts import HostClient
from followme.migration.host import MigrationError
from followme.remote.client import Client

log = logging.getLogger(__name__)

ASK_S = 10.0
PREPARE_S = 30.0
"""How long domains may take to be ready: an order or two each, and a controller may be taking over meanwhile."""
LATE_S = 1.0
"""How long, after a flip that was taken back, senders are given to be told so; frames bounce until then."""


class FederatedHooks:
    """One migration's. ``ask`` is what the target's agent is told of the machine, over ``client``."""

    def __init__(
        self, controller: HostClient, client: Client, identifier: IPv4Address, migration: Migration,
        ask: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._controller, self._client, self._ask = controller, client, dict(ask)
        self._identifier, self._id = identifier, migration.id
        self._machine, self._target = migration.machine, migration.target
        self._asked = self._told = False

    async def prepare(self) -> None:
        await self._client.call("expect", self._ask, ASK_S)
        self._asked = True
        try:
            await self._controller.prepare(self._identifier, self._target, self._id, PREPARE_S)
        except FederationError as error:
            raise MigrationError(f"{self._machine} cannot go to {self._target}: {error}") from None

    async def flip(self) -> None:
        await self._controller.flipped(self._identifier, self._id)
        self._told = True

    async def commit(self) -> None:
        if not self._told:
            await self._for_good(self.flip())
            self._told = True

    async def release(self) -> None:
        """The controller answers when the old way is quiet."""
        await self._for_good(self._controller.released(self._identifier, self._id))

    async def rollback(self, reason: str) -> None:
        if self._asked:
            log.info("%s stays (%s): %s", self._machine, self._id, reason)
            await self._for_good(self._controller.aborted(self._identifier, self._id))

    async def drained(self) -> None:
        await asyncio.sleep(LATE_S)

    async def _for_good(self, word: Awaitable[None]) -> None:
        """A word that is refused for good cannot be made right from here: whoever has the machine says so."""
        try:
            await word
        except FederationError as error:
            log.error("%s: %s", self._machine, error)
