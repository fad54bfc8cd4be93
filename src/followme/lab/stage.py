"""What an experiment needs of a running lab, whichever way sessions are kept in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Protocol

from followme.controllers.events import Happening
from followme.lab.base import Host
from followme.migration.mover import Result


class Stage(Protocol):
    """The papers' set-up: a user at wlan1 or wlan2, its machine at dc1 or dc2, the real controller."""

    plane: str
    happenings: list[Happening]

    @property
    def client(self) -> Host: ...

    @property
    def accel(self) -> str:
        """What runs the machines' code."""
        ...

    @property
    def delay_kind(self) -> str:
        """What makes the paths' delays."""
        ...

    @property
    def policy(self) -> tuple[str, Mapping[str, float]]:
        """The lab's own policy and its parameters."""
        ...

    @property
    def machine_identifier(self) -> IPv4Address: ...

    @property
    def machine_network(self) -> str:
        """Where the machine is, as the controller sees it."""
        ...

    @property
    def result(self) -> Result | None:
        """Of the machine's last migration."""
        ...

    def watch(self, watcher: Callable[[Happening], None]) -> None:
        """Call ``watcher`` with all that happens from now on."""
        ...

    def use_policy(self, name: str, parameters: Mapping[str, float]) -> None: ...

    async def move_client(self, network: str) -> None:
        """The user goes to another access network, and is connected there when this returns."""
        ...

    async def idle(self) -> None:
        """Return when every decision that was due has been taken and carried out."""
        ...

    async def forget_flows(self) -> None:
        """Empty the caches that a flow's first packet fills, so that the next one is a first one again."""
        ...

    async def count_entries(self) -> dict[str, int]:
        """What the network itself holds of the machine after a move: ``rules_home``, ``rules_foreign``,
        ``rules_correspondent``."""
        ...

    async def add_peer(self) -> str:
        """A peer that nobody knew joins wlan1; its namespace."""
        ...
