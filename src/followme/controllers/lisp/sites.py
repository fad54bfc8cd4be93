"""The controller's connections to the sites' agents: made, kept, made again; and what the agents tell of paths."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from followme.config.lisp import SiteSection
from followme.remote.channel import ChannelError
from followme.remote.client import Client, Refused, Stream
from followme.remote.keys import Key

log = logging.getLogger(__name__)

AGAIN_S = 1.0
"""How long after a connection was lost, or refused, the next is tried."""
ASK_S = 10.0

MakeSocket = Callable[[], socket.socket]
"""A new TCP socket to connect with, where that must be one of another network namespace."""


class Site:
    """One agent, under the name that this controller has among its peers."""

    def __init__(self, section: SiteSection, key: Key, name: str, make_socket: MakeSocket | None) -> None:
        self.section = section
        self.up = asyncio.Event()
        self.trouble = "not connected yet"
        self.delays: dict[str, float] = {}
        """One-way delay to each RLOC that the site's router probes, in seconds."""
        self._key, self._name, self._make_socket = key, name, make_socket
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """``ChannelError`` while there is no connection."""
        if self._client is None or self._client.lost.is_set():
            raise ChannelError(f"agent of {self.section.name}: {self.trouble}")
        return self._client

    async def call(self, method: str, params: Mapping[str, Any], timeout: float = ASK_S) -> Any:
        """As ``Client.call``; waits for a connection that is just being made."""
        await self.connected(timeout)
        return await self.client.call(method, params, timeout)

    async def connected(self, timeout: float = ASK_S) -> None:
        """Return when there is a connection, or ``timeout`` is over: the agent may just be starting."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.up.wait()

    def stream(self, method: str, params: Mapping[str, Any]) -> contextlib.AbstractAsyncContextManager[Stream]:
        """As ``Client.stream``."""
        return self.client.stream(method, params)

    async def keep(self, interval_s: float, watch: Mapping[str, str]) -> None:
        """Have a connection, for ever; ask what the router's probes say every ``interval_s``. ``watch`` has an
        EID prefix of each RLOC that it is to probe."""
        while True:
            try:
                await self._connect()
                await self._poll(interval_s, watch)
            except ChannelError as error:
                if not self.up.is_set():  # nobody answers there: what was measured is old by now
                    self.delays = {}
                self._say(error)
            finally:
                self.up.clear()
            await asyncio.sleep(AGAIN_S)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _connect(self) -> None:
        agent = self.section.agent
        sock = None
        if self._make_socket is not None:
            sock = self._make_socket()
            sock.setblocking(False)
            try:
                async with asyncio.timeout(ASK_S):
                    await asyncio.get_running_loop().sock_connect(sock, (str(agent.address), agent.port))
            except (OSError, TimeoutError) as error:
                sock.close()
                said = getattr(error, "strerror", None) or "no answer"
                raise ChannelError(f"{agent.address} port {agent.port}: {said}") from None
        self._client = await Client.connect(
            str(agent.address), agent.port, name=self._name, server=self.section.name, key=self._key, sock=sock
        )
        self.trouble = ""
        self.up.set()

    async def _poll(self, interval_s: float, watch: Mapping[str, str]) -> None:
        """Until the connection is lost: one on which nobody answers for a while may be carrying a machine."""
        client = self.client
        while not client.lost.is_set():
            try:
                found = await client.call("paths", {"watch": dict(watch)}, ASK_S)
                self.delays = _one_way(found)
                self.trouble = ""
            except Refused as error:
                log.warning("agent of %s tells nothing of its paths: %s", self.section.name, error)
                self.delays = {}
            except ChannelError as error:
                if client.lost.is_set():
                    raise
                self.delays = {}
                self._say(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.lost.wait(), interval_s)
        raise ChannelError(client.why or "the connection is lost")

    def _say(self, error: ChannelError) -> None:
        if str(error) != self.trouble:
            self.trouble = str(error)
            log.warning("agent of %s: %s", self.section.name, error)


def _one_way(found: Any) -> dict[str, float]:
    """Half of each round trip; ``ChannelError`` if they are none."""
    try:
        delays = {str(ip_address(rloc)): float(rtt) / 2 for rloc, rtt in found.items() if rtt is not None}
    except (AttributeError, TypeError, ValueError) as error:
        raise ChannelError(f"no round trips: {error}") from None
    if not all(0.0 <= delay < math.inf for delay in delays.values()):
        raise ChannelError("no round trips: a time that is none")
    return delays
