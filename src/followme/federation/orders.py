"""An operator's order to carry a machine, and its way to the host where the machine runs.

    operator -> controller of the machine's home -> controller of the network where it is -> that network's host

The same order, told apart by its ``id``, is repeated until its answer is final: no controller keeps anything of
it, so any of them may die meanwhile. The answer names the network whose host carries the machine (``source``),
and a copy that names it is brought to that host again, wherever the machine is by then.

On the bus an order is a request of its own kind beside frames and hosts' requests; ``OrderBus`` tells them apart.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any, Final, Literal

from followme.domain import NetworkKind

from .bus import Bus, BusError, Handler, HostBus
from .registry import Registry

log = logging.getLogger(__name__)

OPERATOR: Final = "operator"
"""Under this name an operator is on the bus, like a host of the domain."""
HOST_S, DOMAIN_S, OPERATOR_S = 3.0, 4.0, 5.0
"""How long each may take to answer whoever has asked it; a host answers within a second."""
PAUSE_S = 0.2
MAX_BYTES: Final = 4096
_MARK: Final = b'["carry",'
_MAX_TEXT: Final = 500
_MAX_NAME: Final = 64
_NAME: Final = re.compile(r"[-._A-Za-z0-9]{1,64}")

State = Literal["running", "done", "failed", "elsewhere", "again"]
STATES: Final = ("running", "done", "failed", "elsewhere", "again")


class OrderError(ValueError):
    """These octets are no order, or no answer to one."""


@dataclass(frozen=True, slots=True)
class Carry:
    """Carry a machine to ``network``. ``machine`` is its name at home, or its identifier's text; home fills in
    ``identifier``. ``source`` is what the last answer said, if there was one."""

    id: str
    machine: str
    network: str
    identifier: IPv4Address | None = None
    source: str = ""

    def encode(self) -> bytes:
        number = 0 if self.identifier is None else int(self.identifier)
        return _dump(["carry", self.id, self.machine, self.network, number, self.source])


@dataclass(frozen=True, slots=True)
class CarryAnswer:
    """``running``, ``done`` and ``failed`` say how it goes at the host of ``source``; ``elsewhere``: that host
    knows neither the order nor the machine; ``again``: nobody can say now. ``figures`` come with ``done``."""

    state: State
    text: str = ""
    source: str = ""
    figures: Mapping[str, float | str] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        return self.state in ("done", "failed")

    def encode(self) -> bytes:
        return _dump(["carry", self.state, self.text[:_MAX_TEXT], self.source, dict(self.figures)])


def is_order(payload: bytes) -> bool:
    """Whether it is meant to be one."""
    return payload.startswith(_MARK)


def decode_order(payload: bytes) -> Carry:
    """``OrderError`` unless it is one."""
    _, id, machine, network, identifier, source = _row(payload, 6)
    for name in (id, machine, network):
        if type(name) is not str or not _NAME.fullmatch(name):
            raise OrderError("an order's id, machine or network is no name")
    if type(source) is not str or not (source == "" or _NAME.fullmatch(source)):
        raise OrderError("an order's source is no name")
    if type(identifier) is not int or not 0 <= identifier < 1 << 32:
        raise OrderError("an order's identifier is no IPv4 address")
    return Carry(id, machine, network, IPv4Address(identifier) if identifier else None, source)


def decode_answer(payload: bytes) -> CarryAnswer:
    """``OrderError`` unless it is one."""
    _, state, text, source, figures = _row(payload, 5)
    if state not in STATES or type(text) is not str or type(source) is not str or len(source) > _MAX_NAME:
        raise OrderError("an answer to an order has a state that is not known, or no text")
    if type(figures) is not dict or len(figures) > 32:
        raise OrderError("an answer's figures are no short table")
    if any(type(value) not in (int, float, str) for value in figures.values()):
        raise OrderError("an answer's figures are no numbers")
    text = "".join([one if one.isprintable() else "?" for one in text[:_MAX_TEXT]])  # people read it
    return CarryAnswer(state, text, source, figures)


def _row(payload: bytes, length: int) -> list[Any]:
    if len(payload) > MAX_BYTES or not is_order(payload):
        raise OrderError("this is no order, nor an answer to one")
    try:
        row = json.loads(payload)
    except (ValueError, RecursionError):
        raise OrderError("an order is no JSON") from None
    if type(row) is not list or len(row) != length:
        raise OrderError(f"a list of {length} is expected")
    return row


def _dump(row: list[Any]) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode()


# --- where it goes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToHost:
    """To the host of ``network``, which is ours."""

    network: str
    order: Carry


@dataclass(frozen=True, slots=True)
class ToDomain:
    domain: str
    order: Carry


def route(
    order: Carry, sender: str, registry: Registry, named: Callable[[str], IPv4Address | None],
    here: Callable[[IPv4Address], str | None],
) -> ToHost | ToDomain | CarryAnswer:  # fmt: skip
    """Where the order goes from this domain, or the answer where it goes no further.

    ``sender`` is the domain that it came from: our own, where an operator of ours has ordered. ``named`` knows
    the machines at home here, ``here`` the network where a node is, as far as this domain knows. Only a machine's
    home, and the domain where it is, may order: so from another domain only what comes from its home is taken.
    """
    own = registry.domain
    target = registry.networks.get(order.network)
    if target is None or target.kind is not NetworkKind.DATACENTRE:
        return CarryAnswer("failed", f"{order.network} is no data centre of this federation")
    identifier = order.identifier or named(order.machine) or _address(order.machine)
    home = None if identifier is None else registry.home_of(identifier)
    if identifier is None or home is None:
        return CarryAnswer("failed", f"no machine {order.machine} is at home in {own}; order it where it is, or "
                                     "give its identifier")  # fmt: skip
    if sender not in (own, home):
        return CarryAnswer("failed", f"{sender} is not home to {identifier}, and may not order this of {own}")
    at = order.source or here(identifier)
    owner = None if at is None else registry.owner_of_network(at)
    order = replace(order, identifier=identifier)
    if at is not None and owner == own:
        return ToHost(at, order)
    if home != own:
        # What comes from home has overtaken what home says of the machine.
        state: State = "failed" if sender == own else "again"
        return CarryAnswer(state, f"{identifier} is neither in {own} nor at home there")
    if owner is None:
        return CarryAnswer("again", f"{own} does not know where {identifier} is")
    return ToDomain(owner, order)


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except ValueError:
        return None


class OrderDesk:
    """A controller's end: brings orders where they belong. ``host_of`` is the host's name on the bus, of each own
    data centre's network; ``named`` and ``here`` as in ``route``."""

    def __init__(
        self, registry: Registry, bus: Bus, named: Callable[[str], IPv4Address | None],
        here: Callable[[IPv4Address], str | None], host_of: Callable[[str], str | None],
        operators: Collection[str] = (OPERATOR,),
    ) -> None:  # fmt: skip
        self._registry, self._bus = registry, bus
        self._named, self._here, self._host_of = named, here, host_of
        self._operators = frozenset(operators)

    async def of_domain(self, sender: str, payload: bytes) -> bytes:
        """Another domain's; its answer."""
        return await self._receive(sender, payload)

    async def of_host(self, host: str, payload: bytes) -> bytes:
        """One that came from within the domain: operators may order, hosts may not."""
        if host not in self._operators:
            return CarryAnswer("failed", f"{host} is no operator").encode()
        return await self._receive(self._registry.domain, payload)

    async def _receive(self, sender: str, payload: bytes) -> bytes:
        try:
            order = decode_order(payload)
        except OrderError as error:
            return CarryAnswer("failed", str(error)).encode()
        way = route(order, sender, self._registry, self._named, self._here)
        if isinstance(way, CarryAnswer):
            log.info("order of %s to carry %s to %s: %s", sender, order.machine, order.network, way.text)
            return way.encode()
        try:
            if isinstance(way, ToDomain):
                return await self._bus.request(way.domain, way.order.encode(), DOMAIN_S)
            host = self._host_of(way.network)
            if host is None:
                return CarryAnswer("failed", f"no host's agent is configured for {way.network}").encode()
            return await self._bus.request_host(host, way.order.encode(), HOST_S)
        except BusError as error:
            return CarryAnswer("again", str(error)).encode()


