"""Users who have an address of ours by DHCP, and are in another controller's network: who keeps it for how long.

They renew their lease where they are, of which home hears nothing. So when it is over here it is granted anew, and
the domain that has the user is asked whether it still answers. One that does not in all the time of a lease, as
often as it is asked, is gone. A domain that does not say keeps it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from followme.domain import Mac, Node

log = logging.getLogger(__name__)

LOOK_S = 30.0
LEAST_LOOKS = 2
_AT_ONCE = 64


@dataclass(slots=True)
class _Unseen:
    identifier: IPv4Address
    looks: int = 0


class Abroad:
    """``where`` is the network in which the node is, if it is known; ``domain_of`` the domain of each network of
    others; ``has_left`` asks one whether the node does not answer there any more."""

    def __init__(
        self, where: Callable[[IPv4Address], str | None], domain_of: Mapping[str, str],
        has_left: Callable[[IPv4Address, str], Awaitable[bool]],
    ) -> None:  # fmt: skip
        self._where, self._domain_of, self._has_left = where, domain_of, has_left
        self._unseen: dict[Mac, _Unseen] = {}

    def keeps(self, node: Node) -> bool:
        """The node's lease is over: whether it is to be granted anew."""
        unseen = self._unseen.pop(node.mac, None)
        if self._domain(node.identifier) is None:
            return False
        if unseen is not None and unseen.identifier == node.identifier and unseen.looks >= LEAST_LOOKS:
            return False
        self._unseen[node.mac] = _Unseen(node.identifier)
        return True

    async def look_again(self) -> None:
        """Ask for those whose lease is granted for the last time, again and again."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Ask for each of them once."""
        many = list(self._unseen.items())
        for first in range(0, len(many), _AT_ONCE):
            await asyncio.gather(*(self._look(mac, unseen) for mac, unseen in many[first : first + _AT_ONCE]))

    async def _look(self, mac: Mac, unseen: _Unseen) -> None:
        try:
            domain = self._domain(unseen.identifier)
            left = domain is not None and await self._has_left(unseen.identifier, domain)
        except Exception:  # one of whom nothing can be found out must not keep the others from being looked for
            log.exception("whether %s is still where it was", unseen.identifier)
            left = False
        if left:
            unseen.looks += 1
        elif self._unseen.get(mac) is unseen:
            del self._unseen[mac]

    def _domain(self, identifier: IPv4Address) -> str | None:
        network = self._where(identifier)
        return None if network is None else self._domain_of.get(network)
