"""The bus within one process: the default without a server, and the tests' bus, which can be made to fail.

It is as unreliable as a test wants: ``cut`` takes one end away, ``part`` two domains from each other, ``delay``
and ``loss`` hold for each way of each request. Nothing is delivered before the caller has let go of the loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .bus import BusError, Handler, NoAnswer, Unreachable, check_name, check_payload

log = logging.getLogger(__name__)

_Answerer = Callable[[bytes], Awaitable[bytes]]
_Find = Callable[[], list[_Answerer]]


@dataclass
class MemoryHub:
    """What stands between the ends. ``delay`` in seconds each way, ``loss`` from 0 to 1 each way."""

    delay: float = 0.0
    loss: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    requests: int = 0
    """How many requests were asked, delivered or not."""
    _parted: set[frozenset[str]] = field(default_factory=set)
    _domains: dict[str, list[MemoryBus]] = field(default_factory=dict)
    _hosts: dict[tuple[str, str], MemoryHostBus] = field(default_factory=dict)

    def bus(self, domain: str) -> MemoryBus:
        """A controller instance's end. There may be several of a domain; those that serve are all asked."""
        end = MemoryBus(self, check_name(domain))
        self._domains.setdefault(domain, []).append(end)
        return end

    def host_bus(self, domain: str, host: str) -> MemoryHostBus:
        end = MemoryHostBus(self, check_name(domain), check_name(host))
        self._hosts[domain, host] = end
        return end

    def part(self, one: str, other: str) -> None:
        """No request passes between two domains until ``join``."""
        self._parted.add(frozenset((one, other)))

    def join(self) -> None:
        """All domains reach each other again; ends that are ``cut`` stay so."""
        self._parted.clear()

    def instances(self, domain: str) -> list[MemoryBus]:
        return [end for end in self._domains.get(domain, ()) if not end.cut]

    def host(self, domain: str, host: str) -> MemoryHostBus | None:
        end = self._hosts.get((domain, host))
        return None if end is None or end.cut else end

    def forget(self, end: MemoryBus | MemoryHostBus) -> None:
        if isinstance(end, MemoryBus):
            self._domains[end.domain].remove(end)
        elif self._hosts.get((end.domain, end.host)) is end:
            del self._hosts[end.domain, end.host]

    def apart(self, one: str, other: str) -> bool:
        return frozenset((one, other)) in self._parted

    async def carry(
        self, what: str, payload: bytes, timeout: float, find: _Find, lost: Callable[[], bool]
    ) -> bytes:
        """Ask all that ``find`` finds; the first answer. ``lost`` says, at each way, whether the way is cut."""
        check_payload(payload, what)
        self.requests += 1
        await asyncio.sleep(0)
        if not lost() and not find():
            raise Unreachable(f"{what}: nobody serves it")
        tasks: list[asyncio.Task[bytes | None]] = []

        async def ask() -> bytes:
            await self._way(lost)
            tasks.extend(asyncio.create_task(_quietly(answerer, payload)) for answerer in find())
            for done in asyncio.as_completed(tasks):
                answer = await done
                if answer is not None:
                    await self._way(lost)
                    check_payload(answer, what)
                    return answer
            return await _never()

        try:
            async with asyncio.timeout(timeout):
                return await ask()
        except TimeoutError:
            raise NoAnswer(f"{what}: no answer within {timeout:g} s") from None

    async def _way(self, lost: Callable[[], bool]) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
        if lost() or (self.loss and self.chance.random() < self.loss):
            await _never()


async def _never() -> bytes:
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    return await future


async def _quietly(answerer: _Answerer, payload: bytes) -> bytes | None:
    try:
        return await answerer(payload)
    except BusError as error:
        log.debug("a request is not answered: %s", error)
        return None
    except asyncio.CancelledError:  # its end was paused
        return None
    except Exception:  # as over a network: the asker learns nothing of it, and waits in vain
        log.exception("a request is not answered")
        return None


class MemoryBus:
    """A controller instance's end: a ``Bus``. ``cut`` makes it deaf and dumb, its handler is not told."""

    def __init__(self, hub: MemoryHub, domain: str) -> None:
        self._hub = hub
        self._domain = domain
        self._handler: Handler | None = None
        self._host_handler: Handler | None = None
        self._serving: set[asyncio.Task[object]] = set()
        self.cut = False

    @property
    def domain(self) -> str:
        return self._domain

    async def request(self, to: str, payload: bytes, timeout: float) -> bytes:
        def find() -> list[_Answerer]:
            ends = self._hub.instances(to)
            return [end._bound(end._handler, self._domain) for end in ends if end._handler is not None]

        def lost() -> bool:
            return self.cut or self._hub.apart(self._domain, to)

        return await self._hub.carry(f"request of {self._domain} to {to}", payload, timeout, find, lost)

    async def serve(self, handler: Handler) -> None:
        self._handler = handler

    async def request_host(self, host: str, payload: bytes, timeout: float) -> bytes:
        def find() -> list[_Answerer]:
            end = self._hub.host(self._domain, host)
            return [] if end is None or end.handler is None else [end.handler]

        what = f"request of {self._domain} to its host {host}"
        return await self._hub.carry(what, payload, timeout, find, lambda: self.cut)

    async def serve_hosts(self, handler: Handler) -> None:
        self._host_handler = handler

    def host_answerer(self, host: str) -> _Answerer | None:
        return None if self._host_handler is None else self._bound(self._host_handler, host)

    def _bound(self, handler: Handler, sender: str) -> _Answerer:
        async def answer(payload: bytes) -> bytes:
            task = asyncio.current_task()
            if task is None:
                return await handler(sender, payload)
            self._serving.add(task)
            try:
                return await handler(sender, payload)
            finally:
                self._serving.discard(task)

        return answer

    async def pause(self) -> None:
        self._handler = self._host_handler = None
        for task in self._serving:
            task.cancel()

    async def close(self) -> None:
        await self.pause()
        self._hub.forget(self)


class MemoryHostBus:
    """A host agent's end: a ``HostBus``."""

    def __init__(self, hub: MemoryHub, domain: str, host: str) -> None:
        self._hub = hub
        self._domain = domain
        self._host = host
        self.handler: _Answerer | None = None
        self.cut = False

    @property
    def domain(self) -> str:
        return self._domain

    @property
    def host(self) -> str:
        return self._host

    async def request(self, payload: bytes, timeout: float) -> bytes:
        def find() -> list[_Answerer]:
            found = (end.host_answerer(self._host) for end in self._hub.instances(self._domain))
            return [answerer for answerer in found if answerer is not None]

        what = f"request of host {self._host} to {self._domain}"
        return await self._hub.carry(what, payload, timeout, find, lambda: self.cut)

    async def serve(self, handler: _Answerer) -> None:
        self.handler = handler

    async def close(self) -> None:
        self.handler = None
        self._hub.forget(self)