class OrderBus:
    """A ``Bus`` that hands orders to ``desk`` and everything else to those who serve on it."""

    def __init__(self, bus: Bus, desk: OrderDesk) -> None:
        self._bus, self._desk = bus, desk

    @property
    def domain(self) -> str:
        return self._bus.domain

    async def request(self, to: str, payload: bytes, timeout: float) -> bytes:
        return await self._bus.request(to, payload, timeout)

    async def request_host(self, host: str, payload: bytes, timeout: float) -> bytes:
        return await self._bus.request_host(host, payload, timeout)

    async def serve(self, handler: Handler) -> None:
        await self._bus.serve(_first(self._desk.of_domain, handler))

    async def serve_hosts(self, handler: Handler) -> None:
        await self._bus.serve_hosts(_first(self._desk.of_host, handler))

    async def pause(self) -> None:
        await self._bus.pause()

    async def close(self) -> None:
        await self._bus.close()


def _first(orders: Handler, others: Handler) -> Handler:
    def receive(sender: str, payload: bytes) -> Awaitable[bytes]:
        return (orders if is_order(payload) else others)(sender, payload)

    return receive


async def carry(bus: HostBus, order: Carry, tell: Callable[[CarryAnswer], None] | None = None) -> CarryAnswer:
    """The operator's end: asks until the answer is final, however long that takes; ``tell`` hears of all others.
    Whoever stops asking does not stop the machine."""
    while True:
        try:
            answer = decode_answer(await bus.request(order.encode(), OPERATOR_S))
        except (BusError, OrderError) as error:
            answer = CarryAnswer("again", str(error), order.source)
        if answer.final:
            return answer
        if tell is not None:
            tell(answer)
        if answer.state == "running":
            order = replace(order, source=answer.source)
        elif answer.state == "elsewhere":
            order = replace(order, source="")
        await asyncio.sleep(PAUSE_S)
