"""What a host agent asks of its domain's active controller about a machine's migration, and the answers.

Each request is idempotent by the migration's id and is repeated until it is answered, by whichever instance is
active then: a controller that dies in the middle is not noticed by the host but by the time that it takes.

====================  ==================================================================================
prepare               the machine will move to a network: answered when it may (all who know it know)
flipped               its packets belong to the target from now on
released              the source has nothing more to send on
aborted               it stays, or is back, at the source
arrived               it runs here: at the target's own controller
====================  ==================================================================================
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from followme.domain import Mac

from .bus import Bus, BusError, HostBus
from .engine import Engine, FederationError, NotYet

log = logging.getLogger(__name__)

PHASES: Final = ("prepare", "flipped", "released", "aborted", "arrived")
ANSWER_S = 12.0
"""How long one answer may take (a preparation waits for all holders): a controller repeats for itself meanwhile."""
REPEAT_S = 3.0
"""When a host asks again, of whichever instance is active by then; the controller's answer is to all copies."""
PAUSE_S = 0.2
AGAIN_S = 2.0
"""When a host asks again what was answered so that it should."""
MAX_BYTES = 4096
MAX_HEARD: Final = 4096
"""Migrations of which is remembered which host speaks for them."""
_MIGRATION: Final = re.compile(r"[-_A-Za-z0-9]{1,64}")
_NETWORK: Final = re.compile(r"[-._A-Za-z0-9]{0,64}")


@dataclass(frozen=True, slots=True)
class HostRequest:
    """``network`` is the target (prepare) or where it is (arrived); ``mac`` only with arrived."""

    phase: str
    identifier: IPv4Address
    migration: str
    network: str = ""
    mac: Mac = b""

    def encode(self) -> bytes:
        words = [self.phase, int(self.identifier), self.migration, self.network, self.mac.hex()]
        return json.dumps(words, separators=(",", ":")).encode()


def decode(payload: bytes) -> HostRequest:
    """``ValueError`` unless it is one."""
    if len(payload) > MAX_BYTES:
        raise ValueError(f"a host's request of {len(payload)} bytes")
    try:
        words = json.loads(payload)
    except RecursionError:
        raise ValueError("a host's request is nested too deeply") from None
    if type(words) is not list or len(words) != 5:
        raise ValueError("a host's request is a list of five")
    phase, identifier, migration, network, mac = words
    if any(type(word) is not str for word in (phase, migration, network, mac)) or type(identifier) is not int:
        raise ValueError("a host's request has a word of another kind")
    if phase not in PHASES or not _MIGRATION.fullmatch(migration) or not _NETWORK.fullmatch(network):
        raise ValueError("a host's request has a phase that is not known, or a name that is none")
    octets = bytes.fromhex(mac)
    if len(octets) != (6 if phase == "arrived" else 0):
        raise ValueError("a host's request needs a MAC address with arrived, and only there")
    return HostRequest(phase, IPv4Address(identifier), migration, network, octets)


