"""What both kinds of ``remote.network.Network`` rest on: whose identifier is whose, and work in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from followme.domain import Node, NodeKind
from followme.migration.host import MigrationError
from followme.remote.network import Network
from followme.store import Store

log = logging.getLogger(__name__)


class MachinesNetwork(Network):
    """Of ``site``'s machines. ``store`` keeps who has ever been here."""

    def __init__(self, site: str, store: Store) -> None:
        self.site = site
        self._store = store
        self._identifiers: dict[str, IPv4Address] = {node.name: node.identifier for node in store.nodes()}
        self._tasks: set[asyncio.Task[None]] = set()
        self.held: Callable[[str], bool] = lambda machine: False
        """Whether it runs here, or is being carried from here, or that is being settled."""
        self.carried: Callable[[str, str, str], bool] = lambda machine, peer, migration: True
        """Whether a guest of that name waits here, carried by that peer in the migration of that id."""

    def know(self, machine: str, identifier: IPv4Address, mac: bytes) -> None:
        """A machine's identifier; kept in the store, for a machine from elsewhere is in no file of ours."""
        node = Node(machine, NodeKind.MACHINE, mac, identifier, identifier, self.site)
        if node not in self._store.nodes():
            self._store.put_node(node)
        self._identifiers[machine] = identifier

    def identifier(self, machine: str) -> IPv4Address:
        """``MigrationError`` if nobody told."""
        try:
            return self._identifiers[machine]
        except KeyError:
            raise MigrationError(f"{self.site} does not know the identifier of {machine}") from None

    def _holder(self, identifier: IPv4Address | IPv6Address) -> str | None:
        """The machine at this site that has the identifier."""
        return next((name for name, known in self._identifiers.items() if known == identifier and self.held(name)),
                    None)  # fmt: skip

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            with contextlib.suppress(asyncio.CancelledError):
                if (error := task.exception()) is not None:
                    log.error("for the machines of %s: %s", self.site, error)

        task.add_done_callback(done)
        return task
