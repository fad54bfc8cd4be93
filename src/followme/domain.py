"""The nouns of Follow-Me Cloud: frozen dataclasses without I/O, which import nothing of ours.

Addresses: IPv4 addresses are ``ipaddress.IPv4Address``; MAC addresses are six bytes (``mac_text`` and
``mac_bytes`` convert). Times are seconds (float) of the clock that the caller hands in, delays are
seconds, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network

Mac = bytes

NO_DATAPATH = 0
"""The datapath of a network whose switch another controller has."""


def mac_bytes(text: str) -> Mac:
    """``"52:54:00:12:34:56"`` to six bytes; ``ValueError`` if it is not a unicast or broadcast MAC's text."""
    parts = text.split(":")
    if len(parts) != 6 or any(len(part) != 2 for part in parts):
        raise ValueError(f"{text!r} is not a MAC address of the form 52:54:00:12:34:56")
    try:
        return bytes(int(part, 16) for part in parts)
    except ValueError:
        raise ValueError(f"{text!r} is not a MAC address of the form 52:54:00:12:34:56") from None


def mac_text(mac: Mac) -> str:
    return ":".join(f"{octet:02x}" for octet in mac)


class NetworkKind(StrEnum):
    ACCESS = "access"
    DATACENTRE = "datacentre"


@dataclass(frozen=True, slots=True)
class Network:
    """One edge network behind one OpenFlow switch: an access network or a data centre.

    ``prefix`` is what the core routes to this network; it is unique and holds the identifiers that are at
    home here and the pool of ``locators``. ``inside`` is what the hosts are configured with: usually the
    same, but data centres may use the same private range; then host n of ``inside`` is known outside as
    host n of ``prefix``. ``gateway`` is the hosts' first hop (of ``inside``), ``router_mac`` the MAC of the
    real first hop at ``uplink_port`` and ``router_address`` its address there where that is not the
    gateway's. ``area`` is the network's place on the line of service areas (the 1D model's distance is the
    difference of two areas). ``datapath`` is ``NO_DATAPATH`` where the switch is another controller's.
    """

    name: str
    kind: NetworkKind
    datapath: int
    uplink_port: int
    router_mac: Mac
    prefix: IPv4Network
    inside: IPv4Network
    gateway: IPv4Address
    locators: IPv4Network
    area: int = 0
    router_address: IPv4Address | None = None

    @property
    def ours(self) -> bool:
        """Whether its switch takes rules from this controller."""
        return self.datapath != NO_DATAPATH

    @property
    def router(self) -> IPv4Address:
        """The first hop's own address on the uplink, as the core knows it."""
        return self.router_address or self.outer(self.gateway)

    @property
    def probe_address(self) -> IPv4Address:
        """Kept for the path monitor, never given to a node: the pool's last but one, since its last may be
        the prefix's broadcast address, which no router forwards to."""
        return self.locators[-2]

    def outer(self, inner: IPv4Address) -> IPv4Address:
        """The address under which the core and all peers know the host configured with ``inner``."""
        return self.prefix[int(inner) - int(self.inside.network_address)]

    def inner(self, outer: IPv4Address) -> IPv4Address:
        """The address that the host known outside as ``outer`` is configured with."""
        return self.inside[int(outer) - int(self.prefix.network_address)]


class NodeKind(StrEnum):
    USER = "user"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class Node:
    """An end of sessions that can move: a user's terminal or a machine that carries a service.

    ``identifier`` is the address that its peers use for it, always; ``address`` is what it is configured
    with (differs from the identifier only where the home network's ``inside`` differs from its ``prefix``).
    """

    name: str
    kind: NodeKind
    mac: Mac
    identifier: IPv4Address
    address: IPv4Address
    home: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """Step 1's fact: a node was seen at a port of an edge network.

    ``locator`` is the address on which the core reaches it there (its identifier when at home).
    """

    node: str
    network: str
    port: int
    locator: IPv4Address
    at: float


@dataclass(frozen=True, slots=True)
class Service:
    """What a user uses: here one machine that serves one user (the papers' service in a VM)."""

    name: str
    user: str
    machine: str


@dataclass(frozen=True, slots=True)
class Decision:
    """Step 2's fact: stay where it is, or go to ``target``; ``why`` says it in words and numbers."""

    service: str
    migrate: bool
    source: str
    target: str
    policy: str
    why: str


class MigrationState(StrEnum):
    """The saga's states, in order; ``failed`` is reached from any of the first three, rolled back."""

    PLANNED = "planned"
    PREPARED = "prepared"
    TRANSFERRING = "transferring"
    SWITCHED = "switched"
    RELEASED = "released"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Migration:
    """Step 3's fact: one machine carried from one data centre to another."""

    id: str
    machine: str
    source: str
    target: str
    mode: str
    state: MigrationState
    started: float
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a node is now, as the redirect sees it: the mapping identifier -> locator.

    ``version`` is raised by one with each move; ``locator`` equals the identifier at home.
    """

    node: str
    network: str
    port: int
    locator: IPv4Address
    version: int
