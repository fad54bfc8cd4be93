"""Whether a host's agent has a machine: its domain's controller asks before the machine is let go.

A machine that is paused, stopped or still starting answers no ARP, and is its host's all the same: only the agent
knows. On the bus the question is a request of its own kind beside orders to carry (``orders``).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final, Literal

from followme.domain import Mac

from .bus import BusError
from .edge_network import NotKnown

HOST_S = 1.0
"""How long an agent may take to answer; below ``presence.ANSWER_S``, for another domain may wait for it."""
MAX_BYTES: Final = 4096
_MARK: Final = b'["has",'
_MAX_TEXT: Final = 200

Has = Literal["yes", "no", "unsettled"]
"""``unsettled``: it is being carried, or that is being settled; soon it is one of the others."""
ALL_HAS: Final = ("yes", "no", "unsettled")


@dataclass(frozen=True, slots=True)
class Custody:
    """An agent's answer; ``text`` says in words what it has of the machine."""

    has: Has
    text: str

    def encode(self) -> bytes:
        return json.dumps(["has", self.has, self.text[:_MAX_TEXT]], separators=(",", ":")).encode()


def is_question(payload: bytes) -> bool:
    """Whether it is meant to be one."""
    return payload.startswith(_MARK)


def encode_question(identifier: IPv4Address, mac: Mac) -> bytes:
    """``mac`` may be empty, where only the identifier is known."""
    return json.dumps(["has", int(identifier), mac.hex()], separators=(",", ":")).encode()


def decode_question(payload: bytes) -> tuple[IPv4Address, Mac]:
    """``ValueError`` unless it is one."""
    identifier, mac = _row(payload)
    if type(identifier) is not int or type(mac) is not str or len(mac) not in (0, 12):
        raise ValueError("a question is about an identifier and a MAC address")
    return IPv4Address(identifier), bytes.fromhex(mac)


def decode_answer(payload: bytes) -> Custody:
    """``ValueError`` unless it is one."""
    has, text = _row(payload)
    if has not in ALL_HAS or type(text) is not str:
        raise ValueError("an answer says yes, no or unsettled, and what that is about")
    return Custody(has, "".join([one if one.isprintable() else "?" for one in text[:_MAX_TEXT]]))


def _row(payload: bytes) -> list[Any]:
    if len(payload) > MAX_BYTES or not is_question(payload):
        raise ValueError("this is no question about a machine, nor an answer to one")
    try:
        row = json.loads(payload)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if type(row) is not list or len(row) != 3:
        raise ValueError("a list of three is expected")
    return row[1:]


class Custodians:
    """The agents of a domain's hosts. ``host_of`` names on the bus the host of each own network that has one;
    ``ask(host, payload, timeout)`` asks it (``BusError``)."""

    def __init__(
        self, ask: Callable[[str, bytes, float], Awaitable[bytes]], host_of: Mapping[str, str | None]
    ) -> None:
        self._ask = ask
        self._host_of = {network: host for network, host in host_of.items() if host is not None}

    async def has(self, identifier: IPv4Address, mac: Mac, network: str | None = None) -> bool:
        """Whether the host of ``network``, or any, has the machine; not, where no agent is configured.
        ``NotKnown`` if one that may have it does not say so."""
        hosts = self._host_of.values() if network is None else filter(None, (self._host_of.get(network),))
        return await self._any(sorted(set(hosts)), encode_question(identifier, mac))

    async def _any(self, hosts: Iterable[str], question: bytes) -> bool:
        found = await asyncio.gather(*(self._one(host, question) for host in hosts))
        if any(custody.has == "yes" for _, custody in found):
            return True
        for host, custody in found:
            if custody.has == "unsettled":
                raise NotKnown(f"host {host}: {custody.text}")
        return False

    async def _one(self, host: str, question: bytes) -> tuple[str, Custody]:
        try:
            return host, decode_answer(await self._ask(host, question, HOST_S))
        except (BusError, ValueError):
            return host, Custody("unsettled", "its agent does not say whether it has the machine")
