"""What controllers of different domains, and a domain's hosts, speak over: requests and answers, bytes both.

A domain has one address on the bus, and only its active instance serves it. The bus vouches for the sender: a
handler is told which domain (or host) has asked, and no other could have. It promises nothing about delivery: a
request may be lost, be late or be answered twice over, so whoever asks repeats, and what is asked is idempotent.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Protocol

MAX_PAYLOAD = 1 << 20
"""Bytes of one request or answer: NATS's own default limit."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")

Handler = Callable[[str, bytes], Awaitable[bytes]]
"""(who asks, the request) -> the answer. What it raises is not answered: the other side waits in vain."""


class BusError(Exception):
    """A request was not answered; the text says whom it was for and which server stands between."""


class NoAnswer(BusError):
    """Nothing came back in time: request or answer is lost, or late. It may have been acted upon."""


class Unreachable(BusError):
    """It did not leave: nobody serves that name now, or the server is away, or it does not let us."""


class TooLarge(BusError):
    """It did not leave: more than ``MAX_PAYLOAD`` bytes."""


class Bus(Protocol):
    """A controller instance's end of the bus."""

    @property
    def domain(self) -> str: ...

    async def request(self, to: str, payload: bytes, timeout: float) -> bytes:
        """Ask the active instance of domain ``to`` and wait ``timeout`` seconds for its answer; ``BusError``."""
        ...

    async def serve(self, handler: Handler) -> None:
        """Answer other domains from now on; ``handler`` is given the asking domain's name. Again: replaced."""
        ...

    async def request_host(self, host: str, payload: bytes, timeout: float) -> bytes:
        """Ask a host agent of the own domain; ``BusError``."""
        ...

    async def serve_hosts(self, handler: Handler) -> None:
        """Answer the own domain's host agents; ``handler`` is given the host's name."""
        ...

    async def pause(self) -> None:
        """Serve nobody any more (until ``serve`` is called again), and answer nobody who has asked: handlers are
        cancelled. The lease went to another instance."""
        ...

    async def close(self) -> None: ...


class HostBus(Protocol):
    """A host agent's end (or an operator's): it speaks to its own domain's active controller only."""

    @property
    def domain(self) -> str: ...

    @property
    def host(self) -> str: ...

    async def request(self, payload: bytes, timeout: float) -> bytes:
        """Ask the domain's active controller; ``BusError``."""
        ...

    async def serve(self, handler: Callable[[bytes], Awaitable[bytes]]) -> None:
        """Answer the domain's controller from now on."""
        ...

    async def close(self) -> None: ...


def check_name(name: str) -> str:
    """``name`` if it can be a domain's or a host's; ``ValueError`` otherwise (it becomes part of a subject)."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a domain or host: it needs 1 to 32 letters, digits, - or _")
    return name


def check_payload(payload: bytes, what: str) -> None:
    """``TooLarge`` if it is."""
    if len(payload) > MAX_PAYLOAD:
        raise TooLarge(f"{what}: {len(payload)} bytes, and {MAX_PAYLOAD} are the limit")