class HostDesk:
    """The controller's end: serves its hosts' requests by the engine.

    ``arrived(host, request)`` is the controller's own; what it raises as ``FederationError`` is refused.
    ``left(identifier)`` returns when no packet takes the way over the source any more. ``hosts(request)`` are those
    who may ask this: where the machine is or has just been. Who has prepared a migration goes on with it.
    """

    def __init__(
        self, engine: Engine, arrived: Callable[[str, HostRequest], Awaitable[None]],
        left: Callable[[IPv4Address], Awaitable[None]], hosts: Callable[[HostRequest], Collection[str]],
    ) -> None:  # fmt: skip
        self._engine = engine
        self._arrived, self._left, self._hosts = arrived, left, hosts
        self._heard: OrderedDict[tuple[IPv4Address, str], str] = OrderedDict()

    async def serve(self, bus: Bus) -> None:
        """From now on, until the bus is paused; ``BusError``."""
        await bus.serve_hosts(self.receive)

    async def receive(self, host: str, payload: bytes) -> bytes:
        """Answered with a reason, empty if it is done, and whether it is to be asked again. ``BusError`` (not
        answered) while it takes too long."""
        try:
            request = decode(payload)
        except ValueError as error:
            return _answer(f"host {host}: {error}")
        if not self._may(host, request):
            return self._answer(f"host {host} does not have {request.identifier}")
        log.info("host %s: %s %s (%s)", host, request.phase, request.identifier, request.migration)
        try:
            await self._do(host, request)
        except NotYet as error:
            if request.phase != "arrived":
                raise BusError(str(error)) from None
            return self._answer(str(error), again=True)
        except FederationError as error:
            return self._answer(str(error))
        return self._answer("")

    def _may(self, host: str, request: HostRequest) -> bool:
        key = request.identifier, request.migration
        if request.phase in ("flipped", "released", "aborted") and self._heard.get(key) == host:
            return True
        if host not in self._hosts(request):
            return False
        if request.phase != "arrived":
            self._heard[key] = host
            if len(self._heard) > MAX_HEARD:
                self._heard.popitem(last=False)
        return True

    def _answer(self, reason: str, again: bool = False) -> bytes:
        if not self._engine.may_answer():  # it was frozen, and what it knows is old
            raise BusError("this controller is not the active one any more")
        return _answer(reason, again)

    async def _do(self, host: str, request: HostRequest) -> None:
        engine, identifier, migration = self._engine, request.identifier, request.migration
        match request.phase:
            case "prepare":
                await engine.prepare(identifier, request.network, migration)
            case "flipped":
                await engine.flipped(identifier, migration, ANSWER_S)
            case "released":
                await self._left(identifier)
                await engine.released(identifier, migration, ANSWER_S)
            case "aborted":
                await engine.aborted(identifier, migration, ANSWER_S)
            case _:
                await self._arrived(host, request)


class HostClient:
    """The host agent's end."""

    def __init__(self, bus: HostBus) -> None:
        self._bus = bus

    async def prepare(self, identifier: IPv4Address, network: str, migration: str, timeout: float = 30.0) -> None:
        """Returns when the machine may flip. ``FederationError`` if it is denied, or nobody answers in time."""
        await self._ask(HostRequest("prepare", identifier, migration, network), timeout)

    async def flipped(self, identifier: IPv4Address, migration: str, timeout: float | None = None) -> None:
        """Returns when home knows. Repeated for ever (or ``timeout`` seconds): there is no way back.
        ``FederationError`` if home refuses it."""
        await self._ask(HostRequest("flipped", identifier, migration), timeout)

    async def released(self, identifier: IPv4Address, migration: str, timeout: float | None = None) -> None:
        """As ``flipped``."""
        await self._ask(HostRequest("released", identifier, migration), timeout)

    async def aborted(self, identifier: IPv4Address, migration: str, timeout: float | None = None) -> None:
        """As ``flipped``."""
        await self._ask(HostRequest("aborted", identifier, migration), timeout)

    async def arrived(
        self, identifier: IPv4Address, migration: str, network: str, mac: Mac, timeout: float | None = None
    ) -> None:
        """As ``flipped``; the own domain's controller answers it. Repeated while home cannot find out whether the
        machine has left where it was."""
        await self._ask(HostRequest("arrived", identifier, migration, network, mac), timeout)

    async def _ask(self, request: HostRequest, timeout: float | None) -> None:
        what = f"{request.phase} of {request.identifier} ({request.migration})"
        # A claim that is repeated while it is decided would be decided anew.
        within, said = ANSWER_S + 1 if request.phase == "arrived" else REPEAT_S, ""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        reason, again = _reason(await self._bus.request(request.encode(), within))
                        if not again:
                            break
                        level, pause = logging.WARNING, AGAIN_S
                    except (BusError, ValueError) as error:
                        reason, level, pause = f"not answered yet: {error}", logging.INFO, PAUSE_S
                    if reason != said:
                        log.log(level, "%s: %s", what, reason)
                    said = reason
                    await asyncio.sleep(pause)
        except TimeoutError:
            raise FederationError(f"{what}: no controller of {self._bus.domain} has answered") from None
        if reason:
            raise FederationError(f"{what}: {reason}")


def _answer(reason: str, again: bool = False) -> bytes:
    return json.dumps([reason[:500], True] if again else [reason[:500]]).encode()


def _reason(payload: bytes) -> tuple[str, bool]:
    """The reason, and whether to ask again. ``ValueError`` if it is no answer."""
    words = json.loads(payload)
    if type(words) is not list or not 1 <= len(words) <= 2 or type(words[0]) is not str:
        raise ValueError("no answer")
    return words[0], words[1:] == [True]
