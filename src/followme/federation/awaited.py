"""What hosts wait for: how a migration's phase, or a network's being told, has ended."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

from .outputs import Attached, CannotPass, Changed, Done, Effect, IsDenied, IsReady, NotAttached, Passes

Key = tuple[str, IPv4Address, str]


class Awaited:
    """Any number may wait for the same."""

    def __init__(self) -> None:
        self._waiting: dict[Key, list[asyncio.Future[str]]] = {}

    async def result(self, key: Key, timeout: float) -> str | None:
        """Empty when it is done, or why it is refused; ``None`` after ``timeout`` seconds."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, [])
        waiting.append(future)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            return None
        finally:
            if future in waiting:
                waiting.remove(future)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    def settle(self, effect: Effect) -> None:
        match effect:
            case IsReady(identifier, migration):
                key, reason = ("ready", identifier, migration), ""
            case IsDenied(identifier, migration, reason):
                key = ("ready", identifier, migration)
            case Done(identifier, migration, phase, reason):
                key = (phase, identifier, migration)
            case Passes(identifier, network):
                key, reason = ("passes", identifier, network), ""
            case CannotPass(identifier, network, reason):
                key = ("passes", identifier, network)
            case Attached() | NotAttached() | Changed():
                return
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(reason)

    def fail(self, error: Exception) -> None:
        for futures in self._waiting.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)
        self._waiting.clear()
