"""What the tunnel routers do at a migration's moments (``mover.Hooks``), asked for by the source's agent."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv4Address, IPv6Address, ip_address

from followme.migration.host import MigrationError
from followme.remote.client import Client
from followme.xtr.router import RouterError, TunnelRouter

log = logging.getLogger(__name__)

ASK_S = 10.0
MAX_TALKS_TO = 256
LATE_S = 0.25
"""How long packets on the old way are waited for. They come from this site's own LAN only: all others are routed
by this router, which knows the new way since the flip."""


class LiveHooks:
    """Make before break: the target is ready and the source armed before the machine pauses; the flip is local."""

    def __init__(
        self, router: TunnelRouter, client: Client, ours: IPv4Address | IPv6Address, migration: str, machine: str,
        eid: IPv4Address, mac: bytes,
    ) -> None:  # fmt: skip
        self._router, self._client = router, client
        self._eid, self._mac = eid, mac
        self._ask = {"migration": migration, "machine": machine, "eid": str(eid), "mac": mac.hex(":"),
                     "rloc": str(ours)}
        self._target: IPv4Address | IPv6Address | None = None
        self._flipped = self._told = False

    async def prepare(self) -> None:
        talks_to = [str(prefix) for prefix in self._router.talks_to()[:MAX_TALKS_TO]]
        answer = await self._client.call("expect", {**self._ask, "talks_to": talks_to}, ASK_S)
        self._target = ip_address(answer["rloc"])
        try:
            await self._router.arm(self._eid, self._mac, self._target)
        except RouterError as error:  # one that could not be written is refused too
            raise MigrationError(f"{self._ask['machine']} cannot leave: {error}") from None

    async def flip(self) -> None:
        if self._target is None:
            raise RuntimeError(f"{self._eid} is switched before the target was prepared")
        if not self._flipped:
            self._router.switch(self._eid, self._target)
            self._flipped = True
        await self._client.call("arrived", self._ask, ASK_S)
        self._told = True
        # Those who have subscribed hear of it from the map server; the others ask it when they are solicited.
        self._router.smr(self._eid)

    async def commit(self) -> None:
        if not self._told:
            await self.flip()

    async def release(self) -> None:
        await asyncio.sleep(LATE_S)
        await self._router.release(self._eid)

    async def rollback(self, reason: str) -> None:
        if self._target is None:
            return
        if self._flipped:
            self._router.claim(self._eid, self._mac)
        else:
            await self._router.disarm(self._eid)
        # After ours: what waits there is sent here from now on.
        await self._client.call("back" if self._flipped else "unexpect", self._ask, ASK_S)

    async def drained(self) -> None:
        await asyncio.sleep(LATE_S)
        await self._router.disarm(self._eid)
        await self._client.call("unexpect", self._ask, ASK_S)


class PaperHooks:
    """The papers' order (figure 3 of the LISP paper): nothing is told before the machine runs at the target; then
    the controller tells both routers. What is sent meanwhile is lost."""

    async def prepare(self) -> None:
        """Nothing."""

    async def flip(self) -> None:
        """Nothing."""

    async def commit(self) -> None:
        """Nothing."""

    async def release(self) -> None:
        """Nothing."""

    async def rollback(self, reason: str) -> None:
        """Nothing."""

    async def drained(self) -> None:
        """Nothing."""
