"""The bus over NATS: request and reply on ``fmc.<to>.<from>``, which the server lets only <from> publish.

Subjects, each a request's: ``fmc.<to>.<from>`` between domains; ``fmc.<domain>.host.<name>`` of a host to its
controller and ``fmc.<domain>.agent.<name>`` the other way. There are no queue groups: only the active instance of
a domain serves. What the server must refuse is written by ``nats_server``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg

from followme.system.seldom import Seldom

from .allowance import Allowance
from .bus import BusError, Handler, check_name, check_payload
from .nats_connection import NatsAccess, NatsConnection

log = logging.getLogger(__name__)

MAX_SERVING, MAX_SERVING_ONE = 1024, 256
"""Requests that are being answered at once, and those of one sender; more are dropped, and come again."""
REQUESTS_S = 2000.0
"""Requests of one sender in a second, and twice that at once; an outbox has four under way."""


def inbox_of(domain: str, host: str | None = None) -> str:
    """Where answers to a domain's controllers, or to a host of it, come to."""
    return f"_INBOX_{domain}" if host is None else f"_INBOX_{domain}_HOST_{host}"


class _Serving:
    """Runs handlers, each in a task of its own, and sends what they return."""

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._tasks: set[asyncio.Task[None]] = set()
        self._serving: Counter[str] = Counter()
        self._allowance = Allowance(REQUESTS_S, 2 * REQUESTS_S)
        self._seldom = Seldom(log)
        self.dropped = 0

    def receive(self, handler: Handler) -> Callable[[Msg], Awaitable[None]]:
        async def received(message: Msg) -> None:
            subject, now = message.subject, time.monotonic()
            if self._too_many(subject, now):
                self.dropped += 1
                if self._seldom.due(("dropped", subject), now):
                    log.warning("%s: more requests than one may send; %d were dropped", subject, self.dropped)
                return
            self._allowance.charge(subject, 1, now)
            self._serving[subject] += 1
            task = asyncio.ensure_future(self._answer(handler, subject.rpartition(".")[2], message))
            self._tasks.add(task)
            task.add_done_callback(lambda task: self._served(subject, task))

        return received

    def _too_many(self, subject: str, now: float) -> bool:
        if len(self._tasks) >= MAX_SERVING or self._serving[subject] >= MAX_SERVING_ONE:
            return True
        return not self._allowance.has(subject, now)

    def _served(self, subject: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._serving[subject] -= 1
        if self._serving[subject] <= 0:
            del self._serving[subject]

    async def _answer(self, handler: Handler, sender: str, message: Msg) -> None:
        try:
            answer = await handler(sender, message.data)
            check_payload(answer, f"answer to {sender}")
            if message.reply:
                await self._connection.publish(message.reply, answer)
        except BusError as error:
            if self._seldom.due((sender, "lost"), time.monotonic()):
                log.warning("an answer to %s is lost: %s", sender, error)
        except Exception:
            if self._seldom.due((sender, "failed"), time.monotonic()):
                log.exception("a request of %s is not answered", sender)

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()


class NatsBus:
    """A controller instance's end: a ``Bus`` over a connection (which may also carry the domain's buckets)."""

    def __init__(self, connection: NatsConnection, domain: str) -> None:
        self.connection = connection
        self._domain = check_name(domain)
        self._serving = _Serving(connection)

    @classmethod
    async def open(cls, access: NatsAccess, domain: str, instance: str, timeout: float = 5.0) -> NatsBus:
        """``Unreachable`` naming the servers, if none lets us in within ``timeout`` seconds."""
        check_name(domain)
        return cls(await NatsConnection.open(access, f"{domain}/{instance}", inbox_of(domain), timeout), domain)

    @property
    def domain(self) -> str:
        return self._domain

    @property
    def dropped(self) -> int:
        """Requests that were dropped because too many were being answered."""
        return self._serving.dropped

    async def request(self, to: str, payload: bytes, timeout: float) -> bytes:
        return await self._request(f"fmc.{check_name(to)}.{self._domain}", payload, timeout)

    async def request_host(self, host: str, payload: bytes, timeout: float) -> bytes:
        return await self._request(f"fmc.{self._domain}.agent.{check_name(host)}", payload, timeout)

    async def _request(self, subject: str, payload: bytes, timeout: float) -> bytes:
        check_payload(payload, subject)
        return (await self.connection.request(subject, payload, timeout)).data

    async def serve(self, handler: Handler) -> None:
        await self.connection.subscribe(f"fmc.{self._domain}.*", self._serving.receive(handler))

    async def serve_hosts(self, handler: Handler) -> None:
        await self.connection.subscribe(f"fmc.{self._domain}.host.*", self._serving.receive(handler))

    async def pause(self) -> None:
        await self.connection.unsubscribe(f"fmc.{self._domain}.*")
        await self.connection.unsubscribe(f"fmc.{self._domain}.host.*")
        self._serving.stop()

    async def close(self) -> None:
        self._serving.stop()
        await self.connection.close()


class NatsHostBus:
    """A host agent's end: a ``HostBus``."""

    def __init__(self, connection: NatsConnection, domain: str, host: str) -> None:
        self.connection = connection
        self._domain = check_name(domain)
        self._host = check_name(host)
        self._serving = _Serving(connection)

    @classmethod
    async def open(cls, access: NatsAccess, domain: str, host: str, timeout: float = 5.0) -> NatsHostBus:
        """``Unreachable`` naming the servers, if none lets us in within ``timeout`` seconds."""
        inbox = inbox_of(check_name(domain), check_name(host))
        return cls(await NatsConnection.open(access, f"{domain}/host/{host}", inbox, timeout), domain, host)

    @property
    def domain(self) -> str:
        return self._domain

    @property
    def host(self) -> str:
        return self._host

    async def request(self, payload: bytes, timeout: float) -> bytes:
        subject = f"fmc.{self._domain}.host.{self._host}"
        check_payload(payload, subject)
        return (await self.connection.request(subject, payload, timeout)).data

    async def serve(self, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        subject = f"fmc.{self._domain}.agent.{self._host}"
        await self.connection.subscribe(subject, self._serving.receive(lambda _, payload: handler(payload)))

    async def close(self) -> None:
        self._serving.stop()
        await self.connection.close()
