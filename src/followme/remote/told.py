"""What a migration tells whoever ordered it: each an object with ``event``, ``id``, ``machine``, ``source``,
``target`` and ``at`` (seconds of our clock), and

    planned, prepared, transferring, switched, released    the saga's states
    progress      sent_bytes, remaining_bytes, passes, rate_bytes_s
    flipped       traffic has turned
    resumed       it runs at the target: mode, pause_s, total_s, held_s, bytes, passes, bounced,
                  resumed_at (see ``Result``)
    failed        reason
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from followme.domain import Migration, MigrationState
from followme.migration.mover import Hooks, MachineMover
from followme.migration.transfer import TransferProgress

log = logging.getLogger(__name__)


class Told:
    """The hooks of a migration, with somebody who is told of its moments."""

    def __init__(self, hooks: Hooks, migration: Migration, tell: Callable[[dict[str, Any]], None] | None) -> None:
        self.mover: MachineMover | None = None
        self._hooks, self._migration, self._tell = hooks, migration, tell
        self._resumed = False

    def _say(self, event: str, **numbers: object) -> None:
        if self._tell is None:
            return
        now = self._migration
        try:
            self._tell({"event": event, "id": now.id, "machine": now.machine, "source": now.source,
                        "target": now.target, "at": time.time(), **numbers})
        except Exception as error:
            # Whoever listens must not disturb a machine that is under way.
            log.warning("migration %s: its listener failed, and is told no more: %s", now.id, error)
            self._tell = None

    def state(self, migration: Migration) -> None:
        """The saga has reached (and recorded) this state."""
        failed = migration.state is MigrationState.FAILED
        self._say(migration.state.value, **({"reason": str(migration.detail.get("reason", ""))} if failed else {}))

    def progress(self, progress: TransferProgress) -> None:
        self._say("progress", **asdict(progress))

    async def prepare(self) -> None:
        await self._hooks.prepare()

    async def flip(self) -> None:
        self._say("flipped")
        await self._hooks.flip()

    async def commit(self) -> None:
        if not self._resumed and self.mover is not None and self.mover.result is not None:
            self._resumed = True
            self._say("resumed", **asdict(self.mover.result))
        await self._hooks.commit()

    async def release(self) -> None:
        await self._hooks.release()

    async def rollback(self, reason: str) -> None:
        await self._hooks.rollback(reason)

    async def drained(self) -> None:
        await self._hooks.drained()
