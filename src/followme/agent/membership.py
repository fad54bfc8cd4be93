"""A host's, or an operator's, connection to its domain's bus."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from followme.agent.host_config import MIN_PASSWORD, MembershipSection
from followme.agent.parts import AgentError
from followme.config.keys import KeyFileError, read_key
from followme.federation.bus import HostBus, Unreachable
from followme.federation.nats import NatsHostBus
from followme.federation.nats_connection import NatsAccess

log = logging.getLogger(__name__)

OPEN_S = 5.0
AGAIN_S = 1.0


def access_of(section: MembershipSection) -> NatsAccess:
    """``AgentError`` where the password cannot be read."""
    try:
        password = read_key(section.password_file, MIN_PASSWORD).decode()
    except (KeyFileError, UnicodeDecodeError) as error:
        raise AgentError(f"federation.password_file: {error}") from None
    servers = tuple(server.strip() for server in section.bus.split(","))
    return NatsAccess(servers, section.user, password, ca=section.ca)


class LateHostBus:
    """A ``HostBus`` that is there at once, and connected as soon as its server is: machines start without it."""

    def __init__(self, section: MembershipSection, access: NatsAccess) -> None:
        self.domain, self.host = section.domain, section.host
        self._access = access
        self._bus: HostBus | None = None
        self._handler: Callable[[bytes], Awaitable[bytes]] | None = None
        self._why = "not connected yet"
        self._opening = asyncio.create_task(self._open(), name="bus")

    async def _open(self) -> None:
        while True:
            try:
                bus = await NatsHostBus.open(self._access, self.domain, self.host, OPEN_S)
                if self._handler is None:
                    break
                try:
                    await bus.serve(self._handler)
                    break
                except Unreachable:
                    await bus.close()
                    await asyncio.sleep(AGAIN_S)
                    raise
            except Unreachable as error:
                if str(error) != self._why:
                    log.warning("the bus is not reached, and tried again: %s", error)
                self._why = str(error)
        self._bus = bus
        log.info("on the bus as host %s of %s", self.host, self.domain)

    async def opened(self) -> None:
        """Until it is connected."""
        await asyncio.shield(self._opening)

    async def request(self, payload: bytes, timeout: float) -> bytes:
        """As ``HostBus``; ``Unreachable`` at once while it is not connected."""
        if self._bus is None:
            raise Unreachable(self._why)
        return await self._bus.request(payload, timeout)

    async def serve(self, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._handler = handler
        if self._bus is not None:
            await self._bus.serve(handler)

    async def close(self) -> None:
        self._opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._opening
        if self._bus is not None:
            await self._bus.close()
