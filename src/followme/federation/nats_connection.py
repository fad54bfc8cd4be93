"""One connection to a NATS server or cluster that never gives up, and errors that name the server.

nats-py reconnects by itself; what it does not survive (a server that says -ERR, as when its users changed) is
survived here with a new client. Nothing is buffered while the server is away: what cannot leave now is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from .bus import NoAnswer, TooLarge, Unreachable

log = logging.getLogger(__name__)

PING_INTERVAL_S, PINGS_LOST = 1, 2
"""A server that is silent for three seconds is taken for gone, and the next one of the cluster is tried."""
RECONNECT_WAIT_S = 0.1
MAX_PENDING_MSGS, MAX_PENDING_BYTES = 4096, 64 << 20
"""Of what came in and is not dealt with yet, for each subscription; the rest is dropped."""

Receive = Callable[[Msg], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class NatsAccess:
    """How to reach the bus and be let in: a user and password, or an nkey seed file, each with or without TLS.

    ``servers``: ``nats://host:port`` or ``tls://host:port`` of all nodes of the cluster. ``ca`` is the file of
    the authority that signed the servers' certificates; ``certificate`` and ``key`` are our own, if they ask.
    """

    servers: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    nkey_seed: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def options(self) -> dict[str, Any]:
        """What nats-py takes; ``OSError`` or ``ValueError`` naming a file that cannot be used."""
        found: dict[str, Any] = {"servers": list(self.servers)}
        if self.user:
            found |= {"user": self.user, "password": self.password}
        if self.nkey_seed is not None:
            found["nkeys_seed_str"] = self.nkey_seed.read_text().strip()
        if self.ca is not None or any(server.startswith("tls:") for server in self.servers):
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
            found["tls"] = context
        return found


class NatsConnection:
    """Made by ``open``. Subscriptions made here outlive any interruption."""

    def __init__(self, access: NatsAccess, name: str, inbox: str) -> None:
        self._access = access
        self._name = name
        self.inbox = inbox
        """All that is answered to us comes to subjects that begin so; no other user may listen there."""
        self._client = Client()
        self._subscriptions: dict[str, tuple[Receive, Subscription]] = {}
        self._lost: list[Callable[[], None]] = []
        self._back: list[Callable[[], None]] = []
        self._reopening: asyncio.Task[None] | None = None
        self._closed = False
        self._error = ""

    @classmethod
    async def open(cls, access: NatsAccess, name: str, inbox: str, timeout: float = 5.0) -> NatsConnection:
        """``Unreachable`` naming the servers and the last reason, if none lets us in within ``timeout`` s."""
        connection = cls(access, name, inbox)
        try:
            async with asyncio.timeout(timeout):
                await connection._connect()
        except TimeoutError:
            why = connection._error or f"no answer within {timeout:g} s"
            await connection.close()
            raise Unreachable(f"NATS {connection.server}: {why}") from None
        return connection

    @property
    def server(self) -> str:
        """The server that we are connected to, or all that we try."""
        url = self._client.connected_url
        return ", ".join(self._access.servers) if url is None else f"nats://{url.hostname}:{url.port}"

    @property
    def connected(self) -> bool:
        return self._client.is_connected

    def on_lost(self, call: Callable[[], None]) -> None:
        """Call it whenever the connection breaks: answers that were awaited will not come."""
        self._lost.append(call)

    def on_back(self, call: Callable[[], None]) -> None:
        """Call it whenever a connection stands again, with all subscriptions."""
        self._back.append(call)

    async def _connect(self) -> None:
        client = Client()
        # It is a plain number for nats-py, which says that it must be whole.
        options = self._access.options() | {"reconnect_time_wait": RECONNECT_WAIT_S}

        async def on_error(error: Exception) -> None:
            self._error = str(error) or type(error).__name__
            log.debug("NATS %s: %s", self.server, self._error)

        async def on_disconnected() -> None:
            if client is self._client:
                for call in self._lost:
                    call()

        async def on_reconnected() -> None:
            if client is self._client:
                log.info("connected to NATS %s again", self.server)
                for call in self._back:
                    call()

        async def on_closed() -> None:
            if client is self._client and not self._closed:
                self._reopening = asyncio.ensure_future(self._reopen())

        while True:
            try:
                await client.connect(
                    **options, name=self._name, inbox_prefix=self.inbox, error_cb=on_error,
                    disconnected_cb=on_disconnected, reconnected_cb=on_reconnected, closed_cb=on_closed,
                    ping_interval=PING_INTERVAL_S, max_outstanding_pings=PINGS_LOST, connect_timeout=1,
                    max_reconnect_attempts=-1, pending_size=0,
                    skip_subject_validation=True,  # names and keys are checked before they become subjects
                )  # fmt: skip
                break
            except (nats.errors.Error, OSError) as error:
                self._error = str(error) or type(error).__name__
                await asyncio.sleep(RECONNECT_WAIT_S)
            except asyncio.CancelledError:
                with contextlib.suppress(nats.errors.Error, OSError):
                    await client.close()
                raise
        self._client = client

    async def _reopen(self) -> None:
        log.warning("NATS %s has ended our connection (%s): opening another", self.server, self._error)
        await self._connect()
        for subject, (receive, _) in list(self._subscriptions.items()):
            await self._subscribe(subject, receive)
        for call in self._back:
            call()

    async def subscribe(self, subject: str, receive: Receive) -> None:
        """From now on, over every interruption. Each message is awaited before the next of this subject."""
        await self.unsubscribe(subject)
        await self._subscribe(subject, receive)

    async def _subscribe(self, subject: str, receive: Receive) -> None:
        try:
            made = await self._client.subscribe(
                subject, cb=receive, pending_msgs_limit=MAX_PENDING_MSGS, pending_bytes_limit=MAX_PENDING_BYTES
            )
            self._subscriptions[subject] = receive, made
        except nats.errors.Error as error:
            raise Unreachable(f"NATS {self.server}: cannot subscribe to {subject}: {error}") from None

    async def unsubscribe(self, subject: str) -> None:
        held = self._subscriptions.pop(subject, None)
        if held is not None:
            with contextlib.suppress(nats.errors.Error):
                await held[1].unsubscribe()

    async def publish(
        self, subject: str, payload: bytes, reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """``Unreachable`` if there is no server now. That it left does not say that it arrived."""
        try:
            await self._client.publish(subject, payload, reply, headers)
        except nats.errors.MaxPayloadError:
            raise TooLarge(f"NATS {self.server}: {len(payload)} bytes for {subject} are too many") from None
        except nats.errors.Error as error:
            raise Unreachable(f"NATS {self.server} is away ({self._error or error}): {subject}") from None

    async def request(
        self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None = None
    ) -> Msg:
        """``NoAnswer``, ``Unreachable`` (nobody listens there, or no server), ``TooLarge``."""
        task = asyncio.current_task()
        cancelled = task.cancelling() if task is not None else 0
        try:
            answer: Msg = await self._client.request(subject, payload, timeout=timeout, headers=headers)
            if task is not None and task.cancelling() > cancelled:
                raise asyncio.CancelledError  # before Python 3.12 wait_for loses it if an answer comes too
            return answer
        except nats.errors.NoRespondersError:
            raise Unreachable(f"NATS {self.server}: nobody serves {subject} now") from None
        except nats.errors.TimeoutError:
            why = f" ({self._error})" if "ermission" in self._error and subject in self._error else ""
            raise NoAnswer(f"NATS {self.server}: {subject}: no answer within {timeout:g} s{why}") from None
        except nats.errors.MaxPayloadError:
            raise TooLarge(f"NATS {self.server}: {len(payload)} bytes for {subject} are too many") from None
        except nats.errors.Error as error:
            raise Unreachable(f"NATS {self.server} is away ({self._error or error}): {subject}") from None

    async def flush(self, timeout: float = 2.0) -> None:
        """Until the server has had all that was sent; ``NoAnswer``."""
        try:
            async with asyncio.timeout(timeout):
                await self._client.flush()
        except (nats.errors.Error, TimeoutError) as error:
            raise NoAnswer(f"NATS {self.server}: {error or 'no answer'}") from None

    async def close(self) -> None:
        self._closed = True
        if self._reopening is not None:
            self._reopening.cancel()
        if self._client.is_closed or not self._client.servers:  # it never was connected
            return
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._client.close()
