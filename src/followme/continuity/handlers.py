"""What the southbound tells the controller, and what it counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from followme.domain import Network
from followme.openflow import PacketIn, Port, PortStatus


@dataclass(slots=True)
class Handlers:
    """What the controller does with what switches say; called in the event loop, must not block."""

    packet_in: Callable[[Network, PacketIn], None]
    port_status: Callable[[Network, PortStatus], None] = lambda network, message: None
    ports: Callable[[Network, tuple[Port, ...]], None] = lambda network, ports: None
    connected: Callable[[Network], None] = lambda network: None
    disconnected: Callable[[Network, str], None] = lambda network, reason: None
    deposed: Callable[[], None] = lambda: None
    """Another controller is master of a switch that was ours: nothing is written any more."""
    batch: Callable[[], AbstractContextManager[None]] = nullcontext
    """Entered for each read of a socket, left before anything is written: the store's group commit."""
    stored: Callable[[], Awaitable[object] | None] = lambda: None
    """What to await before anything is written; it raises if what was committed is not safe. ``None``: it is."""


@dataclass(slots=True)
class Counters:
    packet_ins: int = 0
    flow_mods: int = 0
    packet_outs: int = 0
    errors: int = 0
    refused_datapaths: int = 0
    failed_peers: int = 0
    """Connections that ended before they said which datapath they are."""
    faults: int = 0
    refused_rules: int = 0
    depositions: int = 0
    last_errors: list[str] = field(default_factory=list)
